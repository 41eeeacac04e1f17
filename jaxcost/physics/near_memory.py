"""Matmuls within (PIM) or beside (PNM) memory: what a byte costs that never leaves its tier.

Symbols: n_t the share of a class of data that lies in tier t and may be worked on there; U_t the units of tier t,
capacity / shard. Every unit holds a slice of each matrix: W outputs over U units take ceil(W / U) U / W of the work
(padding), and where there are more units than outputs, U / W of them hand in partial sums of the same output.
"""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.ops import add
from jaxcost.physics.tiers import Shares, main_share, read_seconds
from jaxcost.spec.chip import Chip
from jaxcost.spec.memory import TIERS, Memory

__all__ = ["NearStream", "near_bandwidth", "near_stream", "units"]


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
    energy: Scalar = field("J/B", "what a byte of the class costs more than one that the chip reads")
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


def near_stream(
    chip: Chip,
    present: tuple[str, ...],
    shares: Shares,
    allowed: Scalar,
    *,
    outputs: Scalar,
    divided: Scalar,
    tau: Scalar,
) -> NearStream | None:
    """Cost a class of data near memory, None where no tier has an engine.

    Args:
        chip: the chip, its capacities as usable.
        present: what it has, of `features`.
        shares: where the class lies beside main memory.
        allowed: share of the class that may be worked on near memory.
        outputs: width that the units cut the class by, for padding.
        divided: what the units divide by partial sums: `outputs`, or 1 where a row brings its own slices.
        tau: softness.
    """
    engines = [name for name in TIERS if f"{name}.near" in present and (name == "memory" or name in shares)]
    if not engines:
        return None
    e = chip.efficiency
    found = []
    for name in engines:
        tier: Memory = getattr(chip, name)
        near = tier.near
        works = near.bandwidth > 0
        there = main_share(shares) if name == "memory" else shares[name]
        n = jnp.where(works, allowed * there, 0)
        count = units(tier)
        padded = smooth.ceil_div(outputs, count, tau) * count / outputs
        crossing = read_seconds(tier, e.memory, tau)
        path = tier.energy_per_byte + (0.0 if name == "sram" else chip.on_chip_energy_per_byte)
        path = path * chip.stacking.energy if name == "memory" else path
        some = n > 0
        found.append(
            {
                "share": n,
                "byte": n * padded * smooth.safe_div(1.0, near_bandwidth(tier) * e.memory),
                "flop": n * padded * smooth.safe_div(1.0, near.flops * e.matmul),
                "transfer": n * crossing,
                "partials": n * crossing * count / divided,
                "overhead": jnp.where(some, near.overhead, 0),
                "blocking": jnp.where(some, near.blocking, 0),
                "through": n * (1.0 if name == "memory" else tier.chained),
                "energy": n * (near.energy_per_byte - path),
                "flop_energy": n * near.energy_per_flop,
            }
        )

    def most(key: str) -> Scalar:
        out = found[0][key]
        for one in found[1:]:
            out = jnp.maximum(out, one[key])
        return out

    # The chip still reads what lies beside main memory in tiers without engines.
    outside = add(*shares.values()) if shares else 0.0
    taken = add(*(one["share"] for name, one in zip(engines, found, strict=True) if name != "memory"), 0.0)
    total = {key: add(*(one[key] for one in found)) for key in ("share", "through", "energy", "flop_energy")}
    through = add(main_share(shares), *(shares[name] * getattr(chip, name).chained for name in shares))
    slowest = {key: most(key) for key in ("byte", "flop", "transfer", "partials", "overhead", "blocking")}
    return NearStream(
        share=total["share"],
        main=jnp.maximum(through - total["through"], 0),
        unread=0.0 if isinstance(outside, float) else 1 - smooth.safe_div(taken, outside),
        energy=total["energy"],
        flop_energy=total["flop_energy"],
        **slowest,
    )
