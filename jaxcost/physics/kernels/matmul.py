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
_SHARPNESS = 4.0  # the cached share falls from 74% to 26% between 0.77 and 1.3 of the cache's capacity
_UNITS = 16.0  # exponentials per cycle and core
_NARROW = 8.5  # bits of an activation up to which it was converted from 16 bits


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

    @property
    def clock(self) -> Any:
        """Return the cycles per second of a core, from its 16 exponentials per cycle; 0 where unknown."""
        return smooth.safe_div(self.exponentials, _UNITS * self.cores)


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
    return 1 / (1 + jnp.minimum(smooth.safe_div(moved, capacity, _FAR), _FAR) ** sharpness)


@pytree
class MatmulWork:
    """A matmul of activations [m, k] with weights [k, n]."""

    rows: Scalar = field("1", "m")
    columns: Scalar = field("1", "n")
    inner: Scalar = field("1", "k")
    weight_bits: Scalar = field("bit", "of a weight")
    activation_bits: Scalar = field("bit", "of an activation as the matmul takes it")
    replayed: Scalar = field(
        "1",
        "copies of the weights that a benchmark alternates, which share the cache; 0 within a model, where none stay",
        default=0.0,
    )


def matmul_bytes(work: MatmulWork) -> Any:
    """Count the bytes that a matmul with 16-bit results must move."""
    return _weights(work) + _activations(work)


def matmul_timing(machine: Machine, kernel: MatmulKernel, work: MatmulWork) -> KernelTiming:
    """Time a matmul [m, k] x [k, n].

        busy     = 2 max(m, rows) n (k + ends) / (peak matmul) (ceil(x) / x)^waves,   x = max(m, rows) n / (128^2 cores)
        fixed    = launch + (depth + steps / clock) k + share (quantise_launch + quantise m k (2 + b) / bandwidth)
        kept     = 1 / (1 + ((copies x weights + activations) / (resident x cache))^4)   in repeated runs, else 0
        overhead = (1 - kept) / memory + kept / max(memory, in_cache)
        in_cache = clock x cores x cache / bandwidth

    `share` applies where activations have b <= 1 bytes: 16-bit ones are read and narrow ones written. It is
    `quantise_share` within a model and 1 in a benchmark, which converts the activations of every matmul.
    """
    m, n, k = work.rows, work.columns, work.inner
    tall = jnp.maximum(m, kernel.rows)
    rounds = smooth.safe_div(tall * n / _TILE**2, machine.cores)
    whole = smooth.safe_div(jnp.ceil(rounds), rounds, 1.0) ** kernel.waves
    passed = m * k * (2 + work.activation_bits / 8) / machine.bandwidth
    alone = where(work.replayed > 0, 1, kernel.quantise_share)
    narrowing = where(
        work.activation_bits <= _NARROW, alone * (kernel.quantise_launch + kernel.quantise * passed), 0
    )
    kept = cached_share(
        work.replayed * _weights(work) + _activations(work), kernel.resident * machine.cache, _SHARPNESS
    )
    kept = where(work.replayed > 0, kept, 0)
    in_cache = machine.clock * machine.cores * kernel.cache / machine.bandwidth
    return KernelTiming(
        fixed=kernel.launch + (kernel.depth + smooth.safe_div(kernel.steps, machine.clock)) * k + narrowing,
        bandwidth_overhead=(1 - kept) / kernel.memory + kept / jnp.maximum(kernel.memory, in_cache),
        busy=2 * tall * n * (k + kernel.ends) * whole / (machine.rate * kernel.matmul),
        serial=kernel.serial,
    )


def _weights(work: MatmulWork) -> Any:
    return work.weight_bits * work.columns * work.inner / 8


def _activations(work: MatmulWork) -> Any:
    """Return the bytes of inputs and of 16-bit results."""
    return work.rows * (work.activation_bits * work.inner + 16 * work.columns) / 8
