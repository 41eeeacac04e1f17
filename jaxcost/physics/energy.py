"""Joules of one step, by what spends them.

dynamic = FLOPs x J/FLOP (in proportion to operand bits) + exps x J + bytes x (device + on-chip J/B)
          + bytes sent x J/B; idle = idle power x time.
"""

from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.collectives import Message
from jaxcost.physics.ops import OpTable, add, times
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
    table: OpTable, messages: dict[str, tuple[Scalar, Message]], chip: Chip, fabric: Fabric, unit: Rates
) -> Energy:
    """Dynamic energy of one chip in one step; idle and host energy depend on the time and are added later."""

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
    return Energy(
        matmul=add(
            *(times(row.matmul_flops, row.count * unit.joules_per_flop[row.operands]) for row in table.rows)
        ),
        vector=over_rows("vector_flops") * chip.energy_per_vector_flop
        + over_rows("exponentials") * chip.energy_per_exponential,
        memory=over_rows("bytes") * (chip.memory.energy_per_byte + chip.on_chip_energy_per_byte),
        network=add(*sent),
        idle=0.0,
        host=0.0,
    )
