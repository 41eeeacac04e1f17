"""Joules of one step, by what spends them.

dynamic = FLOPs x J/FLOP (in proportion to operand bits) + exps x J + bytes x (device + on-chip J/B)
          + bytes sent x J/B; idle = idle power x time, that of tiers and engines near memory included.
"""

from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.collectives import Message
from jaxcost.physics.ops import Op, OpTable, absent, add, times
from jaxcost.physics.roofline import Rates
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric

__all__ = ["Energy", "step_energy"]


@pytree
class Energy:
    """Joules by what spends them."""

    matmul: Scalar = field("J", "matmul engines")
    vector: Scalar = field("J", "element-wise and exponential engines")
    memory: Scalar = field("J", "memory devices, interfaces and the way to the engines")
    network: Scalar = field("J", "links")
    idle: Scalar = field("J", "chips, whether they work or not")
    host: Scalar = field("J", "servers and network around the chips")

    @derived("J")
    def total(self) -> Scalar:
        """All of it."""
        return self.dynamic + self.idle + self.host

    @property
    def dynamic(self) -> Scalar:
        """What only work costs."""
        return self.matmul + self.vector + self.memory + self.network


def step_energy(
    table: OpTable,
    near: tuple[Scalar, ...],
    messages: dict[str, tuple[Scalar, Message]],
    chip: Chip,
    fabric: Fabric,
    unit: Rates,
) -> Energy:
    """Dynamic energy of one chip in one step; idle and host energy depend on the time and are added later.

    Every byte is charged as one of main memory, and what its tier or its place of work costs more is added.

    Args:
        table: the rows of the step.
        near: 1 for each row that runs near memory.
        messages: {name: (count, message)}.
        chip: energies of the engines.
        fabric: energies of the links.
        unit: unit costs, placement included.
    """

    def over_rows(column: str) -> Scalar:
        return add(*(times(getattr(row, column), row.count) for row in table.rows))

    sent = [
        count
        * (
            m.package_bytes * fabric.package.energy_per_byte
            + m.scale_up_bytes * fabric.scale_up.energy_per_byte
            + m.scale_out_bytes * fabric.scale_out.energy_per_byte
        )
        for count, m in messages.values()
    ]
    rows = list(zip(table.rows, near, strict=True))
    more = [times(_more_for_bytes(row, chosen, unit), row.count) for row, chosen in rows]
    return Energy(
        matmul=add(
            *(times(row.matmul_flops, row.count * _per_flop(row, chosen, unit)) for row, chosen in rows)
        ),
        vector=over_rows("vector_flops") * chip.energy_per_vector_flop
        + over_rows("exponentials") * chip.energy_per_exponential,
        memory=add(over_rows("bytes") * unit.joules_per_byte, *more),
        network=add(*sent),
        idle=0.0,
        host=0.0,
    )


def _per_flop(row: Op, chosen: Scalar, unit: Rates) -> Scalar:
    on_chip, near = unit.joules_per_flop[row.operands], unit.near.get(row.operands)
    if near is None or absent(chosen):
        return on_chip
    return on_chip + chosen * (near.flop_energy - near.share * on_chip)


def _more_for_bytes(row: Op, chosen: Scalar, unit: Rates) -> Scalar:
    """Joules of a row's bytes beyond those of main memory: dearer or cheaper tiers, writes, reading on the spot."""
    near, out = unit.near.get(row.operands), []
    for column, name in row.moved:
        amount, stream = getattr(row, column), unit.streams[name]
        extra = stream.energy
        if name == row.operands and near is not None and not absent(chosen):
            extra = add(extra, times(chosen, near.energy))
        if name == "recent":
            extra = add(extra, times(stream.write_energy, row.writes))
        out.append(times(amount, extra))
    return add(*out)
