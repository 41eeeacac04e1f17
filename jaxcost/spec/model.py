"""A language model as numbers: every architecture is the same tree with different values.

A part that a model does not have, such as experts, latent attention or recurrence, has a layer count of 0. Counts are
per model, widths per layer. A layer is a token mixer (attention, latent attention or recurrence) or a channel mixer
(feed-forward or experts); a transformer block is one of each.
"""

from jaxcost.core.pytree import Scalar, field, pytree

__all__ = ["Attention", "Experts", "FeedForward", "LatentAttention", "Model", "Recurrence"]


@pytree
class Attention:
    """Softmax attention with grouped key-value heads (MHA, GQA and MQA are the same numbers)."""

    full_layers: Scalar = field("1", "layers that attend to the whole context", default=0.0)
    window_layers: Scalar = field("1", "layers that attend within a window", default=0.0)
    window: Scalar = field("token", "tokens in the window of a query, its own included", default=1.0)
    shared_layers: Scalar = field(
        "1", "of the full and window layers, those that reuse another layer's keys and values", default=0.0
    )
    heads: Scalar = field("1", "query heads", default=1.0)
    kv_heads: Scalar = field("1", "key-value heads", default=1.0)
    head_dim: Scalar = field("1", "width of one head", default=1.0)
    query_outputs: Scalar = field(
        "1", "outputs of the query projection per query element: 2 where attention is gated", default=1.0
    )


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


@pytree
class Recurrence:
    """A fixed-size state instead of a growing cache: Mamba, gated delta rule, lightning attention."""

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


@pytree
class Experts:
    """Mixture-of-experts layers: routed experts, of which a token uses `top_k`, and shared experts."""

    layers: Scalar = field("1", "layers", default=0.0)
    experts: Scalar = field("1", "routed experts a layer", default=1.0)
    top_k: Scalar = field("1", "routed experts a token uses", default=1.0)
    width: Scalar = field("1", "intermediate width of one routed expert", default=0.0)
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
    attention: Attention = field(doc="softmax attention layers", default=Attention)
    latent: LatentAttention = field(doc="latent attention layers", default=LatentAttention)
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
    encoder_parameters: Scalar = field("1", "weights of a vision or audio encoder", default=0.0)
    encoder_ratio: Scalar = field("1", "encoder positions per token of the language model", default=1.0)
    draft_parameters: Scalar = field(
        "1", "weights of the built-in multi-token-prediction module", default=0.0
    )
    diffusion_block: Scalar = field("token", "tokens denoised together, 0 for autoregressive", default=0.0)
    diffusion_steps: Scalar = field("1", "denoising passes over one block", default=1.0)
