"""Memory tiers beside main memory: which there are, how fast each streams, and what a byte of a class costs.

Symbols: f_t the share of a class of data that lies in tier t, B_t its bandwidth, L_t its latency, e_t its energy a
byte. Tiers that a chip surely lacks are left out while tracing, so that a chip with main memory alone costs nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.fence import once
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.physics.ops import absent, add
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import TIERS, Memory

__all__ = [
    "BESIDE",
    "Shares",
    "Stream",
    "TierCost",
    "both",
    "features",
    "largest",
    "main_share",
    "main_stream",
    "prefetch_buffer",
    "read_seconds",
    "stream",
    "surely",
    "tier_costs",
    "usable_chip",
    "write_energy",
    "write_seconds",
]

BESIDE = tuple(name for name in TIERS if name != "memory")
Shares = dict[str, Scalar]  # by tier beside main memory, of those present


def features(chip: Chip) -> tuple[str, ...]:
    """Name what a chip has beyond main memory: tiers, engines near memory, stacking, cooling, cap, memory in use.

    A number that is traced counts as there: only what is known to be absent is left out.
    """
    near = {f"{name}.near": getattr(chip, name).near.bandwidth for name in TIERS}
    stacking = chip.stacking
    there = {
        **{name: not surely(getattr(chip, name).capacity, 0) for name in BESIDE},
        **{name: not surely(bandwidth, 0) for name, bandwidth in near.items()},
        "stacking": not (
            surely(stacking.bond_density, 0) and surely(stacking.bond_yield, 1) and surely(stacking.energy, 1)
        ),
        "cooling": not surely(chip.cooling.area, 0),
        "cap": not surely(chip.power_cap, 0),
        "reserved": not surely(chip.reserved, 0),
    }
    return tuple(name for name, found in there.items() if found)


def surely(leaf: Any, value: float) -> bool:
    """Tell whether a leaf is known, now, to be a value everywhere; False for what is traced."""
    return not isinstance(leaf, jax.core.Tracer) and bool(np.all(np.asarray(leaf) == value))


def usable_chip(chip: Chip, present: tuple[str, ...], one: jax.Array) -> Chip:
    """Return the chip as its data see it: bonds give main memory its bandwidth, others and logic take capacity.

    Bonded main memory moves  bonds/m^2 x area x bit/s of a bond x yield / 8  bytes a second.
    """
    changed = {}
    if "reserved" in present:
        changed["memory"] = replace(chip.memory, capacity=chip.memory.capacity - chip.reserved)
    for name in TIERS:
        memory = changed.get(name, getattr(chip, name))
        if f"{name}.near" in present:
            changed[name] = replace(memory, capacity=memory.capacity * memory.near.density)
    if "stacking" in present:
        s, main = chip.stacking, changed.get("memory", chip.memory)
        bonded = s.bond_density * s.area * s.bond_rate / 8
        given = jnp.where(s.bond_density > 0, bonded, main.bandwidth)
        changed["memory"] = replace(main, bandwidth=given * s.bond_yield)
    return replace(chip, **once(changed, one))


def prefetch_buffer(memory: Memory) -> Scalar:
    """Bytes of buffer that hide a tier's latency: two halves, one filled while the other is used, 2 B L each way.

    Source: the rule of FlashAccel (arXiv:2607.10186), SRAM > 2 x bandwidth x read latency.
    """
    return 2 * memory.bandwidth * memory.latency


def read_seconds(memory: Memory, efficiency: Scalar, tau: Scalar) -> Scalar:
    """Seconds a byte of a long stream of reads, by Little's law (Little 1961, doi 10.1287/opre.9.3.383).

        t = a (m + w - (1 - o) min(m, w)),   m = 1 / (B e),   w = L / bytes in flight

    Bytes in flight are queue depth x read size and at most half the prefetch buffer, where these are given; a is
    what a read moves over what it asks for, whole granules. Reads that run ahead (o = 0) wait and move at once.
    """
    asked = jnp.where(memory.read_size > 0, memory.read_size, memory.granularity)
    by_queue = smooth.safe_div(memory.latency, memory.queue_depth * asked)
    by_buffer = smooth.safe_div(2 * memory.latency, memory.buffer)
    wait = jnp.maximum(by_queue, by_buffer)
    move = smooth.safe_div(1.0, memory.bandwidth * efficiency)
    granules = smooth.ceil_div(asked, jnp.where(memory.granularity > 0, memory.granularity, 1), tau)
    whole = smooth.safe_div(granules * memory.granularity, asked, 1.0)
    amplified = jnp.where(memory.granularity > 0, whole, 1)
    return amplified * (move + wait - (1 - memory.in_order) * jnp.minimum(move, wait))


def write_seconds(memory: Memory, efficiency: Scalar) -> Scalar:
    """Seconds a byte of a long stream of writes: 1 / (B_write e), of reads where no write bandwidth is given."""
    rate = jnp.where(memory.write_bandwidth > 0, memory.write_bandwidth, memory.bandwidth)
    return smooth.safe_div(1.0, rate * efficiency)


@pytree
class Stream:
    """What a byte of a class of data costs, all its tiers together. A Python 0.0 or 1.0 is known while tracing."""

    main: Scalar = field("1", "share that passes the main memory's interface", default=1.0)
    beside: Scalar = field("s/B", "time of the tiers beside main memory", default=0.0)
    write: Scalar = field("s/B", "what a byte written takes longer than one read", default=0.0)
    wait: Scalar = field("s", "latency of a read whose address is not known ahead", default=0.0)


def main_share(shares: Shares) -> Scalar:
    """Share of a class in main memory: what lies nowhere else."""
    return 1.0 if not shares else 1 - add(*shares.values())


def both(a: Scalar, b: Scalar, in_turn: Scalar) -> Scalar:
    """Time of two streams: the longer where they run at once, their sum where in turn."""
    return a if absent(b) else a + b - (1 - in_turn) * jnp.minimum(a, b)


@pytree
class TierCost:
    """What a byte of one tier costs, worked out once for all classes of data."""

    read: Scalar = field("s/B", "time of a byte read")
    write: Scalar = field("s/B", "what a byte written takes longer")
    latency: Scalar = field("s", "of a read whose address is not known ahead")
    chained: Scalar = field("1", "1 where its bytes pass the main memory's interface")


def tier_costs(chip: Chip, names: Sequence[str], tau: Scalar) -> dict[str, TierCost]:
    """Cost a byte of each tier beside main memory that is present."""
    return {name: _tier_cost(chip, getattr(chip, name), tau) for name in names}


def _tier_cost(chip: Chip, tier: Memory, tau: Scalar) -> TierCost:
    read = read_seconds(tier, chip.efficiency.memory, tau)
    return TierCost(
        read=read,
        write=write_seconds(tier, chip.efficiency.memory) - read,
        latency=tier.latency,
        chained=tier.chained,
    )


def stream(costs: Mapping[str, TierCost], own: Stream, shares: Shares, in_turn: Scalar) -> Stream:
    """Cost a class of data with these shares of its traffic in the tiers beside main memory.

    All tiers of a class stream at once, max_t f_t / B_t, or in turn, sum of f_t / B_t. A chained tier also passes
    the main memory's interface (the daisy chain of Yu et al. 2026: T = (D_HBM + D_HBF) / B).

    Args:
        costs: the tiers.
        own: a byte of main memory, of `main_stream`.
        shares: shares of the class.
        in_turn: 1 where tiers stream in turn.
    """
    if not shares:
        return own
    reads = [share * costs[name].read for name, share in shares.items()]
    slowest = largest(reads)
    here = main_share(shares)

    def mean(column: str) -> Scalar:
        return add(*(share * getattr(costs[name], column) for name, share in shares.items()))

    return Stream(
        main=here + mean("chained"),
        beside=slowest + in_turn * (add(*reads) - slowest),
        write=here * own.write + mean("write"),
        wait=largest([jnp.where(share > 1e-6, costs[name].latency, 0) for name, share in shares.items()]),
    )


def main_stream(chip: Chip) -> Stream:
    """Cost a byte that lies in main memory alone."""
    main = chip.memory
    share = chip.efficiency.memory
    slower = smooth.safe_div(1.0, main.write_bandwidth * share) - smooth.safe_div(1.0, main.bandwidth * share)
    return Stream(write=jnp.where(main.write_bandwidth > 0, slower, 0))


def write_energy(memory: Memory) -> Scalar:
    """Joules of a byte written: that of a read where none is given."""
    return jnp.where(memory.write_energy_per_byte > 0, memory.write_energy_per_byte, memory.energy_per_byte)


def largest(values: Sequence[Scalar]) -> Scalar:
    """Return the largest of a few numbers."""
    out = values[0]
    for x in values[1:]:
        out = jnp.maximum(out, x)
    return out
