"""How long each operator takes: the slowest of its engines, its memory traffic and its messages.

Memory traffic is that of main memory and of the auxiliary tiers, at once or in turn. An operator whose operand lies
in a tier with engines runs there where that is no slower, or by no more than the plan's slack:

    near = max(operand bytes / internal bandwidth, FLOPs / engines' rate) + moving inputs and outputs + starting it

An operator's legs are the times it would need if only one resource counted:

    matmul = FLOPs / (peak(bits) e_matmul)        vector = FLOPs / (peak e_vector)
    exponential = exps / (peak e_vector)          memory = bytes / (bandwidth e_memory)

Its time is their maximum (smooth above tau = 0) plus the overhead of launching it; with calibrated kernels, what
they make of these legs (`kernel_rows`). All operators are one table `[operators, *batch]`, the steps an axis of the
batch. Source: Williams, Waterman and Patterson 2009 (doi 10.1145/1498765.1498785), with one leg an engine.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import column, materialize_once, row, stack, where
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.compute.operators import (
    CACHE_OPERATORS,
    CACHED,
    NEAR_OPERATORS,
    OPERANDS,
    OPERATORS,
    PARAMETERS,
    WRITES,
    OpTable,
    by_class,
    named,
)
from jaxcost.physics.kernels.rows import KernelRuns, kernel_seconds
from jaxcost.physics.memory.near_memory import OPERAND_CLASSES, NearMemoryCosts
from jaxcost.physics.memory.placement import TRAFFIC_CLASSES
from jaxcost.physics.memory.tiers import TrafficCosts
from jaxcost.physics.network.messages import Messages
from jaxcost.spec.chip import Chip
from jaxcost.spec.kernels import Kernels
from jaxcost.spec.plan import Plan

__all__ = [
    "LEGS",
    "OpTime",
    "OpTimes",
    "Rates",
    "StepTimes",
    "math_class",
    "math_rate",
    "op_times",
    "rates",
    "report_times",
]

LEGS = ("matmul", "vector", "exponential", "memory", "network", "near")
_BIT_BOUNDS = (5.0, 7.0, 10.0, 20.0)


@pytree
class OpTime:
    """Seconds of operators in one step, all their runs together."""

    matmul: jax.Array = field("s", "matmul leg")
    vector: jax.Array = field("s", "element-wise leg")
    exponential: jax.Array = field("s", "exponential leg")
    memory: jax.Array = field("s", "memory leg")
    network: jax.Array = field("s", "message leg")
    near: jax.Array = field("s", "leg of the engines near memory")
    seconds: jax.Array = field("s", "what the operator takes")

    @derived("1")
    def binding(self) -> jax.Array:
        """Index into `LEGS` of the resource that binds the operator."""
        return jnp.argmax(stack([getattr(self, leg) for leg in LEGS]), axis=0)


@pytree
class OpTimes:
    """Seconds of every operator in one step."""

    operators: OpTime = field(doc="operators, messages last, `[*batch, operators]`", table=True)
    hidden: Scalar = field("s", "time in which messages, the chip and engines near memory overlap")
    capped: Scalar = field("s", "time lost to a clock that keeps a power cap", default=0.0)
    heat: Scalar = field("s", "time lost to heat", default=0.0)
    names: tuple[str, ...] = field(doc="name of each operator", static=True)

    @property
    def rows(self) -> tuple[OpTime, ...]:
        """The operators one by one, in the order of `names`."""
        return tuple(jax.tree.map(lambda x, i=i: x[..., i], self.operators) for i in range(len(self.names)))

    @derived("s")
    def total(self) -> Scalar:
        """Time of the whole step."""
        return jnp.sum(self.operators.seconds, -1) - self.hidden + self.capped + self.heat


def math_class(bits: Scalar) -> jax.Array:
    """Width of the matmul engine that takes operands of `bits` bits: 4, 6, 8, 16 or 32."""
    return smooth.select_steps(bits, _BIT_BOUNDS, (4.0, 6.0, 8.0, 16.0, 32.0))


def math_rate(chip: Chip, bits: Scalar) -> jax.Array:
    """Peak matmul FLOP/s with operands of `bits` bits, block scales included (4.25 bits run at the 4-bit rate)."""
    c = chip.compute
    return smooth.select_steps(bits, _BIT_BOUNDS, (c.flops_4, c.flops_6, c.flops_8, c.flops_16, c.flops_32))


@pytree
class Rates:
    """Seconds and joules a unit of work costs on a chip, at the precisions and the placement of a plan."""

    seconds_per_flop: jax.Array = field("s/FLOP", "matmul, `[operand classes, *batch]`")
    joules_per_flop: jax.Array = field("J/FLOP", "matmul, `[operand classes, *batch]`")
    width: jax.Array = field("bit", "width of the matmul engine, `[operand classes, *batch]`")
    seconds_per_vector_flop: Scalar = field("s/FLOP", "element-wise")
    seconds_per_exponential: Scalar = field("s", "exponentials")
    seconds_per_byte: Scalar = field("s/B", "main memory")
    operator_overhead: Scalar = field("s", "launching one operator")
    kernels: Kernels | None = field(doc="calibrated kernels, where there are")
    refreshing: Scalar = field("1", "by what main memory slows where refresh doubles")
    serial_tier_reads: Scalar = field("1", "1 where an operator reads its tiers in turn")
    interleaved: Scalar = field("1", "share of near-memory work that hides")
    near_slack: Scalar = field("1", "share by which work near memory may be slower")
    traffic: TrafficCosts = field(doc="cost of a byte of each class of data, `[traffic classes, *batch]`")
    near: NearMemoryCosts | None = field(doc="operand classes near memory, `[operand classes, *batch]`")


def rates(chip: Chip, plan: Plan, traffic: TrafficCosts, near: NearMemoryCosts | None) -> Rates:
    """Work out the unit costs once, for all operators of all steps.

    A matmul runs at the rate of its wider operand: max(bits of the weight, expert or cache, bits of activations).
    """
    share = chip.efficiency
    bits_of = {
        "weights": plan.weight_bits,
        "shared": plan.weight_bits,
        "experts": plan.expert_bits,
        "cache": plan.kv_bits,
    }
    bits = jnp.maximum(stack([bits_of[name] for name in OPERAND_CLASSES]), plan.activation_bits)
    width = math_class(bits)
    refresh = jnp.minimum(chip.memory.refresh, 0.49)
    return Rates(
        seconds_per_flop=1 / (math_rate(chip, bits) * share.matmul),
        joules_per_flop=chip.energy_per_flop * width / 16,
        width=width,
        seconds_per_vector_flop=1 / (chip.compute.vector_flops * share.vector),
        seconds_per_exponential=1 / (chip.compute.exponentials * share.vector),
        seconds_per_byte=1 / (chip.memory.bandwidth * share.memory),
        operator_overhead=share.operator_overhead,
        kernels=share.kernels,
        refreshing=(1 - refresh) / (1 - 2 * refresh),
        serial_tier_reads=plan.placement.serial_tier_reads,
        interleaved=plan.placement.interleaved,
        near_slack=plan.placement.near_slack,
        traffic=traffic,
        near=near,
    )


@pytree
class StepTimes:
    """Times of a step, `[operators, *batch]` or `[*batch]`, and what heat, power and energy need of it."""

    operators: OpTime = field(doc="operators, all but messages; the network leg is 0")
    engine: jax.Array | None = field("s", "what the serving engine adds, where calibrated")
    messages: jax.Array = field("s", "messages of each kind, all of a step, `[messages, *batch]`")
    hidden: jax.Array = field("s", "time that overlaps")
    near: jax.Array | None = field(
        "1", "1 for each operator that runs near memory; None without engines there"
    )
    hot: jax.Array = field("s", "what the step takes longer where refresh doubles")

    @property
    def total(self) -> jax.Array:
        """Time of the step, power cap and heat apart."""
        busy = jnp.sum(self.operators.seconds, 0) + jnp.sum(self.messages, 0)
        return (busy if self.engine is None else busy + self.engine) - self.hidden


def op_times(
    table: OpTable,
    messages: Messages,
    unit: Rates,
    overlap: Scalar,
    tau: Scalar,
    *,
    kernels: KernelRuns | None = None,
    engine: jax.Array | None = None,
    heat: bool = False,
) -> StepTimes:
    """Time every operator of the table, and the messages.

    Of C seconds of operators and M of messages the shorter can hide behind the longer, and `overlap` of it does:
    the step takes C + M - overlap min(C, M). Of work near memory and on the chip `interleaved` hides likewise.
    `kernels` are the operators' own, where the chip's are calibrated; there `engine` is what the serving engine
    adds to the step, a row between operators and messages that hides nothing.
    """
    operators, near = _operator_times(table, unit, tau, kernels)
    sent = messages.counts * messages.seconds
    busy = jnp.sum(operators.seconds, 0)
    hidden = overlap * smooth.minimum(busy, jnp.sum(sent, 0), tau)
    if near is not None:
        there = jnp.sum(operators.seconds * near, 0)
        hidden = hidden + unit.interleaved * smooth.minimum(there, busy - there, tau)
    hot = jnp.zeros_like(busy)
    if heat:
        # Refresh takes main memory's time: an operator grows by what its memory leg then exceeds it.
        slower = operators.memory * unit.refreshing + table.count * unit.operator_overhead - operators.seconds
        hot = jnp.sum(jnp.maximum(slower, 0), 0)
    return StepTimes(operators=operators, engine=engine, messages=sent, hidden=hidden, near=near, hot=hot)


def by_operand(values: jax.Array, like: jax.Array) -> jax.Array:
    """Spread a number of each operand class, `[classes, *batch]`, over the operators of a table `like`."""
    return by_class(values, OPERAND_CLASSES, OPERANDS, "weights", like)


def _operator_times(
    table: OpTable, unit: Rates, tau: Scalar, kernels: KernelRuns | None
) -> tuple[OpTime, jax.Array | None]:
    """Time every operator, all its runs together; and tell which run near memory, None where none can."""
    matmul = table.matmul_flops * by_operand(unit.seconds_per_flop, table.count)
    vector = table.vector_flops * unit.seconds_per_vector_flop
    exponential = table.exponentials * unit.seconds_per_exponential
    memory = _memory_leg(table, unit)
    near_leg, near = jnp.zeros_like(memory), None
    matmul, vector, exponential, memory = materialize_once((matmul, vector, exponential, memory))
    if kernels is not None and unit.kernels is not None:
        passing = unit.kernels.elementwise
        paced = kernel_seconds(kernels, memory, matmul)
        memory = where(kernels.calibrated, paced.memory, memory / passing.memory)
        matmul = where(kernels.calibrated, paced.busy, matmul)
        longest = _longest(matmul, memory, vector, exponential, tau) + passing.launch
        seconds = where(kernels.calibrated, paced.seconds, longest)
    else:
        seconds = _longest(matmul, memory, vector, exponential, tau)
    if unit.near is not None:
        there = jax.tree.map(lambda x: by_operand(x, table.count), unit.near)
        near_leg = _near_leg(table, there)
        rest_matmul, rest_memory = matmul * (1 - there.share), _memory_leg(table, unit, there)
        near_leg, rest_memory, seconds = materialize_once((near_leg, rest_memory, seconds))
        meanwhile = jnp.maximum(jnp.maximum(rest_matmul, rest_memory), jnp.maximum(vector, exponential))
        split = jnp.maximum(meanwhile, near_leg) + there.blocking * jnp.minimum(rest_memory, near_leg)
        able = named(table.count, *NEAR_OPERATORS)
        split = materialize_once(split)
        runs_there = able & (there.share > 0) & (split <= seconds * (1 + unit.near_slack))
        near = where(runs_there, 1.0, 0.0)
        seconds = where(runs_there, split, seconds)
        matmul = where(runs_there, rest_matmul, matmul)
        memory = where(runs_there, rest_memory, memory)
        near_leg = near_leg * near * table.count
    return OpTime(
        matmul=matmul * table.count,
        vector=vector * table.count,
        exponential=exponential * table.count,
        memory=memory * table.count,
        network=jnp.zeros_like(memory),
        near=near_leg,
        seconds=(seconds + unit.operator_overhead) * table.count,
    ), near


def _longest(matmul: Scalar, memory: Scalar, vector: Scalar, exponential: Scalar, tau: Scalar) -> jax.Array:
    engines = smooth.maximum(smooth.maximum(matmul, memory, tau), vector, tau)
    return smooth.maximum(engines, exponential, tau)


def _near_leg(table: OpTable, near: NearMemoryCosts) -> jax.Array:
    """Time of the matmuls near memory, with the way of their inputs and outputs."""
    work = jnp.maximum(table.operand_bytes * near.byte, table.matmul_flops * near.flop)
    crossing = jnp.maximum(near.transfer, near.partials / table.slices)
    return work + table.activation_bytes * crossing + near.overhead


def _memory_leg(table: OpTable, unit: Rates, near: NearMemoryCosts | None = None) -> jax.Array:
    """Time of the bytes through main memory's interface and in the auxiliary tiers.

    Work near memory leaves `near.main` of its operand to the interface, and none to the auxiliary tiers whose
    engines read it; the part of a class in tiers without engines is read by the chip in any case.
    """
    traffic, like = unit.traffic, table.count

    def spread(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Values of the classes that parameters, cached data and activations of each operator belong to."""
        parameters = by_class(values, TRAFFIC_CLASSES, PARAMETERS, "weights", like)
        cached = by_class(values, TRAFFIC_CLASSES, CACHED, "request_kv", like)
        return parameters, cached, row(values, TRAFFIC_CLASSES.index("activations"))

    through, outside = list(spread(traffic.main)), list(spread(traffic.auxiliary))
    if near is not None:
        cached = named(like, *CACHE_OPERATORS)
        for index, mine in enumerate((~cached, cached)):
            through[index] = where(mine, near.main, through[index])
            outside[index] = where(mine, outside[index] * near.unread, outside[index])
    through[0] = through[0] + table.kept * (1 - through[0])
    outside[0] = outside[0] * (1 - table.kept)
    moved = (table.parameter_bytes, table.cached_bytes, table.activation_bytes)
    main, auxiliary = (
        moved[0] * share[0] + moved[1] * share[1] + moved[2] * share[2] for share in (through, outside)
    )
    writes = column([WRITES.get(name, 0.0) for name in OPERATORS], like)
    written = table.cached_bytes * (writes * row(traffic.write, TRAFFIC_CLASSES.index("request_kv")))
    waits = where(named(like, "routed_experts"), row(traffic.wait, TRAFFIC_CLASSES.index("experts")), 0)
    passing = main * unit.seconds_per_byte
    at_once = (1 - unit.serial_tier_reads) * jnp.minimum(passing, auxiliary)
    return passing + auxiliary - at_once + written + waits


def report_times(
    step: StepTimes, messages: tuple[str, ...], shape: tuple[int, ...], *, capped: jax.Array, heat: jax.Array
) -> tuple[OpTimes, ...]:
    """Lay the times of each step out for the report: operators, the engine and messages in the last axis.

    Args:
        step: the times, `[operators, steps, *batch]`.
        messages: names of the messages.
        shape: of the batch.
        capped: time lost to a power cap, `[steps, *batch]`.
        heat: time lost to heat, likewise.
    """
    host = () if step.engine is None else ("engine",)
    names = (*OPERATORS, *host, *messages)
    steps = step.messages.shape[1]

    def whole(x: Scalar, before: int = 0) -> jax.Array:
        """Rows of zeros around those that have a leg."""
        x = jnp.broadcast_to(x, (np.shape(x)[0], steps, *shape))
        after = len(names) - before - x.shape[0]
        return lax.pad(x, np.zeros((), x.dtype), [(before, after, 0), *[(0, 0, 0)] * (x.ndim - 1)])

    legs = {leg: whole(getattr(step.operators, leg)) for leg in LEGS if leg not in ("network", "near")}
    legs["network"] = whole(step.messages, len(names) - len(messages))
    legs["near"] = jnp.zeros_like(legs["network"]) if step.near is None else whole(step.operators.near)
    parts = (step.operators.seconds, *(() if step.engine is None else (step.engine[None],)), step.messages)
    legs["seconds"] = lax.concatenate([jnp.broadcast_to(x, (x.shape[0], steps, *shape)) for x in parts], 0)
    return tuple(
        OpTimes(
            operators=OpTime(**{leg: jnp.moveaxis(x[:, k], 0, -1) for leg, x in legs.items()}),
            hidden=step.hidden[k],
            capped=capped[k],
            heat=heat[k],
            names=names,
        )
        for k in range(steps)
    )
