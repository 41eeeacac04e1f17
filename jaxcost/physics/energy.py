"""Joules of one step, by what spends them.

dynamic = FLOPs x J/FLOP (in proportion to operand bits) + exps x J + bytes x (device + on-chip J/B)
          + bytes sent x J/B; idle = idle power x time.
"""

import jax.numpy as jnp

from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.collectives import Message
from jaxcost.physics.ops import OpTable
from jaxcost.physics.roofline import math_class
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
    table: OpTable, messages: dict[str, tuple[Scalar, Message]], chip: Chip, fabric: Fabric
) -> Energy:
    """Dynamic energy of one chip in one step; idle and host energy depend on the time and are added later."""
    rows = table.rows
    moved = rows.weight_bytes + rows.expert_bytes + rows.kv_bytes + rows.activation_bytes
    flop_energy = chip.energy_per_flop * math_class(rows.math_bits) / 16

    def over_rows(x: Scalar) -> Scalar:
        return jnp.sum(rows.count * x, axis=0)

    return Energy(
        matmul=over_rows(rows.matmul_flops * flop_energy),
        vector=over_rows(rows.vector_flops) * chip.energy_per_vector_flop
        + over_rows(rows.exponentials) * chip.energy_per_exponential,
        memory=over_rows(moved) * (chip.memory.energy_per_byte + chip.on_chip_energy_per_byte),
        network=sum(
            count
            * (
                m.scale_up_bytes * fabric.scale_up.energy_per_byte
                + m.scale_out_bytes * fabric.scale_out.energy_per_byte
            )
            for count, m in messages.values()
        ),
        idle=0.0,
        host=0.0,
    )
