"""The softmax attention of a model as one table: a row per shape of attention, `[shapes, *batch]`.

Symbols: W the window, r the tokens of one entry of the whole context, k the selected entries. A query at position c
attends to min(c, W) tokens and to min(c / r, k) entries; the rounding of c / r is neglected.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import stack, where
from jaxcost.core.pytree import Scalar, field, pytree, replace
from jaxcost.spec.model import Attention, Model

__all__ = [
    "SHAPES",
    "AttentionShards",
    "attention_layers",
    "attention_shards",
    "cache_entries",
    "shard_mean",
]

SHAPES = ("attention", "window_attention", "sparse_attention")  # fields of `Model`


@pytree
class AttentionShards:
    """One layer of every shape on one chip, `[shapes, *batch]`; a shape without layers has widths of 0."""

    shape: Attention = field(doc="the shapes, as the model has them")
    share: jax.Array = field("1", "share of the layers of softmax attention that have the shape")
    heads: jax.Array = field("1", "query heads")
    kv_heads: jax.Array = field("1", "key-value heads")
    query_width: jax.Array = field("1", "width of the queries of all heads")
    value_width: jax.Array = field("1", "width of the attention's output")
    cached_width: jax.Array = field("1", "elements of an entry of the cache")
    projected: jax.Array = field("1", "outputs of the query, key and value projections")
    input_parameters: jax.Array = field("1", "weights of the query, key and value projections")
    output_parameters: jax.Array = field("1", "weights of the output projection")

    @property
    def layers(self) -> Scalar:
        """Layers of every shape in the whole model."""
        return self.shape.layers

    @property
    def own_layers(self) -> Scalar:
        """Layers of every shape that have keys and values of their own."""
        return self.shape.layers - self.shape.shared_layers

    def mean(self, per_layer: jax.Array) -> jax.Array:
        """Average a number over the layers of all shapes."""
        return jnp.sum(self.share * per_layer, 0)


def attention_layers(model: Model) -> Scalar:
    """Count the layers of softmax attention."""
    return model.attention.layers + model.window_attention.layers + model.sparse_attention.layers


def cache_entries(shape: Attention, tokens: Scalar) -> jax.Array:
    """Count the entries that a layer caches of a sequence: tokens / r of the whole context, and min(tokens, W).

    Where an entry is one token, the window is part of the whole context and not cached again.
    """
    far = tokens * smooth.safe_div(1.0, shape.compression)
    return far + where(shape.compression == 1, 0, jnp.minimum(tokens, shape.window))


def shard_mean(width: Scalar, degree: Scalar, tau: Scalar) -> jax.Array:
    """Return the shard of a width that may be the mean of layers: ceil(width / degree), less for a fraction's part.

    A fraction x is the mean of whole numbers, so it stays x on one chip, and in general its share of ceil(x).
    """
    whole = jnp.ceil(width)
    # The slope in the width is that of the ceiling alone.
    part = lax.stop_gradient(where(whole > 0, width / jnp.maximum(whole, 1), 1))
    return part * smooth.ceil_div(width, degree, tau)


def attention_shards(model: Model, degree: Scalar, tau: Scalar) -> AttentionShards:
    """Return the attention on one chip of `degree` tensor-parallel ranks.

    Heads are divided over the ranks, and fewer key-value heads than ranks are replicated. Every rank has the whole
    query compression and the other matrices of a layer.
    """
    a: Attention = jax.tree.map(lambda *x: stack(x), *(getattr(model, name) for name in SHAPES))
    a, d = replace(a, value_dim=where(a.value_dim > 0, a.value_dim, a.head_dim)), model.hidden
    some = jnp.sign(a.layers)
    heads, kv_heads, groups = shard_mean(stack([a.heads, a.kv_heads, a.output_groups]), degree, tau)
    own = some - smooth.safe_div(a.shared_layers, a.layers)
    query, value = some * heads * a.head_dim, some * heads * a.value_dim
    asked = query * a.query_outputs
    projected = own * kv_heads * (a.head_dim + a.value_projection * a.value_dim)
    return AttentionShards(
        shape=a,
        share=smooth.safe_div(a.layers, jnp.sum(a.layers, 0)),
        heads=heads,
        kv_heads=kv_heads,
        query_width=query,
        value_width=value,
        cached_width=some * kv_heads * (a.head_dim + a.value_cache * a.value_dim),
        projected=asked + projected,
        input_parameters=d * projected
        + where(a.query_rank > 0, a.query_rank * (some * d + asked), d * asked)
        + some * a.extra_parameters,
        output_parameters=where(a.output_rank > 0, a.output_rank * (value + some * groups * d), value * d),
    )
