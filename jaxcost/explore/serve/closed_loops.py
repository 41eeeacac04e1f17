"""A closed loop of users on a continuous-batching engine: mean times, in closed form over the steps of `evaluate`.

Each of c users sends a request, reads the answer and sends the next. Symbols: b users in the batch, the rest wait for
memory; d seconds of a decode step of b; P by how much a prompt lengthens the step it rides in; L layers; n and o
tokens of prompt and output. In one life of a request every other user's prompt is prefilled once: m of them, mine
included, before my first token, the rest while I decode. So work is conserved, whatever the engine puts first:

    b = min(c, slots),   slots = (kv_share x memory - weights) / (cache and state of a sequence of n + o)
    P = S(mixed step - decode step, eager L / (1 + 400 / n), 0.2)
    m = (1 - first) (k + 1) / 2 + first (b + 1) / 2,   k = min(b, bunch)
    TPOT = d + (b - m) P / o
    TTFT = front + eager L + d + m P + (c / b - 1) (TTFT of a user in the batch + o TPOT)

S is `smooth.maximum`. `first` is the share of requests that the client sends all at once at the start: 1/10 where
each user sends ten in all, 0 in steady state. Users with requests of equal length stay together: k of them come back
in one step; lengths that vary break that up. The last term is Little's law for those who wait.
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

_TOGETHER = 400.0  # tokens of other prompts in a step that prefills one, on average
_FULL = 0.03  # softness of the limit of memory: slots are not all of one size
_FLOOR = 0.2  # softness of the eager floor, and of how many come back together


@pytree
class LoopSteps:
    """The steps of one group of users who share a batch, without what the engine adds to them."""

    decode: Scalar = field("s", "kernels and messages of a decode step of the batch")
    prefill: Scalar = field("s", "by how much one prompt lengthens such a step")
    batch: Scalar = field("1", "users in the batch")
    slots: Scalar = field("1", "users whose whole context fits")
    layers: Scalar = field("1", "layers that a step goes through")
    tokens: Scalar = field("token", "tokens that a sequence gains in a decode step", default=1.0)
    interval: Scalar = field("1", "time between two steps of a sequence, in steps", default=1.0)


@pytree
class ClosedLoop:
    """Means over the requests of a closed loop of users."""

    tpot: Scalar = field("s", "time per output token after the first")
    ttft: Scalar = field("s", "time to first token, waiting included")
    tokens_per_second: Scalar = field("token/s", "output of the whole system")
    in_batch: Scalar = field("1", "users in the batches of all groups")
    waiting: Scalar = field("1", "users who wait for memory")
    slots: Scalar = field(
        "1", "users whose context fits, all groups; below one a group nothing fits, and one is assumed"
    )
    decode: Scalar = field("s", "a decode step, with what the engine adds")
    prefill: Scalar = field("s", "by how much one prompt lengthens such a step")


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
    """Time the requests of a number of users, each of whom sends the next when the last is answered.

    Pure, differentiable, traceable and native over a batch as `evaluate`, of which it takes one: a step of the users in
    the batch, and one that carries a prompt along. `system.chip.efficiency.kernels` calibrates both, and its `engine`
    the rest; without it the engine is ideal and kernels are the roofline.

    Args:
        system: chips, links and hosts.
        model: the language model.
        traffic: lengths; a variation above 0 keeps users from coming back together. Batch and rate are not used.
        plan: layout; users are shared evenly among its data-parallel groups. Its chunk is not used.
        users: in the whole system.
        first: share of requests that are sent all at once at the start.
        knobs: as for `evaluate`; groups may hold a fraction of a user.
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
    found = ClosedLoop(
        tpot=tpot,
        ttft=ttft,
        tokens_per_second=users * traffic.output / life,
        in_batch=steps.batch * plan.dp,
        waiting=(each - steps.batch) * plan.dp,
        slots=steps.slots * plan.dp,
        decode=_decode(engine, steps),
        prefill=_prefill(engine, steps, _computed(traffic)),
    )
    return spread(found, batch_shape((system, model, traffic, plan, knobs, users, first)))


def in_batch(users: Scalar, slots: Scalar) -> Scalar:
    """Users of a group in the batch: all, or as many as fit, and one at least."""
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
    """Evaluate the steps of a group of users who share a batch.

    Args:
        system: as for `closed_loop`; only `kv_share` counts of its engine.
        model: the language model.
        traffic: lengths.
        plan: layout.
        users: of one group.
        knobs: as for `evaluate`.
        features: of `design_features`, where the caller knows better than tracing shows.
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
    asked = replace(traffic, batch=batch * plan.dp)
    riding = replace(plan, chunk=_computed(traffic))
    report = evaluate(system, model, asked, riding, knobs=knobs, features=features)
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
    """Return mean TPOT and TTFT of a group of users: the equations of the closed loop.

    Args:
        engine: its constants.
        steps: of the group.
        users: of the group.
        prompt: tokens to be computed.
        output: tokens.
        first: share of requests that are sent all at once at the start.
        equal: 1 where requests are of one length, 0 where they vary.
    """
    batch, step, prefill = steps.batch, _decode(engine, steps), _prefill(engine, steps, prompt)
    together = smooth.minimum(batch, 1 + equal * (engine.burst_size - 1), _FLOOR)
    ahead = (1 - first) * (together + 1) / 2 + first * (batch + 1) / 2
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
