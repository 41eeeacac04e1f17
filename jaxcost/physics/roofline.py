"""How long each operator takes: the slowest of its engines, its memory traffic and its messages.

An operator's legs are the times it would need if only one resource counted:

    matmul = FLOPs / (peak(bits) e_matmul)        vector = FLOPs / (peak e_vector)
    exponential = exps / (peak e_vector)          memory = bytes / (bandwidth e_memory)

Its time is their maximum (smooth above tau = 0) plus the overhead of launching it. Source: Williams, Waterman
and Patterson 2009 (doi 10.1145/1498765.1498785), with one leg an engine.
"""

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.collectives import Message
from jaxcost.physics.ops import Op, OpTable, absent, add, times
from jaxcost.spec.chip import Chip
from jaxcost.spec.plan import Plan

__all__ = ["LEGS", "OpTime", "OpTimes", "Rates", "math_class", "math_rate", "op_times", "rates"]

LEGS = ("matmul", "vector", "exponential", "memory", "network")
_BIT_BOUNDS = (5.0, 7.0, 10.0, 20.0)


@pytree
class OpTime:
    """Seconds of one operator in one step, all its runs together."""

    matmul: Scalar = field("s", "matmul leg", default=0.0)
    vector: Scalar = field("s", "element-wise leg", default=0.0)
    exponential: Scalar = field("s", "exponential leg", default=0.0)
    memory: Scalar = field("s", "memory leg", default=0.0)
    network: Scalar = field("s", "message leg", default=0.0)
    seconds: Scalar = field("s", "what the operator takes", default=0.0)

    @derived("1")
    def binding(self) -> jax.Array:
        """Index into `LEGS` of the resource that binds the operator."""
        return jnp.argmax(jnp.stack([jnp.asarray(getattr(self, leg)) for leg in LEGS]), axis=0)


@pytree
class OpTimes:
    """Seconds of every operator in one step."""

    rows: tuple[OpTime, ...] = field(doc="the operators, messages last")
    hidden: Scalar = field("s", "time in which messages and computing overlap")
    names: tuple[str, ...] = field(doc="name of each row", static=True)

    @derived("s")
    def total(self) -> Scalar:
        """Time of the whole step."""
        return add(*(row.seconds for row in self.rows)) - self.hidden


def math_class(bits: Scalar) -> jax.Array:
    """Width of the matmul engine that takes operands of `bits` bits: 4, 6, 8, 16 or 32."""
    return smooth.select_steps(bits, _BIT_BOUNDS, (4.0, 6.0, 8.0, 16.0, 32.0))


def math_rate(chip: Chip, bits: Scalar) -> jax.Array:
    """Peak matmul FLOP/s with operands of `bits` bits, block scales included (4.25 bits run at the 4-bit rate)."""
    c = chip.compute
    return smooth.select_steps(bits, _BIT_BOUNDS, (c.flops_4, c.flops_6, c.flops_8, c.flops_16, c.flops_32))


@pytree
class Rates:
    """Seconds and joules a unit of work costs on a chip, at the precisions of a plan."""

    seconds_per_flop: dict[str, Scalar] = field(doc="matmul, by operand class")
    joules_per_flop: dict[str, Scalar] = field(doc="matmul, by operand class")
    seconds_per_vector_flop: Scalar = field("s/FLOP", "element-wise")
    seconds_per_exponential: Scalar = field("s", "exponentials")
    seconds_per_byte: Scalar = field("s/B", "memory")
    operator_overhead: Scalar = field("s", "launching one operator")


def rates(chip: Chip, plan: Plan) -> Rates:
    """Work out the unit costs once, for all rows of all steps.

    A matmul runs at the rate of its wider operand: max(bits of the weight, expert or cache, bits of activations).
    """
    share = chip.efficiency
    operands = {"weights": plan.weight_bits, "experts": plan.expert_bits, "cache": plan.kv_bits}
    bits = {name: jnp.maximum(b, plan.activation_bits) for name, b in operands.items()}
    return Rates(
        seconds_per_flop={name: 1 / (math_rate(chip, b) * share.matmul) for name, b in bits.items()},
        joules_per_flop={name: chip.energy_per_flop * math_class(b) / 16 for name, b in bits.items()},
        seconds_per_vector_flop=1 / (chip.compute.vector_flops * share.vector),
        seconds_per_exponential=1 / (chip.compute.exponentials * share.vector),
        seconds_per_byte=1 / (chip.memory.bandwidth * share.memory),
        operator_overhead=share.operator_overhead,
    )


def op_times(
    table: OpTable, messages: dict[str, tuple[Scalar, Message]], unit: Rates, overlap: Scalar, tau: Scalar
) -> OpTimes:
    """Time every row of the table, and behind them the messages, given as {name: (count, message)}.

    Of C seconds of operators and M of messages the shorter can hide behind the longer, and `overlap` of it does:
    the step takes C + M - overlap min(C, M).
    """

    def time(row: Op) -> OpTime:
        legs = {
            "matmul": times(row.matmul_flops, unit.seconds_per_flop[row.operands]),
            "memory": times(row.bytes, unit.seconds_per_byte),
            "vector": times(row.vector_flops, unit.seconds_per_vector_flop),
            "exponential": times(row.exponentials, unit.seconds_per_exponential),
        }
        busy, *others = [x for x in legs.values() if not absent(x)]
        for leg in others:
            busy = smooth.maximum(busy, leg, tau)
        return OpTime(
            **{name: times(value, row.count) for name, value in legs.items()},
            seconds=(busy + unit.operator_overhead) * row.count,
        )

    sent = [count * m.seconds for count, m in messages.values()]
    operators = [*map(time, table.rows)]
    busy, messaging = add(*(row.seconds for row in operators)), add(*sent)
    hidden = overlap * smooth.minimum(busy, messaging, tau)
    rows = (*operators, *(OpTime(network=s, seconds=s) for s in sent))
    return OpTimes(rows=rows, hidden=hidden, names=(*table.names, *messages))
