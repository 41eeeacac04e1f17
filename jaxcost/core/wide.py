"""Integers beyond 2^31 without 64-bit types, which JAX disables by default.

Symbols: a wide number is int32 [..., 2] = (high, low) with value high x 2^30 + low and 0 <= low < 2^30, for numbers
below 2^61. With two spare bits the sum of two low words fits in 32 bits before the carry.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import Scalar

__all__ = ["BITS", "LIMIT", "add", "less", "plus", "total", "wide", "with_carry"]

BITS = 30
LIMIT = 1 << 2 * BITS + 1
_LOW = (1 << BITS) - 1


def wide(n: int) -> np.ndarray:
    """Split an integer into (high, low), int32 [2].

    Raises:
        ValueError: the number is negative or not below 2^61.
    """
    if not 0 <= n < LIMIT:
        raise ValueError(f"a wide number is at least 0 and below 2^{2 * BITS + 1}, not {n}")
    return np.asarray([n >> BITS, n & _LOW], np.int32)


def with_carry(high: jax.Array, low: jax.Array) -> jax.Array:
    """Combine high and low words, [...] each with 0 <= low < 2^31, to wide numbers [..., 2], with carry."""
    return jnp.stack([high + (low >> BITS), low & _LOW], axis=-1)


def add(words: jax.Array, n: Scalar) -> jax.Array:
    """Add 0 <= n < 2^30, int32 [...], to wide numbers [..., 2]."""
    return with_carry(words[..., 0], words[..., 1] + n)


def plus(a: jax.Array, b: jax.Array) -> jax.Array:
    """Add two arrays of wide numbers [..., 2]."""
    return with_carry(a[..., 0] + b[..., 0], a[..., 1] + b[..., 1])


def less(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return whether a < b, bool [...], for wide numbers [..., 2]."""
    return (a[..., 0] < b[..., 0]) | ((a[..., 0] == b[..., 0]) & (a[..., 1] < b[..., 1]))


def total(words: jax.Array | np.ndarray) -> np.ndarray:
    """Convert wide numbers [..., 2] to int64 [...] on the host."""
    high, low = np.moveaxis(np.asarray(words).astype(np.int64), -1, 0)
    return (high << BITS) + low
