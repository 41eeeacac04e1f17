"""Options of power, purchase and time: a cap, the parts of a price, the year of buying."""

import argparse

from jaxcost.core.pytree import replace, replace_at
from jaxcost.edge.catalog.loaders import load_system
from jaxcost.edge.catalog.reading import reading
from jaxcost.edge.catalog.silicon import YEAR
from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.quantity import parse_quantity
from jaxcost.physics.economics.area import by_parts
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System

__all__ = ["CATALOGUE_YEAR", "add_cost_arguments", "with_costs", "with_year"]

CATALOGUE_YEAR = 2025.0  # of the memory prices in configs/memories
_YEARS = (2015.0, 2040.0)


def _watts(text: str) -> float:
    try:
        return parse_quantity(text, "W")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _year(text: str) -> float:
    first, last = _YEARS
    try:
        year = float(text)
    except ValueError:
        year = 0.0
    if not first <= year <= last:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}; expected a year from {first:.0f} to {last:.0f}")
    return year


def add_cost_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of power, purchase and time."""
    group = parser.add_argument_group("power and purchase")
    group.add_argument(
        "--power-cap",
        type=_watts,
        default=0.0,
        metavar="POWER",
        help="average power a chip keeps to by a lower clock, such as 500W",
    )
    group.add_argument(
        "--by-parts",
        action="store_true",
        help="let area and price follow from engines, memories and yield, as for a chip yet to be designed",
    )
    group.add_argument(
        "--year",
        type=_year,
        default=CATALOGUE_YEAR,
        metavar="YEAR",
        help=f"when memory is bought, by the trend of its price (default {CATALOGUE_YEAR:.0f})",
    )


def with_costs(system: System, name: str, *, power_cap: float, parts: bool) -> System:
    """Change a system, loaded by its name, as the options say."""
    if parts:
        # The margin is what the price has beyond the parts by the best knowledge, whatever a part may cost now.
        with reading():
            system = by_parts(system, like=load_system(name))
    return replace_at(system, "chip.power_cap", power_cap) if power_cap > 0 else system


def with_year(prices: Prices, year: float) -> Prices:
    """Move the purchase to a year."""
    return replace(prices, since=(year - CATALOGUE_YEAR) * YEAR)
