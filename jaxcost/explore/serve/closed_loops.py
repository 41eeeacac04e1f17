"""Closed-loop latency of c users on a continuous-batching engine, in closed form over the steps of `evaluate`.

Each of c users sends a request, waits for the answer and sends the next request. Symbols: b users in the batch, while
the others wait for memory; d seconds of a decode step of b; P the time that one prompt adds to the step it is mixed
into; L layers; n and o tokens of prompt and output. During the lifetime of a request every other user's prompt is
prefilled once: m prompts, its own included, before its first token, and the others while it decodes. Work is therefore
conserved, whichever of prefill and decode the engine runs first:

    b = min(c, slots),   slots = (kv_share x memory - weights) / (cache and state of a sequence of n + o)
    P = S(mixed step - decode step, eager_launch_floor L / (1 + 400 / n), 0.2)
    m = (1 - first) (k + 1) / 2 + first (b + 1) / 2,   k = min(b, burst_size)
    TPOT = d + (b - m) P / o
    TTFT = frontend_latency + eager_launch_floor L + d + m P + (c / b - 1) (TTFT of a user in the batch + o TPOT)

S is `smooth.maximum`. `first` is the share of requests that clients send all at once at the start: 1/10 where each
user sends ten requests, 0 in steady state. Users whose requests have equal lengths stay in lockstep, and k of them
return in the same step; varying lengths break the lockstep. The last term of TTFT is Little's law for waiting users.
"""

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import align, batch_shape, spread
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features, evaluate
from jaxcost.physics.compute.shards import layer_count, microbatches, shard
from jaxcost.physics.memory.capacity import memory_use
from jaxcost.spec.kernels import Engine
from jaxcost.spec.memory import TIERS
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["ClosedLoop", "LoopSteps", "closed_loop", "closed_loop_steps", "in_batch", "loop_times"]

_TOGETHER = 400.0  # mean tokens of other prompts in a step that prefills one
_FULL = 0.03  # softness of the memory limit, since slots differ in size
_FLOOR = 0.2  # softness of the eager launch floor and of the burst size


@pytree
class LoopSteps:
    """The steps of one group of users who share a batch, without the overheads of the engine."""

    decode: Scalar = field("s", "kernels and messages of a decode step of the batch")
    prefill: Scalar = field("s", "time that one prompt adds to such a step")
    batch: Scalar = field("1", "users in the batch")
    slots: Scalar = field("1", "users whose whole context fits in memory")
    layers: Scalar = field("1", "layers of the model")
    tokens: Scalar = field("token", "tokens that a sequence gains per decode step", default=1.0)
    interval: Scalar = field("1", "time between two steps of a sequence, in steps", default=1.0)


@pytree
class ClosedLoop:
    """Means over the requests of a closed loop of users."""

    tpot: Scalar = field("s", "time per output token after the first")
    ttft: Scalar = field("s", "time to first token, waiting included")
    tokens_per_second: Scalar = field("token/s", "output tokens per second of the whole system")
    in_batch: Scalar = field("1", "users in the batches of all groups")
    waiting: Scalar = field("1", "users who wait for memory")
    slots: Scalar = field(
        "1", "users whose context fits, all groups; where not even one per group fits, one is assumed"
    )
    decode: Scalar = field("s", "a decode step, overheads of the engine included")
    prefill: Scalar = field("s", "time that one prompt adds to such a step")


def closed_loop(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    users: Scalar,
    first: Scalar = 0.0,
    knobs: Knobs | None = None,
) -> ClosedLoop:
    """Return the closed-loop latency and throughput of users who wait for each answer before the next request.

    Pure, traceable, differentiable and native over a batch of designs, as `evaluate`, which it calls once: for a decode
    step of the users in the batch and for a step with a prompt mixed in. The times of both follow
    `system.chip.efficiency.kernels`, and the overheads its `engine`. Without calibrated kernels the engine is ideal and
    kernels follow the roofline. The equations are in `explore/serve/closed_loops.py`.

    Args:
        system: chips, links and hosts.
        model: the language model.
        traffic: prompt and output lengths; with a variation above 0 users do not stay in lockstep. Batch and rate are
            ignored.
        plan: the sharding and precisions; users are divided evenly among its data-parallel groups. Chunk is ignored.
        users: concurrent users of the whole system.
        first: share of requests that are sent all at once at the start.
        knobs: as for `evaluate`; groups may have a fraction of a user.
    """
    arguments = canonical((system, model, traffic, plan, knobs or Knobs(), users, first))
    return _closed_loop(*arguments, design_features(system, traffic, plan, arguments[4]))


@program(static_argnames=("features",))
def _closed_loop(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    knobs: Knobs,
    users: Scalar,
    first: Scalar,
    features: tuple[str, ...],
) -> ClosedLoop:
    kernels = system.chip.efficiency.kernels
    engine = Engine() if kernels is None else kernels.engine
    each = users / plan.dp
    steps = closed_loop_steps(system, model, traffic, plan, users=each, knobs=knobs, features=features)
    tpot, ttft = loop_times(
        engine,
        steps,
        users=each,
        prompt=_computed(traffic),
        output=traffic.output,
        first=first,
        equal=jnp.where(traffic.variation > 0, 0, 1),
    )
    life = ttft + (traffic.output - 1) * tpot
    loop = ClosedLoop(
        tpot=tpot,
        ttft=ttft,
        tokens_per_second=users * traffic.output / life,
        in_batch=steps.batch * plan.dp,
        waiting=(each - steps.batch) * plan.dp,
        slots=steps.slots * plan.dp,
        decode=_decode(engine, steps),
        prefill=_prefill(engine, steps, _computed(traffic)),
    )
    return spread(loop, batch_shape((system, model, traffic, plan, knobs, users, first)))


def in_batch(users: Scalar, slots: Scalar) -> Scalar:
    """Return the users of a group in the batch: all, or as many as fit in memory, and at least one."""
    return smooth.minimum(users, jnp.maximum(slots, 1), _FULL)


def closed_loop_steps(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    *,
    users: Scalar,
    knobs: Knobs | None = None,
    features: tuple[str, ...] | None = None,
) -> LoopSteps:
    """Evaluate the steps of one group of users who share a batch.

    Args:
        system: as for `closed_loop`; of its engine only `kv_share` is used.
        model: the language model.
        traffic: prompt and output lengths.
        plan: the sharding and precisions.
        users: concurrent users of the group.
        knobs: as for `evaluate`.
        features: result of `design_features`; None to find it from the leaves that are not traced.
    """
    knobs = replace(Knobs() if knobs is None else knobs, fractional=1.0)
    kernels = system.chip.efficiency.kernels
    share = 1.0 if kernels is None else kernels.engine.kv_share
    if kernels is not None:
        system = _without_engine(system)
    system, model, traffic, plan, users, knobs = align((system, model, traffic, plan, users, knobs))
    parts = microbatches(plan)
    shards = shard(model, plan, knobs.tau)
    context = traffic.prompt + traffic.retrieved + traffic.encoder_tokens + traffic.output
    one = memory_use(
        model, plan, shards, sequences=1.0, context=context, step_tokens=0.0, communication=0.0, corpus=0.0
    )
    chip = system.chip
    memory = share * sum(getattr(chip, name).capacity for name in TIERS) - chip.reserved
    slots = (memory - one.weights - one.experts) / (one.kv + one.state)
    batch = in_batch(users, slots)
    loaded = replace(traffic, batch=batch * plan.dp)
    mixed = replace(plan, chunk=_computed(traffic))
    report = evaluate(system, model, loaded, mixed, knobs=knobs, features=features)
    s = report.schedule
    longer = s.interval * (report.prefill.total - report.decode.total) / parts
    return LoopSteps(
        decode=report.decode.total,
        prefill=jnp.maximum(longer, 0),
        batch=batch,
        slots=slots,
        layers=layer_count(model),
        tokens=s.tokens_per_step,
        interval=s.interval,
    )


def loop_times(
    engine: Engine,
    steps: LoopSteps,
    *,
    users: Scalar,
    prompt: Scalar,
    output: Scalar,
    first: Scalar,
    equal: Scalar,
) -> tuple[Scalar, Scalar]:
    """Return mean TPOT and TTFT, s, of one group of users.

        m = (1 - first) (k + 1) / 2 + first (b + 1) / 2,   TPOT = d + (b - m) P / o

    Args:
        engine: constants of the engine.
        steps: steps of the group.
        users: concurrent users of the group.
        prompt: prompt tokens that are computed.
        output: output tokens.
        first: share of requests that are sent all at once at the start.
        equal: 1 where requests have equal lengths, 0 where they vary.
    """
    batch, step, prefill = steps.batch, _decode(engine, steps), _prefill(engine, steps, prompt)
    burst = smooth.minimum(batch, 1 + equal * (engine.burst_size - 1), _FLOOR)
    ahead = (1 - first) * (burst + 1) / 2 + first * (batch + 1) / 2
    tpot = step / steps.tokens + jnp.maximum(batch - ahead, 0) * prefill / output
    served = engine.frontend_latency + engine.eager_launch_floor * steps.layers + step + ahead * prefill
    waiting = jnp.maximum(users / batch - 1, 0) * (served + output * tpot)
    return tpot, served + waiting


def _decode(engine: Engine, steps: LoopSteps) -> Scalar:
    return steps.interval * (steps.decode + engine.layer * steps.layers + engine.sequence * steps.batch)


def _prefill(engine: Engine, steps: LoopSteps, prompt: Scalar) -> Scalar:
    floor = engine.eager_launch_floor * steps.layers / (1 + _TOGETHER / prompt)
    return smooth.maximum(steps.prefill, floor, _FLOOR)


def _computed(traffic: Traffic) -> Scalar:
    return traffic.prompt * (1 - traffic.prefix_hit) + traffic.encoder_tokens


def _without_engine(system: System) -> System:
    share = system.chip.efficiency
    kernels = replace(share.kernels, engine=Engine())
    return replace(system, chip=replace(system.chip, efficiency=replace(share, kernels=kernels)))
