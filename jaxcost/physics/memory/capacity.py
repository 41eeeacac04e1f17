"""The memory use of one chip: weights, experts, caches, states and working buffers.

    cache of a token = layers x (width of keys + width of values) x key-value heads x bytes of a number

Window layers cache only their window; latent attention caches its latent and one rotary key instead of all heads;
indexers cache one small key per entry.
Source: Pope et al. 2022 (arXiv:2211.05102).
"""

import jax.numpy as jnp

from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, derived, field, pytree
from jaxcost.physics.compute.attention import cache_entries
from jaxcost.physics.compute.shards import Shards, sequence_ranks, shard, stored_parameters
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = ["MemoryUse", "kept_neurons", "kv_bytes_per_token", "memory_use", "shared_bytes"]


@pytree
class MemoryUse:
    """Bytes on the fullest chip, by kind."""

    weights: Scalar = field("B", "all weights but the routed experts")
    experts: Scalar = field("B", "routed experts")
    kv: Scalar = field("B", "cached keys, values and latents")
    state: Scalar = field("B", "recurrent states")
    activations: Scalar = field("B", "working buffers of the widest step")
    communication: Scalar = field("B", "messages sent and received")
    corpus: Scalar = field("B", "retrieval corpus", default=0.0)

    @derived("B")
    def used(self) -> Scalar:
        """All bytes."""
        model = self.weights + self.experts + self.kv + self.state + self.activations + self.communication
        return model + self.corpus


def cached_bytes(model: Model, plan: Plan, shards: Shards, tokens: Scalar) -> Scalar:
    """Return the bytes of the cache of one sequence of `tokens` tokens on one chip, over the whole depth.

    Of softmax attention it is the sum over layers of entries x kv_heads (head_dim + value_dim) b(kv), without layers
    that reuse the cache of another; entries are tokens, min(tokens, W) within a window, tokens / r of compressed
    context. Of latents it is layers x tokens x (kv_rank + rope_dim) b(kv); of indexers the keys of all entries; of a
    draft tokens x its elements of a token x b(kv).
    """
    a, latent, indexer = shards.attention, model.latent, model.indexer
    softmax = jnp.sum(a.own_layers * cache_entries(a.shape, tokens) * a.cached_width, 0)
    latents = latent.layers * tokens * (latent.kv_rank + latent.rope_dim)
    index = indexer.layers * (tokens / indexer.compression) * indexer.head_dim * indexer.key_bits
    drafted = shards.draft.cache * tokens
    return ((softmax + latents + drafted) * plan.kv_bits + index) / 8 / plan.cp


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
    communication: Scalar,
    corpus: Scalar = 0.0,
) -> MemoryUse:
    """Return the memory use of the fullest chip, in bytes by kind.

    The working buffers hold, for every token of the widest step, the residual stream twice, sharded along the sequence
    with sequence parallelism, and the widest intermediate of any layer.

    Args:
        model: the language model.
        plan: precisions and degrees.
        shards: the part of the model on one chip.
        sequences: sequences per pipeline stage and replica.
        context: tokens per sequence at full length.
        step_tokens: tokens of the widest step.
        communication: bytes of message buffers.
        corpus: bytes of the retrieval corpus on the chip.
    """
    stored = stored_parameters(model, shards)
    stage, kept = shards.stage_share, 1 - plan.weight_sparsity
    each = shards.precision
    # The first stage also holds the embedding and the last stage the output head; the fuller stage counts.
    wide = (stored.routers + stored.other) * stage + stored.tables / jnp.minimum(plan.pp, 2)
    weights = (
        stored.mixers * stage * each.mixers + stored.feed_forward * stage * each.weights + wide * each.wide
    )
    recurrence = model.recurrence
    widest = jnp.maximum(
        jnp.max(shards.attention.projected, 0),
        jnp.maximum(
            model.feed_forward.matrices * shards.feed_forward_width * (model.feed_forward.layers > 0),
            model.experts.matrices * shards.expert_width * model.experts.top_k * (model.experts.layers > 0),
        ),
    )
    state = (
        recurrence.layers
        * shards.state_share
        * (recurrence.state * recurrence.state_bits + recurrence.convolution_state * plan.activation_bits)
    )
    return MemoryUse(
        weights=weights * kept / 8,
        experts=stored.experts * stage * kept * plan.expert_bits / 8,
        kv=sequences * stage * cached_bytes(model, plan, shards, context),
        state=sequences * stage * state / 8,
        activations=step_tokens
        * (2 * model.hidden / sequence_ranks(plan) + widest)
        * plan.activation_bits
        / 8,
        communication=communication,
        corpus=corpus,
    )


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
