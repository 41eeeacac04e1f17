"""Memory as a serving engine allots it: pages of the cache, buffers of a step, and the pool that is left for the cache.

Symbols: C main memory of a chip, or all tiers; W weights and other resident data, A working and message buffers, R
runtime and communicators, G captured graphs, K memory kept free; m, f the engine's shares of memory and of the rest;
x = 1 for what lies outside the share. The cache and the recurrent states of all requests share the pool

    inside = m (C - x_R R) - K - W - (1 - x_A) A - (1 - x_R) R - (1 - x_G) G
    pool = min(f inside, C - W - A - R - G)

vLLM takes a share of all memory, profiles A, and in older releases captures graphs outside of it. SGLang takes weights
and cache from the memory that the runtime leaves, less K for A and G. TensorRT-LLM gives the cache a share f of what
everything else leaves. llama.cpp has no shares and keeps K free.

A sequence of n tokens is allotted whole pages of P tokens. With T the tokens of a step and W_s a window,

    full layers      P ceil(n / P) tokens
    window layers    min(max(P (ceil(min(n, W_s + s T) / P) + b), r n), P ceil(n / P))

with s = window_steps, b = window_blocks, r = window_share. Grouped layers have pages of equal bytes: the layers of each
kind (full, window, recurrent) are padded to a multiple of the kind with the fewest layers, or of the one with the most
where that has less than half more; and where there are recurrent layers, P grows until a page holds a state.

Sources: vLLM's `gpu_worker.py`, `kv_cache_interface.py` and `kv_cache_utils.py`, SGLang's `kv_cache_configurator.py`,
TensorRT-LLM's `_util.py` of the executor, llama.cpp's `llama-kv-cache.cpp`; versions in `configs/engines`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import stack, where
from jaxcost.core.pytree import Scalar
from jaxcost.physics.compute.attention import cache_entries
from jaxcost.physics.compute.shards import Shards, layer_count, shard
from jaxcost.physics.memory.tiers import is_known
from jaxcost.spec.engine import Engine
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan

__all__ = [
    "AllottedLayers",
    "allotted_kinds",
    "buffered_tokens",
    "cache_pool",
    "cached_bytes",
    "engine_features",
    "graph_bytes",
    "kept_bytes",
    "needed_share",
    "runtime_bytes",
    "state_bytes",
    "unusable_bytes",
]

_CLOSE = 1.5  # ratio of layer counts below which groups take the larger one


def engine_features(engine: Engine) -> tuple[str, ...]:
    """Return ("pages",), or nothing where the engine is known to allot single tokens and layers."""
    exact = {"window_steps": 0, "window_blocks": 0, "window_share": 0, "grouped": 0, "block": 1}
    return () if all(is_known(getattr(engine, name), value) for name, value in exact.items()) else ("pages",)


def cached_bytes(
    model: Model, plan: Plan, shards: Shards, tokens: Scalar, tau: Scalar = 0.0, features: Sequence[str] = ()
) -> Scalar:
    """Return the bytes of the cache of one sequence of `tokens` tokens on one chip, over the whole depth.

    Of softmax attention it is the sum over layers of entries x kv_heads (head_dim + value_dim) b(kv), without layers
    that reuse the cache of another; entries are tokens, min(tokens, W) within a window, tokens / r of compressed
    context. Of latents it is layers x tokens x (kv_rank + rope_dim) b(kv); of indexers the keys of all entries; of a
    draft tokens x its elements of a token x b(kv). With "pages" among the features, tokens and layers are those that
    the engine allots.
    """
    a, latent, indexer = shards.attention, model.latent, model.indexer
    layers, latent_layers = a.own_layers, latent.layers
    if "pages" in features:
        page = _page_tokens(model, plan, shards, tau)
        padding = _group_padding(model, plan.engine.grouped, shards, tau)
        entries, tokens = _allotted_entries(plan.engine, shards, tokens, page, tau)
        layers = layers * where(
            a.shape.compression == 1, padding[0], where(a.shape.window > 0, padding[1], 1)
        )
        latent_layers = latent_layers * padding[0]
    else:
        entries = cache_entries(a.shape, tokens)
    softmax = jnp.sum(layers * entries * a.cached_width, 0)
    latents = latent_layers * tokens * (latent.kv_rank + latent.rope_dim)
    index = indexer.layers * (tokens / indexer.compression) * indexer.head_dim * indexer.key_bits
    drafted = shards.draft.cache * tokens
    return ((softmax + latents + drafted) * plan.kv_bits + index) / 8 / plan.cp


def state_bytes(
    model: Model, plan: Plan, shards: Shards, tau: Scalar = 0.0, features: Sequence[str] = ()
) -> Scalar:
    """Return the bytes of the recurrent states of one sequence on one chip, over the whole depth.

    Where layers are grouped and some have attention, a state takes a page of the cache.
    """
    layers = model.recurrence.layers * plan.engine.state_slots
    each = _layer_state(model, plan, shards)
    if "pages" not in features:
        return layers * each
    page = _page_tokens(model, plan, shards, tau) * _token_bytes(model, plan, shards)
    padding = _group_padding(model, plan.engine.grouped, shards, tau)
    paged = (plan.engine.grouped > 0) & (page > 0)
    return layers * where(paged, padding[2] * jnp.maximum(page, each), each)


def _allotted_entries(
    engine: Engine, shards: Shards, tokens: Scalar, page: Scalar, tau: Scalar
) -> tuple[jax.Array, jax.Array]:
    """Return the entries of a layer of every shape, `[shapes, *batch]`, and the tokens of the pages of a full layer."""
    shape = shards.attention.shape

    def paged(tokens: Scalar) -> jax.Array:
        """Round tokens up to pages; pages of one token leave a context that is not whole as it is."""
        return where(page > 1, smooth.ceil_div(tokens, page, tau) * page, tokens)

    full = paged(tokens)
    near = jnp.minimum(tokens, shape.window + engine.window_steps * engine.step_tokens)
    near = paged(near) + engine.window_blocks * page
    near = jnp.minimum(jnp.maximum(near, engine.window_share * tokens), full)
    far = full * smooth.safe_div(1.0, shape.compression)
    return far + where((shape.compression == 1) | (shape.window == 0), 0, near), full


def _kinds(model: Model, shards: Shards) -> jax.Array:
    """Count the layers that have a cache of their own: full, window and recurrent ones, `[3, *batch]`."""
    a = shards.attention
    full = jnp.sum(where(a.shape.compression == 1, a.own_layers, 0), 0) + model.latent.layers
    window = jnp.sum(where((a.shape.compression == 0) & (a.shape.window > 0), a.own_layers, 0), 0)
    return stack([full, window, model.recurrence.layers])


def _group_padding(model: Model, grouped: Scalar, shards: Shards, tau: Scalar) -> jax.Array:
    """Return allotted layers over layers of each kind, `[3, *batch]`: 1 where nothing is grouped."""
    kinds = _kinds(model, shards)
    some = kinds > 0
    most = jnp.max(kinds, 0)
    fewest = jnp.min(where(some, kinds, most), 0)
    size = jnp.maximum(where(most < _CLOSE * fewest, most, fewest), 1)
    padded = smooth.ceil_div(kinds, size, tau) * size
    return where(some & (grouped > 0), padded / where(some, kinds, 1), 1)


def _layer_state(model: Model, plan: Plan, shards: Shards) -> Scalar:
    r = model.recurrence
    bits = r.state * r.state_bits + r.convolution_state * plan.activation_bits
    return shards.state_share * bits / 8


def _token_bytes(model: Model, plan: Plan, shards: Shards) -> Scalar:
    """Return the bytes that a token adds to the widest layer with a cache."""
    a, latent = shards.attention, model.latent
    widest = jnp.max(where(a.own_layers > 0, a.cached_width, 0), 0)
    latent_width = (latent.kv_rank + latent.rope_dim) * (latent.layers > 0)
    return jnp.maximum(widest, latent_width) * plan.kv_bits / 8 / plan.cp


def _page_tokens(model: Model, plan: Plan, shards: Shards, tau: Scalar) -> Scalar:
    """Return the tokens of a page: a block, or as many blocks as hold the state of a recurrent layer."""
    engine = plan.engine
    block = _token_bytes(model, plan, shards) * engine.block
    joint = (engine.grouped > 0) & (model.recurrence.layers > 0) & (block > 0)
    blocks = smooth.ceil_div(_layer_state(model, plan, shards), where(joint, block, 1), tau)
    return engine.block * where(joint, jnp.maximum(blocks, 1), 1)


class AllottedLayers(NamedTuple):
    """Layers with a cache on one chip by kind, the tokens that they cache, and the layers that an engine allots."""

    full_layers: Scalar
    window_layers: Scalar
    state_layers: Scalar
    full_tokens: Scalar
    window_tokens: Scalar  # of the window layers that cache most
    full_allotted: Scalar
    window_allotted: Scalar
    state_allotted: Scalar
    page_tokens: Scalar


def allotted_kinds(model: Model, plan: Plan, tokens: Scalar) -> AllottedLayers:
    """Return the layers and tokens that an engine allots to a sequence of `tokens` tokens, over the whole depth."""
    shards = shard(model, plan, 0.0)
    a, page = shards.attention, _page_tokens(model, plan, shards, 0.0)
    kinds = _kinds(model, shards)
    padded = kinds * _group_padding(model, plan.engine.grouped, shards, 0.0)
    entries, full = _allotted_entries(plan.engine, shards, tokens, page, 0.0)
    near = (a.shape.compression == 0) & (a.shape.window > 0) & (a.own_layers > 0)
    return AllottedLayers(
        full_layers=kinds[0],
        window_layers=kinds[1],
        state_layers=kinds[2],
        full_tokens=full,
        window_tokens=jnp.max(where(near, entries, 0), 0),
        full_allotted=padded[0],
        window_allotted=padded[1],
        state_allotted=padded[2],
        page_tokens=page,
    )


def unusable_bytes(engine: Engine, kv: Scalar, state: Scalar) -> Scalar:
    """Return the bytes per sequence that fixed pools of states and cache leave unused; 0 where they share one pool.

    With r the ratio of the pools, a sequence needs max((1 + r) kv, (1 + r) / r state) of both.
    """
    ratio = engine.state_ratio
    fixed = (ratio > 0) & (state > 0)
    needed = (1 + ratio) * jnp.maximum(kv, state / where(fixed, ratio, 1))
    return where(fixed, needed - kv - state, 0)


def runtime_bytes(plan: Plan) -> Scalar:
    """Return the bytes of runtime and communicators on a chip; a replica of one chip has no communicators."""
    engine = plan.engine
    return engine.runtime_bytes + engine.communicator_bytes * (plan.tp * plan.pp * plan.cp > 1)


def graph_bytes(model: Model, plan: Plan, shards: Shards) -> Scalar:
    """Return the bytes of the captured graphs on a chip."""
    engine = plan.engine
    return engine.graph_bytes + engine.graph_layer_bytes * layer_count(model) * shards.stage_share


def buffered_tokens(engine: Engine, tokens: Scalar, logits: Scalar) -> tuple[Scalar, Scalar]:
    """Return the tokens, and the tokens with logits, of the step for which buffers are sized.

    It is the largest step of the traffic, or where the engine profiles itself the largest step that its limits allow.
    """
    most = jnp.maximum(tokens, engine.step_tokens)
    sampled = jnp.minimum(engine.sequences, most)
    profiled = engine.profiled > 0
    return where(profiled, most, tokens), where(profiled, jnp.maximum(logits, sampled), logits)


def kept_bytes(plan: Plan) -> Scalar:
    """Return the bytes of a chip that the engine leaves free in addition to its share."""
    engine = plan.engine
    return (
        engine.kept_bytes
        + engine.kept_step_bytes * engine.step_tokens
        + engine.kept_rank_bytes * (plan.tp * plan.pp)
    )


def cache_pool(
    plan: Plan,
    main: Scalar,
    others: Scalar,
    resident: Scalar,
    buffers: Scalar,
    runtime: Scalar,
    graphs: Scalar,
) -> Scalar:
    """Return the bytes of the pool for cache and states on a chip; negative where the rest does not fit.

    Args:
        plan: degrees, and the memory policy of the engine.
        main: capacity of main memory.
        others: capacity of auxiliary tiers, to which the share does not apply.
        resident: weights, experts and corpus.
        buffers: working and message buffers of a step.
        runtime: runtime and communicators.
        graphs: captured graphs.
    """
    engine = plan.engine
    inside = engine.memory_share * (main - engine.runtime_outside * runtime) + others - resident
    inside = inside - (1 - engine.activations_outside) * buffers - kept_bytes(plan)
    inside = inside - (1 - engine.runtime_outside) * runtime - (1 - engine.graphs_outside) * graphs
    inside = inside * where(inside > 0, engine.cache_share, 1)
    return jnp.minimum(inside, main + others - resident - buffers - runtime - graphs)


def needed_share(
    plan: Plan,
    main: Scalar,
    others: Scalar,
    cache: Scalar,
    resident: Scalar,
    buffers: Scalar,
    runtime: Scalar,
    graphs: Scalar,
) -> Scalar:
    """Return the share of main memory that leaves a pool of `cache` bytes: `cache_pool` solved for `memory_share`.

    It is above 1 where all memory does not suffice.
    """
    engine = plan.engine
    inside = smooth.safe_div(cache, engine.cache_share) + resident - others + kept_bytes(plan)
    inside = inside + (1 - engine.activations_outside) * buffers
    inside = inside + (1 - engine.runtime_outside) * runtime + (1 - engine.graphs_outside) * graphs
    share = inside / jnp.maximum(main - engine.runtime_outside * runtime, 1)
    everything = (cache + resident + buffers + runtime + graphs) / jnp.maximum(main + others, 1)
    return where(everything > 1, jnp.maximum(share, everything), share)
