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
from jaxcost.physics.ops import OpTable
from jaxcost.spec.chip import Chip

__all__ = ["LEGS", "OpTimes", "math_class", "math_rate", "op_times"]

LEGS = ("matmul", "vector", "exponential", "memory", "network")
_BIT_BOUNDS = (5.0, 7.0, 10.0, 20.0)


@pytree
class OpTimes:
    """Seconds of every operator in one step, by leg; columns have the shape [rows] (+ any batch shape)."""

    matmul: Scalar = field("s", "matmul leg")
    vector: Scalar = field("s", "element-wise leg")
    exponential: Scalar = field("s", "exponential leg")
    memory: Scalar = field("s", "memory leg")
    network: Scalar = field("s", "message leg")
    seconds: Scalar = field("s", "time of the operator, all its runs together")
    names: tuple[str, ...] = field(doc="name of each row", static=True)

    @property
    def total(self) -> jax.Array:
        """Time of the whole step."""
        return jnp.sum(self.seconds, axis=0)

    @derived("1")
    def binding(self) -> jax.Array:
        """Index into `LEGS` of the resource that binds each operator."""
        return jnp.argmax(jnp.stack([getattr(self, leg) for leg in LEGS]), axis=0)


def math_class(bits: Scalar) -> jax.Array:
    """Width of the matmul engine that takes operands of `bits` bits: 4, 6, 8, 16 or 32."""
    return smooth.select_steps(bits, _BIT_BOUNDS, (4.0, 6.0, 8.0, 16.0, 32.0))


def math_rate(chip: Chip, bits: Scalar) -> jax.Array:
    """Peak matmul FLOP/s with operands of `bits` bits, block scales included (4.25 bits run at the 4-bit rate)."""
    c = chip.compute
    return smooth.select_steps(bits, _BIT_BOUNDS, (c.flops_4, c.flops_6, c.flops_8, c.flops_16, c.flops_32))


def op_times(table: OpTable, messages: dict[str, tuple[Scalar, Message]], chip: Chip, tau: Scalar) -> OpTimes:
    """Time every row of the table, and behind them the messages, given as {name: (count, message)}."""
    rows, share = table.rows, chip.efficiency
    moved = rows.weight_bytes + rows.expert_bytes + rows.kv_bytes + rows.activation_bytes
    legs = {
        "matmul": smooth.safe_div(rows.matmul_flops, math_rate(chip, rows.math_bits) * share.matmul),
        "vector": smooth.safe_div(rows.vector_flops, chip.compute.vector_flops * share.vector),
        "exponential": smooth.safe_div(rows.exponentials, chip.compute.exponentials * share.vector),
        "memory": smooth.safe_div(moved, chip.memory.bandwidth * share.memory),
    }
    busy = smooth.maximum(
        smooth.maximum(legs["matmul"], legs["memory"], tau),
        smooth.maximum(legs["vector"], legs["exponential"], tau),
        tau,
    )
    seconds = rows.count * (busy + share.operator_overhead)
    sent = jnp.stack([jnp.broadcast_to(count * m.seconds, seconds.shape[1:]) for count, m in messages.values()])
    none = jnp.zeros_like(sent)
    return OpTimes(
        **{leg: jnp.concatenate([rows.count * value, none]) for leg, value in legs.items()},
        network=jnp.concatenate([jnp.zeros_like(seconds), sent]),
        seconds=jnp.concatenate([seconds, sent]),
        names=table.names + tuple(messages),
    )
