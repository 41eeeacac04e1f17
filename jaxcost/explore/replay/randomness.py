"""Random numbers that are a pure function of (seed, request, token), equal in NumPy and in JAX."""

from typing import Any

import numpy as np

# Multipliers of the 32-bit finaliser "lowbias32" (C. Wellons, hash-prospector, 2018; exact avalanche bias 0.17).
_FIRST_MULTIPLIER = 0x7FEB352D
_SECOND_MULTIPLIER = 0x846CA68B
# 2^32 over the golden ratio: sets the words that follow one another apart, and keeps hash(0, 0, 0) off zero.
_INCREMENT = 0x9E3779B9


def _convert_to_words(value: Any, xp: Any) -> Any:
    """Return `value` modulo 2^32 as uint32 of the array module `xp`."""
    if isinstance(value, int):
        return xp.uint32(value & 0xFFFFFFFF)
    return xp.asarray(value).astype(xp.uint32)


def _mix_bits(word: Any, xp: Any) -> Any:
    """Return the lowbias32 hash of uint32 words, a bijection of the 32-bit integers."""
    word = (word ^ (word >> xp.uint32(16))) * xp.uint32(_FIRST_MULTIPLIER)
    word = (word ^ (word >> xp.uint32(15))) * xp.uint32(_SECOND_MULTIPLIER)
    return word ^ (word >> xp.uint32(16))


def uniform(seed: Any, index: Any, emitted: Any, *, xp: Any = np) -> Any:
    """Return uniform numbers in [0, 1), one for each (seed, request index, tokens emitted).

    u = floor(hash / 2^8) / 2^24, with hash a 32-bit integer hash of the three words; u is exact in float32.

    Args:
      seed: integer or integer array; taken modulo 2^32.
      index: index of the request; integer or integer array.
      emitted: tokens that the request has emitted; integer or integer array.
      xp: array module, `numpy` or `jax.numpy`. Both return the same numbers.

    Returns:
      float32 array of the shape to which the three arguments broadcast.
    """
    # NumPy warns of the overflow of scalars, which wrap as arrays do.
    with np.errstate(over="ignore"):
        word = xp.uint32(0)
        for value in (seed, index, emitted):
            word = _mix_bits((word ^ _convert_to_words(value, xp)) + xp.uint32(_INCREMENT), xp)
        return (word >> xp.uint32(8)).astype(xp.float32) * xp.float32(2.0**-24)
