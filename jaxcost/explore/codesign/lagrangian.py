"""A design problem as one smooth function: a metric to lower, limits to keep, and the price of breaking them.

Symbols: a lane is one attempt at one problem. K knobs at positions u, W scenarios, m metrics, C limits.

    objective     F = sum_j w_j ln f_j                        in each scenario, f_j a metric
                  over scenarios ln E[exp F], ln CVaR_a[exp F], or the worst
    limit         g = ln(f / bound), ln(bound / f), or ln((1 - margin) / (1 - least)):  kept where g <= 0
    Lagrangian    L = F + sum ((max(0, l + r g))^2 - l^2) / (2 r)

with multipliers l and penalty r (Hestenes 1969, Powell 1969, Rockafellar 1973). All is in logarithms: the objective and
its limits are then nearly products of powers of the knobs, whose logarithm is convex, and a multiplier is an
elasticity: of the optimum by a bound, d ln F* / d ln bound = -l for an upper one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core.derivative import value_and_slopes
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.explore.codesign.relaxation import Moves, leaves_with

__all__ = ["Lane", "Look", "Problem", "Weights", "combined", "limits", "look"]

_FULL = 1e-9  # the least share of a limit in use that is told from none
_SOFTEST = 1e-6


@pytree
class Problem:
    """What all lanes share."""

    moves: Moves = field(doc="what knobs do to leaves")
    tau_leaf: Any = field("1", "int32: position of the softness among the leaves")
    column: Any = field("1", "int32[C]: metric of every limit")
    margin: Any = field("1", "bool[C]: whether it is a margin")
    sign: Any = field("1", "[C]: 1 for an upper bound, -1 for a lower one, 0 for a row not in use")
    share: Any = field("1", "[W]: weights of the scenarios, of sum 1")
    level: Any = field("1", "what the scenarios come to: 0 their mean, a for CVaR_a, 1 the worst")


@pytree
class Lane:
    """What is a lane's own."""

    base: Any = field("1", "[W, L]: leaves of the design, its knobs left out")
    factors: Any = field("1", "[W, L]: what each leaf is multiplied by, once knobs are in")
    weights: Any = field("1", "[m]: exponents of the metrics in the objective")
    bound: Any = field("1", "[C]: bounds in the unit of the metric; of a margin its least value")
    shift: Any = field("1", "[W, C]: added to g")
    free: Any = field("1", "[K]: 1 where a knob may move, 0 where it stays")


@pytree
class Look:
    """What one evaluation finds."""

    value: Any = field("1", "Lagrangian")
    slope: Any = field("1", "[K]: its derivative by u")
    objective: Any = field("1", "logarithm of the objective over all scenarios")
    limits: Any = field("1", "[W, C]: g, without the shift")
    metrics: Any = field("1", "[W, m]")


@dataclasses.dataclass(frozen=True)
class Weights:
    """What an objective lowers: a product of powers of metrics, and what becomes of several scenarios."""

    metrics: tuple[tuple[str, float], ...]
    level: float = 0.0  # 0 their mean, a for the mean of the worst share 1 - a, 1 for the worst


def look(
    metrics_of: Callable[[jax.Array], jax.Array],
    problem: Problem,
    lanes: Lane,
    positions: jax.Array,
    multipliers: jax.Array,
    penalty: jax.Array,
    tau: jax.Array,
) -> Look:
    """Evaluate the Lagrangians of B lanes and their gradients: all scenarios of all lanes in one batch.

    Args:
        metrics_of: metrics [m, n] of the leaves [L, n] of n designs.
        problem: what all lanes share.
        lanes: the lanes' own, with a leading axis.
        positions: of the knobs, u [B, K].
        multipliers: l [B, W, C].
        penalty: r [B].
        tau: softness [B].
    """
    count, scenarios, _ = lanes.base.shape
    base, factors = (jnp.transpose(x).reshape(x.shape[2], -1) for x in (lanes.base, lanes.factors))

    def every(x: jax.Array) -> jax.Array:
        """Repeat what a lane has for its scenarios: [..., B] to [..., W B]."""
        return jnp.tile(x, scenarios)

    def lagrangian(u: jax.Array) -> tuple[Scalar, tuple[Scalar, jax.Array, jax.Array]]:
        leaves = leaves_with(base, problem.moves, every(u)) * factors
        metrics = metrics_of(leaves.at[problem.tau_leaf].set(every(tau)))
        by_lane = metrics.reshape(-1, scenarios, count).T
        return jax.vmap(_priced, (None, 0, 0, 0, 0, 0))(problem, lanes, by_lane, multipliers, penalty, tau)

    value, slopes, (objective, g, metrics) = value_and_slopes(lagrangian, positions.T)
    return Look(value=value, slope=slopes.T, objective=objective, limits=g, metrics=metrics)


def _priced(
    problem: Problem, lane: Lane, metrics: jax.Array, multipliers: jax.Array, penalty: Scalar, tau: Scalar
) -> tuple[Scalar, tuple[Scalar, jax.Array, jax.Array]]:
    """Return the Lagrangian of one lane, and its objective, limits and metrics [W, m]."""
    objective = combined(_logarithms(metrics, lane.weights), problem.share, problem.level, tau)
    g = limits(problem, metrics, lane.bound)
    pushed = jnp.maximum(multipliers + penalty * (g + lane.shift), 0)
    price = jnp.where(problem.sign != 0, pushed**2 - multipliers**2, 0) / (2 * penalty)
    return objective + jnp.sum(price), (objective, g, metrics)


def _logarithms(metrics: jax.Array, weights: jax.Array) -> jax.Array:
    used = (weights != 0)[None]
    return jnp.sum(jnp.where(used, weights[None] * jnp.log(jnp.where(used, metrics, 1)), 0), axis=1)


def limits(problem: Problem, metrics: jax.Array, bound: jax.Array) -> jax.Array:
    """Return g [W, C] of metrics [W, m]; -1 in rows not in use."""
    f = metrics[:, problem.column]
    margin, sign, bound = problem.margin[None], problem.sign[None], bound[None]
    bounded = (sign != 0) & ~margin
    used = jnp.maximum(1 - jnp.where(margin, f, 0), _FULL) / (1 - jnp.where(margin, bound, 0))
    ratio = jnp.where(bounded, f / jnp.where(bounded, bound, 1), 1)
    g = jnp.where(margin, jnp.log(used), sign * jnp.log(jnp.where(ratio > 0, ratio, _FULL)))
    return jnp.where(sign != 0, g, -1)


def combined(values: jax.Array, share: jax.Array, level: Scalar, tau: Scalar) -> jax.Array:
    """Combine logarithms of an objective over scenarios [W].

    CVaR_a is the mean of the worst share 1 - a (Rockafellar and Uryasev 2000); a = 0 is the mean of all. The worst
    alone is tau ln sum exp(F / tau), which is the largest at tau = 0.

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
    soft = jnp.maximum(tau, _SOFTEST)
    top = jax.lax.stop_gradient(jnp.max(values))
    worst = top + soft * jnp.log(jnp.sum(jnp.exp((values - top) / soft)))
    return jnp.where(level < 1, mean, worst)
