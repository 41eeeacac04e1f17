"""The uncertain constants behind a system and its prices: found while loading, each loaded again at both ends."""

from collections.abc import Callable

import jax
import numpy as np

from jaxcost.core.units import number
from jaxcost.edge.catalog.check import check_plan
from jaxcost.edge.catalog.loaders import load_model, load_prices, load_system
from jaxcost.edge.catalog.reading import ReadEntry, reading
from jaxcost.edge.io.errors import InputError
from jaxcost.explore.analysis import Constant, Intervals, Spread, propagate
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["MOST_DRAWS", "intervals", "intervals_of", "uncertain"]

MOST_DRAWS = 10_000_000
_MOST_DIGITS = 6
Pair = tuple[System, Prices]


def uncertain(load: Callable[[], Pair]) -> tuple[tuple[Constant, ...], Spread]:
    """Find every entry with a low and a high that is read while a system and its prices load, and what it moves.

    Args:
        load: loads them; called once, and twice more for every constant.

    Returns:
        The constants, in order of file and path, and the leaves of the trees at mid and at their ends.
    """
    with reading() as current:
        pair = load()
    leaves, structure = jax.tree.flatten(pair)
    keyed = {
        key: _constant(key[1], found)
        for key, found in current.entries.items()
        if found.low is not None and found.high is not None
    }
    keyed = dict(sorted(keyed.items(), key=lambda item: item[1].name))

    def at(end: str) -> np.ndarray:
        rows = []
        for key, constant in keyed.items():
            with reading({key: getattr(constant, end)}):
                rows.append(_flat(jax.tree.leaves(load())))
        return np.reshape(rows, (len(rows), len(leaves)))

    return tuple(keyed.values()), Spread(structure, _flat(leaves), at("low"), at("high"))


def _flat(leaves: list) -> np.ndarray:
    return np.asarray(jax.device_get(leaves), np.float64)


def _constant(path: str, found: ReadEntry) -> Constant:
    entry = found.entry
    low, high = found.low, found.high
    assert low is not None and high is not None
    written = (_short(entry.low), _short(entry.value), _short(entry.high))
    return Constant(found.file, path, found.unit, low, found.value, high, entry.kind, entry.source, written)


def _short(given: object) -> str:
    """Write a quantity as it stands in its file; one of many digits to three of them."""
    digits, _, unit = str(given).partition(" ")
    return str(given) if len(digits) <= _MOST_DIGITS else f"{number(float(digits))} {unit}".strip()


def intervals_of(
    load: Callable[[], Pair], model: Model, traffic: Traffic, plan: Plan, *, draws: int, seed: int
) -> Intervals:
    """Propagate the uncertainty of all that `load` reads; see `intervals`."""
    for name, value, least, most in (("draws", draws, 2, MOST_DRAWS), ("seed", seed, 0, 2**63 - 1)):
        if not least <= value <= most:
            raise InputError(f"a whole number from {least} to {most:,}", path=name, given=value)
    constants, spread = uncertain(load)
    found = propagate(spread, constants, model, traffic, plan, draws=draws, seed=seed)
    for metric, interval in found.quantiles.items():
        if not np.isfinite([interval.mid, interval.mean]).all():
            raise InputError(
                "constants for which every result is finite", path=metric, given="overflow in a draw"
            )
    return found


def intervals(
    system: str,
    model: Model | str,
    traffic: Traffic,
    plan: Plan,
    *,
    prices: str = "default",
    efficiency: str = "ideal",
    change: Callable[[System, Prices], Pair] | None = None,
    draws: int = 10_000,
    seed: int = 0,
) -> Intervals:
    """Say how far the catalogue's estimates leave every total of a Report open, and which of them matter most.

    Every number of the files behind the system and its prices that has a low and a high is a constant. All are
    drawn together, independently, each between its low and high with its best value as the median, and a constant
    that reaches several parts moves all of them; `jaxcost.explore.analysis.uncertainty` gives the distribution. Then
    each is set to its low and its high alone. The model, the traffic and the plan are certain.

        found = jc.intervals("h100-sxm-x8", "llama-3.1-70b", jc.Traffic(batch=32), jc.Plan(tp=8))
        found.quantiles["usd_per_mtok"].p95            # USD/Mtok, as `evaluate` returns it
        [bar.constant.name for bar in found.weakest("usd_per_mtok")]

    Args:
        system: name or file, as for `load_system`.
        model: the language model, or its name.
        traffic: the requests.
        plan: the sharding and precisions, the same in every draw.
        prices: name or file, as for `load_prices`.
        efficiency: name or file, as for `load_system`.
        change: what to do to the system and prices that were loaded, such as `add_tier` or `replace_at`. Files that
            it loads count; a leaf that it sets to a number is certain.
        draws: number of draws.
        seed: of the draws; the same seed gives the same draws.

    Raises:
        InputError: an unknown name, a broken file, no Plan or one that does not go with the model or the system.
    """
    if not isinstance(plan, Plan):
        raise InputError("a Plan, such as best_plan(...).plan", path="plan", given=plan)
    model = load_model(model) if isinstance(model, str) else model

    def load() -> Pair:
        pair = load_system(system, efficiency=efficiency), load_prices(prices)
        return pair if change is None else change(*pair)

    check_plan(load()[0], model, plan, traffic)
    return intervals_of(load, model, traffic, plan, draws=draws, seed=seed)
