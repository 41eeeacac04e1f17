"""A language model as numbers: every architecture is the same tree with different values.

A part that a model does not have, such as experts, latent attention or recurrence, has a layer count of 0. Counts are
per model, widths per layer; where layers of a kind differ in width, the width is their mean. A layer is a token mixer
(attention, latent attention or recurrence) or a channel mixer (feed-forward or experts); a transformer block is
usually one of each.
"""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Attention", "Experts", "FeedForward", "Indexer", "LatentAttention", "Model", "Recurrence"]


@pytree
class Attention:
    """Softmax attention layers of one shape with grouped key-value heads (MHA, GQA and MQA are the same numbers).

    A query attends to two sets of entries: the last `window` tokens, and the whole context in entries of `compression`
    tokens each, of which an indexer may select `selected`. Full attention has compression 1 and no window; a sliding
    window has compression 0; compressed sparse attention (DeepSeek-V4) has both.
    """

    layers: Scalar = field("1", "layers", default=0.0, formerly="full_layers")
    window: Scalar = field(
        "token", "last tokens that a query attends to, its own included, 0 for none", default=0.0
    )
    compression: Scalar = field(
        "token", "tokens of one entry of the whole context, 0 for none: the window alone", default=1.0
    )
    selected: Scalar = field(
        "1", "entries of the whole context that a query attends to, 0 for all", default=0.0
    )
    shared_layers: Scalar = field(
        "1", "of the layers, those that reuse another layer's keys and values", default=0.0
    )
    stored_share: Scalar = field(
        "1", "share of the layers that store weights; the others use the weights of these", default=1.0
    )
    heads: Scalar = field("1", "query heads", default=1.0)
    kv_heads: Scalar = field("1", "key-value heads", default=1.0)
    head_dim: Scalar = field("1", "width of a query or key of one head", default=1.0)
    value_dim: Scalar = field("1", "width of a value of one head, 0 for that of a key", default=0.0)
    query_outputs: Scalar = field(
        "1", "outputs of the query projection per query element: 2 where attention is gated", default=1.0
    )
    value_projection: Scalar = field(
        "1", "1 where values have a projection of their own, 0 where it is that of the keys", default=1.0
    )
    value_cache: Scalar = field(
        "1", "1 where values are cached, 0 where the cached keys are the values", default=1.0
    )
    query_rank: Scalar = field("1", "rank of the query compression, 0 for none", default=0.0)
    output_rank: Scalar = field(
        "1", "rank of each group of the output projection, 0 for a full matrix", default=0.0
    )
    output_groups: Scalar = field("1", "groups of heads of a low-rank output projection", default=1.0)
    extra_parameters: Scalar = field(
        "1", "weights of a layer's other matrices, such as compressors; every rank has all", default=0.0
    )


@pytree
class Indexer:
    """The indexers of sparse attention: small heads that score all entries of the context to select some.

    Source: DeepSeek-V3.2 (arXiv:2512.02556). Every tensor-parallel rank computes all scores.
    """

    layers: Scalar = field("1", "layers with an indexer", default=0.0)
    heads: Scalar = field("1", "heads", default=1.0)
    head_dim: Scalar = field("1", "width of a head, and of the key of an entry", default=1.0)
    compression: Scalar = field("token", "tokens of one entry", default=1.0)
    parameters: Scalar = field("1", "weights of one layer's indexer", default=0.0)
    # 128 elements of 8 bits and a 32-bit scale, in all released implementations.
    key_bits: Scalar = field("bit", "bits of a cached key element, its scale included", default=8.25)


@pytree
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434): one compressed cache for all heads."""

    layers: Scalar = field("1", "layers", default=0.0)
    heads: Scalar = field("1", "query heads", default=1.0)
    query_rank: Scalar = field("1", "rank of the query compression, 0 for none", default=0.0)
    kv_rank: Scalar = field("1", "width of the cached latent", default=0.0)
    nope_dim: Scalar = field("1", "width of a head's part without position", default=0.0)
    rope_dim: Scalar = field("1", "width of the cached rotary key, shared by all heads", default=0.0)
    value_dim: Scalar = field("1", "width of a head's value", default=0.0)
    selected: Scalar = field(
        "token", "tokens of the context that a query attends to, chosen by an indexer, 0 for all", default=0.0
    )


@pytree
class Recurrence:
    """A fixed-size state instead of a growing cache: Mamba, delta rules, lightning attention, RWKV, convolutions."""

    layers: Scalar = field("1", "layers", default=0.0)
    heads: Scalar = field("1", "heads the state is split into", default=1.0)
    parameters: Scalar = field("1", "weights of one layer's projections and convolution", default=0.0)
    inner_dim: Scalar = field("1", "width of the recurrent branch", default=0.0)
    state: Scalar = field("1", "elements of the state, per layer and sequence", default=0.0)
    state_bits: Scalar = field("bit", "bits of one state element", default=32.0)
    convolution_state: Scalar = field(
        "1", "elements of the convolution's tail, per layer and sequence", default=0.0
    )
    matmul_flops: Scalar = field("FLOP", "matmul work per state element and token", default=0.0)
    vector_flops: Scalar = field("FLOP", "element-wise work per state element and token", default=0.0)
    exponentials: Scalar = field("1", "exponentials per state element and token", default=0.0)


@pytree
class FeedForward:
    """Dense feed-forward layers."""

    layers: Scalar = field("1", "layers", default=0.0)
    width: Scalar = field("1", "intermediate width", default=0.0)
    matrices: Scalar = field("1", "weight matrices: 3 with a gate, 2 without", default=3.0)
    stored_share: Scalar = field(
        "1", "share of the layers that store weights; the others use the weights of these", default=1.0
    )


@pytree
class Experts:
    """Mixture-of-experts layers: routed experts, of which a token uses `top_k`, and shared experts."""

    layers: Scalar = field("1", "layers", default=0.0)
    experts: Scalar = field("1", "routed experts a layer", default=1.0)
    top_k: Scalar = field("1", "routed experts a token uses, the mean where it varies", default=1.0)
    width: Scalar = field("1", "intermediate width of one routed expert", default=0.0)
    latent: Scalar = field(
        "1", "width of the routed experts' input and output, 0 for that of the residual stream", default=0.0
    )
    shared_width: Scalar = field("1", "intermediate width of all shared experts together", default=0.0)
    matrices: Scalar = field("1", "weight matrices: 3 with a gate, 2 without", default=3.0)
    skew: Scalar = field(
        "1", "squared coefficient of variation of expert popularity, 0 for uniform", default=0.0
    )


@pytree
class Model:
    """A language model. Only numbers: name and provenance belong to the catalogue."""

    hidden: Scalar = field("1", "width of the residual stream", default=1.0)
    vocabulary: Scalar = field("token", "rows of the embedding table", default=1.0)
    tied: Scalar = field("1", "1 where the output head reuses the embedding table", default=0.0)
    blocks: Scalar = field("1", "blocks that pipeline stages divide, 0 for as many as mixers", default=0.0)
    attention: Attention = field(doc="attention to the whole context", default=Attention)
    window_attention: Attention = field(doc="attention within a window", default=Attention)
    sparse_attention: Attention = field(doc="attention to selected or compressed context", default=Attention)
    latent: LatentAttention = field(doc="latent attention layers", default=LatentAttention)
    indexer: Indexer = field(doc="indexers of sparse attention", default=Indexer)
    recurrence: Recurrence = field(doc="recurrent layers", default=Recurrence)
    feed_forward: FeedForward = field(doc="dense feed-forward layers", default=FeedForward)
    experts: Experts = field(doc="mixture-of-experts layers", default=Experts)
    norms: Scalar = field("1", "norms of the residual stream in one pass", default=0.0)
    activation_exponentials: Scalar = field(
        "1", "exponentials per feed-forward element: 1 for SiLU and GELU, 0 for ReLU", default=1.0
    )
    small_parameters: Scalar = field("1", "norm, bias and other vectors of the whole model", default=0.0)
    table_parameters: Scalar = field(
        "1",
        "tables besides the embedding that are read one row per token: positions, per-layer embeddings",
        default=0.0,
    )
    unused_parameters: Scalar = field(
        "1", "weights that are stored but not used by text, such as cross-attention to images", default=0.0
    )
    encoder_parameters: Scalar = field("1", "weights of a vision or audio encoder", default=0.0)
    encoder_ratio: Scalar = field("1", "encoder positions per token of the language model", default=1.0)
    draft_parameters: Scalar = field(
        "1", "weights of the built-in multi-token-prediction module", default=0.0
    )
    diffusion_block: Scalar = field("token", "tokens denoised together, 0 for autoregressive", default=0.0)
    diffusion_steps: Scalar = field("1", "denoising passes over one block", default=1.0)
