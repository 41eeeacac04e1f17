"""What a kernel makes of its roofline legs: tiles, waves, launches, what overlaps and what does not.

    seconds = fixed + S(bandwidth_overhead x memory leg, busy, serial)

S is `smooth.maximum`: the longer leg at serial = 0, both at 1. `fixed` is what nothing hides, `bandwidth_overhead` what
a byte costs over the datasheet's, and `busy` the time of the cores with what tiles waste. With an ideal kernel this is
the roofline: max(bytes / bandwidth, FLOPs / peak).
"""

from typing import Any

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.kernels import MatmulKernel

__all__ = [
    "KernelTiming",
    "Machine",
    "MatmulWork",
    "matmul_bytes",
    "matmul_timing",
    "shares_of_cache",
    "timing_seconds",
]

_FAR = 1e3  # capacities beyond which nothing is held, and a power of which 32 bits still hold
_TILE = 128.0  # rows and columns of a large tile, by which waves are counted


@pytree
class Machine:
    """What of a chip's datasheet a kernel meets."""

    rate: Scalar = field("FLOP/s", "matmul peak at the kernel's operands")
    bandwidth: Scalar = field("B/s", "main memory")
    cores: Scalar = field("1", "cores that take tiles; 0 where not known: none are counted", default=0.0)
    cache: Scalar = field("B", "last-level cache", default=0.0)
    exponentials: Scalar = field("1/s", "exponentials", default=0.0)


@pytree
class KernelTiming:
    """How a kernel goes through its work."""

    fixed: Scalar = field("s", "what nothing hides", default=0.0)
    bandwidth_overhead: Scalar = field("1", "seconds of a byte over those of the datasheet", default=1.0)
    busy: Scalar = field("s", "time of the cores", default=0.0)
    serial: Scalar = field("1", "how little the two overlap", default=0.0)


def timing_seconds(timing: KernelTiming, memory: Scalar) -> Any:
    """Seconds of a kernel whose bytes take `memory` seconds at the datasheet's bandwidth."""
    return timing.fixed + smooth.maximum(timing.bandwidth_overhead * memory, timing.busy, timing.serial)


def shares_of_cache(moved: Scalar, capacity: Scalar, sharpness: float) -> Any:
    """Share of the bytes that a cache still holds from the run before: 1 / (1 + (bytes / capacity)^sharpness)."""
    return 1 / (1 + jnp.minimum(moved / capacity, _FAR) ** sharpness)


@pytree
class MatmulWork:
    """A matmul of activations [m, k] with weights [k, n]."""

    rows: Scalar = field("1", "m")
    columns: Scalar = field("1", "n")
    inner: Scalar = field("1", "k")
    weight_bits: Scalar = field("bit", "of a weight")
    activation_bits: Scalar = field("bit", "of an activation as the matmul takes it")


def matmul_bytes(work: MatmulWork) -> Any:
    """Count the bytes of a matmul whose result has 16 bits."""
    m, n, k = work.rows, work.columns, work.inner
    return (work.weight_bits * n * k + work.activation_bits * m * k + 16 * m * n) / 8


def matmul_timing(machine: Machine, kernel: MatmulKernel, work: MatmulWork) -> KernelTiming:
    """Time a matmul [m, k] x [k, n].

        busy = 2 max(m, rows) n k / (peak matmul) (ceil(x) / x)^waves,   x = max(m, rows) n / (128^2 cores)
        fixed = launch + depth k + quantise m k (2 + b) / bandwidth

    the last where activations have b <= 1 bytes: they are written as 16 bits before, and read to be narrowed.
    """
    m, n, k = work.rows, work.columns, work.inner
    tall = jnp.maximum(m, kernel.rows)
    rounds = smooth.safe_div(tall * n / _TILE**2, machine.cores)
    whole = smooth.safe_div(jnp.ceil(rounds), rounds, 1.0) ** kernel.waves
    narrowed = where(work.activation_bits <= 8, (2 + work.activation_bits / 8) / machine.bandwidth, 0)
    return KernelTiming(
        fixed=kernel.launch + kernel.depth * k + kernel.quantise * m * k * narrowed,
        bandwidth_overhead=1 / kernel.memory,
        busy=2 * tall * n * k * whole / (machine.rate * kernel.matmul),
        serial=kernel.serial,
    )
