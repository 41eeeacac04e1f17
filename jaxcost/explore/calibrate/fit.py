"""Fit the parameters of a physical form to measured times by robust least squares, for many training sets at once.

Symbols: R rows, P parameters, L training sets (weights of the rows), t measured and f(p) predicted seconds.

A parameter p between bounds is fitted as the unbounded u of p = low + (high - low) / (1 + exp(-u)), or of the same
equation for ln p where low > 0. The loss of a row is pseudo-Huber, with z = (ln f - ln t) / scale:

    rho(z) = 2 (sqrt(1 + z^2) - 1)

Rows of several units (chips) may have parameters of their own, partially pooled: each of E effects is shared by some
units, with a width s_e that says how much they may differ,

    u[unit] = u0 + width x_0 + sum over e of s[unit, e] x_e,    loss = sum of weight rho + sum of x^2

so that every x has a normal prior of mean 0 and variance 1: a unit without rows takes the mean of what it shares with
others, and parameters that no row determines stay at u0. The solver is Levenberg-Marquardt (MINPACK, by scipy) in
float64 with exact derivatives, from several starting points; the lowest loss wins. Intervals follow from the Jacobian J
of the weighted residuals r by the cluster-robust sandwich estimator (Liang and Zeger 1986), with the rows of a group
(one shape, one model) as a cluster and each prior as one more:

    covariance of x = H^-1 (I + sum over groups of (J_g' r_g)(J_g' r_g)') H^-1,   H = J' J + I
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares

__all__ = ["Bounds", "Effects", "Fit", "Prior", "fit", "folds", "predict", "unbounded"]

SCALE = 0.05  # of a residual ln f - ln t: the loss is quadratic below it and linear above
EIGHTIETH = 1.2816  # standard deviations on either side of the mean that hold 80% of a normal distribution
_PULL = 3.0  # width of the prior of u0
_EVALUATIONS = 60
_STARTS = 3
_SPREAD = 0.7  # standard deviation of the starting points, in u
_EDGE = 0.02  # nearest share of the range to a bound at which a fit starts

Columns = Mapping[str, Any]
Seconds = Callable[[Columns, Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Bounds of a parameter, and the value at which its fit starts."""

    low: float
    high: float
    start: float


@dataclasses.dataclass(frozen=True, eq=False)
class Effects:
    """Parameters that differ between the units of the rows.

    Attributes:
        unit: unit of every row, [R].
        widths: s, of every unit and effect, [U, E]; a unit may have no rows.
        unseen: variance of u that a readout of the unit has in addition, [U]: for units that stand for unknown ones.
    """

    unit: np.ndarray
    widths: np.ndarray
    unseen: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """Mean u0 and standard deviation of every parameter before the rows, in u, [P] each."""

    mean: np.ndarray
    width: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """Fitted parameters of every training set and unit.

    Attributes:
        names: names of the P parameters.
        values: float64 [L, U, P].
        low: lower ends of the 80% intervals, [L, U, P].
        high: upper ends, [L, U, P].
        cost: minimum of the loss, [L].
    """

    names: tuple[str, ...]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    cost: np.ndarray

    def parameters(self, training_set: int, unit: int = 0) -> dict[str, float]:
        """Return the parameters of one training set and unit by name."""
        return dict(zip(self.names, self.values[training_set, unit].tolist(), strict=True))

    def rows(self, training_set: int, unit: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parameters of rows of the given units, [R] each."""
        return dict(zip(self.names, self.values[training_set][unit].T, strict=True))


def fit(
    seconds: Seconds,
    bounds: Mapping[str, Bounds],
    columns: Columns,
    measured: np.ndarray,
    weights: np.ndarray,
    groups: np.ndarray,
    *,
    effects: Effects | None = None,
    prior: Prior | None = None,
    seed: int = 0,
) -> Fit:
    """Fit a form to each of several training sets.

    Args:
        seconds: pure JAX function of (columns, parameters) that returns the predicted seconds [R], each row from its
            own columns and parameters, [R] each.
        bounds: bounds and start of every parameter, by name.
        columns: descriptions of the rows, [R] each.
        measured: t, seconds [R].
        weights: weight of every row in every training set, [L, R]; 0 leaves a row out.
        groups: number of the cluster of every row, [R], for the intervals.
        effects: units of the rows and how much they differ; None for one unit.
        prior: mean and width of u0; None for the starts of `bounds` with a wide prior.
        seed: seed of the starting points.

    Returns:
        The parameters of every training set and unit with their 80% intervals.
    """
    names, count = tuple(bounds), len(bounds)
    if effects is None:
        effects = Effects(np.zeros(len(measured), int), np.zeros((1, 0)), np.zeros(1))
    if prior is None:
        prior = Prior(unbounded(bounds, {name: b.start for name, b in bounds.items()}), np.full(count, _PULL))
    problem = _Problem(seconds, bounds, columns, measured, effects, prior)
    draws = np.random.default_rng(seed).normal(0, _SPREAD, (_STARTS - 1, count)) / prior.width
    size = (1 + effects.widths.shape[1]) * count
    begins = [np.zeros(size), *(np.concatenate([x, np.zeros(size - count)]) for x in draws)]
    out: list[tuple[np.ndarray, ...]] = []
    for weight in weights:
        ends = [problem.solve(x, weight) for x in begins]
        cost, x = min(ends, key=lambda end: end[0])
        out.append((*problem.readouts(x, weight, groups), np.asarray(cost)))
        # No fit starts from the end of another, which may have seen what this one leaves out.
        begins = begins[:2]
    values, low, high, cost = (np.stack(x) for x in zip(*out, strict=True))
    return Fit(names, values, low, high, cost)


def predict(seconds: Seconds, columns: Columns, parameters: Mapping[str, Any]) -> np.ndarray:
    """Predict the seconds of rows, float64 [R], with one set of parameters, or one per row."""
    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(np.asarray(x, np.float64)) for name, x in columns.items()}
        values = {name: jnp.asarray(np.asarray(x, np.float64)) for name, x in parameters.items()}
        return np.asarray(_predict(arrays, values, seconds=seconds))


def folds(keys: np.ndarray, most: int, *, seed: int = 0) -> np.ndarray:
    """Assign every row to one of at most `most` folds, [R]; rows of equal key share a fold."""
    distinct, at = np.unique(keys, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(distinct))
    return (order % min(most, len(distinct)))[at]


def unbounded(bounds: Mapping[str, Bounds], values: Mapping[str, float]) -> np.ndarray:
    """Return u of parameters, [P], those at a bound slightly within it."""
    low, high = _ends(bounds)
    given = np.asarray([values[name] for name in bounds], np.float64)
    least = np.where(low > 0, low, 1)
    ratio = np.maximum(high / least, 1 + 1e-9)
    share = np.where(
        low > 0, np.log(np.maximum(given, 1e-30) / least) / np.log(ratio), (given - low) / (high - low)
    )
    share = np.clip(share, _EDGE, 1 - _EDGE)
    return np.log(share / (1 - share))


def _ends(bounds: Mapping[str, Bounds]) -> tuple[np.ndarray, np.ndarray]:
    low, high = (
        np.asarray([getattr(b, end) for b in bounds.values()], np.float64) for end in ("low", "high")
    )
    return low, high


class _Problem:
    """One form and its rows; x is [1 + E, P] in one vector: shared parameters first, then the effects."""

    def __init__(
        self,
        seconds: Seconds,
        bounds: Mapping[str, Bounds],
        columns: Columns,
        measured: np.ndarray,
        effects: Effects,
        prior: Prior,
    ) -> None:
        rows = _padded(len(measured))
        fill = functools.partial(_fill, rows=rows)
        self.rows, self.prior, self.effects, self.bounds = len(measured), prior, effects, _ends(bounds)
        with jax.enable_x64(True):
            self.fixed = (
                {name: jnp.asarray(fill(x)) for name, x in columns.items()},
                jnp.asarray(np.log(fill(measured))),
                jnp.asarray(self.bounds[0]),
                jnp.asarray(self.bounds[1]),
            )
        self.static = {"seconds": seconds, "names": tuple(bounds)}
        self.of = fill(effects.unit).astype(int)

    def solve(self, x: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the lowest loss and where it is, from a starting point."""
        at, root = np.flatnonzero(weight > 0), np.sqrt(weight[weight > 0])

        def residuals(x: np.ndarray) -> np.ndarray:
            soft = np.asarray(_soft(*self.fixed, self.units(x)[self.of], **self.static))
            return np.concatenate([root * np.nan_to_num(soft[at], nan=1e6, posinf=1e6, neginf=-1e6), x])

        def slopes(x: np.ndarray) -> np.ndarray:
            return np.concatenate([root[:, None] * self.jacobian(x, at), np.eye(len(x))])

        found = least_squares(
            residuals,
            x,
            slopes,  # pyright: ignore[reportArgumentType]
            method="lm",
            max_nfev=_EVALUATIONS,
            ftol=1e-8,
            xtol=1e-8,
            gtol=1e-8,
        )
        return float(2 * found.cost), found.x

    def units(self, x: np.ndarray) -> np.ndarray:
        """Return u of every unit, [U, P]."""
        parts = x.reshape(-1, len(self.prior.mean))
        return self.prior.mean + self.prior.width * parts[0] + self.effects.widths @ parts[1:]

    def jacobian(self, x: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return the derivatives of the residuals of some rows, [rows, (1 + E) P]."""
        by_row = np.asarray(_slopes(*self.fixed, self.units(x)[self.of], **self.static))[:, at]
        by_row = np.nan_to_num(by_row, nan=0.0, posinf=0.0, neginf=0.0)
        shared = by_row * self.prior.width[:, None]
        own = self.effects.widths[self.of[at]].T[:, None] * by_row
        return np.concatenate([shared[None], own]).reshape(len(x), len(at)).T

    def readouts(self, x: np.ndarray, weight: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return values, lower and upper ends of the parameters of every unit, [U, P] each."""
        at, root = np.flatnonzero(weight > 0), np.sqrt(weight[weight > 0])
        slopes = root[:, None] * self.jacobian(x, at)
        soft = np.asarray(_soft(*self.fixed, self.units(x)[self.of], **self.static))[at]
        grouped = np.zeros((int(groups.max()) + 1, len(x)))
        np.add.at(grouped, groups[at], slopes * (root * np.nan_to_num(soft))[:, None])
        inverse = np.linalg.inv(slopes.T @ slopes + np.eye(len(x)))
        covariance = inverse @ (grouped.T @ grouped + np.eye(len(x))) @ inverse
        count = len(self.prior.mean)
        blocks = covariance.reshape(len(x) // count, count, len(x) // count, count)
        blocks = np.einsum("ipjp->pij", blocks)
        lead = np.broadcast_to(self.prior.width[:, None, None], (count, len(self.effects.widths), 1))
        to_u = np.concatenate(
            [lead, np.broadcast_to(self.effects.widths, (count, *self.effects.widths.shape))], 2
        )
        variance = np.einsum("pui,pij,puj->up", to_u, blocks, to_u) + self.effects.unseen[:, None]
        u, reach = self.units(x), EIGHTIETH * np.sqrt(np.maximum(variance, 0))
        return tuple(np.asarray(_values(u + side * reach, *self.bounds)) for side in (0, -1, 1))


def _padded(n: int) -> int:
    """Round up to few significant bits, so that few sizes are compiled."""
    step = max(32, 1 << max(n.bit_length() - 3, 0))
    return -(-n // step) * step


def _fill(x: np.ndarray, *, rows: int) -> np.ndarray:
    return np.pad(np.asarray(x, np.float64), (0, rows - len(x)), mode="edge")


def _values(u: Any, low: Any, high: Any) -> Any:
    """Return the parameters of u, [..., P]."""
    numpy = jnp if isinstance(u, jax.Array) else np
    share = 1 / (1 + numpy.exp(-u))
    least = numpy.where(low > 0, low, 1)
    return numpy.where(low > 0, least * (high / least) ** share, low + (high - low) * share)


@functools.partial(jax.jit, static_argnames="seconds")
def _predict(columns: Columns, parameters: Mapping[str, Any], *, seconds: Seconds) -> jax.Array:
    return seconds(columns, parameters)


def _soft_of(
    columns: Columns,
    measured: jax.Array,
    low: jax.Array,
    high: jax.Array,
    u: jax.Array,
    seconds: Any,
    names: Any,
) -> jax.Array:
    """Return sqrt(rho) of every row with the sign of its residual, [R], from u [R, P]."""
    values = _values(u, low, high)
    z = (jnp.log(seconds(columns, dict(zip(names, values.T, strict=True)))) - measured) / SCALE
    # sqrt(rho) with the sign of z, in a form that is smooth at 0.
    return z * jnp.sqrt(2 / (1 + jnp.sqrt(1 + z * z)))


def _with_x64(run: Any) -> Any:
    compiled = jax.jit(run, static_argnames=("seconds", "names"))

    @functools.wraps(run)
    def wrapped(*args: Any, **static: Any) -> Any:
        with jax.enable_x64(True):
            return compiled(*args, **static)

    return wrapped


_soft = _with_x64(_soft_of)


@_with_x64
def _slopes(
    columns: Columns,
    measured: jax.Array,
    low: jax.Array,
    high: jax.Array,
    u: jax.Array,
    *,
    seconds: Any,
    names: Any,
) -> jax.Array:
    """Return the derivative of `_soft` by every parameter of its row, [P, R]."""
    run = functools.partial(_soft_of, columns, measured, low, high, seconds=seconds, names=names)
    each = lambda one: jax.jvp(run, (u,), (jnp.broadcast_to(one, u.shape),))[1]  # noqa: E731
    return jax.vmap(each)(jnp.eye(len(names), dtype=u.dtype))
