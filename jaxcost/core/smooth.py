"""Operators that are exact at tau = 0 and smooth above, by one formula each.

Symbols: `tau` is a dimensionless softness between 0 and 1. Every operator is homogeneous in the units of its arguments
and finite, with a finite gradient everywhere, singular points included.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcost.core import arrays
from jaxcost.core.pytree import Scalar

__all__ = [
    "ceil_div",
    "ceil_log2",
    "is_exact",
    "least",
    "least_slopes",
    "maximum",
    "minimum",
    "safe_div",
    "select_steps",
]

_TINY = 1e-30  # seconds, or a ratio: far below any relevant value and above the smallest float32
_LEAST = 1e-12  # seconds that `least` takes for 0; at 1e-15 compiled derivatives in float32 were not finite


def safe_div(numerator: Scalar, denominator: Scalar, otherwise: Scalar = 0.0) -> jax.Array:
    """Divide; `otherwise`, with zero gradient, where the denominator is 0."""
    zero = denominator == 0
    return arrays.where(zero, otherwise, numerator / arrays.where(zero, 1, denominator))


def is_exact(tau: Scalar) -> bool:
    """Return whether a softness is the Python number 0, so that only the exact form is traced."""
    return isinstance(tau, float | int) and tau == 0


def maximum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Combine two durations that overlap: their maximum at tau = 0, their sum at tau = 1.

        m = (a + b + r) / 2,   r = sqrt((a - b)^2 + 4 tau^2 a b)
          = hi + 2 tau^2 a b / (r + hi - lo)

    The second form is evaluated: it has no cancellation and is exactly `hi` at tau = 0. For lo much shorter than hi the
    result is hi + tau^2 lo, so tau^2 is the share of the shorter duration that does not overlap. At a tie with tau = 0
    both gradients are 1/2, as in `jnp.maximum`.
    """
    return jnp.maximum(a, b) if is_exact(tau) else _smooth_maximum(a, b, tau)


@jax.custom_jvp
def _smooth_maximum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    return _maximum(a, b, tau)[0]


def _maximum(a: Scalar, b: Scalar, tau: Scalar) -> tuple[jax.Array, jax.Array]:
    gap = jnp.abs(a - b)
    overlap = 2 * (tau * tau) * (a * b)
    root = jnp.sqrt(gap * gap + 2 * overlap)
    return jnp.maximum(a, b) + overlap / (root + gap + _TINY), root + _TINY


@_smooth_maximum.defjvp
def _maximum_jvp(primals, tangents):
    # Written out, so that the reverse pass is two products without a branch: dm/da = (1 + (a - b + 2 tau^2 b)/r)/2.
    a, b, tau = primals
    da, db, dtau = tangents
    value, root = _maximum(a, b, tau)
    lean = (a - b) / root
    shared = 2 * (tau * tau) / root
    slope_a = 0.5 * (1 + lean + shared * b)
    slope_b = 0.5 * (1 - lean + shared * a)
    return value, slope_a * da + slope_b * db + (2 * tau * a * b / root) * dtau


def minimum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Return the smaller of two durations: exact at tau = 0, their harmonic sum ab/(a+b) at tau = 1.

    min(a, b) = a b / max(a, b) with the smooth `maximum`; both must be positive, or both zero.
    """
    if is_exact(tau):
        return jnp.minimum(a, b)
    return safe_div(jnp.minimum(a, b) * jnp.maximum(a, b), maximum(a, b, tau))


def least(values: Sequence[Scalar], tau: Scalar) -> jax.Array:
    """Return the smallest of several durations: exact at tau = 0, else lower by at most a share of about tau.

        u_k = T_k H with H = sum of 1 / T_k;  m = u_1,  m <- min(m, u_k) - max(4 tau - |m - u_k|, 0)^2 / (16 tau);
        the result is m / H

    Only options within about 4 tau of the smallest are mixed.
    """
    if is_exact(tau):
        return jnp.asarray(functools.reduce(jnp.minimum, values))
    return _smooth_least(list(values), jnp.asarray(tau))


@jax.custom_jvp
def _smooth_least(values: list[Scalar], tau: Scalar) -> jax.Array:
    return _mix(values, tau).value


class _Mixture(NamedTuple):
    value: jax.Array  # the result
    positive: Sequence[Scalar]  # the options, bounded
    total: Scalar  # H
    gaps: list[Scalar]  # m - u_k of every mixture
    nears: list[Scalar]  # max(4 tau - |m - u_k|, 0)
    sharpness: Scalar  # 1 / (16 tau)


def _mix(values: Sequence[Scalar], tau: Scalar) -> _Mixture:
    positive = [arrays.clip(x, _LEAST, 1 / _LEAST) for x in values]
    total = _sum_of_inverses(positive)
    width = 4 * tau
    sharpness = 1 / (4 * width + _TINY)
    smallest, gaps, nears = positive[0] * total, [], []
    for value in positive[1:]:
        scaled = value * total
        gaps.append(smallest - scaled)
        nears.append(jnp.maximum(width - jnp.abs(gaps[-1]), 0))
        smallest = jnp.minimum(scaled, smallest) - sharpness * (nears[-1] * nears[-1])
    value = arrays.where(total * _LEAST < 0.5, smallest / total, 0)
    return _Mixture(value, positive, total, gaps, nears, sharpness)


def least_slopes(values: Sequence[Scalar], tau: Scalar) -> tuple[jax.Array, list[Scalar], Scalar]:
    """Return the value of `least`, its derivatives with respect to the values, and that with respect to tau."""
    mix = _mix(values, tau)
    rest, slopes, in_tau = 1.0, [], 0.0
    for gap, near in zip(reversed(mix.gaps), reversed(mix.nears), strict=True):
        mixed = 2 * near * mix.sharpness
        # Derivative with respect to the previous mixture; the remainder to 1 is that with respect to the new value.
        before = 0.5 + jnp.sign(gap) * (mixed - 0.5)
        in_tau = in_tau + rest * (4 * mixed * (mixed - 1))
        slopes.append(rest * (1 - before))
        rest = rest * before
    slopes.append(rest)
    slopes.reverse()
    weighed = arrays.total(w * x for w, x in zip(slopes, mix.positive, strict=True))
    excess = (weighed - mix.value) / mix.total
    slopes = [w - excess / (x * x) for w, x in zip(slopes, mix.positive, strict=True)]
    return mix.value, slopes, in_tau / mix.total


def _sum_of_inverses(values: Sequence[Scalar]) -> Scalar:
    """Sum 1 / x in pairs: (a + b) / (a b) takes one division instead of two."""
    pairs = zip(values[::2], values[1::2], strict=False)
    odd = values[len(values) // 2 * 2 :]
    return arrays.total([*((a + b) / (a * b) for a, b in pairs), *(1 / x for x in odd)])


@_smooth_least.defjvp
def _smooth_least_jvp(primals, tangents):
    (values, tau), (changes, dtau) = primals, tangents
    value, slopes, in_tau = least_slopes(values, tau)
    change = arrays.total(slope * change for slope, change in zip(slopes, changes, strict=True))
    return value, change + in_tau * dtau


def ceil_div(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Return ceil(a / b) for whole a, b > 0 at tau = 0, and a smooth staircase below it for tau > 0.

    Between the whole numbers n and n + 1 the value is n + s(u / tau), with u the fractional part of a / b and
    s(v) = v^2 (3 - 2 v) clipped to [0, 1]: each riser is tau wide. The gradient at tau = 0 is that of a / b
    (straight through), since the true one is 0 almost everywhere.

    `jnp.ceil(a / b)` is off by one in f32 for many exact multiples (XLA multiplies by a rounded 1/b), so the
    quotient is rounded first and the remainder taken from the product, which is exact for whole numbers.
    """
    return _ceil_div(a, b) if is_exact(tau) else _smooth_ceil_div(a, b, tau)


@jax.custom_jvp
def _ceil_div(a: Scalar, b: Scalar) -> jax.Array:
    nearest = arrays.round_(a / b)
    return arrays.where(nearest * b < a, nearest + 1, nearest)


@_ceil_div.defjvp
def _ceil_div_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    return _ceil_div(a, b), (da - a / b * db) / b


@jax.custom_jvp
def _smooth_ceil_div(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    floor, v = _stair(a, b, tau)
    return floor + v * v * (3 - 2 * v)


def _stair(a: Scalar, b: Scalar, tau: Scalar) -> tuple[jax.Array, jax.Array]:
    nearest = arrays.round_(a / b)
    floor = arrays.where(nearest * b > a, nearest - 1, nearest)
    return floor, arrays.clip((a - floor * b) / (b * tau + _TINY), 0, 1)


@_smooth_ceil_div.defjvp
def _smooth_ceil_div_jvp(primals, tangents):
    a, b, tau = primals
    da, db, dtau = tangents
    floor, v = _stair(a, b, tau)
    hard = tau <= 0
    safe_tau = arrays.where(hard, 1, tau)
    riser = 6 * v * (1 - v)
    slope = arrays.where(hard, 1, riser / safe_tau)
    value = floor + v * v * (3 - 2 * v)
    change = slope * (da - a / b * db) / b - arrays.where(hard, 0, riser * v / safe_tau) * dtau
    return value, change


def ceil_log2(n: Scalar) -> jax.Array:
    """Return ceil(log2 n) for n >= 1, with the gradient of log2 n; exact for powers of two in f32."""
    bits = jnp.log2(n)
    return bits + lax.stop_gradient(jnp.ceil(bits * (1 - 1e-6)) - bits)


def select_steps(x: Scalar, bounds: tuple[float, ...], values: tuple[Scalar, ...]) -> jax.Array:
    """Return values[i] for the first i with x < bounds[i], else the last value: a lookup by thresholds.

    The gradient flows into the selected value only.
    """
    chosen = jnp.asarray(values[-1])
    for bound, value in zip(reversed(bounds), reversed(values[:-1]), strict=True):
        chosen = arrays.where(x < bound, value, chosen)
    return chosen
