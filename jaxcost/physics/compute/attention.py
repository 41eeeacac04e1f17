"""The softmax attention of a model as one table: a row per shape of attention, `[shapes, *batch]`.

Symbols: W the window, r the tokens of one entry of the whole context, k the selected entries. A query at position c
attends to min(c, W) tokens and to min(c / r, k) entries; the rounding of c / r is neglected.
"""

import jax
import jax.numpy as jnp
import numpy as np

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
    "stack_shapes",
]

SHAPES = ("attention", "window_attention", "sparse_attention")  # fields of `Model`


@pytree
class AttentionShards:
    """One layer of every shape on one chip, `[shapes, *batch]`; a shape without layers has widths of 0."""

    layers: jax.Array = field("1", "layers of the whole model")
    heads: jax.Array = field("1", "query heads")
    kv_heads: jax.Array = field("1", "key-value heads")
    query_width: jax.Array = field("1", "width of the queries of all heads")
    value_width: jax.Array = field("1", "width of the attention's output")
    cached_width: jax.Array = field("1", "elements of an entry of the cache")
    projected: jax.Array = field("1", "outputs of the query, key and value projections")
    written: jax.Array = field("1", "elements that a token adds to the cache, while it is within the window")
    input_parameters: jax.Array = field("1", "weights of the query, key and value projections")
    output_parameters: jax.Array = field("1", "weights of the output projection")

    def mean(self, per_layer: jax.Array) -> jax.Array:
        """Average a number over the layers of all shapes."""
        return smooth.safe_div(jnp.sum(self.layers * per_layer, 0), jnp.sum(self.layers, 0))


def stack_shapes(model: Model, rank: int = 0) -> Attention:
    """Return the shapes of attention as one table, `[shapes, *batch]`, with at least `rank` axes of the batch."""
    table = jax.tree.map(lambda *x: stack(x, rank), *(getattr(model, name) for name in SHAPES))
    return replace(table, value_dim=where(table.value_dim > 0, table.value_dim, table.head_dim))


def attention_layers(model: Model) -> Scalar:
    """Count the layers of softmax attention."""
    return model.attention.layers + model.window_attention.layers + model.sparse_attention.layers


def cache_entries(shape: Attention, tokens: Scalar) -> jax.Array:
    """Count the entries that a layer caches of a sequence: tokens / r of the whole context, and min(tokens, W).

    Where an entry is one token, the window is part of the whole context and not cached again.
    """
    beyond = shape.compression > 0
    far = where(beyond, tokens / where(beyond, shape.compression, 1), 0)
    return far + where(shape.compression == 1, 0, jnp.minimum(tokens, shape.window))


def attention_shards(model: Model, degree: Scalar, tau: Scalar) -> AttentionShards:
    """Return the attention on one chip of `degree` tensor-parallel ranks.

    Heads are divided over the ranks, and fewer key-value heads than ranks are replicated. Every rank has the whole
    query compression and the other matrices of a layer.
    """
    a, d = stack_shapes(model), model.hidden
    some = where(a.layers > 0, 1.0, 0.0)
    heads, kv_heads, groups = (
        smooth.ceil_div(x, degree, tau) for x in (a.heads, a.kv_heads, a.output_groups)
    )
    own = some - smooth.safe_div(a.shared_layers, a.layers)
    query, value = some * heads * a.head_dim, some * heads * a.value_dim
    asked = query * a.query_outputs
    projected = own * kv_heads * (a.head_dim + a.value_projection * a.value_dim)
    compressed, low_rank = a.query_rank > 0, a.output_rank > 0
    cached = kv_heads * (a.head_dim + a.value_cache * a.value_dim)
    return AttentionShards(
        layers=a.layers,
        heads=heads,
        kv_heads=kv_heads,
        query_width=query,
        value_width=value,
        cached_width=some * cached,
        projected=asked + projected,
        written=own * cached * cache_entries(a, np.ones((), jnp.result_type(a.layers))),
        input_parameters=d * projected
        + where(compressed, a.query_rank * (some * d + asked), d * asked)
        + some * a.extra_parameters,
        output_parameters=where(low_rank, a.output_rank * (value + some * groups * d), value * d),
    )
