"""Energy of the steps by component.

    matmul = FLOPs x J/FLOP, in proportion to the operand bits; element-wise work and exponentials likewise
    memory = bytes x J/B of a read or a write in their tier + bytes x J/B of the wires to the engines
    links  = bytes x hops x J/B of every level

    host   = chip-seconds x server power,    fans = overhead x joules of the chips, idle ones included

Bytes that engines near memory read do not pass the wires. Idle power, that of tiers and engines near memory included,
is integrated over the time of the step.

Source: Horowitz 2014 (doi 10.1109/ISSCC.2014.6757323), energies by operation and by level of memory.
"""

import jax
import jax.numpy as jnp

from jaxcost.core.arrays import column, row, stack, where
from jaxcost.core.pytree import Scalar, derived, field, leaf_fields, pytree, replace
from jaxcost.physics.compute.operators import (
    CACHED,
    MATH,
    OPERANDS,
    OPERATORS,
    PARAMETERS,
    WRITES,
    OpTable,
    named,
)
from jaxcost.physics.compute.precision import MATH_CLASSES
from jaxcost.physics.compute.roofline import Rates, by_operand
from jaxcost.physics.memory.hierarchy import Hierarchy, memory_energy
from jaxcost.physics.memory.near_memory import OPERAND_CLASSES
from jaxcost.physics.memory.placement import TRAFFIC_CLASSES
from jaxcost.physics.network.messages import Messages
from jaxcost.spec.chip import Chip
from jaxcost.spec.fabric import Fabric

__all__ = ["ByLevel", "ByPrecision", "ByTier", "Energy", "StepEnergy", "energy_parts", "step_energy"]

_WIDTHS = (32.0, 16.0, 8.0, 6.0, 4.0)  # of matmul engines, as in `ByPrecision`
_WRITTEN = 0.5  # written share of the bytes of activations: the next operator reads what one has written


@pytree
class ByPrecision:
    """Joules of matmul engines, by the width of the engine for the operands."""

    bits_32: Scalar = field("J", "above 20 bits")
    bits_16: Scalar = field("J", "above 10 bits")
    bits_8: Scalar = field("J", "above 7 bits")
    bits_6: Scalar = field("J", "above 5 bits")
    bits_4: Scalar = field("J", "5 bits and fewer")

    @derived("J")
    def total(self) -> Scalar:
        """All matmul engines."""
        return self.bits_32 + self.bits_16 + self.bits_8 + self.bits_6 + self.bits_4


@pytree
class ByTier:
    """Joules by memory tier; 0 for tiers that a chip does not have."""

    sram: Scalar = field("J", "on-chip memory", default=0.0)
    memory: Scalar = field("J", "main memory", default=0.0)
    hbf: Scalar = field("J", "flash stacks", default=0.0)
    host: Scalar = field("J", "host memory", default=0.0)
    cxl: Scalar = field("J", "memory behind CXL", default=0.0)
    ssd: Scalar = field("J", "drives", default=0.0)

    @derived("J")
    def total(self) -> Scalar:
        """All tiers."""
        return self.sram + self.memory + self.hbf + self.host + self.cxl + self.ssd


@pytree
class ByLevel:
    """Joules by level of the fabric."""

    package: Scalar = field("J", "links within packages")
    scale_up: Scalar = field("J", "links of the scale-up domain")
    scale_out: Scalar = field("J", "links between domains")

    @derived("J")
    def total(self) -> Scalar:
        """All levels."""
        return self.package + self.scale_up + self.scale_out


@pytree
class Energy:
    """Joules by component."""

    precision: ByPrecision = field(doc="matmul engines of the chip")
    elementwise: Scalar = field("J", "element-wise engines")
    exponential: Scalar = field("J", "exponential engines")
    read: ByTier = field(doc="reads of memory devices, interfaces included")
    write: ByTier = field(doc="writes of memory devices, interfaces included")
    wires: Scalar = field("J", "wires between memory interfaces and engines")
    near: Scalar = field("J", "engines near memory: their reads and matmuls")
    links: ByLevel = field(doc="messages")
    idle: Scalar = field("J", "idle power of the chips")
    host: Scalar = field("J", "servers and network around the chips")
    fans: Scalar = field("J", "fans and power supplies of servers, in proportion to the energy of the chips")

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
        """Reads, writes, wires to the engines, and engines near memory."""
        return self.read.total + self.write.total + self.wires + self.near

    @derived("J")
    def network(self) -> Scalar:
        """Links of all levels."""
        return self.links.total

    @derived("J")
    def total(self) -> Scalar:
        """All energy."""
        return self.chips + self.servers

    @property
    def chips(self) -> Scalar:
        """Dynamic and idle energy of the chips."""
        return self.dynamic + self.idle

    @property
    def servers(self) -> Scalar:
        """Energy of the servers around the chips."""
        return self.host + self.fans

    @property
    def dynamic(self) -> Scalar:
        """Dynamic energy: everything but idle chips and hosts."""
        return self.engines + self.memory + self.network

    @property
    def engines(self) -> Scalar:
        """Energy of the chip's engines, which scales with their supply voltage."""
        return self.matmul + self.vector


@pytree
class StepEnergy:
    """Dynamic joules of one chip in each step: components along the leading axis, then steps, then the batch."""

    precision: jax.Array = field("J", "matmul engines, `[widths, *batch]`")
    vector: jax.Array = field("J", "element-wise and exponential engines, `[2, *batch]`")
    read: jax.Array = field("J", "reads of memory devices, `[tiers, *batch]`")
    write: jax.Array = field("J", "writes of memory devices, `[tiers, *batch]`")
    wires: jax.Array = field("J", "between memory interfaces and engines, `[*batch]`")
    near: jax.Array = field("J", "engines near memory, `[*batch]`")
    links: jax.Array = field("J", "messages, `[levels, *batch]`")
    tiers: tuple[str, ...] = field(doc="names of the tiers", static=True)

    @property
    def engines(self) -> jax.Array:
        """Energy of the chip's engines, which scales with their supply voltage."""
        return jnp.sum(self.precision, 0) + jnp.sum(self.vector, 0)

    @property
    def others(self) -> jax.Array:
        """Dynamic energy of all other components."""
        devices = jnp.sum(self.read, 0) + jnp.sum(self.write, 0)
        return devices + self.wires + self.near + jnp.sum(self.links, 0)

    @property
    def dynamic(self) -> jax.Array:
        """Dynamic energy: everything but idle chips and hosts."""
        return self.engines + self.others

    def slowed(self, saved: Scalar) -> "StepEnergy":
        """Return the energy with a share of the engines' energy saved by a lower voltage."""
        return replace(self, precision=self.precision * (1 - saved), vector=self.vector * (1 - saved))


def step_energy(
    table: OpTable,
    near: jax.Array | None,
    messages: Messages,
    chip: Chip,
    fabric: Fabric,
    hierarchy: Hierarchy,
    unit: Rates,
) -> StepEnergy:
    """Return the dynamic energy of one chip in each step; idle and host energy depend on time and are added later.

    Bytes are summed by class of data, and FLOPs by operand class, before they are multiplied by energies.

    Args:
        table: the operators of the steps.
        near: 1 for each operator that runs near memory; None without engines near memory.
        messages: the messages of the steps.
        chip: energies of the engines and tiers.
        fabric: energies of the links.
        hierarchy: memory tiers, and the shares of each class of data in them.
        unit: unit costs.
    """
    moved, written = _class_bytes(table)
    flops, near_bytes, near_joules = table.matmul_flops * table.count, None, jnp.zeros_like(row(moved, 0))
    if near is not None and unit.near is not None:
        sums = _sums(table.operand_bytes * table.count * near, OPERANDS, "weights")
        near_bytes = stack([sums[name] for name in OPERAND_CLASSES])
        near_flops = flops * near
        near_joules = jnp.sum(near_flops * by_operand(unit.near.flop_energy, flops), 0)
        near_joules = near_joules + jnp.sum(near_bytes * _lined_up(unit.near.energy, near_bytes), 0)
        flops = flops - near_flops * by_operand(unit.near.share, flops)
    by_class = _sums(flops, MATH, "weights")
    joules = stack([by_class[name] for name in MATH_CLASSES]) * _lined_up(unit.joules_per_flop, moved)
    width = _lined_up(unit.width, moved)
    read, write, wires = memory_energy(chip, hierarchy, moved, written, near_bytes)
    link_energy = stack(
        [level.energy_per_byte for level in (fabric.package, fabric.scale_up, fabric.scale_out)]
    )
    sent = jnp.sum(messages.counts * messages.level_bytes, 1)
    return StepEnergy(
        precision=stack([jnp.sum(where(width == bits, joules, 0), 0) for bits in _WIDTHS]),
        vector=stack(
            [
                jnp.sum(table.vector_flops * table.count, 0) * chip.energy_per_vector_flop,
                jnp.sum(table.exponentials * table.count, 0) * chip.energy_per_exponential,
            ]
        ),
        read=read,
        write=write,
        wires=wires,
        near=near_joules,
        links=sent * _lined_up(link_energy, sent),
        tiers=hierarchy.shares.tiers,
    )


def _lined_up(values: jax.Array, like: jax.Array) -> jax.Array:
    """Insert axes for the steps: `[classes, *batch]` to `[classes, 1, *batch]`."""
    more = jnp.ndim(like) - jnp.ndim(values)
    return jnp.expand_dims(values, tuple(range(1, 1 + more)))


def _sums(values: jax.Array, of: dict[str, str], otherwise: str) -> dict[str, jax.Array]:
    """Sum the operators of each class: `[operators, *batch]` to `[*batch]` by class.

    Args:
        values: one value per operator.
        of: class of an operator by its name.
        otherwise: class of all other operators.
    """
    members: dict[str, list[str]] = {}
    for name in OPERATORS:
        members.setdefault(of.get(name, otherwise), []).append(name)
    return {
        kind: row(values, OPERATORS.index(names[0]))
        if len(names) == 1
        else jnp.sum(where(named(values, *names), values, 0), 0)
        for kind, names in members.items()
    }


def _class_bytes(table: OpTable) -> tuple[jax.Array, jax.Array]:
    """Bytes of all operators by class of data: all, and those that are written, `[TRAFFIC_CLASSES, *batch]`."""
    cached = table.cached_bytes * table.count
    activations = jnp.sum(table.activation_bytes * table.count, 0)
    writes = column([WRITES.get(name, 0.0) for name in OPERATORS], cached)
    by_class = _sums(table.parameter_bytes * table.count, PARAMETERS, "weights")
    by_class |= _sums(cached, CACHED, "request_kv") | {"activations": activations}
    stored = {"request_kv": jnp.sum(cached * writes, 0), "activations": _WRITTEN * activations}
    moved, written = (stack([of.get(name, 0.0) for name in TRAFFIC_CLASSES]) for of in (by_class, stored))
    return moved, written


def energy_parts(joules: StepEnergy) -> Energy:
    """Return the energy by component from leaves `[components, *batch]`, summed over the steps."""
    by_tier = lambda table: ByTier(**{name: row(table, i) for i, name in enumerate(joules.tiers)})  # noqa: E731
    elementwise, exponential = (row(joules.vector, i) for i in range(2))
    return Energy(
        precision=ByPrecision(
            **{f"bits_{bits:.0f}": row(joules.precision, i) for i, bits in enumerate(_WIDTHS)}
        ),
        elementwise=elementwise,
        exponential=exponential,
        read=by_tier(joules.read),
        write=by_tier(joules.write),
        wires=joules.wires,
        near=joules.near,
        links=ByLevel(**{f.name: row(joules.links, i) for i, f in enumerate(leaf_fields(ByLevel))}),
        idle=0.0,
        host=0.0,
        fans=0.0,
    )
