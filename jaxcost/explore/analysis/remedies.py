"""What would make a design fit: each candidate change is evaluated, and those that suffice are ordered by cost.

Candidates are a smaller batch, a smaller chunk or token budget, a cache and weights of fewer bits, a larger share of
memory for the engine, and more chips. A change counts where it removes every violation of memory, of the latency
targets and of the engine's sequences, and causes none of another of them.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jaxcost.core.pytree import canonical, replace_at
from jaxcost.evaluation import evaluate
from jaxcost.explore.analysis.planner import is_valid
from jaxcost.report import Report
from jaxcost.spec.design import Design
from jaxcost.spec.memory import TIERS
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["Remedy", "find_remedies"]

Changes = Mapping[str, Any]  # new values, Python floats, by dotted path

_LIMITS = (*TIERS, "ttft", "tpot", "sequences")  # what the candidates may remove
_LEAST_STEP = 256.0  # tokens of the smallest step that is tried
_MOST_DOUBLINGS = 10  # of the number of chips
_MOST_MEMORY = 0.95  # largest share of main memory that is tried; the rest is the runtime's
_ROUNDING = 1e-6
_ROUNDS = 40  # of the search of a batch, each one evaluation
_PRECISIONS = (
    {"kv": 8.0},
    {"weight": 8.0},
    {"weight": 4.0},
    {"kv": 8.0, "weight": 8.0},
    {"kv": 8.0, "weight": 4.0},
)


@dataclasses.dataclass(frozen=True)
class Remedy:
    """A change of a design with which it fits.

    Attributes:
        changes: new values by dotted path, such as `traffic.batch` or `plan.kv_bits`.
        margin: the smallest margin, after it, of the constraints that were violated before.
        usd_per_mtok: cost of a million output tokens after it, all in.
    """

    changes: Mapping[str, float]
    margin: float
    usd_per_mtok: float


def find_remedies(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    prices: Prices | None = None,
    report: Report | None = None,
    count: int = 3,
) -> list[Remedy]:
    """Return the cheapest changes that make a design fit in memory and meet its targets; none where it does.

    Of every kind of change the smallest that suffices is taken: the largest batch, the largest step, the most bits,
    and the fewest chips by powers of two. They are ordered by the cost of a million output tokens.

    Args:
        system: chips, links and hosts, with concrete numbers.
        model: the language model.
        traffic: the requests.
        plan: degrees, precisions, schedule and engine.
        prices: as for `evaluate`.
        report: the evaluation of the design, where it is known.
        count: most remedies to return.
    """
    design = Design(system=system, model=model, traffic=traffic, plan=plan, prices=prices or Prices())
    design = jax.tree.map(float, canonical(design))
    report = _evaluate(design) if report is None else report
    violated = [name for name in _LIMITS if float(getattr(report.margins, name)) < 0]
    if not violated:
        return []
    attempt = functools.partial(_attempt, design, violated)
    first = min(violated, key=lambda name: float(getattr(report.margins, name)))
    kinds = (
        _smaller_batch(design, attempt, _worst(report, violated)),
        _first_of(attempt, _smaller_steps(design)),
        _smallest_of_each(attempt, _fewer_bits(design)),
        _first_of(attempt, _larger_share(design)),
        _more_chips(design, attempt, 1 - float(getattr(report.margins, first))),
    )
    found = [remedy for remedy in itertools.chain(*kinds) if remedy.margin >= 0]
    return sorted(found, key=lambda remedy: remedy.usd_per_mtok)[:count]


def _evaluate(design: Design) -> Report:
    report = evaluate(design.system, design.model, design.traffic, design.plan, prices=design.prices)
    return jax.device_get(report)


def _worst(report: Report, names: Sequence[str]) -> float:
    return min(float(getattr(report.margins, name)) for name in names)


def _changed(design: Design, changes: Changes) -> Design:
    for path, value in changes.items():
        design = replace_at(design, path, value)
    return design


def _attempt(design: Design, violated: Sequence[str], changes: Changes) -> Remedy:
    """Evaluate a change. The margin of one that causes a violation of another limit is that of this limit."""
    report = _evaluate(_changed(design, changes))
    margin = _worst(report, violated)
    others = _worst(report, (*_LIMITS, "chips", "plan"))
    return Remedy(
        changes, margin if others >= -_ROUNDING else min(margin, others), float(report.usd_per_mtok)
    )


Attempt = Callable[[Changes], Remedy]


def _first_of(attempt: Attempt, candidates: Iterator[Changes]) -> Iterator[Remedy]:
    """Yield the first candidate that suffices."""
    sufficient = (remedy for remedy in map(attempt, candidates) if remedy.margin >= 0)
    yield from itertools.islice(sufficient, 1)


def _smaller_batch(design: Design, attempt: Attempt, margin: float) -> Iterator[Remedy]:
    """Yield the largest batch that suffices, found by interpolation where the margin is linear, else by bisection."""
    low, high = design.plan.dp, design.traffic.batch
    if high <= low:
        return
    best = attempt({"traffic.batch": low})
    if best.margin < 0:
        return
    at_low, at_high = best.margin, margin
    for turn in range(_ROUNDS):
        if high - low <= 1:
            break
        linear = low + (high - low) * at_low / (at_low - at_high)
        # Interpolation first from below, then from above; every third time the middle.
        guess = (math.floor(linear), math.floor(linear) + 1, math.floor((low + high) / 2))[turn % 3]
        batch = float(min(max(guess, low + 1), high - 1))
        tried = attempt({"traffic.batch": batch})
        if tried.margin >= 0:
            low, at_low, best = batch, tried.margin, tried
        else:
            high, at_high = batch, tried.margin
    yield best


def _smaller_steps(design: Design) -> Iterator[Changes]:
    """Halve the chunk, or the token budget of a step."""
    path, size = "plan.chunk", design.plan.chunk
    if size == 0:
        prompts = design.traffic.batch * design.traffic.prompt
        path, size = (
            "plan.engine.step_tokens",
            design.plan.engine.step_tokens or 2 ** math.floor(math.log2(prompts)),
        )
    while size / 2 >= _LEAST_STEP:
        size = float(size // 2)
        yield {path: size}


def _fewer_bits(design: Design) -> Iterator[Changes]:
    """Quantize cache and weights. Weights that a plan keeps at more bits than the others keep them."""
    plan, experts = design.plan, design.model.experts.layers > 0
    for bits in _PRECISIONS:
        fewer = {}
        if plan.kv_bits > bits.get("kv", plan.kv_bits):
            fewer["plan.kv_bits"] = bits["kv"]
        for name in ("weight_bits", *(("expert_bits",) if experts else ())):
            if getattr(plan, name) > bits.get("weight", getattr(plan, name)):
                fewer[f"plan.{name}"] = bits["weight"]
        # A combination counts where each of its parts changes something.
        weights = any(path != "plan.kv_bits" for path in fewer)
        if fewer and ("plan.kv_bits" in fewer) == ("kv" in bits) and weights == ("weight" in bits):
            yield fewer


def _smallest_of_each(attempt: Attempt, candidates: Iterator[Changes]) -> Iterator[Remedy]:
    """Yield the candidates that suffice, without those that change all that another changes, and more."""
    found: list[Remedy] = []
    for changes in candidates:
        if any(remedy.changes.keys() <= changes.keys() for remedy in found):
            continue
        remedy = attempt(changes)
        if remedy.margin >= 0:
            found.append(remedy)
            yield remedy


def _larger_share(design: Design) -> Iterator[Changes]:
    """Give the engine more of the memory."""
    if design.plan.engine.memory_share < _MOST_MEMORY:
        yield {"plan.engine.memory_share": _MOST_MEMORY}


def _more_chips(design: Design, attempt: Attempt, excess: float) -> Iterator[Remedy]:
    """Yield the cheapest plan of the fewest chips, a power of two times those of the plan.

    Args:
        design: the design.
        attempt: evaluates a change.
        excess: use over limit of the limit that is exceeded most.
    """
    plan, system = design.plan, design.system
    used = plan.tp * plan.pp * plan.cp * plan.dp
    # Chips divide the use at best, so that fewer than this many do not suffice.
    start = (
        max(1, math.ceil(math.log2(excess) - 1e-9)) if excess < 2**_MOST_DOUBLINGS else _MOST_DOUBLINGS + 1
    )
    for doublings in range(start, _MOST_DOUBLINGS + 1):
        chips = max(used * 2**doublings, system.chips)
        if used * 2**doublings < system.chips:
            chips = system.chips
        sufficient = []
        for degrees in _doubled(design, doublings):
            changes = {"system.chips": chips} if chips != system.chips else {}
            changes |= {
                f"plan.{name}": value for name, value in degrees.items() if value != getattr(plan, name)
            }
            moved = _changed(design, changes | {"system.chips": used * 2**doublings})
            if not bool(is_valid(moved.system, moved.model, moved.traffic, moved.plan)):
                continue
            remedy = attempt(changes)
            if remedy.margin >= 0:
                sufficient.append(remedy)
        if sufficient:
            yield min(sufficient, key=lambda remedy: remedy.usd_per_mtok)
            return


def _doubled(design: Design, doublings: int) -> Iterator[Changes]:
    """Distribute a number of doublings over tp, pp and dp; tp stays within the domain of the fast links.

    Experts are spread as before, or over all of tp x dp.
    """
    plan, domain = design.plan, max(design.system.fabric.domain, design.plan.tp)
    for a in range(doublings + 1):
        for b in range(doublings - a + 1):
            tp, pp, dp = plan.tp * 2**a, plan.pp * 2**b, plan.dp * 2 ** (doublings - a - b)
            if tp > domain:
                continue
            yield {"tp": tp, "pp": pp, "dp": dp}
            if design.model.experts.layers > 0 and tp * dp != plan.ep:
                yield {"tp": tp, "pp": pp, "dp": dp, "ep": tp * dp}
