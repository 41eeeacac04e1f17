"""What a kernel makes of its roofline legs: tiles, waves, launches, what overlaps and what does not.

    seconds = fixed + S(stretch x memory leg, busy, serial)

S is `smooth.maximum`: the longer leg at serial = 0, both at 1. `fixed` is what nothing hides, `stretch` what a byte
costs over the datasheet's, and `busy` the time of the cores with what tiles waste. With an ideal kernel this is the
roofline: max(bytes / bandwidth, FLOPs / peak).
"""

from typing import Any

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.kernels import MatmulKernel

__all__ = ["Machine", "Pace", "matmul_legs", "matmul_pace", "paced"]

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
class Pace:
    """How a kernel goes through its work."""

    fixed: Scalar = field("s", "what nothing hides", default=0.0)
    stretch: Scalar = field("1", "seconds of a byte over those of the datasheet", default=1.0)
    busy: Scalar = field("s", "time of the cores", default=0.0)
    serial: Scalar = field("1", "how little the two overlap", default=0.0)


def paced(pace: Pace, memory: Scalar) -> Any:
    """Seconds of a kernel whose bytes take `memory` seconds at the datasheet's bandwidth."""
    return pace.fixed + smooth.maximum(pace.stretch * memory, pace.busy, pace.serial)


def matmul_pace(
    machine: Machine,
    kernel: MatmulKernel,
    *,
    rows: Scalar,
    columns: Scalar,
    inner: Scalar,
    activation_bits: Scalar,
    busy: Scalar | None = None,
) -> Pace:
    """Pace a matmul [m, k] x [k, n].

        busy = 2 max(m, rows) n k / (peak matmul) (ceil(x) / x)^waves,   x = ceil(m / 128) ceil(n / 128) / cores
        fixed = launch + depth k + quantise m k (2 + b) / bandwidth

    the last where activations have b <= 1 bytes: they are written as 16 bits before, and read to be narrowed.

    Args:
        machine: the chip.
        kernel: the library's kernel.
        rows: m.
        columns: n.
        inner: k.
        activation_bits: bits of an activation as the matmul takes it.
        busy: time of the cores at the peak, without padding; 2 m n k / peak if absent.
    """
    at_peak = 2 * rows * columns * inner / machine.rate if busy is None else busy
    padded = jnp.maximum(rows, kernel.rows) / rows
    narrow = jnp.where(activation_bits <= 8, (2 + activation_bits / 8) / machine.bandwidth, 0)
    return Pace(
        fixed=kernel.launch + kernel.depth * inner + kernel.quantise * rows * inner * narrow,
        stretch=1 / kernel.memory,
        busy=at_peak * padded * _last_wave(machine, kernel, rows, columns) / kernel.matmul,
        serial=kernel.serial,
    )


def matmul_legs(
    machine: Machine,
    *,
    rows: Scalar,
    columns: Scalar,
    inner: Scalar,
    weight_bits: Scalar,
    activation_bits: Scalar,
) -> Scalar:
    """Seconds of a matmul's bytes at the datasheet's bandwidth; its result has 16 bits."""
    moved = weight_bits * columns * inner + activation_bits * rows * inner + 16 * rows * columns
    return moved / 8 / machine.bandwidth


def _last_wave(machine: Machine, kernel: MatmulKernel, rows: Scalar, columns: Scalar) -> Scalar:
    """Whole rounds of tiles over rounds, to the power that counts; 1 where the cores are not known."""
    tiles = jnp.ceil(rows / _TILE) * jnp.ceil(columns / _TILE)
    rounds = smooth.safe_div(tiles, machine.cores, 1.0)
    return jnp.where(machine.cores > 0, (jnp.ceil(rounds) / rounds) ** kernel.waves, 1)
