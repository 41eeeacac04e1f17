"""Points of the unit cube by their index, generated on the device: Sobol', Latin hypercube and random.

A coordinate u is stored as the whole number n = u 2^24, which 32-bit floats represent exactly. All that is computed
from it are table look-ups and single roundings, so every machine generates the same point, bit for bit.

Symbols: i is the index of a point among `count`, d the number of dimensions, n_k the coordinate along dimension k. The
index is a scalar, which gives coordinates [d], or an array [n], which gives [d, n].
"""

import functools
import math
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core.pytree import field, pytree

__all__ = [
    "MAX_POINTS",
    "SAMPLING_METHODS",
    "Latin",
    "Random",
    "Sampler",
    "Sobol",
    "pick",
    "sampler",
    "to_unit",
]

SAMPLING_METHODS = ("sobol", "latin", "random")
MAX_POINTS = 1 << 30
_BITS = 24  # of a coordinate
_SOBOL_BITS = 30
_BYTE = 256  # values of one byte of an index
_ROUNDS = 6  # of the Feistel network


@pytree
class Random:
    """Independent points: the coordinate k of point i is a hash of (seed, k, i)."""

    keys: jax.Array = field("1", "uint32, shape [2, d]")

    def point(self, index: jax.Array) -> jax.Array:
        """Return the coordinates of points, int32 [d, *index] in [0, 2^24)."""
        index = jnp.asarray(index).astype(jnp.uint32)
        return _as_coordinate(_hash(index, _expand_dims(self.keys, index)))


@pytree
class Latin:
    """A Latin hypercube: along every dimension, each of `count` equal strata contains one point.

        n_k = strata begin at ceil(p 2^24 / count),   p = permutation_k(i)

    The coordinate within a stratum is a hash. Up to 2^24 points every stratum has a coordinate of its own; beyond,
    strata share coordinates evenly. The permutation is a Feistel network over Z_a x Z_b with a b just above `count`,
    iterated until the result is below `count` (Black & Rogaway 2002, "Ciphers with arbitrary finite domains",
    doi 10.1007/3-540-45760-7_9), so it needs no memory.
    """

    keys: jax.Array = field(
        "1", "uint32, shape [2 + rounds, d]: keys of the hash within a stratum, and of the rounds"
    )
    count: int = field(doc="number of points", static=True)

    def point(self, index: jax.Array) -> jax.Array:
        """Return the coordinates of points, int32 [d, *index] in [0, 2^24)."""
        index = jnp.asarray(index).astype(jnp.uint32)
        stratum = self.permuted(index)
        low = _scaled(stratum, self.count)
        if self.count > 1 << _BITS:
            return low[0].astype(jnp.int32)
        begin = _ceiling(*low)
        width = _ceiling(*_scaled(stratum + 1, self.count)) - begin
        within = to_unit(_as_coordinate(_hash(index, _expand_dims(self.keys[:2], index)))) * width.astype(
            jnp.float32
        )
        return (begin + jnp.minimum(within.astype(jnp.uint32), width - 1)).astype(jnp.int32)

    def permuted(self, index: jax.Array) -> jax.Array:
        """Return the stratum of points along every dimension, uint32 [d, *index]."""
        a, b = _sides(self.count)
        index = jnp.asarray(index).astype(jnp.uint32)
        keys = _expand_dims(self.keys, index)

        def permute(x: jax.Array) -> jax.Array:
            left, right = x // np.uint32(b), x % np.uint32(b)
            for i, key in enumerate(keys[2:]):
                if i % 2:
                    right = (right + _mix(left ^ key) % np.uint32(b)) % np.uint32(b)
                else:
                    left = (left + _mix(right ^ key) % np.uint32(a)) % np.uint32(a)
            return left * np.uint32(b) + right

        start = permute(jnp.broadcast_to(index, keys.shape[1:2] + index.shape))
        is_outside = lambda x: x >= np.uint32(self.count)  # noqa: E731
        return jax.lax.while_loop(
            lambda x: jnp.any(is_outside(x)), lambda x: jnp.where(is_outside(x), permute(x), x), start
        )


@pytree
class Sobol:
    """A scrambled Sobol' sequence: a digital shift XOR the direction numbers selected by the bits of i.

        x_i = shift XOR v_j over the bits j of gray(i) = i XOR (i >> 1)

    Both XORs are linear in the bits of i, so one table for each byte of i gives its contribution. Direction numbers
    are those of `scipy.stats.qmc.Sobol` (Joe & Kuo 2008), with its linear matrix scramble and shift.
    """

    tables: jax.Array = field("1", "uint32, shape [bytes, 256, d]: contribution of each byte, 30 bits")
    shift: jax.Array = field("1", "uint32, shape [d]: the digital shift, which is point 0")

    def bits(self, index: jax.Array) -> jax.Array:
        """Return the points of SciPy's sequence, uint32 [d, *index], in units of 2^-30."""
        index = jnp.asarray(index).astype(jnp.uint32)
        out = _expand_dims(self.shift, index)
        for i in range(self.tables.shape[0]):
            out = out ^ self.tables[i].T[:, (index >> (8 * i)) & (_BYTE - 1)]
        return out

    def point(self, index: jax.Array) -> jax.Array:
        """Return the coordinates of points, int32 [d, *index] in [0, 2^24)."""
        return (self.bits(index) >> (_SOBOL_BITS - _BITS)).astype(jnp.int32)


Sampler: TypeAlias = Sobol | Latin | Random


def sampler(method: str, dimensions: int, count: int, seed: int = 0) -> Sampler:
    """Build the sampler of one method.

    Args:
        method: "sobol", "latin" or "random".
        dimensions: number of coordinates of a point.
        count: number of points, at most 2^30.
        seed: seed of the points, from 0 to 2^32 - 1.

    Raises:
        ValueError: no such method, or a number out of its range.
    """
    if method not in SAMPLING_METHODS:
        raise ValueError(f"no sampling method {method!r}; expected one of {', '.join(SAMPLING_METHODS)}")
    if not 1 <= count <= MAX_POINTS:
        raise ValueError(f"a sample has 1 to 2^30 points; got {count}")
    if dimensions < 1 or not 0 <= seed < 1 << 32:
        raise ValueError(
            f"a sample needs at least 1 dimension and a seed in [0, 2^32); got {dimensions} and {seed}"
        )
    if method == "sobol":
        tables, shift = _sobol_tables(dimensions, max((count - 1).bit_length(), 1), seed)
        return Sobol(tables=jnp.asarray(tables), shift=jnp.asarray(shift))
    rows = 2 if method == "random" else 2 + _ROUNDS
    keys = jnp.asarray(_keys(seed, rows * dimensions).reshape(rows, dimensions))
    return Random(keys=keys) if method == "random" else Latin(keys=keys, count=count)


def to_unit(coordinate: Any) -> Any:
    """Convert coordinates n to u = n 2^-24 in [0, 1), exactly, as 32-bit floats; JAX or NumPy arrays."""
    return coordinate.astype(np.float32) * np.float32(2.0**-_BITS)


def pick(coordinate: Any, count: int) -> Any:
    """Convert coordinates to one of `count` equally likely indices: floor(u count); JAX or NumPy arrays."""
    return (to_unit(coordinate) * np.float32(count)).astype(np.int32).clip(0, count - 1)


def _expand_dims(table: jax.Array, index: jax.Array) -> jax.Array:
    """Append one axis of length 1 to a table for every axis of `index`, so that the two broadcast."""
    return table.reshape(table.shape + (1,) * index.ndim)


def _mix(x: Any) -> Any:
    """Mix 32 bits by a bijection: "lowbias32" of C. Wellons, Hash Prospector (public domain)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _hash(index: jax.Array, keys: jax.Array) -> jax.Array:
    return _mix(_mix(index ^ keys[0]) + keys[1])


def _as_coordinate(bits: jax.Array) -> jax.Array:
    return (bits >> (32 - _BITS)).astype(jnp.int32)


def _keys(seed: int, count: int) -> np.ndarray:
    seed_bits = _mix(np.asarray([seed], np.uint32))
    return _mix(_mix(np.arange(1, count + 1, dtype=np.uint32)) ^ seed_bits)


def _sides(count: int) -> tuple[int, int]:
    a = math.isqrt(count - 1) + 1
    return a, -(-count // a)


def _scaled(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Return quotient and remainder of x 2^24 / `count`, by long division in 32-bit integers."""
    step = 32 - count.bit_length()
    quotient, rest, left = x // np.uint32(count), x % np.uint32(count), _BITS
    while left:
        bits = min(step, left)
        rest = rest << bits
        quotient = (quotient << bits) + rest // np.uint32(count)
        rest, left = rest % np.uint32(count), left - bits
    return quotient, rest


def _ceiling(quotient: jax.Array, rest: jax.Array) -> jax.Array:
    return quotient + (rest > 0).astype(quotient.dtype)


@functools.lru_cache(maxsize=16)
def _sobol_tables(dimensions: int, bits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import qmc  # imported here for it takes a second

    engine = qmc.Sobol(dimensions, scramble=True, bits=_SOBOL_BITS, rng=seed)
    following = lambda: (engine.random(1)[0] * 2**_SOBOL_BITS).astype(np.uint32)  # noqa: E731
    shift, moves = following(), []  # the move of bit k: point 2^k XOR point 0
    for k in range(bits):
        engine.fast_forward((1 << k) - engine.num_generated)
        moves.append(following() ^ shift)
    tables = np.zeros((-(-bits // 8), _BYTE, dimensions), np.uint32)
    for k, move in enumerate(moves):
        table, bit = tables[k // 8], 1 << (k % 8)
        table[bit : 2 * bit] = table[:bit] ^ move
    return tables, shift
