"""The augmented Lagrangian of a design problem: one smooth function of the positions of its knobs.

Symbols: an instance is one attempt at a problem, from one starting point with one combination of choices. K knobs at
positions u, W scenarios, m metrics, C limits.

    objective     F = sum_j w_j ln f_j                        in each scenario, f_j a metric
                  over scenarios ln E[exp F], ln CVaR_a[exp F], or the worst
    limit         g = ln(f / bound), ln(bound / f), or ln((1 - margin) / (1 - least)):  satisfied where g <= 0
    Lagrangian    L = F + sum ((max(0, l + r g))^2 - l^2) / (2 r)

with multipliers l and penalty r (Hestenes 1969, Powell 1969, Rockafellar 1973). Everything is in logarithms: the
objective and the limits are then nearly products of powers of the knobs, whose logarithm is convex, and a multiplier is
an elasticity of the optimum by a bound: d ln F* / d ln bound = -l for an upper bound.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core.derivative import value_and_slopes
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.explore.codesign.relaxation import KnobEffects, apply_knobs

__all__ = [
    "Instance",
    "LagrangianEvaluation",
    "ProblemArrays",
    "combine_scenarios",
    "evaluate_lagrangian",
    "evaluate_limits",
]

_LEAST_USE = 1e-9  # floor of the argument of a limit's logarithm, as a share of the bound
_LEAST_SOFTNESS = 1e-6


@pytree
class ProblemArrays:
    """Arrays that all instances of a problem share."""

    effects: KnobEffects = field(doc="effects of knobs on leaves")
    tau_leaf: Any = field("1", "int32: position of the softness among the leaves")
    column: Any = field("1", "int32[C]: metric of each limit")
    margin: Any = field("1", "bool[C]: whether the metric is a margin")
    sign: Any = field("1", "[C]: 1 for an upper bound, -1 for a lower bound, 0 for an unused row")
    share: Any = field("1", "[W]: weights of the scenarios, of sum 1")
    level: Any = field("1", "aggregate over scenarios: 0 the mean, a for CVaR_a, 1 the worst")


@pytree
class Instance:
    """Arrays of one instance."""

    base: Any = field("1", "[W, L]: leaves of the design before knobs are applied")
    factors: Any = field("1", "[W, L]: factors on the leaves after knobs are applied")
    weights: Any = field("1", "[m]: exponents of the metrics in the objective")
    bound: Any = field("1", "[C]: bounds in the unit of the metric; of a margin its least value")
    shift: Any = field("1", "[W, C]: added to g")
    free: Any = field("1", "[K]: 1 where a knob may move, 0 where it is fixed")


@pytree
class LagrangianEvaluation:
    """The Lagrangian of one instance at one point, with its parts."""

    value: Any = field("1", "Lagrangian")
    slope: Any = field("1", "[K]: its derivative by u")
    objective: Any = field("1", "logarithm of the objective over all scenarios")
    limits: Any = field("1", "[W, C]: g, without the shift")
    metrics: Any = field("1", "[W, m]")


def evaluate_lagrangian(
    metrics_of: Callable[[jax.Array], jax.Array],
    problem: ProblemArrays,
    instances: Instance,
    positions: jax.Array,
    multipliers: jax.Array,
    penalty: jax.Array,
    tau: jax.Array,
) -> LagrangianEvaluation:
    """Evaluate the Lagrangians of B instances and their gradients, all scenarios of all instances in one batch.

    Args:
        metrics_of: metrics [m, n] of the leaves [L, n] of n designs.
        problem: arrays that the instances share.
        instances: arrays of the instances, with a leading axis.
        positions: of the knobs, u [B, K].
        multipliers: l [B, W, C].
        penalty: r [B].
        tau: softness [B].
    """
    count, scenarios, _ = instances.base.shape
    base, factors = (jnp.transpose(x).reshape(x.shape[2], -1) for x in (instances.base, instances.factors))

    def per_scenario(x: jax.Array) -> jax.Array:
        """Repeat the values of the instances for every scenario: [..., B] to [..., W B]."""
        return jnp.tile(x, scenarios)

    def lagrangian(u: jax.Array) -> tuple[Scalar, tuple[Scalar, jax.Array, jax.Array]]:
        leaves = apply_knobs(base, problem.effects, per_scenario(u)) * factors
        metrics = metrics_of(leaves.at[problem.tau_leaf].set(per_scenario(tau)))
        by_instance = metrics.reshape(-1, scenarios, count).T
        return jax.vmap(_lagrangian_of, (None, 0, 0, 0, 0, 0))(
            problem, instances, by_instance, multipliers, penalty, tau
        )

    value, slopes, (objective, g, metrics) = value_and_slopes(lagrangian, positions.T)
    return LagrangianEvaluation(value=value, slope=slopes.T, objective=objective, limits=g, metrics=metrics)


def _lagrangian_of(
    problem: ProblemArrays,
    instance: Instance,
    metrics: jax.Array,
    multipliers: jax.Array,
    penalty: Scalar,
    tau: Scalar,
) -> tuple[Scalar, tuple[Scalar, jax.Array, jax.Array]]:
    """Return the Lagrangian of one instance, its objective, limits and metrics [W, m]."""
    objective = combine_scenarios(
        _log_objective(metrics, instance.weights), problem.share, problem.level, tau
    )
    g = evaluate_limits(problem, metrics, instance.bound)
    projected = jnp.maximum(multipliers + penalty * (g + instance.shift), 0)
    terms = jnp.where(problem.sign != 0, projected**2 - multipliers**2, 0) / (2 * penalty)
    return objective + jnp.sum(terms), (objective, g, metrics)


def _log_objective(metrics: jax.Array, weights: jax.Array) -> jax.Array:
    """Return F [W] of metrics [W, m]."""
    used = (weights != 0)[None]
    return jnp.sum(jnp.where(used, weights[None] * jnp.log(jnp.where(used, metrics, 1)), 0), axis=1)


def evaluate_limits(problem: ProblemArrays, metrics: jax.Array, bound: jax.Array) -> jax.Array:
    """Return g [W, C] of metrics [W, m]; -1 in unused rows."""
    f = metrics[:, problem.column]
    margin, sign, bound = problem.margin[None], problem.sign[None], bound[None]
    bounded = (sign != 0) & ~margin
    used = jnp.maximum(1 - jnp.where(margin, f, 0), _LEAST_USE) / (1 - jnp.where(margin, bound, 0))
    ratio = jnp.where(bounded, f / jnp.where(bounded, bound, 1), 1)
    g = jnp.where(margin, jnp.log(used), sign * jnp.log(jnp.where(ratio > 0, ratio, _LEAST_USE)))
    return jnp.where(sign != 0, g, -1)


def combine_scenarios(values: jax.Array, share: jax.Array, level: Scalar, tau: Scalar) -> jax.Array:
    """Aggregate the logarithms of an objective over scenarios [W].

    CVaR_a is the mean of the worst share 1 - a (Rockafellar and Uryasev 2000); a = 0 is the mean of all. The worst
    is tau ln sum exp(F / tau), which is the maximum at tau = 0.

    Args:
        values: ln f of each scenario.
        share: probabilities, of sum 1.
        level: a, or 1 for the worst.
        tau: softness.
    """
    order = jnp.argsort(-jax.lax.stop_gradient(values))
    ranked = jnp.cumsum(share[order])
    tail = 1 - jnp.where(level < 1, level, 0)
    weight = (jnp.minimum(ranked, tail) - jnp.minimum(ranked - share[order], tail)) / tail
    mean = jax.scipy.special.logsumexp(values[order], b=jnp.maximum(weight, 0))
    soft = jnp.maximum(tau, _LEAST_SOFTNESS)
    top = jax.lax.stop_gradient(jnp.max(values))
    worst = top + soft * jnp.log(jnp.sum(jnp.exp((values - top) / soft)))
    return jnp.where(level < 1, mean, worst)
