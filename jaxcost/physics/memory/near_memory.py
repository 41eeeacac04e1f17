"""Matmuls processed in memory (PIM) or near memory (PNM): the cost of bytes that do not leave their tier.

Symbols: n_ct the share of data class c that lies in tier t and may be processed there; U_t the units of tier t,
capacity / shard. Every unit holds a slice of each matrix: W outputs over U units take ceil(W / U) U / W of the work
(padding), and where there are more units than outputs, U / W units each return a partial sum of the same output.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import column, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.memory.tiers import TierCosts, main_column
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import Memory

__all__ = ["OPERAND_CLASSES", "NearMemoryCosts", "near_bandwidth", "near_memory_costs", "units"]

# Classes of data that a matmul reads once, so that it can run near memory.
OPERAND_CLASSES = ("weights", "shared", "experts", "cache")


@pytree
class NearMemoryCosts:
    """Costs of a class of data whose matmuls run near memory, `[operand classes, *batch]`."""

    share: jax.Array = field("1", "share of the matmul that runs near memory")
    byte: jax.Array = field("s/B", "time to read a byte of the class by the units")
    flop: jax.Array = field("s/FLOP", "time of a FLOP")
    transfer: jax.Array = field("s/B", "time to move a byte of input or output between tier and chip")
    partials: jax.Array = field(
        "s/B", "transfer time of partial sums: of all units, over the outputs they share"
    )
    overhead: jax.Array = field("s", "launch of one operator")
    blocking: jax.Array = field("1", "1 where ordinary reads of the tier wait meanwhile")
    main: jax.Array = field("1", "share of the class that still passes the main memory's interface")
    unread: jax.Array = field("1", "share of the class's time in auxiliary tiers without engines")
    taken: jax.Array = field(
        "1", "share of the class that the units read, by tier: `[operand classes, tiers, *batch]`"
    )
    energy: jax.Array = field("J/B", "energy of the units' reads per byte of the class")
    flop_energy: jax.Array = field("J/FLOP", "energy of the units' FLOPs per FLOP of the operator")


def near_bandwidth(memory: Memory) -> Scalar:
    """Return the B/s that the units read: their bandwidth, limited by their power, min(B, P / e)."""
    near = memory.near
    limited = (near.power_limit > 0) & (near.energy_per_byte > 0)
    allowed = near.power_limit / where(limited, near.energy_per_byte, 1)
    return where(limited, jnp.minimum(near.bandwidth, allowed), near.bandwidth)


def units(memory: Memory) -> Scalar:
    """Count the units of a tier: capacity / shard, or 1 where shard is 0."""
    cut = memory.near.shard > 0
    return jnp.maximum(where(cut, memory.capacity / where(cut, memory.near.shard, 1), 1), 1)


def near_memory_costs(
    chip: Chip,
    tiers: tuple[str, ...],
    memory: Any,
    costs: TierCosts,
    shares: jax.Array,
    allowed: jax.Array,
    outputs: Scalar,
    tau: Scalar,
) -> NearMemoryCosts:
    """Return the costs of the operand classes near memory, over all tiers with engines.

    Args:
        chip: the chip, for its efficiencies.
        tiers: names of the tiers.
        memory: the tiers with usable capacities, of `stack_tiers`.
        costs: cost of a byte of each tier.
        shares: shares of each operand class's traffic in the tiers, `[operand classes, tiers, *batch]`.
        allowed: share of each class that may be processed near memory, `[operand classes, *batch]`.
        outputs: width of the matrices that the units divide; the cache has its own number of slices.
        tau: softness.
    """
    near, e = memory.near, chip.efficiency
    count, outputs = units(memory), jnp.expand_dims(outputs, 0)
    padded = smooth.ceil_div(outputs, count, tau) * count / outputs
    taken = allowed[:, None] * shares * (near.bandwidth > 0)
    busy = (taken > 0).astype(taken.dtype)
    auxiliary = 1 - main_column(tiers, costs.read)
    moved = taken * costs.read
    matrices = column([name != "cache" for name in OPERAND_CLASSES], allowed)
    return NearMemoryCosts(
        share=jnp.sum(taken, 1),
        byte=jnp.max(taken * smooth.safe_div(padded, near_bandwidth(memory) * e.memory), 1),
        flop=jnp.max(taken * smooth.safe_div(padded, near.flops * e.matmul), 1),
        transfer=jnp.max(moved, 1),
        partials=jnp.max(moved * count, 1) / (matrices * outputs + (1 - matrices)),
        overhead=jnp.max(busy * near.overhead, 1),
        blocking=jnp.max(busy * near.blocking, 1),
        main=jnp.maximum(jnp.sum((shares - taken) * costs.chained, 1), 0),
        # The chip still reads the data in auxiliary tiers without engines.
        unread=1 - smooth.safe_div(jnp.sum(taken * auxiliary, 1), jnp.sum(shares * auxiliary, 1)),
        taken=taken,
        energy=jnp.sum(taken * near.energy_per_byte, 1),
        flop_energy=jnp.sum(taken * near.energy_per_flop, 1),
    )
