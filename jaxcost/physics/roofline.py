"""How long each operator takes: the slowest of its engines, its memory traffic and its messages.

Memory traffic is that of main memory and of the tiers beside it, at once or in turn. An operator whose operand lies
in a tier with engines runs there where that is no slower, or by no more than the plan's slack:

    near = max(operand bytes / internal bandwidth, FLOPs / engines' rate) + moving inputs and outputs + starting it

An operator's legs are the times it would need if only one resource counted:

    matmul = FLOPs / (peak(bits) e_matmul)        vector = FLOPs / (peak e_vector)
    exponential = exps / (peak e_vector)          memory = bytes / (bandwidth e_memory)

Its time is their maximum (smooth above tau = 0) plus the overhead of launching it; with calibrated kernels, what
they make of these legs (`kernel_rows`). Source: Williams, Waterman
and Patterson 2009 (doi 10.1145/1498765.1498785), with one leg an engine.
"""

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import stack
from jaxcost.core.fence import once
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.collectives import Message
from jaxcost.physics.glue import RowNear as NearStream
from jaxcost.physics.glue import RowStream as Stream
from jaxcost.physics.glue import Shares, both, largest
from jaxcost.physics.kernel_rows import Runs, kernel_seconds
from jaxcost.physics.ops import Op, OpTable, absent, add, times
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
]

LEGS = ("matmul", "vector", "exponential", "memory", "network", "near")
_BIT_BOUNDS = (5.0, 7.0, 10.0, 20.0)


@pytree
class OpTime:
    """Seconds of one operator in one step, all its runs together."""

    matmul: Scalar = field("s", "matmul leg", default=0.0)
    vector: Scalar = field("s", "element-wise leg", default=0.0)
    exponential: Scalar = field("s", "exponential leg", default=0.0)
    memory: Scalar = field("s", "memory leg", default=0.0)
    network: Scalar = field("s", "message leg", default=0.0)
    near: Scalar = field("s", "leg of the engines near memory", default=0.0)
    seconds: Scalar = field("s", "what the operator takes", default=0.0)

    @derived("1")
    def binding(self) -> jax.Array:
        """Index into `LEGS` of the resource that binds the operator."""
        return jnp.argmax(stack([getattr(self, leg) for leg in LEGS]), axis=0)


@pytree
class OpTimes:
    """Seconds of every operator in one step."""

    rows: tuple[OpTime, ...] = field(doc="the operators, messages last")
    hidden: Scalar = field("s", "time in which messages, the chip and engines near memory overlap")
    capped: Scalar = field("s", "time lost to a clock that keeps a power cap", default=0.0)
    heat: Scalar = field("s", "time lost to heat", default=0.0)
    names: tuple[str, ...] = field(doc="name of each row", static=True)

    @derived("s")
    def total(self) -> Scalar:
        """Time of the whole step."""
        return add(add(*(row.seconds for row in self.rows)) - self.hidden, self.capped, self.heat)


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

    seconds_per_flop: dict[str, Scalar] = field(doc="matmul, by operand class")
    joules_per_flop: dict[str, Scalar] = field(doc="matmul, by operand class")
    seconds_per_vector_flop: Scalar = field("s/FLOP", "element-wise")
    seconds_per_exponential: Scalar = field("s", "exponentials")
    seconds_per_byte: Scalar = field("s/B", "main memory")
    width: dict[str, Scalar] = field(doc="bits of the matmul engine, by operand class")
    operator_overhead: Scalar = field("s", "launching one operator")
    kernels: Kernels | None = field(doc="calibrated kernels, where there are")
    refreshing: Scalar = field("1", "by what main memory slows where refresh doubles")
    in_turn: Scalar = field("1", "1 where an operator reads its tiers in turn")
    interleaved: Scalar = field("1", "share of near-memory work that hides")
    near_slack: Scalar = field("1", "share by which work near memory may be slower")
    one: jax.Array = field("1", "an `opaque_one`")
    shares: dict[str, Shares] = field(
        doc="classes of data over the tiers beside main memory: of their traffic"
    )
    streams: dict[str, Stream] = field(doc="what they cost by that")
    near: dict[str, NearStream | None] = field(doc="classes of data near memory")


def rates(
    chip: Chip,
    plan: Plan,
    shares: dict[str, Shares],
    streams: dict[str, Stream],
    near: dict[str, NearStream | None],
    one: jax.Array,
) -> Rates:
    """Work out the unit costs once, for all rows of all steps.

    A matmul runs at the rate of its wider operand: max(bits of the weight, expert or cache, bits of activations).
    """
    share = chip.efficiency
    operands = {"weights": plan.weight_bits, "experts": plan.expert_bits, "cache": plan.kv_bits}
    bits = {name: jnp.maximum(b, plan.activation_bits) for name, b in operands.items()}
    seconds: dict[str, Scalar] = {name: 1 / (math_rate(chip, b) * share.matmul) for name, b in bits.items()}
    width: dict[str, Scalar] = {name: math_class(b) for name, b in bits.items()}
    joules: dict[str, Scalar] = {name: chip.energy_per_flop * w / 16 for name, w in width.items()}
    refresh = jnp.minimum(chip.memory.refresh, 0.49)
    return Rates(
        seconds_per_flop=seconds | {"shared": seconds["weights"]},
        joules_per_flop=joules | {"shared": joules["weights"]},
        seconds_per_vector_flop=1 / (chip.compute.vector_flops * share.vector),
        seconds_per_exponential=1 / (chip.compute.exponentials * share.vector),
        seconds_per_byte=1 / (chip.memory.bandwidth * share.memory),
        width=width | {"shared": width["weights"]},
        operator_overhead=share.operator_overhead,
        kernels=share.kernels,
        refreshing=(1 - refresh) / (1 - 2 * refresh),
        in_turn=plan.placement.in_turn,
        interleaved=plan.placement.interleaved,
        near_slack=plan.placement.near_slack,
        one=one,
        shares=shares,
        streams=streams,
        near=near,
    )


@pytree
class StepTimes:
    """The times of a step and what heat and energy need to know of its rows."""

    times: OpTimes = field(doc="operator by operator")
    near: tuple[Scalar, ...] = field(doc="1 for each row that runs near memory")
    hot: Scalar = field("s", "what the step takes longer where refresh doubles")


def op_times(
    table: OpTable,
    messages: dict[str, tuple[Scalar, Message]],
    unit: Rates,
    overlap: Scalar,
    tau: Scalar,
    *,
    kernels: dict[str, Runs] | None = None,
    engine: Scalar | None = None,
    heat: bool = False,
) -> StepTimes:
    """Time every row of the table, and behind them the messages, given as {name: (count, message)}.

    Of C seconds of operators and M of messages the shorter can hide behind the longer, and `overlap` of it does:
    the step takes C + M - overlap min(C, M). Of work near memory and on the chip `interleaved` hides likewise.
    `kernels` are the rows' own, by name, where the chip's are calibrated; there `engine` is what the serving engine
    adds to the step, a row between operators and messages that hides nothing.
    """
    own = {} if kernels is None else kernels
    timed = [_row_time(row, unit, tau, own.get(n)) for n, row in zip(table.names, table.rows, strict=True)]
    operators, near = [one for one, _ in timed], tuple(chosen for _, chosen in timed)
    sent = [count * m.seconds for count, m in messages.values()]
    busy, messaging = add(*(row.seconds for row in operators)), add(*sent)
    hidden = overlap * smooth.minimum(busy, messaging, tau)
    there = add(*(times(row.seconds, chosen) for row, chosen in zip(operators, near, strict=True)))
    if not absent(there):
        hidden = hidden + unit.interleaved * smooth.minimum(there, busy - there, tau)
    hot = 0.0
    if heat:
        # Refresh takes main memory's time: a row grows by what its memory leg then exceeds it.
        slower = (
            jnp.maximum(row.memory * unit.refreshing + op.count * unit.operator_overhead - row.seconds, 0)
            for row, op in zip(operators, table.rows, strict=True)
            if not absent(row.memory)
        )
        hot = add(*slower)
    host = {} if engine is None else {"engine": OpTime(seconds=engine)}
    rows = (*operators, *host.values(), *(OpTime(network=s, seconds=s) for s in sent))
    return StepTimes(
        times=OpTimes(rows=rows, hidden=hidden, names=(*table.names, *host, *messages)), near=near, hot=hot
    )


def _row_time(row: Op, unit: Rates, tau: Scalar, kernel: Runs | None = None) -> tuple[OpTime, Scalar]:
    """Time one row, all its runs together; and tell whether it runs near memory, 0.0 where it never does."""
    legs = {
        "matmul": times(row.matmul_flops, unit.seconds_per_flop[row.operands]),
        "memory": _memory_leg(row, unit),
        "vector": times(row.vector_flops, unit.seconds_per_vector_flop),
        "exponential": times(row.exponentials, unit.seconds_per_exponential),
    }
    seconds, chosen = _longest(legs, tau), 0.0
    if kernel is not None:
        spent = kernel_seconds(kernel, legs["memory"], legs["matmul"])
        legs |= {"memory": spent.memory, "matmul": spent.busy}
        seconds = spent.seconds
    elif unit.kernels is not None:
        passing = unit.kernels.elementwise
        legs["memory"] = times(legs["memory"], 1 / passing.memory)
        seconds = add(_longest(legs, tau), passing.launch)
    near = unit.near.get(row.operands)
    if near is not None and not absent(row.matmul_flops) and not absent(row.operand_bytes):
        there = _near_leg(row, near)
        rest = legs | {
            "matmul": legs["matmul"] * (1 - near.share),
            "memory": _memory_leg(row, unit, near),
        }
        meanwhile = largest([leg for leg in rest.values() if not absent(leg)])
        split = jnp.maximum(meanwhile, there) + near.blocking * jnp.minimum(rest["memory"], there)
        seconds, split = once((seconds, split), unit.one)
        runs_there = (near.share > 0) & (split <= seconds * (1 + unit.near_slack))
        chosen = jnp.where(runs_there, 1.0, 0.0)
        seconds = jnp.where(runs_there, split, seconds)
        legs |= {name: jnp.where(runs_there, rest[name], legs[name]) for name in ("matmul", "memory")}
        legs["near"] = jnp.where(runs_there, there, 0)
    return OpTime(
        **{name: times(value, row.count) for name, value in legs.items()},
        seconds=times(add(seconds, unit.operator_overhead), row.count),
    ), chosen


def _near_leg(row: Op, near: NearStream) -> Scalar:
    """Time of a row's matmul near memory, with the way of its inputs and outputs."""
    shared = near.partials if absent(row.slices) else near.partials / row.slices
    work = jnp.maximum(row.operand_bytes * near.byte, row.matmul_flops * near.flop)
    return work + row.activation_bytes * jnp.maximum(near.transfer, shared) + near.overhead


def _longest(legs: dict[str, Scalar], tau: Scalar) -> Scalar:
    present = [x for x in legs.values() if not absent(x)]
    if not present:
        return 0.0
    busy, *others = present
    for leg in others:
        busy = smooth.maximum(busy, leg, tau)
    return busy


def _memory_leg(row: Op, unit: Rates, near: NearStream | None = None) -> Scalar:
    """Time of a row's bytes through main memory's interface and in the tiers beside it.

    Work near memory leaves `near.main` of its operand to the interface, and none to the tiers beside it whose
    engines read it; the part of a class in tiers without engines is read by the chip in any case.
    """
    main, beside, more = [], [], []
    for column, name in row.moved:
        amount, stream = getattr(row, column), unit.streams[name]
        through, outside = stream.main, stream.beside
        if near is not None and name == row.operands:
            through, outside = near.main, times(outside, near.unread)
        if name in ("weights", "shared") and not absent(row.kept):
            through, outside = through + row.kept * (1 - through), times(outside, 1 - row.kept)
        main.append(times(amount, through))
        beside.append(times(amount, outside))
        if name == "recent":
            more.append(times(times(amount, row.writes), stream.write))
        if name == "experts":
            more.append(0.0 if absent(amount) else stream.wait)
    passing = times(add(*main), unit.seconds_per_byte)
    return add(both(passing, add(*beside), unit.in_turn), *more)
