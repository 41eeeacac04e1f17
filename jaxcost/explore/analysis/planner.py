"""The best way to lay a model out on a system, found inside the same traced call.

Every plan of a chip count is evaluated, many at once, and the best that holds every constraint is taken. The
search itself is not differentiated: where the best plan is unique, the gradient of the best value is that of the
chosen plan held fixed (the envelope theorem), and that is what is returned.
"""

import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.arrays import align, batch_shape, spread
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features
from jaxcost.evaluation import evaluate as evaluate_plan
from jaxcost.explore.compilation import chunk_of, map_chunks
from jaxcost.physics.compute.shards import layer_count, microbatches
from jaxcost.report import Report
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
# Totals of a Report that a plan can be chosen by, and whether more of it is better.
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
_ROUNDING = 1e-6  # a margin of exactly 0, chips used against chips there are, may come out this much below


@pytree
class Choice:
    """The best plan and how clear the choice was."""

    plan: Plan = field(doc="the best plan")
    report: Report = field(doc="its evaluation")
    runner_up: Plan = field(
        doc="the next best plan; the best one again where no other holds every constraint"
    )
    gap: Scalar = field("1", "by how much of the best value the runner-up is worse, 0 where there is none")
    feasible: Scalar = field("1", "plans that hold every constraint; where 0, the plan breaks one")
    valid: Scalar = field("1", "plans that the model can be cut into")


@functools.lru_cache(maxsize=64)
def candidate_plans(chips: int, *, whole: bool = True) -> np.ndarray:
    """List the degrees (tp, pp, cp, dp, ep) of all plans of a number of chips, shape [plans, 5].

    tp x pp x cp x dp = chips, and ep divides tp x dp. The plainest come first, so that a tie goes to them.

    Args:
        chips: number of chips.
        whole: whether all chips must be used; otherwise all powers of two up to them are listed.
    """
    counts = [chips] if whole else [2**k for k in range(chips.bit_length())]
    found = []
    for n in counts:
        for tp in divisors(n):
            for pp in divisors(n // tp):
                for cp in divisors(n // tp // pp):
                    dp = n // tp // pp // cp
                    found += [(tp, pp, cp, dp, ep) for ep in divisors(tp * dp)]
    plain = sorted(found, key=lambda p: (p[1], p[2], p[3], p[4], p[0]))
    return np.asarray(plain, np.float64)


def system_plans(system: System) -> np.ndarray:
    """List the degrees of the plans of a system's chips, as `candidate_plans`; of up to 64 where they are traced."""
    try:
        return candidate_plans(max(round(float(system.chips)), 1))
    except jax.errors.ConcretizationTypeError:
        return candidate_plans(_TRACED_CHIPS, whole=False)


def divisors(n: int) -> list[int]:
    """List the divisors of a whole number, in order."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})


def is_valid(system: System, model: Model, traffic: Traffic, plan: Plan) -> jax.Array:
    """Tell whether a model can be cut by a plan, and the plan uses all chips of a system.

    tp divides the heads; there are as many layers as stages; ep divides the experts and is at most tp x dp; every
    replica and stage has a request; only attention has a cache for cp to cut.
    """
    a, latent, recurrence, experts = model.attention, model.latent, model.recurrence, model.experts
    softmax = a.full_layers + a.window_layers
    attention = softmax + latent.layers

    def divides(degree: Scalar, width: Scalar) -> jax.Array:
        return jnp.equal(jnp.round(width / degree) * degree, width)

    without_attention = jnp.equal(attention, 0)
    spread = jnp.greater(experts.layers, 0) & divides(plan.ep, experts.experts)
    rules = (
        jnp.less(jnp.abs(plan.tp * plan.pp * plan.cp * plan.dp - system.chips), 0.5),
        jnp.equal(softmax, 0) | divides(plan.tp, a.heads),
        jnp.equal(latent.layers, 0) | divides(plan.tp, latent.heads),
        ~without_attention | divides(plan.tp, recurrence.heads),
        ~without_attention | jnp.equal(plan.cp, 1),
        jnp.less_equal(plan.pp, layer_count(model)),
        jnp.equal(plan.ep, 1) | (spread & jnp.less_equal(plan.ep, plan.tp * plan.dp)),
        jnp.greater_equal(traffic.batch, plan.dp * microbatches(plan)),
    )
    return functools.reduce(jnp.logical_and, rules)


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
    """Choose the degrees of sharding that are best by one total of the Report, every margin at least 0.

    Under `jit`, `vmap` and `grad` as `evaluate`, and natively over a batch: leaves broadcast, and each design gets
    its own plan. Where the number of chips is traced it must be a power of two up
    to 64. Where no plan holds every constraint, the best is taken of those that would at a lower clock (all but
    power hold), and failing these the one with the largest worst margin; where none is valid, `Choice.valid` is 0
    and the plan is not to be used.

    Args:
        system: chips, links and hosts; all its chips are used.
        model: the language model.
        traffic: the requests; its targets constrain the choice.
        plan: everything but the degrees; the defaults of `Plan` when absent.
        objective: one of `OBJECTIVES`.
        prices: as for `evaluate`.
        knobs: as for `evaluate`.

    Raises:
        ValueError: no such objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective {objective!r} for a plan; there are {', '.join(OBJECTIVES)}")
    plan = plan or Plan()
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
        found = (is_valid(s, m, t, candidate), *map(jnp.asarray, (margins.worst, cooled.worst, value)))
        return spread(found, (len(degrees), *shape))

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
        gap=jnp.where(count(feasible) > 1, (next_best - best) / jnp.abs(best), 0),
        feasible=count(feasible),
        valid=count(valid),
    )


def candidate_columns(candidates: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Turn rows [n, 5] of degrees into columns [5, n, ...] that broadcast against designs of a batch shape."""
    return candidates.T.reshape(-1, len(candidates), *(1 for _ in shape))


def take_candidate(x: jax.Array, index: jax.Array) -> jax.Array:
    """Take from [n, *batch] the candidate of each design, `index` [*batch]."""
    return jnp.take_along_axis(x, index[None], 0)[0]


def with_degrees(plan: Plan, degrees: jax.Array) -> Plan:
    """Copy a plan with its degrees changed: one of `DEGREES` a row."""
    return replace(plan, **dict(zip(DEGREES, degrees, strict=True)))


def evaluate(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan | Literal["auto"],
    *,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
) -> Report:
    """Evaluate a model on a system under a traffic and a plan, or under the best plan with `plan="auto"`.

    Pure and traceable: `jax.jit`, `jax.vmap` and `jax.grad` apply to it as to any function, and every leaf of
    every argument is traced. Leaves may be Python or JAX numbers. Infeasible designs return finite numbers
    with negative margins.

    Args:
        system: chips, links and hosts.
        model: the language model.
        traffic: prompt and output lengths and the requests in flight.
        plan: degrees of sharding, precisions, schedule; "auto" takes the degrees with the least time per token
            that hold every constraint, at 16 bits (`best_plan` takes other objectives and precisions).
        prices: costs of energy, building and carbon; the defaults of `Prices` when absent.
        knobs: numerical softness; exact when absent.
    """
    if isinstance(plan, str):
        if plan != "auto":
            raise ValueError(f'plan must be a Plan or "auto", not {plan!r}')
        return best_plan(system, model, traffic, prices=prices, knobs=knobs).report
    return evaluate_plan(system, model, traffic, plan, prices=prices, knobs=knobs)
