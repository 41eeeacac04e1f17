"""The softmax attention of a model on one chip: a part for each shape of attention, and their sums.

Symbols: W the window, r the tokens of one entry of the whole context, k the selected entries. A query at position c
attends to min(c, W) tokens and to min(c / r, k) entries; the rounding of c / r is neglected.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxcost.core import smooth
from jaxcost.core.arrays import total, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.spec.model import Attention, Model

__all__ = [
    "SHAPES",
    "AttentionShard",
    "AttentionShards",
    "attention_layers",
    "attention_shards",
    "shard_mean",
]

SHAPES = ("attention", "window_attention", "sparse_attention")  # fields of `Model`


@pytree
class AttentionShard:
    """One layer of one shape on one chip; widths are 0 where no layer has the shape."""

    layers: Scalar = field("1", "layers of the whole model")
    own_layers: Scalar = field("1", "of these, those that have keys and values of their own")
    heads: Scalar = field("1", "query heads")
    kv_heads: Scalar = field("1", "key-value heads")
    query_width: Scalar = field("1", "width of the queries of all heads")
    value_width: Scalar = field("1", "width of the attention's output")
    cached_width: Scalar = field("1", "elements of an entry of the cache")
    per_token: Scalar = field("1", "cached entries of the whole context per token, 1 / r")
    beside: Scalar = field("token", "tokens of the window that are cached beside these entries")

    def entries(self, tokens: Scalar) -> Scalar:
        """Count the entries that a layer caches of a sequence: tokens / r of the context, and min(tokens, W).

        Where an entry is one token, the window is part of the whole context and not cached again.
        """
        return tokens * self.per_token + jnp.minimum(tokens, self.beside)


@pytree
class AttentionShards:
    """All softmax attention on one chip."""

    full: AttentionShard = field(doc="attention to the whole context")
    window: AttentionShard = field(doc="attention within a window")
    sparse: AttentionShard = field(doc="attention to selected or compressed context")
    layers: Scalar = field("1", "layers of the whole model")
    input_parameters: Scalar = field("1", "weights of the query, key and value projections of the mean layer")
    output_parameters: Scalar = field("1", "weights of the output projection of the mean layer")
    projected: Scalar = field("1", "outputs of the query, key and value projections of the mean layer")
    value_width: Scalar = field("1", "width of the attention's output of the mean layer")
    written: Scalar = field(
        "1", "elements that a token within the window adds to the cache of the mean layer"
    )
    stored: Scalar = field("1", "weights in all layers together")
    widest_projection: Scalar = field("1", "outputs of the projections of the widest layer")
    widest_value: Scalar = field("1", "width of the attention's output of the widest layer")

    @property
    def shapes(self) -> tuple[AttentionShard, AttentionShard, AttentionShard]:
        """The parts, in the order of `SHAPES`."""
        return self.full, self.window, self.sparse


class _Projections(NamedTuple):
    """Projections of one layer."""

    outputs: Scalar
    input_parameters: Scalar
    output_parameters: Scalar


def attention_layers(model: Model) -> Scalar:
    """Count the layers of softmax attention."""
    return model.attention.layers + model.window_attention.layers + model.sparse_attention.layers


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
    shapes = [getattr(model, name) for name in SHAPES]
    parts, projections = zip(*(_shard(a, model.hidden, degree, tau) for a in shapes), strict=True)
    layers = total(a.layers for a in shapes)
    per_layer = smooth.safe_div(1.0, layers)

    def mean(numbers: list[Scalar]) -> Scalar:
        return per_layer * total(a.layers * x for a, x in zip(shapes, numbers, strict=True))

    def largest(numbers: list[Scalar]) -> jax.Array:
        return jnp.maximum(jnp.maximum(numbers[0], numbers[1]), numbers[2])

    outputs, values = [p.outputs for p in projections], [part.value_width for part in parts]
    weights = [p.input_parameters + p.output_parameters for p in projections]
    return AttentionShards(
        **dict(zip(("full", "window", "sparse"), parts, strict=True)),
        layers=layers,
        input_parameters=mean([p.input_parameters for p in projections]),
        output_parameters=mean([p.output_parameters for p in projections]),
        projected=mean(outputs),
        value_width=mean(values),
        written=per_layer * total(s.own_layers * s.cached_width * s.entries(1.0) for s in parts),
        stored=total(a.layers * a.stored_share * x for a, x in zip(shapes, weights, strict=True)),
        widest_projection=largest(outputs),
        widest_value=largest(values),
    )


def _shard(a: Attention, d: Scalar, degree: Scalar, tau: Scalar) -> tuple[AttentionShard, _Projections]:
    some = jnp.sign(a.layers)
    value_dim = where(a.value_dim > 0, a.value_dim, a.head_dim)
    heads, kv_heads = shard_mean(a.heads, degree, tau), shard_mean(a.kv_heads, degree, tau)
    groups = smooth.ceil_div(a.output_groups, degree, tau)
    own_layers = a.layers - a.shared_layers
    query, value = some * heads * a.head_dim, some * heads * value_dim
    asked = query * a.query_outputs
    kept = smooth.safe_div(own_layers, a.layers) * kv_heads * (a.head_dim + a.value_projection * value_dim)
    per_token = smooth.safe_div(1.0, a.compression)
    shard = AttentionShard(
        layers=a.layers,
        own_layers=own_layers,
        heads=heads,
        kv_heads=kv_heads,
        query_width=query,
        value_width=value,
        cached_width=some * kv_heads * (a.head_dim + a.value_cache * value_dim),
        per_token=per_token,
        beside=where(per_token == 1, 0, a.window),
    )
    projections = _Projections(
        outputs=asked + kept,
        input_parameters=d * kept
        + where(a.query_rank > 0, a.query_rank * (some * d + asked), d * asked)
        + some * a.extra_parameters,
        output_parameters=where(a.output_rank > 0, a.output_rank * (value + some * groups * d), value * d),
    )
    return shard, projections
