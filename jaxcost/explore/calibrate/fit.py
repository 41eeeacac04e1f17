"""Fit the parameters of a physical form to measured times by robust least squares, for many training sets at once.

Symbols: R rows, P parameters, L training sets (weights of the rows), t measured and f(p) predicted seconds.

A parameter p between bounds is fitted as the unbounded u of p = low + (high - low) / (1 + exp(-u)), or of the same
equation for ln p where low > 0. The loss of a row is pseudo-Huber, with z = (ln f - ln t) / scale:

    rho(z) = 2 (sqrt(1 + z^2) - 1)

A weak prior ((u - u0) / width)^2 keeps parameters that the rows do not determine at their starting values u0. The
solver is Levenberg-Marquardt (optimistix) in float64 from several starting points; the lowest loss wins. Intervals
follow from the Jacobian J of the weighted residuals r by the cluster-robust sandwich estimator (Liang and Zeger 1986),
with the rows of a group (one shape, one model) as a cluster:

    covariance of u = H^-1 (sum over groups of (J_g' r_g)(J_g' r_g)') H^-1,   H = J' J,  J and r with the prior
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

__all__ = ["Bounds", "Fit", "fit", "folds", "predict"]

SCALE = 0.05  # of a residual ln f - ln t: the loss is quadratic below it and linear above
_PULL = 3.0  # width of the prior, in u
_STEPS = 80
_STARTS = 4
_EIGHTIETH = 1.2816  # standard deviations on either side of the mean that hold 80% of a normal distribution

Columns = Mapping[str, Any]
Seconds = Callable[[Columns, Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of a parameter, and the value at which its fit starts."""

    low: float
    high: float
    start: float


@dataclasses.dataclass(frozen=True)
class Fit:
    """Fitted parameters of every training set.

    Attributes:
        names: names of the P parameters.
        values: float64 [L, P].
        low: lower ends of the 80% intervals, [L, P].
        high: upper ends, [L, P].
        cost: minimum of the loss, [L].
    """

    names: tuple[str, ...]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cost: np.ndarray

    def parameters(self, training_set: int) -> dict[str, float]:
        """Return the parameters of one training set by name."""
        return dict(zip(self.names, self.values[training_set].tolist(), strict=True))


def fit(
    seconds: Seconds,
    bounds: Mapping[str, Bounds],
    columns: Columns,
    measured: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    *,
    seed: int = 0,
) -> Fit:
    """Fit a form to each of several training sets.

    Args:
        seconds: pure JAX function of (columns, parameters) that returns the predicted seconds [R].
        bounds: bounds and start of every parameter, by name.
        columns: descriptions of the rows, [R] each.
        measured: t, seconds [R].
        weights: weight of every row in every training set, [L, R]; 0 leaves a row out.
        groups: number of the cluster of every row, [R], for the intervals.
        seed: seed of the starting points.

    Returns:
        The parameters of every training set with their 80% intervals.
    """
    names = tuple(bounds)
    low, high, begin = (
        np.asarray([getattr(b, side) for b in bounds.values()], np.float64)
        for side in ("low", "high", "start")
    )
    least = np.where(low > 0, low, 1)
    ratio = np.maximum(high / least, 1 + 1e-9)
    share = np.where(
        low > 0, np.log(np.maximum(begin, 1e-30) / least) / np.log(ratio), (begin - low) / (high - low)
    )
    first = np.log(np.clip(share, 0.02, 0.98) / (1 - np.clip(share, 0.02, 0.98)))
    draws = np.random.default_rng(seed).normal(0, 0.7, (_STARTS - 1, len(names)))
    rows, most = _padded(len(measured)), int(groups.max()) + 1
    fill = functools.partial(_fill, rows=rows)
    with jax.enable_x64(True):
        fitted = _fit(
            {name: jnp.asarray(fill(x)) for name, x in columns.items()},
            jnp.log(jnp.asarray(fill(measured))),
            jnp.asarray(np.pad(weights.astype(np.float64), ((0, 0), (0, rows - len(measured))))),
            jnp.asarray(fill(groups), jnp.int32),
            jnp.asarray(np.stack([first, *(first + draws)])),
            jnp.asarray(low),
            jnp.asarray(high),
            seconds=seconds,
            names=names,
            most=_padded(most),
        )
    return Fit(names, *(np.asarray(x) for x in fitted))


def predict(seconds: Seconds, columns: Columns, parameters: Mapping[str, float]) -> np.ndarray:
    """Predict the seconds of rows, float64 [R], with one set of parameters."""
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(np.asarray(x, np.float64)) for name, x in columns.items()}
        values = {name: jnp.asarray(x, jnp.float64) for name, x in parameters.items()}
        return np.asarray(_predict(arrays, values, seconds=seconds))


def folds(keys: np.ndarray, most: int, *, seed: int = 0) -> np.ndarray:
    """Assign every row to one of at most `most` folds, [R]; rows of equal key share a fold."""
    distinct, at = np.unique(keys, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    return (order % min(most, len(distinct)))[at]


def _padded(n: int) -> int:
    """Round up to few significant bits, so that few sizes are compiled."""
    step = max(32, 1 << max(n.bit_length() - 3, 0))
    return -(-n // step) * step


def _fill(x: np.ndarray, *, rows: int) -> np.ndarray:
    return np.pad(np.asarray(x, np.float64), (0, rows - len(x)), mode="edge")


@functools.partial(jax.jit, static_argnames="seconds")
def _predict(columns: Columns, parameters: Mapping[str, Any], *, seconds: Seconds) -> jax.Array:
    return seconds(columns, parameters)


@functools.partial(jax.jit, static_argnames=("seconds", "names", "most"))
def _fit(
    columns: Columns,
    measured: jax.Array,
    weights: jax.Array,
    groups: jax.Array,
    starts: jax.Array,
    low: jax.Array,
    high: jax.Array,
    *,
    seconds: Seconds,
    names: tuple[str, ...],
    most: int,
) -> tuple[jax.Array, ...]:
    def values(u: jax.Array) -> jax.Array:
        share = jax.nn.sigmoid(u)
        least = jnp.where(low > 0, low, 1)
        return jnp.where(low > 0, least * (high / least) ** share, low + (high - low) * share)

    def residuals(u: jax.Array, weight: jax.Array) -> jax.Array:
        z = (jnp.log(seconds(columns, dict(zip(names, values(u), strict=True)))) - measured) / SCALE
        # sqrt(rho) with the sign of z, in a form that is smooth at 0.
        soft = z * jnp.sqrt(2 / (1 + jnp.sqrt(1 + z * z)))
        return jnp.concatenate([jnp.sqrt(weight) * soft, (u - starts[0]) / _PULL])

    solver = optimistix.LevenbergMarquardt(rtol=1e-8, atol=1e-10)

    def from_start(u: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        at = optimistix.least_squares(residuals, solver, u, args=weight, max_steps=_STEPS, throw=False).value
        cost = jnp.sum(residuals(at, weight) ** 2)
        return at, jnp.where(jnp.isfinite(cost), cost, jnp.inf)

    def fit_one(weight: jax.Array) -> tuple[jax.Array, ...]:
        ends, costs = jax.vmap(lambda u: from_start(u, weight))(starts)
        best = jnp.argmin(costs)
        u = ends[best]
        slopes, r = jax.jacfwd(residuals)(u, weight), residuals(u, weight)
        inverse = jnp.linalg.inv(slopes.T @ slopes)
        data = slopes[: measured.shape[0]] * r[: measured.shape[0], None]
        grouped = jax.ops.segment_sum(data, groups, num_segments=most)
        there = jax.ops.segment_sum(weight, groups, num_segments=most) > 0
        few = jnp.sum(there) / jnp.maximum(jnp.sum(there) - 1, 1)
        covariance = few * inverse @ (grouped.T @ grouped) @ inverse
        # A parameter that the rows do not determine has the width of the prior, not the residual of those rows.
        undetermined = jnp.diag(inverse) / _PULL**2
        spread = jnp.sqrt(jnp.maximum(jnp.diag(covariance), 0) + (undetermined * _PULL) ** 2)
        reach = _EIGHTIETH * spread
        return values(u), values(u - reach), values(u + reach), costs[best]

    return jax.lax.map(fit_one, weights)
