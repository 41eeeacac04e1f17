"""Memory tiers of a chip, their achieved bandwidth, and the cost of a byte of each class of data.

Symbols: f_ct the share of data class c that lies in tier t, B_t the bandwidth and L_t the latency of the tier. The
tiers of a chip form one table `[tiers, *batch]`, in the order of `TIERS`; main memory is one of them, and the others
are auxiliary tiers. A tier of known zero capacity is not traced.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import column, stack, where
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import TIERS, Memory

__all__ = [
    "AUXILIARY_TIERS",
    "TierCosts",
    "TrafficCosts",
    "chip_features",
    "is_known",
    "main_column",
    "prefetch_buffer",
    "read_seconds",
    "stack_tiers",
    "tier_costs",
    "tiers_of",
    "traffic_costs",
    "usable_chip",
    "write_energy",
    "write_seconds",
]

AUXILIARY_TIERS = tuple(name for name in TIERS if name != "memory")


def chip_features(chip: Chip) -> tuple[str, ...]:
    """Name the optional features of a chip: auxiliary tiers, near memory, stacking, cooling, cap, reserved memory.

    A feature with a traced number is included: only features that are known to be absent are left out.
    """
    near = {f"{name}.near": getattr(chip, name).near.bandwidth for name in TIERS}
    stacking = chip.stacking
    enabled = {
        **{name: not is_known(getattr(chip, name).capacity, 0) for name in AUXILIARY_TIERS},
        **{name: not is_known(bandwidth, 0) for name, bandwidth in near.items()},
        "stacking": not (
            is_known(stacking.bond_density, 0)
            and is_known(stacking.bond_yield, 1)
            and is_known(stacking.energy, 1)
        ),
        "cooling": not is_known(chip.cooling.area, 0),
        "cap": not is_known(chip.power_cap, 0),
        "reserved": not is_known(chip.reserved, 0),
    }
    return tuple(name for name, is_enabled in enabled.items() if is_enabled)


def is_known(leaf: Any, value: float) -> bool:
    """Return whether a leaf is a concrete number equal to `value` everywhere; False for a traced leaf."""
    return not isinstance(leaf, jax.core.Tracer) and bool(np.all(np.asarray(leaf) == value))


def tiers_of(features: Sequence[str]) -> tuple[str, ...]:
    """Name the tiers of a chip in the order of `TIERS`: main memory and the auxiliary tiers among its features."""
    return tuple(name for name in TIERS if name == "memory" or name in features)


def usable_chip(chip: Chip, features: Sequence[str]) -> Chip:
    """Return the chip with the capacities and the bandwidth that a model can use.

    Reserved memory and logic in the memory dies reduce capacity. The bandwidth of bonded main memory is
    bonds/m^2 x area x bit/s of a bond x yield / 8 B/s.
    """
    changed = {}
    if "reserved" in features:
        changed["memory"] = replace(chip.memory, capacity=chip.memory.capacity - chip.reserved)
    for name in TIERS:
        if f"{name}.near" in features:
            memory = changed.get(name, getattr(chip, name))
            changed[name] = replace(memory, capacity=memory.capacity * memory.near.density)
    if "stacking" in features:
        s, main = chip.stacking, changed.get("memory", chip.memory)
        bonded = s.bond_density * s.area * s.bond_rate / 8
        peak = where(s.bond_density > 0, bonded, main.bandwidth)
        changed["memory"] = replace(main, bandwidth=peak * s.bond_yield)
    return replace(chip, **changed)


class _StackedTrees:
    """A stack of equal trees: each leaf is stacked, `[trees, *batch]`, on first access."""

    def __init__(self, trees: Sequence[Any]) -> None:
        self._trees = trees

    def __getattr__(self, name: str) -> Any:
        leaves = [getattr(tree, name) for tree in self._trees]
        value = _StackedTrees(leaves) if name == "near" else stack(leaves)
        setattr(self, name, value)
        return value


def stack_tiers(chip: Chip, tiers: Sequence[str]) -> Any:
    """Stack the tiers of a chip: a `Memory` with leaves `[tiers, *batch]`, each stacked on first access."""
    return _StackedTrees([getattr(chip, name) for name in tiers])


def main_column(tiers: Sequence[str], like: Scalar) -> jax.Array:
    """Return a column `[tiers, 1, ...]` that is 1 for main memory and 0 for auxiliary tiers."""
    return column([name == "memory" for name in tiers], like)


def prefetch_buffer(memory: Memory) -> Scalar:
    """Return the bytes of a double buffer that hides a tier's latency: 2 B L.

    Source: the rule of FlashAccel (arXiv:2607.10186), SRAM > 2 x bandwidth x read latency.
    """
    return 2 * memory.bandwidth * memory.latency


def read_seconds(memory: Memory, efficiency: Scalar, tau: Scalar) -> Scalar:
    """Return the seconds per byte of a long stream of reads, by Little's law (Little 1961, doi 10.1287/opre.9.3.383).

        t = a (m + w - (1 - o) min(m, w)),   m = 1 / (B e),   w = L / bytes in flight

    Bytes in flight are queue depth x read size, and at most half the prefetch buffer, where these are not 0; a is the
    ratio of whole granules moved to bytes requested; o is 1 for in-order batches of reads, which wait before they move,
    and 0 for reads that run ahead, whose latency overlaps with transfer.
    """
    requested = where(memory.read_size > 0, memory.read_size, memory.granularity)
    by_queue = smooth.safe_div(memory.latency, memory.queue_depth * requested)
    by_buffer = smooth.safe_div(2 * memory.latency, memory.buffer)
    wait = jnp.maximum(by_queue, by_buffer)
    move = smooth.safe_div(1.0, memory.bandwidth * efficiency)
    cut = memory.granularity > 0
    granules = smooth.ceil_div(requested, where(cut, memory.granularity, 1), tau)
    excess = smooth.safe_div(granules * memory.granularity, requested, 1.0)
    return where(cut, excess, 1) * (move + wait - (1 - memory.in_order) * jnp.minimum(move, wait))


def write_seconds(memory: Memory, efficiency: Scalar) -> Scalar:
    """Return the seconds per byte of a long stream of writes: 1 / (B_write e), with B_read where B_write is 0."""
    rate = where(memory.write_bandwidth > 0, memory.write_bandwidth, memory.bandwidth)
    return smooth.safe_div(1.0, rate * efficiency)


def write_energy(memory: Memory) -> Scalar:
    """Return the joules per byte written: those of a read where write energy is 0."""
    return where(memory.write_energy_per_byte > 0, memory.write_energy_per_byte, memory.energy_per_byte)


@pytree
class TierCosts:
    """Costs of a byte of each tier, `[tiers, *batch]`."""

    read: Scalar = field("s/B", "time per byte read, with latency, queue depth and prefetch buffer")
    write: Scalar = field("s/B", "extra time per byte written")
    latency: Scalar = field("s", "latency of a read whose address is not known ahead")
    chained: Scalar = field("1", "1 where its bytes pass the main memory's interface")


@pytree
class TrafficCosts:
    """Costs of a byte of each class of data over all its tiers, `[traffic classes, *batch]`."""

    main: jax.Array = field("1", "share that passes the main memory's interface")
    auxiliary: jax.Array = field("s/B", "time of the auxiliary tiers")
    write: jax.Array = field("s/B", "extra time of a byte written over one read")
    wait: jax.Array = field("s", "latency of a read whose address is not known ahead")


def tier_costs(chip: Chip, tiers: Sequence[str], memory: Any, tau: Scalar) -> TierCosts:
    """Return the costs of a byte of each tier; all bytes of main memory pass its interface.

    Args:
        chip: the chip, for its efficiencies.
        tiers: names of the tiers.
        memory: the tiers, of `stack_tiers`.
        tau: softness.
    """
    efficiency, main = chip.efficiency.memory, main_column(tiers, memory.bandwidth)
    read = read_seconds(memory, efficiency, tau)
    # The roofline reads main memory at its peak bandwidth, so the extra time of writes is relative to that.
    plain = smooth.safe_div(1.0, memory.bandwidth * efficiency)
    return TierCosts(
        read=read,
        write=write_seconds(memory, efficiency) - where(main > 0, plain, read),
        latency=memory.latency,
        chained=main + (1 - main) * memory.chained,
    )


def traffic_costs(
    costs: TierCosts, tiers: Sequence[str], shares: jax.Array, serial_tier_reads: Scalar
) -> TrafficCosts:
    """Return the costs of a byte of each class from the shares of its traffic in the tiers, `[classes, tiers, *batch]`.

    Auxiliary tiers of a class stream concurrently, max_t f_t / B_t, or serially, sum of f_t / B_t. Bytes of a chained
    tier also pass the main memory's interface (the daisy chain of Yu et al. 2026: T = (D_HBM + D_HBF) / B).
    """
    auxiliary = 1 - main_column(tiers, costs.read)
    reads = shares * (auxiliary * costs.read)
    slowest, total = jnp.max(reads, 1), jnp.sum(reads, 1)
    latency = where(shares > 1e-6, auxiliary * costs.latency, 0)
    return TrafficCosts(
        main=jnp.sum(shares * costs.chained, 1),
        auxiliary=slowest + serial_tier_reads * (total - slowest),
        write=jnp.sum(shares * costs.write, 1),
        wait=jnp.max(latency, 1),
    )
