"""Rules of families with recurrent layers: kinds of layers, widths and further weights."""

from collections.abc import Mapping

from jaxcost.core.pytree import Scalar, replace
from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.rules.sparse import dsa_indexer, hyper_connections
from jaxcost.spec.model import Indexer, Model

__all__ = [
    "bamba_mixers",
    "glm_next_extras",
    "glm_next_indexer",
    "glm_next_mixers",
    "granite_channels",
    "granite_shared",
    "griffin_mixers",
    "griffin_width",
    "half_period_mixers",
    "kimi_extras",
    "kimi_mixers",
    "latent_gate_extras",
    "lfm2_channels",
    "lfm2_mixers",
    "lfm2_width",
    "lfm3_attention",
    "lfm3_mixers",
    "qwen4_attention",
    "qwen4_channels",
    "qwen4_extras",
    "qwen4_indexer",
    "qwen4_mixers",
    "qwen4_width",
    "rwkv_extras",
    "rwkv_width",
    "shared_or_none",
    "zamba_attention",
    "zamba_channels",
    "zamba_extras",
    "zamba_mixers",
]

Numbers = Mapping[str, Scalar]


def bamba_mixers(f: Fields) -> list[str]:
    """Attention in the layers that a list names, Mamba-2 in the others."""
    layers = f.layers()
    full = f.positions("attn_layer_indices", layers) if f.given("attn_layer_indices") is not None else set()
    return ["full" if i in full else "recurrent" for i in range(layers)]


def half_period_mixers(f: Fields) -> list[str]:
    """Kimi Linear's rule without a list: attention in every fourth layer after the first."""
    return ["full" if i and i % 4 == 0 else "recurrent" for i in range(f.layers())]


def kimi_mixers(f: Fields) -> list[str]:
    """Layers of Kimi delta attention by their numbers from 1, the others latent attention; or `layer_types`."""
    layers = f.layers()
    types = {"full_attention": "latent", "linear_attention": "recurrent"}
    if f.given("layer_types") is not None:
        return f.entries("layer_types", types, length=layers)
    if f.given("kda_layers") is None:
        period = f.optional_size("layer_group_size")
        if period:
            return ["latent" if (i + 1) % period == 0 else "recurrent" for i in range(layers)]
        return ["latent" if kind == "full" else kind for kind in half_period_mixers(f)]
    listed = f.sequence("kda_layers")
    if any(isinstance(i, bool) or not isinstance(i, int) or not 1 <= i <= layers for i in listed):
        raise f.error("kda_layers", f"layer numbers from 1 to {layers}", listed)
    return ["recurrent" if i + 1 in listed else "latent" for i in range(layers)]


def granite_channels(f: Fields) -> list[str]:
    """Experts beside a shared expert, or the latter alone."""
    return ["experts" if f.size("num_experts", least=0) else "dense"] * f.layers()


def granite_shared(f: Fields) -> int:
    """The field is the width."""
    return f.size("shared_intermediate_size", least=0)


def griffin_mixers(f: Fields) -> list[str]:
    """Repeat the list of blocks."""
    pattern = f.entries(
        "block_types",
        {"recurrent": "recurrent", "attention": "window"},
        length=len(f.sequence("block_types")),
    )
    if not pattern:
        raise f.error("block_types", "a list of recurrent and attention", pattern)
    return [pattern[i % len(pattern)] for i in range(f.layers())]


def griffin_width(f: Fields, positions: list[int]) -> float:
    """The field counts gate and input together."""
    return f.size("intermediate_size") // 2


_LFM_TYPES = {
    "full_attention": "full",
    "sliding_attention": "window",
    **dict.fromkeys(("conv", "short_conv", ""), "recurrent"),
}


def lfm2_mixers(f: Fields) -> list[str]:
    """Attention in the layers that a list names, short convolutions in the others."""
    if f.given("layer_types") is not None:
        return f.entries("layer_types", _LFM_TYPES, length=f.layers())
    layers = f.layers()
    full = (
        f.positions("full_attn_idxs", layers) if f.given("full_attn_idxs") is not None else set(range(layers))
    )
    return ["full" if i in full else "recurrent" for i in range(layers)]


def lfm2_width(f: Fields, positions: list[int]) -> float:
    """Two thirds of the field times a factor, rounded up, where the config adjusts it."""
    width = f.size("intermediate_size")
    if not f.flag("block_auto_adjust_ff_dim"):
        return width
    factor, multiple = f.given("block_ffn_dim_multiplier"), f.size("block_multiple_of")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
        raise f.error("block_ffn_dim_multiplier", "a positive number", factor)
    return -(-int(factor * int(2 * width / 3)) // multiple) * multiple


def lfm2_channels(f: Fields) -> list[str]:
    """Dense layers first, then experts."""
    dense = f.size("num_dense_layers", least=0)
    return ["dense" if i < dense else "experts" for i in range(f.layers())]


def lfm3_mixers(f: Fields) -> list[str]:
    """`layer_types`; else full attention and a window in turn between short convolutions."""
    if f.given("layer_types") is not None:
        return f.entries("layer_types", _LFM_TYPES, length=f.layers())
    kinds = {2: "full", 0: "window"}
    return [kinds.get(i % 4, "recurrent") if i else "recurrent" for i in range(f.layers())]


def lfm3_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """A gate of one number per head."""
    gate = f.flag("use_attention_gate") * f.size("num_attention_heads") * f.size("hidden_size")
    return {"extra_parameters": gate}


def latent_gate_extras(f: Fields, model: Model) -> Numbers:
    """A gate of one number per head of latent attention."""
    latent = model.latent
    return {"small_parameters": latent.layers * latent.heads * model.hidden}


def kimi_extras(f: Fields, model: Model) -> Numbers:
    """Kimi-K3: a gate of latent attention as wide as its output, queries over earlier streams, norms of experts."""
    latent, d, x = model.latent, model.hidden, model.experts
    gate = latent.layers * d * latent.heads * latent.value_dim * f.flag("mla_use_output_gate")
    streams = 4 * f.layers() + 2 if f.given("attn_res_block_size") is not None else 0
    return {"small_parameters": gate + streams * d + x.layers * x.latent * f.flag("latent_moe_use_norm")}


_INDEXED_TYPES = {
    "linear_attention": "recurrent",
    **dict.fromkeys(("full_attention", "indexed_attention"), "latent"),
}


def glm_next_mixers(f: Fields) -> list[str]:
    """`layer_types`; else latent attention to selected tokens in every fourth layer."""
    if f.given("layer_types") is not None:
        return f.entries("layer_types", _INDEXED_TYPES, length=f.layers())
    return ["latent" if i % 4 == 3 else "recurrent" for i in range(f.layers())]


def glm_next_indexer(f: Fields) -> tuple[Indexer, Scalar]:
    """Return the indexers of DeepSeek-V3.2 over pools of tokens, whose keys are gated means."""
    indexer, vectors = dsa_indexer(f)
    layers, pool = glm_next_mixers(f).count("latent"), f.size("index_kpool")
    gate = indexer.head_dim * (f.size("hidden_size") + pool)
    own = replace(indexer, layers=layers, compression=pool, parameters=indexer.parameters + gate)
    return own, vectors


def glm_next_extras(f: Fields, model: Model) -> Numbers:
    """Hyper-connections."""
    return {"small_parameters": hyper_connections(f, model, mixed=True, head=False)}


def qwen4_mixers(f: Fields) -> list[str]:
    """`layer_types`; else attention to selected blocks of tokens in every fourth layer."""
    kinds = {
        "linear_attention": "recurrent",
        **dict.fromkeys(("full_attention", "indexed_attention"), "sparse"),
    }
    if f.given("layer_types") is not None:
        return f.entries("layer_types", kinds, length=f.layers())
    period = f.size("full_attention_interval")
    return ["recurrent" if (i + 1) % period else "sparse" for i in range(f.layers())]


def qwen4_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Tokens of selected blocks."""
    return {"selected": f.size("indexer_budget")}


def qwen4_indexer(f: Fields) -> tuple[Indexer, Scalar]:
    """Return the indexers: queries and one key per block of tokens, each with a norm, in 16 bits."""
    heads, dim, keys = (f.size(f"indexer_{name}") for name in ("n_heads", "head_dim", "kv_heads"))
    indexer = Indexer(
        layers=qwen4_mixers(f).count("sparse"),
        heads=heads,
        head_dim=dim,
        compression=f.size("indexer_compress_ratio"),
        parameters=f.size("hidden_size") * (heads + keys) * dim,
        key_bits=16,
    )
    return indexer, 2 * dim


def qwen4_channels(f: Fields) -> list[str]:
    """Experts, and the two low-rank maps of the hyper-connections around both mixers."""
    return ["dense+dense+experts"] * f.layers()


def qwen4_width(f: Fields, positions: list[int]) -> float:
    """The maps of n streams to a rank and back have the weights of a gated feed-forward of this width."""
    return 2 * f.size("hc_lowrank") * f.size("hc_count") / 3


def qwen4_extras(f: Fields, model: Model) -> Numbers:
    """What hyper-connections add to a mixer's output, the last of them, and embeddings of n-grams in some layers."""
    d, n, layers = model.hidden, f.size("hc_count"), f.layers()
    injected = layers * 2 * n * n * d + 2 * f.size("hc_lowrank") * n * d
    gram_layers = len(f.sequence("ple_layer_ids"))
    width, heads = (
        f.optional_size("ple_embed_dim") or d,
        (f.size("ngram_size") - 1) * f.size("heads_per_ngram"),
    )
    projections = (n + 1) * d * width + (3 + f.size("ple_conv_kernel_size")) * n * d
    table = gram_layers * f.size("ngram_vocab_size_base") * heads * (width // heads)
    return {"small_parameters": injected + gram_layers * projections, "table_parameters": table}


def rwkv_width(f: Fields) -> int:
    """Return a multiple of the hidden size, of a factor that may be a fraction."""
    factor = f.given("hidden_ratio")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor <= 100:
        raise f.error("hidden_ratio", "a positive number", factor)
    return int(factor * f.size("hidden_size"))


def rwkv_extras(f: Fields, model: Model) -> Numbers:
    """The norm of the embedding."""
    return {"small_parameters": model.hidden * (1 + f.flag("norm_bias")) * f.flag("norm_first")}


_ZAMBA_TYPES = {
    **dict.fromkeys(("mamba", "m", "linear_attention"), "recurrent"),
    **dict.fromkeys(("hybrid", "g"), "full+recurrent"),
}


def zamba_mixers(f: Fields) -> list[str]:
    """Mamba layers, some with a shared block of attention and feed-forward before them."""
    if f.given("layers_block_type") is not None:
        return f.entries("layers_block_type", _ZAMBA_TYPES, length=f.layers())
    period, offset = f.size("attn_layer_period"), f.size("attn_layer_offset", least=0)
    hybrid = {2, *(i + 3 for i in range(f.layers() - 3) if i % period == offset)}
    return ["full+recurrent" if i in hybrid else "recurrent" for i in range(f.layers())]


def zamba_channels(f: Fields) -> list[str]:
    """The shared block's feed-forward."""
    return ["dense" if "full" in kinds else "" for kinds in zamba_mixers(f)]


def _adapters(f: Fields, field: str) -> int:
    return f.size("adapter_rank") if f.flag(field) else 0


def zamba_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Attention to the residual stream beside the embedding, twice its width, by blocks that layers share.

    The second half of the projections' inputs is counted with the other matrices.
    """
    d, heads = f.size("hidden_size"), f.size("num_attention_heads")
    head_dim = 2 * d // heads
    projected = (heads + 2 * f.divisor_of_heads("num_key_value_heads")) * head_dim
    return {"head_dim": head_dim, "extra_parameters": d * projected}


def zamba_extras(f: Fields, model: Model) -> Numbers:
    """Norms of the shared blocks, and each of their layers' projection and adapters."""
    d, ff = model.hidden, model.feed_forward
    blocks = min(f.size("num_mem_blocks"), ff.layers)
    attention = 3 * 4 * d * _adapters(f, "use_shared_attention_adapter")
    feed_forward = (d + 2 * ff.width) * _adapters(f, "use_mlp_adapter")
    return {"small_parameters": blocks * 3 * d + ff.layers * (d * d + attention + feed_forward)}


def shared_or_none(f: Fields) -> int:
    """Count x width of the routed experts, none where the count is missing."""
    return f.size("n_shared_experts", least=0) * f.size("moe_intermediate_size")
