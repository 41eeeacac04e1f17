"""The memory use of one chip: weights, experts, caches, states and working buffers.

    cache of a token = layers x (width of keys + width of values) x key-value heads x bytes of a number

Window layers cache only their window; latent attention caches its latent and one rotary key instead of all heads;
indexers cache one small key per entry.
Source: Pope et al. 2022 (arXiv:2211.05102).
"""

from collections.abc import Sequence

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import total, where
from jaxcost.core.pytree import Scalar, derived, field, pytree, replace
from jaxcost.physics.compute.shards import Shards, expert_input, sequence_ranks, shard, stored_parameters
from jaxcost.physics.memory.allocation import (
    cache_pool,
    cached_bytes,
    graph_bytes,
    runtime_bytes,
    state_bytes,
    unusable_bytes,
)
from jaxcost.physics.memory.tiers import tiers_of
from jaxcost.spec.chip import Chip
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "MemoryUse",
    "allot_memory",
    "kept_neurons",
    "kv_bytes_per_token",
    "memory_use",
    "sequence_bytes",
    "shared_bytes",
    "working_bytes",
]


@pytree
class MemoryUse:
    """Bytes on the fullest chip, by kind."""

    weights: Scalar = field("B", "all weights but the routed experts")
    experts: Scalar = field("B", "routed experts")
    kv: Scalar = field("B", "cached keys, values and latents")
    state: Scalar = field("B", "recurrent states, with what fixed pools leave unused")
    activations: Scalar = field("B", "working buffers of the largest step")
    communication: Scalar = field("B", "messages sent and received")
    corpus: Scalar = field("B", "retrieval corpus", default=0.0)
    runtime: Scalar = field("B", "runtime and communicators of the engine", default=0.0)
    graphs: Scalar = field("B", "captured graphs of the engine", default=0.0)

    @property
    def resident(self) -> Scalar:
        """Weights, experts and corpus."""
        return self.weights + self.experts + self.corpus

    @property
    def buffers(self) -> Scalar:
        """Working and message buffers."""
        return self.activations + self.communication

    @property
    def fixed(self) -> Scalar:
        """All bytes but cache and states."""
        return self.resident + self.buffers + self.runtime + self.graphs

    @derived("B")
    def used(self) -> Scalar:
        """All bytes."""
        return self.fixed + self.kv + self.state


def kv_bytes_per_token(model: Model, plan: Plan | None = None) -> Scalar:
    """Return the bytes of cache that one more token adds, on all chips together, while it is within every window."""
    plan = Plan() if plan is None else plan
    whole = shard(model, Plan(), 0.0)
    return cached_bytes(model, Plan(kv_bits=plan.kv_bits), whole, 1.0)


def memory_use(
    model: Model,
    plan: Plan,
    shards: Shards,
    *,
    sequences: Scalar,
    context: Scalar,
    step_tokens: Scalar,
    logits: Scalar,
    communication: Scalar,
    corpus: Scalar = 0.0,
    tau: Scalar = 0.0,
    features: Sequence[str] = (),
) -> MemoryUse:
    """Return the memory use of the fullest chip, in bytes by kind.

    Args:
        model: the language model.
        plan: precisions and degrees.
        shards: the part of the model on one chip.
        sequences: sequences per pipeline stage and replica.
        context: tokens per sequence at full length.
        step_tokens: tokens of the largest step.
        logits: tokens of a step whose logits are computed.
        communication: bytes of message buffers.
        corpus: bytes of the retrieval corpus on the chip.
        tau: softness.
        features: features of the engine, of `engine_features`.
    """
    stored = stored_parameters(model, shards)
    stage, kept = shards.stage_share, 1 - plan.weight_sparsity
    each = shards.precision
    # The first stage also holds the embedding and the last stage the output head; the fuller stage counts. A tied
    # table is in both.
    tables = stored.tables / where(model.tied > 0.5, 1, jnp.minimum(plan.pp, 2))
    wide = (stored.routers + stored.other) * stage + tables
    weights = (
        stored.mixers * stage * each.mixers + stored.feed_forward * stage * each.weights + wide * each.wide
    )
    kv, state = sequence_bytes(model, plan, shards, context, tau, features)
    return MemoryUse(
        weights=weights * kept / 8,
        experts=stored.experts * stage * kept * plan.expert_bits / 8,
        kv=sequences * stage * kv,
        state=sequences * stage * state,
        activations=working_bytes(model, plan, shards, step_tokens, logits, communication),
        communication=communication,
        corpus=corpus,
        runtime=runtime_bytes(plan),
        graphs=graph_bytes(model, plan, shards),
    )


def sequence_bytes(
    model: Model, plan: Plan, shards: Shards, context: Scalar, tau: Scalar = 0.0, features: Sequence[str] = ()
) -> tuple[Scalar, Scalar]:
    """Return the bytes of cache and of states of one sequence on one chip, over the whole depth.

    States include what fixed pools leave unused.
    """
    kv = cached_bytes(model, plan, shards, context, tau, features)
    state = state_bytes(model, plan, shards, tau, features)
    return kv, state + unusable_bytes(plan.engine, kv, state)


def working_bytes(
    model: Model, plan: Plan, shards: Shards, step_tokens: Scalar, logits: Scalar, communication: Scalar
) -> Scalar:
    """Return the bytes of the working buffers of a step on one chip, without messages.

    While layers are computed, they hold for every token of the step some copies of the residual stream, sharded along
    the sequence with sequence parallelism, the widest intermediates of any layer, and the messages. After the
    last layer they hold one copy and the logits of the whole vocabulary, from which every rank samples. The larger sum
    counts.
    """
    ff, x, engine, element = model.feed_forward, model.experts, plan.engine, plan.activation_bits / 8
    # Kernels of experts hold a row for every chosen expert of a token: its input, then its hidden layer and its output.
    rows = jnp.maximum(shards.expert_width, expert_input(model))
    rows = rows + jnp.maximum((x.matrices - 1) * shards.expert_width, expert_input(model))
    widest = jnp.maximum(
        jnp.max(shards.attention.projected, 0),
        jnp.maximum(
            ff.matrices * shards.feed_forward_width * (ff.layers > 0), x.top_k * rows * (x.layers > 0)
        ),
    )
    stream = step_tokens * model.hidden / sequence_ranks(plan) * element
    layers = engine.stream_copies * stream + step_tokens * widest * element + engine.workspace_bytes
    sampling = stream + logits * model.vocabulary * engine.logit_bytes - communication
    return jnp.maximum(layers, sampling)


def allot_memory(plan: Plan, chip: Chip, memory: MemoryUse, features: Sequence[str]) -> tuple[Chip, Scalar]:
    """Return the chip with the main memory that the engine uses, and the bytes of the pool for cache and states.

    Engines near memory keep their number: what is not used is missing in every shard alike.
    """
    main = chip.memory.capacity
    everything = total(getattr(chip, name).capacity for name in tiers_of(features))
    pool = cache_pool(
        plan, main, everything - main, memory.resident, memory.buffers, memory.runtime, memory.graphs
    )
    usable = main - (everything - memory.fixed - pool)
    changed = replace(chip.memory, capacity=usable)
    if "memory.near" in features:
        shard = chip.memory.near.shard * smooth.safe_div(usable, main, 1.0)
        changed = replace(changed, near=replace(changed.near, shard=shard))
    return replace(chip, memory=changed), pool


def shared_bytes(model: Model, plan: Plan, shards: Shards) -> Scalar:
    """Return the bytes of the shared experts among the dense weights of a chip."""
    x = model.experts
    parameters = x.layers * x.matrices * model.hidden * shards.shared_width * shards.stage_share
    return parameters * (1 - plan.weight_sparsity) * plan.weight_bits / 8


def kept_neurons(model: Model, plan: Plan, shards: Shards, tokens: Scalar, outside: Scalar) -> Scalar:
    """Return the bytes of main memory for neurons that stay loaded for `plan.neuron_window` steps of m tokens.

    Counted are dense layers and shared experts. If a token skips a neuron with probability a, k steps of m tokens use a
    share 1 - a^(m k) of the neurons; `outside` is the share of the weights that is not placed in main memory anyway.
    Source: LLM in a flash (arXiv:2312.11514).
    """
    skips = (plan.activation_sparsity > 0) & (plan.neuron_window > 0)
    log_skipped = jnp.log(where(skips, plan.activation_sparsity, 0.5))
    used = where(skips, -jnp.expm1(plan.neuron_window * tokens * log_skipped), 0)
    ff, x = model.feed_forward, model.experts
    widths = ff.layers * ff.matrices * shards.feed_forward_width + x.layers * x.matrices * shards.shared_width
    parameters = widths * model.hidden * shards.stage_share
    return used * outside * parameters * (1 - plan.weight_sparsity) * plan.weight_bits / 8
