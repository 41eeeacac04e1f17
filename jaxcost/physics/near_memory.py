"""Matmuls within (PIM) or beside (PNM) memory: what a byte costs that never leaves its tier.

Symbols: n_t the share of a class of data that lies in tier t and may be worked on there; U_t the units of tier t,
capacity / shard. Every unit holds a slice of each matrix: W outputs over U units take ceil(W / U) U / W of the work
(padding), and where there are more units than outputs, U / W of them hand in partial sums of the same output.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.ops import add
from jaxcost.physics.tiers import Shares, TierCost, largest, main_share, read_seconds
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import TIERS, Memory

__all__ = ["Engine", "NearStream", "engines", "near_bandwidth", "near_stream", "units"]


@pytree
class NearStream:
    """What a class of data costs where its matmuls run near memory, all tiers with engines together."""

    share: Scalar = field("1", "share of the matmul that runs there")
    byte: Scalar = field("s/B", "time of reading a byte of the class on the spot")
    flop: Scalar = field("s/FLOP", "time of a FLOP")
    transfer: Scalar = field("s/B", "time of moving a byte of input or output between tier and chip")
    partials: Scalar = field("s/B", "the same over all units, divided by the outputs that they share")
    overhead: Scalar = field("s", "time of starting one operator")
    blocking: Scalar = field("1", "1 where ordinary reads of the tier wait meanwhile")
    main: Scalar = field("1", "share of the class that still passes the main memory's interface")
    unread: Scalar = field(
        "1", "share of the class's time in tiers beside main memory that the chip still reads for"
    )
    taken: dict[str, Scalar] = field(doc="share of the class that is read on the spot, by tier")
    energy: Scalar = field("J/B", "energy of reading a byte of the class, that share of it on the spot")
    flop_energy: Scalar = field("J/FLOP", "energy of a FLOP of the operator that runs there")


def near_bandwidth(memory: Memory) -> Scalar:
    """Bytes a second that the units read: their bandwidth, or what their power allows, min(B, P / e)."""
    near = memory.near
    limited = (near.power_limit > 0) & (near.energy_per_byte > 0)
    allowed = near.power_limit / jnp.where(limited, near.energy_per_byte, 1)
    return jnp.where(limited, jnp.minimum(near.bandwidth, allowed), near.bandwidth)


def units(memory: Memory) -> Scalar:
    """Count the units of a tier: capacity / shard, one where no shard is given."""
    cut = memory.near.shard > 0
    return jnp.maximum(jnp.where(cut, memory.capacity / jnp.where(cut, memory.near.shard, 1), 1), 1)


@pytree
class Engine:
    """What a byte and a FLOP cost at the engines of one tier, worked out once for all classes of data."""

    works: Scalar = field("1", "1 where the tier has engines")
    byte: Scalar = field("s/B", "time of reading a byte on the spot, padding included")
    flop: Scalar = field("s/FLOP", "time of a FLOP, padding included")
    crossing: Scalar = field("s/B", "time of moving a byte between tier and chip")
    units: Scalar = field("1", "units that hand in partial sums")
    overhead: Scalar = field("s", "time of starting one operator")
    blocking: Scalar = field("1", "1 where ordinary reads wait meanwhile")
    through: Scalar = field("1", "1 where its bytes would pass the main memory's interface")
    energy: Scalar = field("J/B", "energy of a byte read on the spot")
    flop_energy: Scalar = field("J/FLOP", "energy of a FLOP")


def engines(chip: Chip, present: tuple[str, ...], outputs: Scalar, tau: Scalar) -> dict[str, Engine]:
    """Cost the engines of every tier that has some.

    Args:
        chip: the chip, its capacities as usable.
        present: what it has, of `features`.
        outputs: width that the units cut every matrix by.
        tau: softness.
    """
    there = (name for name in TIERS if f"{name}.near" in present and (name == "memory" or name in present))
    return {name: _engine(chip, name, outputs, tau) for name in there}


def _engine(chip: Chip, name: str, outputs: Scalar, tau: Scalar) -> Engine:
    tier: Memory = getattr(chip, name)
    near, e = tier.near, chip.efficiency
    count = units(tier)
    padded = smooth.ceil_div(outputs, count, tau) * count / outputs
    return Engine(
        works=jnp.where(near.bandwidth > 0, 1.0, 0.0),
        byte=padded * smooth.safe_div(1.0, near_bandwidth(tier) * e.memory),
        flop=padded * smooth.safe_div(1.0, near.flops * e.matmul),
        crossing=read_seconds(tier, e.memory, tau),
        units=count,
        overhead=near.overhead,
        blocking=near.blocking,
        through=1.0 if name == "memory" else tier.chained,
        energy=near.energy_per_byte,
        flop_energy=near.energy_per_flop,
    )


def near_stream(
    costs: Mapping[str, TierCost],
    there: Mapping[str, Engine],
    shares: Shares,
    allowed: Scalar,
    divided: Scalar,
) -> NearStream | None:
    """Cost a class of data near memory, None where no tier that may hold it has an engine.

    Args:
        costs: the tiers beside main memory.
        there: the engines by tier.
        shares: where the class lies beside main memory.
        allowed: share of the class that may be worked on near memory.
        divided: outputs that share partial sums: the width of matrices, or 1 where a row brings its own slices.
    """
    if not there:
        return None
    held = {name: main_share(shares) if name == "memory" else shares[name] for name in there}
    n = {name: allowed * held[name] * engine.works for name, engine in there.items()}

    def mean(column: str) -> Scalar:
        return add(*(n[name] * getattr(engine, column) for name, engine in there.items()))

    def most(column: str, *factors: str) -> Scalar:
        values = [n[name] * getattr(engine, column) for name, engine in there.items()]
        for factor in factors:
            values = [v * getattr(e, factor) for v, e in zip(values, there.values(), strict=True)]
        return largest(values)

    def where_some(column: str) -> Scalar:
        return largest([jnp.where(n[name] > 0, getattr(engine, column), 0) for name, engine in there.items()])

    # The chip still reads what lies beside main memory in tiers without engines.
    taken = add(*(n[name] for name in there if name != "memory"))
    outside = add(*shares.values())
    through = add(main_share(shares), *(share * costs[name].chained for name, share in shares.items()))
    return NearStream(
        share=add(*n.values()),
        byte=most("byte"),
        flop=most("flop"),
        transfer=most("crossing"),
        partials=most("crossing", "units") / divided,
        overhead=where_some("overhead"),
        blocking=where_some("blocking"),
        main=jnp.maximum(through - mean("through"), 0),
        unread=1 - smooth.safe_div(taken, outside) if shares else 0.0,
        taken=n,
        energy=mean("energy"),
        flop_energy=mean("flop_energy"),
    )
