"""How long each operator takes: the slowest of its engines, its memory traffic and its messages.

An operator's legs are the times it would need if only one resource counted:

    matmul = FLOPs / (peak(bits) e_matmul)        vector = FLOPs / (peak e_vector)
    exponential = exps / (peak e_vector)          memory = bytes / (bandwidth e_memory)

Its time is their maximum (smooth above tau = 0) plus the overhead of launching it. Source: Williams, Waterman
and Patterson 2009 (doi 10.1145/1498765.1498785), with one leg an engine.
"""

import functools

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.collectives import Message
from jaxcost.physics.ops import Op, OpTable, absent, add
from jaxcost.spec.chip import Chip

__all__ = ["LEGS", "OpTime", "OpTimes", "math_class", "math_rate", "op_times"]

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

    rows: tuple[OpTime, ...] = field(doc="the operators")
    names: tuple[str, ...] = field(doc="name of each row", static=True)

    @derived("s")
    def total(self) -> Scalar:
        """Time of the whole step."""
        return add(*(row.seconds for row in self.rows))


def math_class(bits: Scalar) -> jax.Array:
    """Width of the matmul engine that takes operands of `bits` bits: 4, 6, 8, 16 or 32."""
    return smooth.select_steps(bits, _BIT_BOUNDS, (4.0, 6.0, 8.0, 16.0, 32.0))


def math_rate(chip: Chip, bits: Scalar) -> jax.Array:
    """Peak matmul FLOP/s with operands of `bits` bits, block scales included (4.25 bits run at the 4-bit rate)."""
    c = chip.compute
    return smooth.select_steps(bits, _BIT_BOUNDS, (c.flops_4, c.flops_6, c.flops_8, c.flops_16, c.flops_32))


def op_times(table: OpTable, messages: dict[str, tuple[Scalar, Message]], chip: Chip, tau: Scalar) -> OpTimes:
    """Time every row of the table, and behind them the messages, given as {name: (count, message)}."""
    share = chip.efficiency
    per_byte = 1 / (chip.memory.bandwidth * share.memory)
    per_vector_flop = 1 / (chip.compute.vector_flops * share.vector)
    per_exponential = 1 / (chip.compute.exponentials * share.vector)
    seconds_per_flop: dict[int, Scalar] = {}  # by identity of the bits: few distinct ones serve all rows

    def time(row: Op) -> OpTime:
        key = id(row.math_bits)
        if key not in seconds_per_flop:
            seconds_per_flop[key] = 1 / (math_rate(chip, row.math_bits) * share.matmul)
        legs = {
            "matmul": _leg(row.matmul_flops, seconds_per_flop[key]),
            "memory": _leg(row.bytes, per_byte),
            "vector": _leg(row.vector_flops, per_vector_flop),
            "exponential": _leg(row.exponentials, per_exponential),
        }
        busy = functools.reduce(
            lambda a, b: smooth.maximum(a, b, tau), [x for x in legs.values() if not absent(x)]
        )
        return OpTime(
            **{name: _leg(value, row.count) for name, value in legs.items()},
            seconds=(busy + share.operator_overhead) * row.count,
        )

    sent = [OpTime(network=count * m.seconds, seconds=count * m.seconds) for count, m in messages.values()]
    return OpTimes(rows=(*map(time, table.rows), *sent), names=(*table.names, *messages))


def _leg(amount: Scalar, cost: Scalar) -> Scalar:
    return 0.0 if absent(amount) else amount * cost
