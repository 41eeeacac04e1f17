"""Rules of families that attend to selected or compressed context: kinds of layers, indexers, further weights."""

from collections.abc import Mapping

from jaxcost.core.pytree import Scalar
from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.rules import layers as plan
from jaxcost.spec.model import Indexer, Model

__all__ = [
    "compressed_attention",
    "compressed_extras",
    "compressed_indexer",
    "compressed_mixers",
    "dsa_indexer",
    "hy_v4_extras",
    "hyper_connections",
    "minimax_m3_attention",
    "minimax_m3_indexer",
    "minimax_m3_mixers",
    "minimax_m3_shared",
]

Numbers = Mapping[str, Scalar]


def _own_indexers(f: Fields, layers: int) -> int:
    """Count the layers that select tokens; the others reuse the selection of an earlier one."""
    if f.given("indexer_types") is not None:
        return f.entries("indexer_types", {"full": "1", "shared": "0"}, length=layers).count("1")
    pattern = f.given("index_topk_pattern")
    if pattern is not None:
        if not isinstance(pattern, str) or len(pattern) < layers or set(pattern) - {"F", "S"}:
            raise f.error("index_topk_pattern", f"{layers} letters among F S, one per layer", pattern)
        return pattern[:layers].count("F")
    period, offset = f.size("index_topk_freq"), f.size("index_skip_topk_offset", least=0)
    return sum(max(i - offset + 1, 0) % period == 0 for i in range(layers))


def dsa_indexer(f: Fields) -> tuple[Indexer, Scalar]:
    """Return the indexers of DeepSeek-V3.2: queries from the compressed query, one key, a weight per head."""
    d, heads, dim = f.size("hidden_size"), f.size("index_n_heads"), f.size("index_head_dim")
    layers = _own_indexers(f, f.layers())
    parameters = f.size("q_lora_rank") * heads * dim + d * dim + d * heads
    return Indexer(layers=layers, heads=heads, head_dim=dim, parameters=parameters), 2 * dim


_COMPRESSED_TYPES = {
    "sliding_attention": "window",
    "compressed_sparse_attention": "sparse",
    "heavily_compressed_attention": "full",
}


def compressed_mixers(f: Fields) -> list[str]:
    """DeepSeek-V4: a window alone, or also the whole context in entries of 4 tokens, some selected, or of 128."""
    layers = f.layers()
    if f.given("layer_types") is not None:
        return f.entries("layer_types", _COMPRESSED_TYPES, length=layers)
    if f.given("compress_ratios") is not None:
        ratios, few, many = {0: "window"}, f.size("compress_rate_csa"), f.size("compress_rate_hca")
        return plan.listed(lambda f: [], {**ratios, few: "sparse", many: "full"}, "compress_ratios")(f)
    return ["full" if i < 2 or i % 2 == 0 else "sparse" for i in range(layers)]


def compressed_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """One key that is also the value, queries and outputs of low rank, and a compressor of key and gate.

    The compressor of entries of which some are selected overlaps two entries, so it is twice as wide.
    """
    d, dim = f.size("hidden_size"), f.size("head_dim")
    common = {
        "window": f.size("sliding_window"),
        "value_projection": 0,
        "value_cache": 0,
        "query_rank": f.size("q_lora_rank"),
        "output_rank": f.size("o_lora_rank"),
        "output_groups": f.size("o_groups"),
    }
    if kind == "window":
        return common
    overlap, rate = (2, f.size("compress_rate_csa")) if kind == "sparse" else (1, f.size("compress_rate_hca"))
    extra = overlap * dim * (2 * d + rate)
    selected = f.size("index_topk") if kind == "sparse" else 0
    return {**common, "compression": rate, "selected": selected, "extra_parameters": extra}


def compressed_indexer(f: Fields) -> tuple[Indexer, Scalar]:
    """Return the indexers of the layers with selected entries, which compress keys of their own."""
    d, heads, dim = f.size("hidden_size"), f.size("index_n_heads"), f.size("index_head_dim")
    rate = f.size("compress_rate_csa")
    parameters = 2 * dim * (2 * d + rate) + f.size("q_lora_rank") * heads * dim + d * heads
    layers = compressed_mixers(f).count("sparse")
    return Indexer(layers=layers, heads=heads, head_dim=dim, compression=rate, parameters=parameters), dim


def hyper_connections(f: Fields, model: Model, *, mixed: bool, head: bool = True) -> Scalar:
    """Count the maps between n residual streams of width d around both mixers, and any before the head.

    A mixer reads and writes each stream by a number, and where `mixed` the streams are also mixed by n x n numbers.
    """
    n, d = f.size("hc_mult"), model.hidden
    maps = 2 * n + n * n * mixed
    return f.layers() * 2 * (maps * n * d + maps + 2 + mixed) + head * (n * n * d + n + 1)


def hy_v4_extras(f: Fields, model: Model) -> Numbers:
    """A gate as wide as the output of latent attention, sinks, and hyper-connections."""
    latent, d = model.latent, model.hidden
    own = latent.layers * latent.heads * (d * latent.value_dim + 1)
    return {"small_parameters": own + hyper_connections(f, model, mixed=False)}


def compressed_extras(f: Fields, model: Model) -> Numbers:
    """Norms of queries, keys and compressors, and the maps of the hyper-connections between n residual streams."""
    layers, dim = f.layers(), f.size("head_dim")
    compressors = model.attention.layers + model.sparse_attention.layers
    norms = layers * (f.size("q_lora_rank") + dim) + compressors * dim
    return {"small_parameters": norms + hyper_connections(f, model, mixed=True)}


_MINIMAX_M3_TYPES = {"full_attention": "full", "minimax_m3_sparse": "sparse"}


def minimax_m3_mixers(f: Fields) -> list[str]:
    """MiniMax-M3: attention to the whole context, or to selected blocks of it."""
    if f.given("sparse_attention_freq") is not None and f.given("layer_types") is None:
        return plan.listed(plan.full_layers, {0: "full", 1: "sparse"}, "sparse_attention_freq")(f)
    return plan.listed(plan.full_layers, _MINIMAX_M3_TYPES)(f)


def minimax_m3_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Selected are blocks of tokens."""
    gated = {"query_outputs": 1 + f.flag("attention_output_gate")}
    if kind != "sparse":
        return gated
    return {**gated, "selected": f.size("index_topk_blocks") * f.size("index_block_size")}


def minimax_m3_indexer(f: Fields) -> tuple[Indexer, Scalar]:
    """Return the indexers: queries and one key from the residual stream, each with a norm."""
    heads, dim = f.size("index_n_heads"), f.size("index_head_dim")
    parameters = f.size("hidden_size") * dim * (heads + 1)
    layers = minimax_m3_mixers(f).count("sparse")
    return Indexer(layers=layers, heads=heads, head_dim=dim, parameters=parameters), 2 * dim


def minimax_m3_shared(f: Fields) -> int:
    """Count x width."""
    return f.size("n_shared_experts", least=0) * f.size("shared_intermediate_size")
