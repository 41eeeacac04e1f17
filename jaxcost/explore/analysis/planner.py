"""The best plan of a model on a system, found inside the same traced call.

All plans of a number of chips are evaluated in chunks, and the best that satisfies every constraint is chosen. The
search itself is not differentiated: where the best plan is unique, the gradient of its value is that of the chosen
plan held fixed (envelope theorem), which is what is returned.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import align, batch_shape, spread
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features, evaluate as evaluate_plan
from jaxcost.explore.compilation import chunk_of, map_chunks
from jaxcost.physics.compute.draft import require_draft
from jaxcost.physics.compute.shards import can_shard
from jaxcost.report import Report
from jaxcost.spec.design import Design
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "DEGREES",
    "OBJECTIVES",
    "Choice",
    "best_plan",
    "candidate_columns",
    "candidate_plans",
    "divisors",
    "evaluate",
    "is_valid",
    "system_plans",
    "take_candidate",
    "with_degrees",
]

DEGREES = ("tp", "pp", "cp", "dp", "ep")
# Totals of a Report that a plan can be chosen by, and whether larger is better.
OBJECTIVES = {
    "tpot": False,
    "ttft": False,
    "latency": False,
    "tokens_per_second": True,
    "joules_per_token": False,
    "usd_per_mtok": False,
    "gco2e_per_mtok": False,
}
_TRACED_CHIPS = 64
_ROUNDING = 1e-6  # tolerance of a margin that is exactly 0, as of chips when all are used


@pytree
class Choice:
    """The best plan, and its distance to the next best."""

    plan: Plan = field(doc="the best plan")
    report: Report = field(doc="its evaluation")
    runner_up: Plan = field(doc="the next best plan; the best plan where no other satisfies every constraint")
    gap: Scalar = field("1", "relative difference of the runner-up to the best value, 0 without a runner-up")
    feasible: Scalar = field("1", "plans that satisfy every constraint; where 0, the best plan violates one")
    valid: Scalar = field("1", "plans by which the model can be sharded")


@functools.lru_cache(maxsize=64)
def candidate_plans(chips: int, *, whole: bool = True) -> np.ndarray:
    """List the degrees (tp, pp, cp, dp, ep) of all plans of a number of chips, shape [plans, 5].

    tp x pp x cp x dp = chips, and ep divides tp x dp. The simplest plans come first, so that ties go to them.

    Args:
        chips: number of chips.
        whole: True for plans that use all chips; False for plans of every power of two up to that number.
    """
    counts = [chips] if whole else [2**k for k in range(chips.bit_length())]
    plans = []
    for n in counts:
        for tp in divisors(n):
            for pp in divisors(n // tp):
                for cp in divisors(n // tp // pp):
                    dp = n // tp // pp // cp
                    plans += [(tp, pp, cp, dp, ep) for ep in divisors(tp * dp)]
    plain = sorted(plans, key=lambda p: (p[1], p[2], p[3], p[4], p[0]))
    return np.asarray(plain, np.float64)


def system_plans(system: System) -> np.ndarray:
    """List the degrees of all plans of a system's chips, [plans, 5]; of 1 to 64 chips where that is no one number."""
    try:
        return candidate_plans(max(round(float(system.chips)), 1))
    except TypeError:  # traced, or one number for each design of a batch
        return candidate_plans(_TRACED_CHIPS, whole=False)


def divisors(n: int) -> list[int]:
    """List the divisors of a whole number in ascending order."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def is_valid(system: System, model: Model, traffic: Traffic, plan: Plan) -> jax.Array:
    """Return whether a model can be sharded by a plan that uses all chips of a system, bool [*batch].

    The rules of `can_shard` hold, and every replica has a request. A replica with fewer requests than pipeline stages
    has as many microbatches as requests.
    """
    uses_all = jnp.less(jnp.abs(plan.tp * plan.pp * plan.cp * plan.dp - system.chips), 0.5)
    return can_shard(model, plan) & uses_all & jnp.greater_equal(traffic.batch, plan.dp)


def best_plan(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan | None = None,
    *,
    objective: str = "tpot",
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> Choice:
    """Choose the degrees of sharding with the best value of one total of the Report, subject to all margins >= 0.

    Composes with `jit`, `vmap` and `grad` as `evaluate` does, and is native over a batch: leaves broadcast, and each
    design gets its own plan. A traced number of chips must be a power of two up to 64. Where no plan satisfies every
    constraint, the best plan that satisfies all but power is chosen, which a lower clock would make feasible; where
    there is none, the plan with the largest worst margin. Where no plan is valid, `Choice.valid` is 0 and the plan is
    meaningless.

    Args:
        system: chips, links and hosts; all its chips are used.
        model: the language model.
        traffic: the requests; its targets constrain the choice.
        plan: everything but the degrees; None for the defaults of `Plan`.
        objective: one of `OBJECTIVES`.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.

    Returns:
        The best plan with its report, the runner-up, and the numbers of valid and feasible plans.

    Raises:
        ValueError: an unknown objective, or a plan that drafts where nothing can.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective {objective!r} for a plan; there are {', '.join(OBJECTIVES)}")
    plan = plan or Plan()
    require_draft(model, plan)
    arguments = canonical((system, model, traffic, plan, prices or Prices(), knobs or Knobs()))
    candidates = jnp.asarray(system_plans(system), jnp.result_type(arguments[0].chips))
    return _best_plan(
        *arguments, candidates, objective, design_features(system, traffic, plan, arguments[-1])
    )


@program(static_argnames=("objective", "features"))
def _best_plan(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    prices: Prices,
    knobs: Knobs,
    candidates: jax.Array,
    objective: str,
    features: tuple[str, ...],
) -> Choice:
    largest = jnp.finfo(candidates.dtype).max
    fixed = jax.lax.stop_gradient((system, model, traffic, plan, prices, knobs))

    shape = batch_shape(fixed)

    def judge(degrees: jax.Array) -> tuple[jax.Array, ...]:
        s, m, t, rest, p, k = fixed
        s, m, t, candidate = align((s, m, t, with_degrees(rest, candidate_columns(degrees, shape))))
        report = evaluate_plan(s, m, t, candidate, prices=p, knobs=k, features=features)
        value = getattr(report, objective) * (-1 if OBJECTIVES[objective] else 1)
        margins = report.margins
        cooled = replace(margins, power=jnp.ones_like(margins.power))
        judged = (is_valid(s, m, t, candidate), *map(jnp.asarray, (margins.worst, cooled.worst, value)))
        return spread(judged, (len(degrees), *shape))

    valid, worst, worst_cooled, value = map_chunks(judge, candidates, chunk_of("plans", shape))
    feasible, cool = valid & (worst >= -_ROUNDING), valid & (worst_cooled >= -_ROUNDING)
    allowed = jnp.where(jnp.any(feasible, 0), feasible, cool)
    score = jnp.where(
        jnp.any(allowed, 0), jnp.where(allowed, value, largest), jnp.where(valid, -worst, largest)
    )
    first = jnp.argmin(score, 0)
    order = jnp.arange(len(score)).reshape(-1, *(1 for _ in shape))
    others = jnp.where(order == first, largest, score)
    second = jnp.where(jnp.min(others, 0) < largest, jnp.argmin(others, 0), first)
    best, next_best = (take_candidate(value, index) for index in (first, second))
    chosen = with_degrees(plan, jnp.moveaxis(candidates[first], -1, 0))
    count = lambda x: jnp.sum(x, 0).astype(candidates.dtype)  # noqa: E731
    return Choice(
        plan=chosen,
        report=evaluate_plan(system, model, traffic, chosen, prices=prices, knobs=knobs, features=features),
        runner_up=with_degrees(plan, jnp.moveaxis(candidates[second], -1, 0)),
        gap=jnp.where(count(feasible) > 1, smooth.safe_div(next_best - best, jnp.abs(best)), 0),
        feasible=count(feasible),
        valid=count(valid),
    )


def candidate_columns(candidates: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Reshape degrees [n, 5] to columns [5, n, 1, ...] that broadcast against designs of a batch shape."""
    return candidates.T.reshape(-1, len(candidates), *(1 for _ in shape))


def take_candidate(x: jax.Array, index: jax.Array) -> jax.Array:
    """Take the candidate `index` [*batch] of each design from x [n, *batch]."""
    return jnp.take_along_axis(x, index[None], 0)[0]


def with_degrees(plan: Plan, degrees: jax.Array) -> Plan:
    """Copy a plan with new degrees, one row for each of `DEGREES`."""
    return replace(plan, **dict(zip(DEGREES, degrees, strict=True)))


def evaluate(
    system: System | Design,
    model: Model | None = None,
    traffic: Traffic | None = None,
    plan: Plan | Literal["auto"] | None = None,
    *,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> Report:
    """Evaluate a model on a system under a traffic and a plan, or under the best plan with `plan="auto"`.

    Pure and traceable: `jax.jit`, `jax.vmap` and `jax.grad` apply as to any function, and every leaf of every argument
    is traced. Leaves may be Python numbers or JAX arrays of any broadcastable shapes `[*batch]`. Infeasible designs
    return finite numbers with negative margins.

    Args:
        system: chips, links and hosts; or a `Design`, which holds all arguments: `evaluate(design)`. What is given
            beside a design takes the place of its own.
        model: the language model.
        traffic: prompt and output lengths and the requests in flight.
        plan: degrees of sharding, precisions and schedule; "auto" takes the degrees with the least time per output
            token that satisfy every constraint, at 16 bits (`best_plan` takes other objectives and precisions).
        prices: costs of energy, building and carbon; None for the defaults of `Prices`.
        knobs: numerical softness; None for exact results.

    Returns:
        Latency, memory, energy, cost, carbon and margins of the design, each leaf `[*batch]`, in SI units.

    Raises:
        TypeError: a system without a model, a traffic or a plan.
        ValueError: `plan` is a string other than "auto", or drafts where neither it nor the model has what drafts.
    """
    if isinstance(system, Design):
        design = system
        system, model, traffic = design.system, model or design.model, traffic or design.traffic
        plan, prices, knobs = plan or design.plan, prices or design.prices, knobs or design.knobs
    if model is None or traffic is None or plan is None:
        given = {"model": model, "traffic": traffic, "plan": plan}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise TypeError(
            f"evaluate takes a system, a model, a traffic and a plan, or a Design; missing: {missing}"
        )
    if isinstance(plan, str):
        if plan != "auto":
            raise ValueError(f'plan must be a Plan or "auto", not {plan!r}')
        return best_plan(system, model, traffic, prices=prices, knobs=knobs).report
    require_draft(model, plan)
    return evaluate_plan(system, model, traffic, plan, prices=prices, knobs=knobs)
