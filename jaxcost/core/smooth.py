"""Operators that are exact at tau = 0 and smooth above it, by one formula each.

Symbols: `tau` is a dimensionless softness between 0 and 1. Every operator is homogeneous in the units of its
arguments (no absolute temperature), finite, and has a finite gradient everywhere, its singular points included.
"""

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar

__all__ = ["ceil_div", "ceil_log2", "maximum", "minimum", "positive", "safe_div", "select_steps"]


def safe_div(numerator: Scalar, denominator: Scalar, otherwise: Scalar = 0.0) -> jax.Array:
    """Divide, giving `otherwise` with zero gradient where the denominator is 0."""
    zero = denominator == 0
    return jnp.where(zero, otherwise, numerator / jnp.where(zero, 1, denominator))


def maximum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Combine two durations that overlap: their maximum at tau = 0, their sum at tau = 1.

    With hi >= lo the two in order:

        m = (a + b + sqrt((a - b)^2 + 4 tau^2 a b)) / 2
          = hi + 2 tau^2 hi lo / (sqrt((hi - lo)^2 + 4 tau^2 hi lo) + hi - lo)

    The second form is the one evaluated: it has no cancellation and is exactly `hi` at tau = 0. Where lo is
    much the shorter, tau^2 of it shows: tau^2 is the share of the hidden leg that is not hidden. At a tie with
    tau = 0 the gradient is shared half and half, as in `jnp.maximum`.
    """
    hi, lo = jnp.maximum(a, b), jnp.minimum(a, b)
    gap = hi - lo
    overlap = tau * tau * hi * lo
    radicand = gap * gap + 4 * overlap
    touching = radicand <= 0  # a tie at tau = 0: the correction is 0 and so must its gradient be
    root = jnp.sqrt(jnp.where(touching, 1, radicand))
    return hi + jnp.where(touching, 0, 2 * overlap / (root + gap))


def minimum(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Choose the smaller of two durations: exact at tau = 0, their harmonic sum ab/(a+b) at tau = 1.

    min(a, b) = a b / max(a, b) with the smooth `maximum`; both must be positive, or both zero.
    """
    return safe_div(jnp.minimum(a, b) * jnp.maximum(a, b), maximum(a, b, tau))


def positive(x: Scalar, tau: Scalar) -> jax.Array:
    """Return max(x, 0), rounded near 0 over a width of about tau for tau > 0: (x + sqrt(x^2 + tau^2)) / 2."""
    radicand = x * x + tau * tau
    flat = radicand <= 0
    return (x + jnp.where(flat, 0, jnp.sqrt(jnp.where(flat, 1, radicand)))) / 2


def ceil_div(a: Scalar, b: Scalar, tau: Scalar) -> jax.Array:
    """Return ceil(a / b) for whole a, b > 0 at tau = 0, and a smooth staircase below it for tau > 0.

    Between the whole numbers n and n + 1 the value is n + s(u / tau), with u the fractional part and
    s(v) = v^2 (3 - 2 v) clipped to [0, 1]: each riser is tau wide. The gradient at tau = 0 is that of a / b
    (straight through), since the true one is 0 almost everywhere.

    `jnp.ceil(a / b)` is off by one in f32 for many exact multiples (XLA multiplies by a rounded 1/b), so the
    quotient is rounded first and then corrected by comparing products.
    """
    ratio = a / b
    whole = jnp.round(ratio)
    floor = whole - (whole * b > a)
    fraction = jnp.clip(a / b - floor, 0, 1)
    exact = floor + (floor * b < a)
    hard = tau <= 0
    v = jnp.clip(fraction / jnp.where(hard, 1, tau), 0, 1)
    soft = jax.lax.stop_gradient(floor) + v * v * (3 - 2 * v)
    through = ratio + jax.lax.stop_gradient(exact - ratio)
    return jnp.where(hard, through, soft)


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
