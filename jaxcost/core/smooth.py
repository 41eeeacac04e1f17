"""Operators that are exact at tau = 0 and smooth above it, by one formula each.

Symbols: `tau` is a dimensionless softness between 0 and 1. Every operator is homogeneous in the units of its
arguments (no absolute temperature), finite, and has a finite gradient everywhere, its singular points included.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar

__all__ = ["ceil_div", "ceil_log2", "least", "maximum", "minimum", "safe_div", "select_steps"]

_TINY = 1e-30  # seconds, or a ratio: far below any meaning, far above the smallest f32
_LEAST = 1e-18  # seconds: what `least` takes for none, so that its reciprocal's square is finite


def safe_div(numerator: Scalar, denominator: Scalar, otherwise: Scalar = 0.0) -> jax.Array:
    """Divide, giving `otherwise` with zero gradient where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, otherwise, numerator / jnp.where(zero, 1, denominator))


@jax.custom_jvp
def maximum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Combine two durations that overlap: their maximum at tau = 0, their sum at tau = 1.

        m = (a + b + r) / 2,   r = sqrt((a - b)^2 + 4 tau^2 a b)
          = hi + 2 tau^2 a b / (r + hi - lo)

    The second form is the one evaluated: it has no cancellation and is exactly `hi` at tau = 0. Where lo is
    much the shorter, tau^2 of it shows: tau^2 is the share of the hidden leg that is not hidden. At a tie with
    tau = 0 the gradient is shared half and half, as in `jnp.maximum`.
    """
    return _maximum(a, b, tau)[0]


def _maximum(a: Scalar, b: Scalar, tau: Scalar) -> tuple[jax.Array, jax.Array]:
    gap = jnp.abs(a - b)
    overlap = 2 * (tau * tau) * (a * b)
    root = jnp.sqrt(gap * gap + 2 * overlap)
    return jnp.maximum(a, b) + overlap / (root + gap + _TINY), root + _TINY


@maximum.defjvp
def _maximum_jvp(primals, tangents):
    # Written out, so that the backward pass is two products and no branch: dm/da = (1 + (a - b + 2 tau^2 b)/r)/2.
    a, b, tau = primals
    da, db, dtau = tangents
    value, root = _maximum(a, b, tau)
    lean = (a - b) / root
    shared = 2 * (tau * tau) / root
    slope_a = 0.5 * (1 + lean + shared * b)
    slope_b = 0.5 * (1 - lean + shared * a)
    return value, slope_a * da + slope_b * db + (2 * tau * a * b / root) * dtau


def minimum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Choose the smaller of two durations: exact at tau = 0, their harmonic sum ab/(a+b) at tau = 1.

    min(a, b) = a b / max(a, b) with the smooth `maximum`; both must be positive, or both zero.
    """
    return safe_div(jnp.minimum(a, b) * jnp.maximum(a, b), maximum(a, b, tau))


def least(values: Sequence[Scalar], tau: Scalar) -> Scalar:
    """Choose the smallest of several durations: exact at tau = 0, at most a share of about tau below it otherwise.

        u_k = T_k H with H = sum of 1 / T_k;  m = u_1,  m <- min(m, u_k) - max(4 tau - |m - u_k|, 0)^2 / (16 tau);
        the result is m / H

    Only options within about 4 tau of the smallest are mixed. The last division is there for the compiler too: it
    never computes one twice, so that what is before it is computed once however often the result is used.
    """
    return _least(list(values), jnp.asarray(tau))


@jax.custom_jvp
def _least(values: list[Scalar], tau: Scalar) -> Scalar:
    return least_stages(values, tau)[0]


def least_stages(values: Sequence[Scalar], tau: Scalar) -> tuple[Scalar, list[Scalar], Scalar]:
    """Return what `least` does, its slope in each of the values, and its slope in tau."""
    # Choices, not maxima, which carry NaN with three instructions in place of one: no gradient passes here.
    positive = [jnp.where(x < _LEAST, _LEAST, jnp.where(x > 1 / _LEAST, 1 / _LEAST, x)) for x in values]
    total = _sum_of_inverses(positive)
    width = 4 * tau
    sharpness = 1 / (4 * width + _TINY)
    found, leans, spreads = positive[0] * total, [], []
    for value in positive[1:]:
        gap = found - value * total
        near = width - jnp.abs(gap)
        near = jnp.where(near > 0, near, 0)
        mixed = 2 * near * sharpness
        # Slope in what was found so far; the rest of 1 is the slope in the new value.
        leans.append(0.5 + jnp.sign(gap) * (mixed - 0.5))
        spreads.append(4 * mixed * (mixed - 1))
        found = jnp.where(value * total < found, value * total, found) - sharpness * (near * near)
    rest, slopes, in_tau = 1.0, [], 0.0
    for lean, spread in zip(reversed(leans), reversed(spreads), strict=True):
        in_tau = in_tau + rest * spread
        slopes.append(rest * (1 - lean))
        rest = rest * lean
    slopes.append(rest)
    slopes.reverse()
    value = jnp.where(total * _LEAST < 0.5, found / total, 0)
    weighed = sum(w * x for w, x in zip(slopes, positive, strict=True))
    excess = (weighed - value) / total
    return value, [w - excess / (x * x) for w, x in zip(slopes, positive, strict=True)], in_tau / total


def _sum_of_inverses(values: Sequence[Scalar]) -> Scalar:
    """Add up 1 / x, two at a time: (a + b) / (a b) is one division in place of two."""
    pairs = zip(values[::2], values[1::2], strict=False)
    return sum((a + b) / (a * b) for a, b in pairs) + sum(1 / x for x in values[len(values) // 2 * 2 :])


@_least.defjvp
def _least_jvp(primals, tangents):
    (values, tau), (changes, dtau) = primals, tangents
    found, slopes, in_tau = least_stages(values, tau)
    return found, sum(slope * change for slope, change in zip(slopes, changes, strict=True)) + in_tau * dtau


@jax.custom_jvp
def ceil_div(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Return ceil(a / b) for whole a, b > 0 at tau = 0, and a smooth staircase below it for tau > 0.

    Between the whole numbers n and n + 1 the value is n + s(u / tau), with u the fractional part of a / b and
    s(v) = v^2 (3 - 2 v) clipped to [0, 1]: each riser is tau wide. The gradient at tau = 0 is that of a / b
    (straight through), since the true one is 0 almost everywhere.

    `jnp.ceil(a / b)` is off by one in f32 for many exact multiples (XLA multiplies by a rounded 1/b), so the
    quotient is rounded first and the remainder taken from the product, which is exact for whole numbers.
    """
    floor, v = _stair(a, b, tau)
    return floor + v * v * (3 - 2 * v)


def _stair(a: Scalar, b: Scalar, tau: Scalar) -> tuple[jax.Array, jax.Array]:
    nearest = jnp.round(a / b)
    floor = jnp.where(nearest * b > a, nearest - 1, nearest)
    return floor, jnp.clip((a - floor * b) / (b * tau + _TINY), 0, 1)


@ceil_div.defjvp
def _ceil_div_jvp(primals, tangents):
    a, b, tau = primals
    da, db, dtau = tangents
    floor, v = _stair(a, b, tau)
    hard = tau <= 0
    safe_tau = jnp.where(hard, 1, tau)
    riser = 6 * v * (1 - v)
    slope = jnp.where(hard, 1, riser / safe_tau)
    value = floor + v * v * (3 - 2 * v)
    change = slope * (da - a / b * db) / b - jnp.where(hard, 0, riser * v / safe_tau) * dtau
    return value, change


def ceil_log2(n: Scalar) -> jax.Array:
    """Return ceil(log2 n) for n >= 1, with the gradient of log2 n; exact for powers of two in f32."""
    bits = jnp.log2(n)
    return bits + jax.lax.stop_gradient(jnp.ceil(bits * (1 - 1e-6)) - bits)


def select_steps(x: Scalar, bounds: tuple[float, ...], values: tuple[Scalar, ...]) -> jax.Array:
    """Pick values[i] for the first bound with x < bounds[i], else the last: a lookup by thresholds.

    The gradient flows into the chosen value only.
    """
    chosen = jnp.asarray(values[-1])
    for bound, value in zip(reversed(bounds), reversed(values[:-1]), strict=True):
        chosen = jnp.where(x < bound, value, chosen)
    return chosen
