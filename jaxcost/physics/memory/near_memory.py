"""Matmuls within (PIM) or beside (PNM) memory: what a byte costs that never leaves its tier.

Symbols: n_ct the share of a class of data that lies in tier t and may be worked on there; U_t the units of tier t,
capacity / shard. Every unit holds a slice of each matrix: W outputs over U units take ceil(W / U) U / W of the work
(padding), and where there are more units than outputs, U / W of them hand in partial sums of the same output.
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

# Classes of data that a matmul reads once, so that engines can take it.
OPERAND_CLASSES = ("weights", "shared", "experts", "cache")


@pytree
class NearMemoryCosts:
    """What a class of data costs where its matmuls run near memory, shape `[operand classes, *batch]`."""

    share: jax.Array = field("1", "share of the matmul that runs there")
    byte: jax.Array = field("s/B", "time of reading a byte of the class on the spot")
    flop: jax.Array = field("s/FLOP", "time of a FLOP")
    transfer: jax.Array = field("s/B", "time of moving a byte of input or output between tier and chip")
    partials: jax.Array = field("s/B", "the same over all units, divided by the outputs that they share")
    overhead: jax.Array = field("s", "time of starting one operator")
    blocking: jax.Array = field("1", "1 where ordinary reads of the tier wait meanwhile")
    main: jax.Array = field("1", "share of the class that still passes the main memory's interface")
    unread: jax.Array = field(
        "1", "share of the class's time in auxiliary tiers that the chip still reads for"
    )
    taken: jax.Array = field(
        "1", "share of the class that is read on the spot, by tier: `[operand classes, tiers, *batch]`"
    )
    energy: jax.Array = field("J/B", "energy of reading a byte of the class, that share of it on the spot")
    flop_energy: jax.Array = field("J/FLOP", "energy of a FLOP of the operator that runs there")


def near_bandwidth(memory: Memory) -> Scalar:
    """Bytes a second that the units read: their bandwidth, or what their power allows, min(B, P / e)."""
    near = memory.near
    limited = (near.power_limit > 0) & (near.energy_per_byte > 0)
    allowed = near.power_limit / where(limited, near.energy_per_byte, 1)
    return where(limited, jnp.minimum(near.bandwidth, allowed), near.bandwidth)


def units(memory: Memory) -> Scalar:
    """Count the units of a tier: capacity / shard, one where no shard is given."""
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
    """Cost the operand classes near memory, all tiers with engines together.

    Args:
        chip: the chip, for its efficiencies.
        tiers: names of the tiers.
        memory: the tiers, of `stack_tiers`, their capacities as usable.
        costs: what a byte of each tier costs.
        shares: of each operand class's traffic in the tiers, `[operand classes, tiers, *batch]`.
        allowed: share of the class that may be worked on near memory, `[operand classes, *batch]`.
        outputs: width that the units cut every matrix by; rows of the cache bring slices of their own.
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
        # The chip still reads what lies in auxiliary tiers without engines.
        unread=1 - smooth.safe_div(jnp.sum(taken * auxiliary, 1), jnp.sum(shares * auxiliary, 1)),
        taken=taken,
        energy=jnp.sum(taken * near.energy_per_byte, 1),
        flop_energy=jnp.sum(taken * near.energy_per_flop, 1),
    )
