"""The time of a kernel from its roofline legs, and the timing of matmul kernels: launch, tiles, waves and overlap.

    seconds = fixed + S(bandwidth_overhead x memory leg, busy, serial)

S is `smooth.maximum`: the longer leg at serial = 0, their sum at 1. `fixed` is time that nothing hides,
`bandwidth_overhead` the time of a byte over that of the datasheet, and `busy` the time of the cores, padding of tiles
included. With an ideal kernel this is the roofline: max(bytes / bandwidth, FLOPs / peak).
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
    "cached_share",
    "matmul_bytes",
    "matmul_timing",
    "timing_seconds",
]

_FAR = 1e3  # bytes over capacity at which a cache keeps nothing, whose power float32 can still represent
_TILE = 128.0  # rows and columns of the tile by which waves are counted


@pytree
class Machine:
    """The datasheet numbers of a chip that kernels depend on."""

    rate: Scalar = field("FLOP/s", "matmul peak at the precision of the kernel's operands")
    bandwidth: Scalar = field("B/s", "bandwidth of main memory")
    cores: Scalar = field(
        "1", "cores that take tiles; 0 where unknown: waves are then not counted", default=0.0
    )
    cache: Scalar = field("B", "capacity of the last-level cache", default=0.0)
    exponentials: Scalar = field("1/s", "exponentials per second", default=0.0)


@pytree
class KernelTiming:
    """The components of a kernel's time."""

    fixed: Scalar = field("s", "time that nothing hides", default=0.0)
    bandwidth_overhead: Scalar = field("1", "time of a byte over that of the datasheet", default=1.0)
    busy: Scalar = field("s", "time of the cores", default=0.0)
    serial: Scalar = field("1", "0 where memory and cores overlap fully, 1 where not at all", default=0.0)


def timing_seconds(timing: KernelTiming, memory: Scalar) -> Any:
    """Return the seconds of a kernel whose bytes take `memory` seconds at the datasheet's bandwidth."""
    return timing.fixed + smooth.maximum(timing.bandwidth_overhead * memory, timing.busy, timing.serial)


def cached_share(moved: Scalar, capacity: Scalar, sharpness: float) -> Any:
    """Return the share of bytes that a cache keeps from the previous run: 1 / (1 + (bytes / capacity)^sharpness)."""
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
    """Count the bytes that a matmul with 16-bit results must move."""
    m, n, k = work.rows, work.columns, work.inner
    return (work.weight_bits * n * k + work.activation_bits * m * k + 16 * m * n) / 8


def matmul_timing(machine: Machine, kernel: MatmulKernel, work: MatmulWork) -> KernelTiming:
    """Time a matmul [m, k] x [k, n].

        busy = 2 max(m, rows) n k / (peak matmul) (ceil(x) / x)^waves,   x = max(m, rows) n / (128^2 cores)
        fixed = launch + depth k + quantise m k (2 + b) / bandwidth

    The last term applies where activations have b <= 1 bytes: 16-bit activations are read and quantized ones written.
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
