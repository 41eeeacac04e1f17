"""Closed-loop latency of c users on a continuous-batching engine, in closed form over the steps of `evaluate`.

Each of c users sends a request, waits for the answer and sends the next request. Symbols: b users in the batch, while
the others wait for memory; d seconds of a decode step of b; P the time that one prompt adds to the step it is mixed
into; L layers; n and o tokens of prompt and output; r the share of the output that the engine reserves. During the
lifetime of a request every other user's prompt is prefilled once: m prompts, its own included, before its first token,
and the others while it decodes. Work is therefore conserved, whichever of prefill and decode the engine runs first:

    b = min(c, slots),   slots = pool of the engine / (cache and state of a sequence of n + (1 + r) o / 2)
    P = s (mixed steps - decode steps) + eager_launch_floor L,   s = narrow_prefill for prompts in 8 bits, else 1
    m = (1 - first) (k + q(k)) / 2 + first (b + q(b)) / 2,   k = 1 + e (min(b, burst_size) - 1)
    q(k) = min(k, max(budget / n, 1))
    TPOT = d + (b - m) P / o
    TTFT = frontend_latency + d + m P + (c / b - 1) (TTFT of a user in the batch + (o - 1) TPOT)

A prompt takes ceil(n / budget) mixed steps, and q of k prompts that come together share a step:
all of its users wait for all of it, so that the prompts of the steps i = 1 ... k / q take i q P, on average (k + q) P /
2. `first` is the share of requests that clients send
all at once at the start: 1/10 where each user sends ten requests, 0 in steady state. Users whose requests have equal
lengths stay in lockstep, and k of them return in the same step. Lengths of variation v break the lockstep: two answers
of about o tokens, independent and normally distributed, end in the same step with probability e = 1 / sqrt(1 + 4 pi v
o^2), which is exact for v = 0 and for long answers. The last term of TTFT is Little's law for waiting users. A
running request caches n + o / 2 tokens on average; what the engine reserves of the rest is not for others. Slots that
are fewer than one are a plan that does not fit: `ClosedLoop.memory` is negative, and the times are those of one
user.
"""

import math

import jax.numpy as jnp
from jax.lax import stop_gradient

from jaxcost.core import smooth
from jaxcost.core.arrays import align, batch_shape, spread, where
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features, evaluate
from jaxcost.explore.serve.memory_fit import fill_requests
from jaxcost.physics.compute.shards import complete_plan, layer_count, microbatches
from jaxcost.schedule import context_tokens
from jaxcost.spec.kernels import UNLIMITED, EngineOverheads
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic
from jaxcost.step_cost import is_narrow, prompt_seconds

__all__ = [
    "ClosedLoop",
    "LoopSteps",
    "closed_loop",
    "closed_loop_steps",
    "in_batch",
    "loop_times",
]

_FULL = 0.03  # softness of the memory limit at a variation of 1 and above, since slots differ in size
_BURST = 0.2  # softness of the burst size


@pytree
class LoopSteps:
    """The steps of one group of users who share a batch, without the overheads of the engine."""

    decode: Scalar = field("s", "kernels and messages of a decode step of the batch")
    prefill: Scalar = field("s", "time that one prompt adds to such a step")
    batch: Scalar = field("1", "users in the batch")
    slots: Scalar = field(
        "1", "users whose cache fits in memory, with the mean output and what is reserved of it"
    )
    layers: Scalar = field("1", "layers of the model")
    memory: Scalar = field("1", "margin of memory with one user", default=1.0)
    tokens: Scalar = field("token", "tokens that a sequence gains per decode step", default=1.0)
    interval: Scalar = field("1", "time between two steps of a sequence, in steps", default=1.0)
    together: Scalar = field("1", "prompts that the token budget of a step holds, at least one", default=1.0)
    narrow: Scalar = field("1", "1 where prompts are computed in 8 bits or fewer, else 0", default=0.0)


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
    memory: Scalar = field(
        "1", "memory of a group with one user against what the engine may use, negative where it does not fit"
    )
    decode: Scalar = field("s", "a decode step, overheads of the engine included")
    decode_tpot: Scalar = field("s", "time per output token without prompts in the steps")
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
        plan: the sharding, precisions and engine; users are divided evenly among its data-parallel groups. Chunk is
            ignored: prompts are mixed into decode steps in chunks of the engine's token budget.
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
    engine = EngineOverheads() if kernels is None else kernels.engine
    plan, users = complete_plan(plan), jnp.maximum(users, 0)
    each = users / plan.dp
    steps = closed_loop_steps(system, model, traffic, plan, users=each, knobs=knobs, features=features)
    tpot, ttft = loop_times(
        engine,
        steps,
        users=each,
        output=traffic.output,
        first=first,
        equal=_lockstep(traffic),
    )
    life = ttft + jnp.maximum(traffic.output - 1, 0) * tpot
    loop = ClosedLoop(
        tpot=tpot,
        ttft=ttft,
        tokens_per_second=users * traffic.output / life,
        in_batch=steps.batch * plan.dp,
        waiting=(each - steps.batch) * plan.dp,
        slots=jnp.maximum(steps.slots, 1) * plan.dp,
        memory=steps.memory,
        decode=_decode(engine, steps),
        decode_tpot=_decode(engine, steps) / steps.tokens,
        prefill=_prefill(engine, steps),
    )
    return spread(loop, batch_shape((system, model, traffic, plan, knobs, users, first)))


def in_batch(users: Scalar, slots: Scalar, variation: Scalar) -> Scalar:
    """Return the users of a group in the batch: all, or as many as fit in memory, and at least one.

    With varying lengths the limit is soft; without, it is exact.
    """
    slots = jnp.maximum(slots, 1)
    soft = smooth.minimum(users, slots, _FULL * jnp.minimum(variation, 1))
    return jnp.maximum(soft, jnp.minimum(users, 1))


def computed_tokens(traffic: Traffic) -> Scalar:
    """Return the prompt tokens of a request that are computed, at least one."""
    return jnp.maximum(traffic.prompt * (1 - traffic.prefix_hit) + traffic.encoder_tokens, 1)


def _lockstep(traffic: Traffic) -> Scalar:
    """Return the probability that two answers which started together end in the same step."""
    spread_tokens = traffic.variation * traffic.output * traffic.output
    return 1 / jnp.sqrt(1 + 4 * math.pi * spread_tokens)


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
        system: as for `closed_loop`; the overheads of its engine are not used.
        model: the language model.
        traffic: prompt and output lengths.
        plan: the sharding and precisions.
        users: concurrent users of the group.
        knobs: as for `evaluate`.
        features: result of `design_features`; None to find it from the leaves that are not traced.
    """
    knobs = replace(Knobs() if knobs is None else knobs, fractional=1.0)
    if system.chip.efficiency.kernels is not None:
        system = _without_overheads(system)
    if features is None:
        features = design_features(system, traffic, plan, knobs)
    system, model, traffic, plan, users, knobs = align((system, model, traffic, plan, users, knobs))
    parts, computed = microbatches(plan), computed_tokens(traffic)
    context = context_tokens(traffic) + traffic.output * (1 + plan.engine.reserved_output) / 2
    one, slots = fill_requests(system, model, plan, context=context, prompt=computed, features=features)
    batch = in_batch(users, slots, traffic.variation)
    budget = plan.engine.step_tokens
    chunks = stop_gradient(smooth.ceil_div(computed, jnp.where(budget > 0, budget, computed), 0.0))
    loaded = replace(traffic, batch=batch * plan.dp)
    mixed = replace(plan, chunk=computed / chunks)
    report = evaluate(system, model, loaded, mixed, knobs=knobs, features=features)
    s = report.schedule
    longer = chunks * s.interval * (report.prefill.total - report.decode.total) / parts
    return LoopSteps(
        decode=report.decode.total,
        prefill=jnp.maximum(longer, 0),
        batch=batch,
        slots=slots,
        memory=1 - one.use.used / jnp.maximum(one.use.fixed + one.pool, 1),
        layers=layer_count(model),
        tokens=s.tokens_per_step,
        interval=s.interval,
        together=jnp.maximum(where(budget > 0, budget / computed, UNLIMITED), 1),
        narrow=is_narrow(plan),
    )


def loop_times(
    engine: EngineOverheads,
    steps: LoopSteps,
    *,
    users: Scalar,
    output: Scalar,
    first: Scalar,
    equal: Scalar,
) -> tuple[Scalar, Scalar]:
    """Return mean TPOT and TTFT, s, of one group of users.

        m = (1 - first) (k + q(k)) / 2 + first (b + q(b)) / 2,   TPOT = d + (b - m) P / o

    Args:
        engine: constants of the engine.
        steps: steps of the group.
        users: concurrent users of the group.
        output: output tokens.
        first: share of requests that are sent all at once at the start.
        equal: probability that users who start together return together: 1 where requests have equal lengths.
    """
    batch, step, prefill = steps.batch, _decode(engine, steps), _prefill(engine, steps)
    burst = 1 + equal * jnp.maximum(smooth.minimum(batch, engine.burst_size, _BURST) - 1, 0)
    mean = lambda count: (count + jnp.minimum(count, steps.together)) / 2  # noqa: E731
    ahead = (1 - first) * mean(burst) + first * mean(batch)
    tpot = step / steps.tokens + jnp.maximum(batch - ahead, 0) * prefill / jnp.maximum(output, 1)
    served = engine.frontend_latency + step + ahead * prefill
    held = served + jnp.maximum(output - 1, 0) * tpot  # time that a request holds its memory
    waiting = jnp.maximum(smooth.safe_div(users, batch, 1.0) - 1, 0) * held
    return tpot, served + waiting


def _decode(engine: EngineOverheads, steps: LoopSteps) -> Scalar:
    return steps.interval * (steps.decode + engine.layer * steps.layers + engine.sequence * steps.batch)


def _prefill(engine: EngineOverheads, steps: LoopSteps) -> Scalar:
    return prompt_seconds(engine, steps.prefill, steps.layers, steps.narrow)


def _without_overheads(system: System) -> System:
    share = system.chip.efficiency
    kernels = replace(share.kernels, engine=EngineOverheads())
    return replace(system, chip=replace(system.chip, efficiency=replace(share, kernels=kernels)))
