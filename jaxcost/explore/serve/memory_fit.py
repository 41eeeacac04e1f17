"""What fits: the memory of a chip under a plan and a serving engine, and the requests that its cache holds.

Symbols: c bytes of cache and states of one request on a chip, at a context of n tokens; pool, the memory that the
engine leaves for them (`physics/memory/allocation.py`); S bytes of working memory per sampled token.

    requests = dp pool / c(n),   tokens = n x requests,   longest context = largest n with users / dp c(n) <= pool

Where buffers are sized for the traffic and logits are the largest of them, every request takes c + S, not c.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcost.core import smooth
from jaxcost.core.arrays import align, batch_shape, spread, total, where
from jaxcost.core.program import program
from jaxcost.core.pytree import Scalar, canonical, field, pytree, replace
from jaxcost.evaluation import design_features
from jaxcost.explore.analysis import DEGREES, candidate_plans
from jaxcost.physics.compute.shards import can_shard, complete_plan, microbatches, shard
from jaxcost.physics.memory.allocation import buffered_tokens, cache_pool, needed_share
from jaxcost.physics.memory.capacity import MemoryUse, memory_use, sequence_bytes, working_bytes
from jaxcost.physics.memory.tiers import tiers_of, usable_chip
from jaxcost.physics.network.messages import communication_buffers
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "MEASURABLE",
    "ChipCount",
    "FilledMemory",
    "MemoryFit",
    "count_chips",
    "fill_requests",
    "fit",
    "whole_requests",
]

MEASURABLE = ("weights_bytes", "activation_bytes", "reserved_bytes", "graph_bytes")

_DOUBLINGS = 30  # the longest context that is tried is 2^30 tokens
_MOST_CHIPS = 64
_ROUNDING = 1e-6  # relative: a number of requests this much below a whole one is that


class FilledMemory(NamedTuple):
    """The memory of the fullest chip with a number of sequences, and the pool for cache and states."""

    use: MemoryUse
    pool: Scalar
    main: Scalar  # capacity of main memory that a model can use
    others: Scalar  # capacity of auxiliary tiers


@pytree
class MemoryFit:
    """The memory of the fullest chip as an engine divides it, and what the cache of all replicas holds."""

    capacity_bytes: Scalar = field("B", "memory of a chip, all tiers")
    weights_bytes: Scalar = field("B", "weights, with experts, draft and padding of kernels")
    activation_bytes: Scalar = field("B", "working and message buffers of the largest step")
    reserved_bytes: Scalar = field("B", "runtime and communicators")
    graph_bytes: Scalar = field("B", "captured graphs")
    kv_bytes: Scalar = field("B", "pool for cache and recurrent states, negative where the rest does not fit")
    unused_bytes: Scalar = field("B", "memory that the engine leaves free")
    context: Scalar = field("token", "tokens of a request, prompt and output")
    request_bytes: Scalar = field(
        "B", "cache and states of one request of that context, as the engine allots them"
    )
    requests: Scalar = field("1", "requests of that context that fit in all replicas, may be a fraction")
    kv_tokens: Scalar = field("token", "tokens of these requests together")
    users: Scalar = field("1", "concurrent requests asked for")
    longest_context: Scalar = field("token", "longest context at which `users` requests fit; 0 for none")
    memory_share: Scalar = field(
        "1",
        "share of main memory that the engine needs for `users` requests of `context`; above 1 nothing suffices",
    )


@pytree
class ChipCount:
    """The fewest chips on which a number of requests fit, by a power of two, and the plan."""

    chips: Scalar = field("1", "chips; 0 where no plan of up to 64 chips suffices")
    plan: Plan = field(doc="plan with the most requests on that many chips")
    requests: Scalar = field("1", "requests that fit with it")


def fit(
    system: System,
    model: Model,
    plan: Plan | None = None,
    *,
    context: Scalar = 8192.0,
    users: Scalar = 1.0,
    measured: Mapping[str, Scalar] | None = None,
) -> MemoryFit:
    """Return what fits in memory under a plan and its engine.

    Pure, traceable, differentiable and native over a batch of designs, as `evaluate`. `longest_context` is a whole
    number with the gradient of the relaxed solution; `requests` and `kv_tokens` are fractions, as engines report them.

    Args:
        system: chips, links and hosts.
        model: the language model.
        plan: degrees, precisions and engine; None for one chip at 16 bits with the typical engine.
        context: tokens of a request, prompt and output together.
        users: concurrent requests in all replicas, for `longest_context` and `memory_share`.
        measured: bytes to take instead of computed ones, by name: weights_bytes, activation_bytes, reserved_bytes,
            graph_bytes. The pool follows from them by the policy of the engine.

    Raises:
        ValueError: another name in `measured`.
    """
    plan, measured = Plan() if plan is None else plan, dict(measured or {})
    if unknown := set(measured) - set(MEASURABLE):
        raise ValueError(f"no measured {min(unknown)}; there are {', '.join(MEASURABLE)}")
    arguments = canonical((system, model, plan, context, users, measured))
    return _fit(*arguments, features=design_features(system, Traffic(), plan))


@program(static_argnames=("features",))
def _fit(
    system: System,
    model: Model,
    plan: Plan,
    context: Scalar,
    users: Scalar,
    measured: dict[str, Scalar],
    *,
    features: tuple[str, ...],
) -> MemoryFit:
    arguments = system, model, plan, context, users, measured
    shape = batch_shape(arguments)
    system, model, plan, context, users, measured = align(arguments)
    plan = complete_plan(plan)
    counter = _MemoryCounter(system, model, plan, features, measured)
    one, sequences = jnp.ones_like(users), users / plan.dp

    @jax.jit  # traced once for all its calls
    def at(tokens: Scalar, sequences: Scalar, logits: Scalar) -> FilledMemory:
        return counter.fill(counter.sequence(tokens), sequences, prompt=tokens, logits=logits)

    def slack(tokens: Scalar) -> Scalar:
        held = at(tokens, sequences, sequences)
        return held.pool - held.use.kv - held.use.state

    filled, requests = _fill(counter, lambda logits: at(context, one, logits))
    requests = plan.dp * jnp.maximum(requests, 0)
    use, asked = filled.use, at(context, sequences, sequences).use
    result = MemoryFit(
        capacity_bytes=filled.main + filled.others,
        weights_bytes=use.resident,
        activation_bytes=use.buffers,
        reserved_bytes=use.runtime,
        graph_bytes=use.graphs,
        kv_bytes=filled.pool,
        unused_bytes=filled.main + filled.others - use.fixed - filled.pool,
        context=context,
        request_bytes=use.kv + use.state,
        requests=requests,
        kv_tokens=requests * context,
        users=users,
        longest_context=_longest(slack, users, shape),
        memory_share=needed_share(
            plan,
            filled.main,
            filled.others,
            asked.kv + asked.state,
            asked.resident,
            asked.buffers,
            asked.runtime,
            asked.graphs,
        ),
    )
    return spread(result, shape)


class _MemoryCounter:
    """The memory of the fullest chip of a stage, for any number of requests of any context."""

    def __init__(
        self,
        system: System,
        model: Model,
        plan: Plan,
        features: Sequence[str],
        measured: Mapping[str, Scalar] | None = None,
    ) -> None:
        """Count what does not depend on requests; `measured` as in `fit`."""
        self.model, self.plan, self.features, self.measured = model, plan, features, measured or {}
        self.shards = shard(model, plan, 0.0)
        chip = usable_chip(system.chip, features)
        self.main = chip.memory.capacity
        self.others = total(getattr(chip, name).capacity for name in tiers_of(features)) - self.main
        nothing = jnp.zeros_like(self.main)
        fixed = memory_use(
            model,
            plan,
            self.shards,
            sequences=0.0,
            context=1.0,
            step_tokens=0.0,
            logits=0.0,
            communication=nothing,
            features=features,
        )
        if "weights_bytes" in self.measured:
            fixed = replace(fixed, weights=self.measured["weights_bytes"], experts=nothing)
        fixed = replace(fixed, runtime=self.measured.get("reserved_bytes", fixed.runtime))
        self.fixed = replace(fixed, graphs=self.measured.get("graph_bytes", fixed.graphs))

    def sequence(self, context: Scalar) -> tuple[Scalar, Scalar]:
        """Return the bytes of cache and states of one sequence of the stage."""
        kv, state = sequence_bytes(self.model, self.plan, self.shards, context, 0.0, self.features)
        return kv * self.shards.stage_share, state * self.shards.stage_share

    def fill(
        self, each: tuple[Scalar, Scalar], sequences: Scalar, *, prompt: Scalar, logits: Scalar
    ) -> FilledMemory:
        """Return the memory with a number of sequences of a replica.

        Args:
            each: result of `sequence`.
            sequences: sequences in memory.
            prompt: prompt tokens of a request. With a chunk, the largest step is one chunk with the decoding
                sequences; without, a step of the token budget, or of `prompt` tokens where that is less or there is
                no budget.
            logits: sequences whose logits are computed in a step.
        """
        model, plan = self.model, self.plan
        budget, rows = plan.engine.step_tokens, logits / microbatches(plan) * (1 + plan.draft_length)
        step = where(budget > 0, jnp.minimum(prompt, budget), prompt)
        step = where(plan.chunk > 0, jnp.minimum(prompt, plan.chunk) + rows, jnp.maximum(step, rows))
        tokens, sampled = buffered_tokens(plan.engine, step, rows)
        if "activation_bytes" in self.measured:
            messages = jnp.zeros_like(self.main)
            activations = self.measured["activation_bytes"]
        else:
            messages = communication_buffers(model, plan, self.shards, tokens)
            activations = working_bytes(model, plan, self.shards, tokens, sampled, messages)
        kv, state = (sequences * size for size in each)
        use = replace(self.fixed, kv=kv, state=state, activations=activations, communication=messages)
        pool = cache_pool(plan, self.main, self.others, use.resident, use.buffers, use.runtime, use.graphs)
        return FilledMemory(use, pool, self.main, self.others)


def fill_requests(
    system: System,
    model: Model,
    plan: Plan,
    *,
    context: Scalar,
    prompt: Scalar,
    features: Sequence[str],
) -> tuple[FilledMemory, Scalar]:
    """Return the memory with one request and buffers for all requests that fit, and their number in a replica.

    The number is negative where weights and buffers alone do not fit.

    Args:
        system: the chips.
        model: the language model.
        plan: degrees, precisions, engine.
        context: tokens of a sequence at full length.
        prompt: prompt tokens of a request.
        features: result of `design_features`.
    """
    counter = _MemoryCounter(system, model, plan, features)
    each = counter.sequence(context)
    return _fill(counter, lambda logits: counter.fill(each, 1.0, prompt=prompt, logits=logits))


def _fill(counter: _MemoryCounter, filled: Callable[[Scalar], FilledMemory]) -> tuple[FilledMemory, Scalar]:
    """Return the result of `fill_requests` from the memory with one request, by the sequences with logits."""
    plan, few = counter.plan, filled(jnp.zeros_like(counter.main))
    size = few.use.kv + few.use.state
    most = smooth.safe_div(jnp.maximum(few.pool, 0), size)
    # The pool falls with the logits, in one piece with a slope of S or none at all: the secant of slope S is exact.
    slope = counter.model.vocabulary * plan.engine.logit_bytes * (1 + plan.draft_length) / microbatches(plan)
    many = filled(most)
    requests = (many.pool + most * slope) / (size + slope)
    requests = where(few.pool > 0, jnp.minimum(requests, most), smooth.safe_div(few.pool, size))
    return filled(jnp.maximum(requests, 0)), requests


def _longest(slack: Callable[[Scalar], Scalar], users: Scalar, shape: tuple[int, ...]) -> jax.Array:
    """Return the largest whole n whose slack, bytes, is not negative, with the gradient of the relaxed root."""
    steps = jnp.asarray([2.0**k for k in reversed(range(_DOUBLINGS))], jnp.result_type(users))

    def bisect(low: jax.Array, step: jax.Array) -> tuple[jax.Array, None]:
        return jnp.where(jax.lax.stop_gradient(slack(low + step)) >= 0, low + step, low), None

    none = jnp.broadcast_to(jnp.zeros_like(users), np.broadcast_shapes(shape, np.shape(users)))
    longest, _ = jax.lax.scan(bisect, none, steps)
    at = jnp.maximum(longest, 1)
    here = slack(at)
    slope = jax.lax.stop_gradient((here - slack(2 * at)) / at)
    moved = smooth.safe_div(here, slope)
    return longest + (moved - jax.lax.stop_gradient(moved))


def whole_requests(requests: Any, replicas: Any) -> Any:
    """Return the requests that fit as every replica holds a whole number of them; NumPy, not traced."""
    return replicas * np.floor(requests / replicas * (1 + _ROUNDING))


def count_chips(
    system: System, model: Model, plan: Plan | None = None, *, context: Scalar = 8192.0, users: Scalar = 1.0
) -> ChipCount:
    """Return the fewest chips, a power of two up to 64, on which `users` requests of a context fit, with a plan.

    Tensor parallelism stays within the scale-up domain of the system. Of several plans the one with the most requests
    is taken, and of equal ones the simplest.

    Args:
        system: the chips; their number is ignored.
        model: the language model.
        plan: everything but the degrees.
        context: tokens of a request.
        users: concurrent requests.
    """
    plan = Plan() if plan is None else plan
    candidates = candidate_plans(_MOST_CHIPS, whole=False)
    degrees = dict(zip(DEGREES, candidates.T, strict=True))
    domain = max(float(np.max(system.fabric.domain)), 1.0)
    keep = (degrees["cp"] == 1) & (degrees["tp"] <= domain)
    degrees = {name: column[keep] for name, column in degrees.items()}
    laid_out = replace(plan, **{name: jnp.asarray(column) for name, column in degrees.items()})
    valid, requests = jax.device_get(
        _fit_plans(
            *canonical((system, model, laid_out, context)), features=design_features(system, Traffic(), plan)
        )
    )
    chips = np.prod([degrees[name] for name in ("tp", "pp", "dp", "cp")], 0)
    enough = valid & (whole_requests(requests, degrees["dp"]) >= users)
    fewest = chips[enough].min() if enough.any() else 0.0
    at = int(np.argmax(np.where(enough & (chips == fewest), requests, -np.inf))) if enough.any() else 0
    chosen = replace(plan, **{name: float(column[at]) for name, column in degrees.items()})
    return ChipCount(chips=float(fewest), plan=chosen, requests=float(requests[at]))


@program(static_argnames=("features",))
def _fit_plans(
    system: System, model: Model, plan: Plan, context: Scalar, *, features: tuple[str, ...]
) -> tuple[jax.Array, Scalar]:
    arguments = system, model, plan, context
    shape = batch_shape(arguments)
    system, model, plan, context = align(arguments)
    _, requests = fill_requests(system, model, plan, context=context, prompt=context, features=features)
    return spread((can_shard(model, plan), plan.dp * requests), shape)
