"""Options of power and purchase: a power cap, prices from parts, the year of purchase."""

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
    """Add the options of power and purchase."""
    group = parser.add_argument_group("power and purchase")
    group.add_argument(
        "--power-cap",
        type=_watts,
        default=0.0,
        metavar="POWER",
        help="limit of a chip's average power, which lowers its clock, such as 500W",
    )
    group.add_argument(
        "--by-parts",
        action="store_true",
        help="compute area and price of the chip from its engines, memories and yield",
    )
    group.add_argument(
        "--year",
        type=_year,
        default=CATALOGUE_YEAR,
        metavar="YEAR",
        help=f"year in which memory is bought, by its price trend (default {CATALOGUE_YEAR:.0f})",
    )


def with_costs(system: System, name: str, *, power_cap: float, parts: bool) -> System:
    """Apply the power cap and --by-parts to a system of the catalogue."""
    if parts:
        # The margin is the catalogue price less the catalogue cost of the parts, also where a draw changes that cost.
        with reading():
            system = by_parts(system, like=load_system(name))
    return replace_at(system, "chip.power_cap", power_cap) if power_cap > 0 else system


def with_year(prices: Prices, year: float) -> Prices:
    """Set the year of purchase."""
    return replace(prices, since=(year - CATALOGUE_YEAR) * YEAR)
