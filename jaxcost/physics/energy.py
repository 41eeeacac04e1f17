"""Joules of one step, by what spends them.

matmul = FLOPs x J/FLOP (in proportion to operand bits); element-wise and exponential likewise; a byte costs its tier
what a read or a write there costs, and the way between memory and engines; a byte sent, each level that it crosses.
Bytes of work near memory stay there. Idle power lasts as long as the step, that of tiers and engines near memory too.

Source: Horowitz 2014 (doi 10.1109/ISSCC.2014.6757323), energies by operation and by level of memory.
"""

import jax
import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, derived, field, pytree, replace
from jaxcost.physics.collectives import Message
from jaxcost.physics.glue import main_share
from jaxcost.physics.ops import OpTable, absent, add, times
from jaxcost.physics.roofline import Rates
from jaxcost.physics.tiers import write_energy
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric
from jaxcost.spec.memory import TIERS

__all__ = ["ByLevel", "ByPrecision", "ByTier", "Energy", "step_energy"]

_WRITTEN = 0.5  # share of the activations' bytes: what one operator writes, the next one reads


@pytree
class ByPrecision:
    """Joules of matmul engines, by the width of the engine that takes the operands."""

    bits_32: Scalar = field("J", "above 20 bits")
    bits_16: Scalar = field("J", "above 10 bits")
    bits_8: Scalar = field("J", "above 7 bits")
    bits_6: Scalar = field("J", "above 5 bits")
    bits_4: Scalar = field("J", "5 bits and fewer")

    @derived("J")
    def total(self) -> Scalar:
        """All of it."""
        return self.bits_32 + self.bits_16 + self.bits_8 + self.bits_6 + self.bits_4


@pytree
class ByTier:
    """Joules by memory tier; 0 for those that a chip lacks."""

    sram: Scalar = field("J", "on-chip memory", default=0.0)
    memory: Scalar = field("J", "main memory", default=0.0)
    hbf: Scalar = field("J", "flash stacks", default=0.0)
    host: Scalar = field("J", "host memory", default=0.0)
    cxl: Scalar = field("J", "memory behind CXL", default=0.0)
    ssd: Scalar = field("J", "drives", default=0.0)

    @derived("J")
    def total(self) -> Scalar:
        """All of it."""
        return add(*(getattr(self, name) for name in TIERS))


@pytree
class ByLevel:
    """Joules by level of the fabric."""

    package: Scalar = field("J", "links within packages")
    scale_up: Scalar = field("J", "links of the scale-up domain")
    scale_out: Scalar = field("J", "links between domains")

    @derived("J")
    def total(self) -> Scalar:
        """All of it."""
        return self.package + self.scale_up + self.scale_out


@pytree
class Energy:
    """Joules by what spends them."""

    precision: ByPrecision = field(doc="matmul engines of the chip")
    elementwise: Scalar = field("J", "element-wise engines")
    exponential: Scalar = field("J", "exponential engines")
    read: ByTier = field(doc="memory devices and their interfaces, reads")
    write: ByTier = field(doc="the same, writes")
    wires: Scalar = field("J", "between memory interfaces and engines")
    near: Scalar = field("J", "engines near memory: reads on the spot and matmuls")
    links: ByLevel = field(doc="messages")
    idle: Scalar = field("J", "chips, whether they work or not")
    host: Scalar = field("J", "servers and network around the chips")

    @derived("J")
    def matmul(self) -> Scalar:
        """Matmul engines of the chip, all precisions."""
        return self.precision.total

    @derived("J")
    def vector(self) -> Scalar:
        """Element-wise and exponential engines."""
        return self.elementwise + self.exponential

    @derived("J")
    def memory(self) -> Scalar:
        """Reads, writes, the way to the engines, and engines near memory."""
        return self.read.total + self.write.total + self.wires + self.near

    @derived("J")
    def network(self) -> Scalar:
        """Links of all levels."""
        return self.links.total

    @derived("J")
    def total(self) -> Scalar:
        """All of it."""
        return self.dynamic + self.idle + self.host

    @property
    def dynamic(self) -> Scalar:
        """What only work costs."""
        return self.engines + self.memory + self.network

    @property
    def engines(self) -> Scalar:
        """What follows the supply voltage of the chip's engines."""
        return self.matmul + self.vector

    def slowed(self, saved: Scalar) -> "Energy":
        """Save a share of what the engines take, at a lower voltage."""
        engines = jax.tree.map(
            lambda x: x * (1 - saved), (self.precision, self.elementwise, self.exponential)
        )
        return replace(self, precision=engines[0], elementwise=engines[1], exponential=engines[2])


def step_energy(
    table: OpTable,
    near: tuple[Scalar, ...],
    messages: dict[str, tuple[Scalar, Message]],
    chip: Chip,
    fabric: Fabric,
    unit: Rates,
) -> Energy:
    """Dynamic energy of one chip in one step; idle and host energy depend on the time and are added later.

    Args:
        table: the rows of the step.
        near: 1 for each row that runs near memory.
        messages: {name: (count, message)}.
        chip: energies of the engines and tiers.
        fabric: energies of the links.
        unit: unit costs, placement included.
    """

    def over_rows(column: str) -> Scalar:
        return add(*(times(getattr(row, column), row.count) for row in table.rows))

    # Bytes by class of data: all, those written, those read on the spot; FLOPs by operand, here and there.
    moved: dict[str, list[Scalar]] = {}
    written: dict[str, list[Scalar]] = {"recent": [], "activations": []}
    on_the_spot: dict[str, list[Scalar]] = {}
    joules: dict[str, list[Scalar]] = {}
    there: list[Scalar] = []
    for row, chosen in zip(table.rows, near, strict=True):
        engine = unit.near.get(row.operands)
        for column, name in row.moved:
            amount = times(getattr(row, column), row.count)
            moved.setdefault(name, []).append(amount)
            if name in written:
                written[name].append(times(amount, row.writes if name == "recent" else _WRITTEN))
            if name == row.operands and engine is not None:
                on_the_spot.setdefault(name, []).append(times(amount, chosen))
        flops, away = times(row.matmul_flops, row.count), 0.0
        if engine is not None and not absent(chosen):
            away = chosen * engine.share
            there.append(times(flops, chosen * engine.flop_energy))
        here = times(flops, unit.joules_per_flop[row.operands])
        joules.setdefault(row.operands, []).append(here if absent(away) else times(here, 1 - away))
    spot = {name: add(*amounts) for name, amounts in on_the_spot.items()}
    read, write, wires = _by_tier(
        {name: add(*amounts) for name, amounts in moved.items()},
        {name: add(*amounts) for name, amounts in written.items()},
        spot,
        chip,
        unit,
    )
    for name, amount in spot.items():
        engine = unit.near[name]
        there.append(0.0 if engine is None else times(amount, engine.energy))
    levels = ("package", "scale_up", "scale_out")
    links = {
        level: add(*(count * getattr(m, f"{level}_bytes") for count, m in messages.values()))
        * getattr(fabric, level).energy_per_byte
        for level in levels
    }
    return Energy(
        precision=_by_precision({name: add(*parts) for name, parts in joules.items()}, unit),
        elementwise=over_rows("vector_flops") * chip.energy_per_vector_flop,
        exponential=over_rows("exponentials") * chip.energy_per_exponential,
        read=ByTier(**read),
        write=ByTier(**write),
        wires=wires,
        near=add(*there),
        links=ByLevel(**links),
        idle=0.0,
        host=0.0,
    )


def _by_precision(joules: dict[str, Scalar], unit: Rates) -> ByPrecision:
    def of(width: float) -> Scalar:
        return add(
            *(jnp.where(unit.width[name] == width, x, 0) for name, x in joules.items() if not absent(x))
        )

    return ByPrecision(bits_32=of(32), bits_16=of(16), bits_8=of(8), bits_6=of(6), bits_4=of(4))


def _by_tier(
    moved: dict[str, Scalar],
    written: dict[str, Scalar],
    spot: dict[str, Scalar],
    chip: Chip,
    unit: Rates,
) -> tuple[dict[str, Scalar], dict[str, Scalar], Scalar]:
    """Split bytes by class over the tiers where they lie, and charge them."""

    def lying(amounts: dict[str, Scalar], tier: str) -> Scalar:
        shares = {name: unit.shares[name] for name in amounts}
        return add(
            *(
                times(amounts[name], main_share(of) if tier == "memory" else of.get(tier, 0.0))
                for name, of in shares.items()
            )
        )

    read, write, wires = {}, {}, []
    for tier in ("memory", *(t for t in TIERS if t in unit.shares["weights"])):
        memory, less = getattr(chip, tier), chip.stacking.energy if tier == "memory" else 1.0
        nearby = [
            times(amount, -engine.taken[tier])
            for name, amount in spot.items()
            if (engine := unit.near[name]) is not None and tier in engine.taken and not absent(amount)
        ]
        passing, stored = add(lying(moved, tier), *nearby), lying(written, tier)
        read[tier] = (passing - stored) * (memory.energy_per_byte * less)
        write[tier] = stored * (write_energy(memory) * less)
        if tier != "sram":
            wires.append(passing * (chip.on_chip_energy_per_byte * less))
    return read, write, add(*wires)
