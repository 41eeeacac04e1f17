"""The roofline time of each operator, and the time of a step.

The legs of an operator are its times on each resource alone:

    matmul = FLOPs / (peak(bits) e_matmul)        vector = FLOPs / (peak e_vector)
    exponential = exps / (peak e_vector)          memory = bytes / (bandwidth e_memory)

Its time is the maximum of the legs (smooth above tau = 0) plus a launch overhead. With calibrated kernels it is a
function of these legs (`kernel_rows`). The memory leg covers main memory and auxiliary tiers, read concurrently or
serially. An operator whose operand lies in a tier with engines runs there where that is not slower, up to the plan's
slack:

    near = max(operand bytes / internal bandwidth, FLOPs / engines' rate) + transfer of inputs and outputs + launch

All operators are one table `[operators, *batch]`, with the steps as an axis of the batch. Source: Williams, Waterman
and Patterson 2009 (doi 10.1145/1498765.1498785), with one leg per resource.
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
    MATH,
    NEAR_OPERATORS,
    OPERANDS,
    OPERATORS,
    PARAMETERS,
    WRITES,
    OpTable,
    by_class,
    named,
)
from jaxcost.physics.compute.precision import MATH_CLASSES, Precision, operand_bits
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
    """Time of the operators in one step, summed over the runs of each."""

    matmul: jax.Array = field("s", "matmul leg")
    vector: jax.Array = field("s", "element-wise leg")
    exponential: jax.Array = field("s", "exponential leg")
    memory: jax.Array = field("s", "memory leg")
    network: jax.Array = field("s", "message leg")
    near: jax.Array = field("s", "leg of the engines near memory")
    seconds: jax.Array = field("s", "time of the operator")

    @derived("1")
    def binding(self) -> jax.Array:
        """Index into `LEGS` of the longest leg."""
        return jnp.argmax(stack([getattr(self, leg) for leg in LEGS]), axis=0)


@pytree
class OpTimes:
    """Times of one step, operator by operator."""

    operators: OpTime = field(doc="operators, messages last, `[*batch, operators]`", table=True)
    hidden: Scalar = field("s", "time saved by overlap of messages, chip and engines near memory")
    capped: Scalar = field("s", "time lost to the lower clock of a power cap", default=0.0)
    heat: Scalar = field("s", "time lost to heat", default=0.0)
    names: tuple[str, ...] = field(doc="name of each operator", static=True)

    @property
    def rows(self) -> tuple[OpTime, ...]:
        """The operators as a tuple, in the order of `names`."""
        return tuple(jax.tree.map(lambda x, i=i: x[..., i], self.operators) for i in range(len(self.names)))

    @derived("s")
    def total(self) -> Scalar:
        """Time of the whole step."""
        return jnp.sum(self.operators.seconds, -1) - self.hidden + self.capped + self.heat


def math_class(bits: Scalar) -> jax.Array:
    """Return the width of the matmul engine for operands of `bits` bits: 4, 6, 8, 16 or 32."""
    return smooth.select_steps(bits, _BIT_BOUNDS, (4.0, 6.0, 8.0, 16.0, 32.0))


def math_rate(chip: Chip, bits: Scalar) -> jax.Array:
    """Return the peak matmul FLOP/s for operands of `bits` bits, scales included (4.25 bits run at the 4-bit rate)."""
    c = chip.compute
    return smooth.select_steps(bits, _BIT_BOUNDS, (c.flops_4, c.flops_6, c.flops_8, c.flops_16, c.flops_32))


@pytree
class Rates:
    """Time and energy per unit of work on a chip, at the precisions and the placement of a plan."""

    seconds_per_flop: jax.Array = field("s/FLOP", "matmul, `[math classes, *batch]`")
    joules_per_flop: jax.Array = field("J/FLOP", "matmul, `[math classes, *batch]`")
    width: jax.Array = field("bit", "width of the matmul engine, `[math classes, *batch]`")
    seconds_per_vector_flop: Scalar = field("s/FLOP", "element-wise")
    seconds_per_exponential: Scalar = field("s", "exponentials")
    seconds_per_byte: Scalar = field("s/B", "main memory")
    operator_overhead: Scalar = field("s", "launch of one operator")
    kernels: Kernels | None = field(doc="calibrated kernels; None without")
    refreshing: Scalar = field("1", "slowdown of main memory where refresh doubles")
    serial_tier_reads: Scalar = field("1", "1 where an operator reads its tiers one after another")
    interleaved: Scalar = field("1", "share of the shorter of near-memory and chip time that overlaps")
    near_slack: Scalar = field("1", "relative slowdown at which an operator still runs near memory")
    traffic: TrafficCosts = field(doc="cost of a byte of each class of data, `[traffic classes, *batch]`")
    near: NearMemoryCosts | None = field(
        doc="costs of operand classes near memory, `[operand classes, *batch]`; None without engines"
    )


def rates(
    chip: Chip, plan: Plan, precision: Precision, traffic: TrafficCosts, near: NearMemoryCosts | None
) -> Rates:
    """Return the unit costs for all operators of all steps.

    A matmul runs at the rate of its wider operand: max(bits of the weight, expert or cache, bits of its inputs).
    Indexers run at that of their keys, their small projections included.
    """
    share, bits_of = chip.efficiency, operand_bits(precision)
    operands, inputs = (stack(bits) for bits in zip(*(bits_of[name] for name in MATH_CLASSES), strict=True))
    bits = jnp.maximum(operands, inputs)
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
    """Times of a step, `[operators, *batch]` or `[*batch]`."""

    operators: OpTime = field(doc="operators without messages; the network leg is 0")
    engine: jax.Array | None = field("s", "overhead of the serving engine; None where not calibrated")
    messages: jax.Array = field("s", "all messages of each kind in a step, `[messages, *batch]`")
    hidden: jax.Array = field("s", "time saved by overlap")
    near: jax.Array | None = field(
        "1", "1 for each operator that runs near memory; None without engines near memory"
    )
    hot: jax.Array = field("s", "time that the step takes longer where refresh doubles")

    @property
    def total(self) -> jax.Array:
        """Time of the step before power capping and heat."""
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

    With C seconds of operators and M of messages, the step takes C + M - overlap min(C, M). Work near memory and on the
    chip overlaps likewise, by the share `interleaved`.

    Args:
        table: the operators of the steps.
        messages: the messages of the steps.
        unit: unit costs.
        overlap: share of the shorter of computation and messages that overlaps with the longer.
        tau: softness.
        kernels: the calibrated kernels of the operators; None for the plain roofline.
        engine: overhead of the serving engine per step, which nothing hides; None where not calibrated.
        heat: whether to compute the effect of a doubled refresh rate.
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
        # A doubled refresh rate lengthens the memory leg: an operator takes longer where that exceeds its time.
        slower = operators.memory * unit.refreshing + table.count * unit.operator_overhead - operators.seconds
        hot = jnp.sum(jnp.maximum(slower, 0), 0)
    return StepTimes(operators=operators, engine=engine, messages=sent, hidden=hidden, near=near, hot=hot)


def by_operand(values: jax.Array, like: jax.Array) -> jax.Array:
    """Gather the value of each operator's operand class, `[classes, *batch]`, for a table `like`."""
    return by_class(values, OPERAND_CLASSES, OPERANDS, "weights", like)


def _operator_times(
    table: OpTable, unit: Rates, tau: Scalar, kernels: KernelRuns | None
) -> tuple[OpTime, jax.Array | None]:
    """Return the times of the operators, summed over their runs, and which run near memory (None without engines)."""
    matmul = table.matmul_flops * by_class(unit.seconds_per_flop, MATH_CLASSES, MATH, "weights", table.count)
    vector = table.vector_flops * unit.seconds_per_vector_flop
    exponential = table.exponentials * unit.seconds_per_exponential
    memory = _memory_leg(table, unit)
    near_leg, near = jnp.zeros_like(memory), None
    matmul, vector, exponential, memory = materialize_once((matmul, vector, exponential, memory))
    if kernels is not None and unit.kernels is not None:
        elementwise = unit.kernels.elementwise
        legs = kernel_seconds(kernels, memory, matmul)
        memory = where(kernels.calibrated, legs.memory, memory / elementwise.memory)
        matmul = where(kernels.calibrated, legs.busy, matmul)
        longest = _longest(matmul, memory, vector, exponential, tau) + elementwise.launch
        seconds = where(kernels.calibrated, legs.seconds, longest)
    else:
        seconds = _longest(matmul, memory, vector, exponential, tau)
    if unit.near is not None:
        costs = jax.tree.map(lambda x: by_operand(x, table.count), unit.near)
        near_leg = _near_leg(table, costs)
        rest_matmul, rest_memory = matmul * (1 - costs.share), _memory_leg(table, unit, costs)
        near_leg, rest_memory, seconds = materialize_once((near_leg, rest_memory, seconds))
        meanwhile = jnp.maximum(jnp.maximum(rest_matmul, rest_memory), jnp.maximum(vector, exponential))
        split = jnp.maximum(meanwhile, near_leg) + costs.blocking * jnp.minimum(rest_memory, near_leg)
        able = named(table.count, *NEAR_OPERATORS)
        split = materialize_once(split)
        runs_there = able & (costs.share > 0) & (split <= seconds * (1 + unit.near_slack))
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
    """Return the time of the matmuls near memory, transfer of inputs and outputs included."""
    work = jnp.maximum(table.operand_bytes * near.byte, table.matmul_flops * near.flop)
    crossing = jnp.maximum(near.transfer, near.partials / table.slices)
    return work + table.activation_bytes * crossing + near.overhead


def _memory_leg(table: OpTable, unit: Rates, near: NearMemoryCosts | None = None) -> jax.Array:
    """Return the time of the bytes through main memory's interface and in the auxiliary tiers.

    With work near memory, `near.main` of the operand still passes the interface, and none passes from auxiliary tiers
    whose engines read it; the chip reads the part of a class in tiers without engines in any case.
    """
    traffic, like = unit.traffic, table.count

    def spread(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Gather the values of the classes of each operator's parameters, cached data and activations."""
        parameters = by_class(values, TRAFFIC_CLASSES, PARAMETERS, "weights", like)
        cached = by_class(values, TRAFFIC_CLASSES, CACHED, "request_kv", like)
        return parameters, cached, row(values, TRAFFIC_CLASSES.index("activations"))

    through, outside = list(spread(traffic.main)), list(spread(traffic.auxiliary))
    if near is not None:
        cached = named(like, *CACHE_OPERATORS)
        for index, members in enumerate((~cached, cached)):
            through[index] = where(members, near.main, through[index])
            outside[index] = where(members, outside[index] * near.unread, outside[index])
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
    """Arrange the times of each step for the report: operators, the engine and messages in the last axis.

    Args:
        step: the times, `[operators, steps, *batch]`.
        messages: names of the messages.
        shape: shape of the batch.
        capped: time lost to a power cap, `[steps, *batch]`.
        heat: time lost to heat, `[steps, *batch]`.
    """
    host = () if step.engine is None else ("engine",)
    names = (*OPERATORS, *host, *messages)
    steps = step.messages.shape[1]

    def padded(x: Scalar, before: int = 0) -> jax.Array:
        """Pad with rows of zeros, `before` of them in front, to one row per name."""
        x = jnp.broadcast_to(x, (np.shape(x)[0], steps, *shape))
        after = len(names) - before - x.shape[0]
        return lax.pad(x, np.zeros((), x.dtype), [(before, after, 0), *[(0, 0, 0)] * (x.ndim - 1)])

    legs = {leg: padded(getattr(step.operators, leg)) for leg in LEGS if leg not in ("network", "near")}
    legs["network"] = padded(step.messages, len(names) - len(messages))
    legs["near"] = jnp.zeros_like(legs["network"]) if step.near is None else padded(step.operators.near)
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
