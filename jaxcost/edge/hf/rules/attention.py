"""Rules of families whose attention differs by layer: kinds, shapes and further weights."""

from collections.abc import Mapping
from typing import Any, TypeGuard

from jaxcost.core.pytree import Scalar
from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.rules import layers as plan
from jaxcost.spec.model import Model

__all__ = [
    "baichuan_m1_attention",
    "baichuan_m1_extras",
    "baichuan_m1_mixers",
    "beam_extras",
    "block_attention",
    "block_channels",
    "block_mixers",
    "block_norms",
    "block_width",
    "cross_attention_channels",
    "cross_attention_extras",
    "cross_attention_mixers",
    "deci_attention",
    "every_fourth_window",
    "gated_head_attention",
    "gemma3n_extras",
    "gemma4_attention",
    "gemma4_channels",
    "gemma4_extras",
    "gemma4_norms",
    "gemma4_width",
    "inkling_attention",
    "inkling_extras",
    "longcat_extras",
    "longcat_layers",
    "mimo_extras",
    "mimo_mixers",
    "muse_spark_extras",
    "step_attention",
    "step_channels",
    "zaya_attention",
    "zaya_extras",
]

Numbers = Mapping[str, Scalar]


def _count(kinds: list[str], kind: str) -> int:
    return sum(each.split("+").count(kind) for each in kinds)


def _mean(f: Fields, field: str, positions: list[int]) -> float:
    """Return the mean of a list of one number per layer over the layers at some positions."""
    values = f.sequence(field)
    chosen = [values[i] for i in positions if i < len(values) and _is_count(values[i])]
    if len(chosen) < len(positions):
        raise f.error(field, "a whole number from 1 for every layer", values)
    return sum(chosen) / len(chosen)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def gemma3n_extras(f: Fields, model: Model) -> Numbers:
    """Gemma 3n: what it adds to Gemma 3 blocks.

    LAuReL, AltUp and the gates of the per-layer embeddings are small matrices and counted with the vectors: their bytes
    are read in every pass, and their FLOPs, 2 to 4% of those of a block, are neglected.
    """
    d, p, layers = model.hidden, f.size("hidden_size_per_layer_input"), f.layers()
    n = f.size("altup_num_inputs")
    laurel = 2 * d * f.size("laurel_rank")
    altup = n * n + n**3 + d * n + d  # correction, prediction, router, output scale
    return {
        "small_parameters": layers * (laurel + altup) + 2 * (n - 1) * d * d + _per_layer_inputs(d, p, layers),
        "table_parameters": f.size("vocab_size_per_layer_input") * layers * p,
    }


def _per_layer_inputs(d: Scalar, p: int, layers: int) -> Scalar:
    """Count gate and projection of every layer's input, and the model's projection to all of them with its norm."""
    return layers * 2 * d * p + d * layers * p + p


def gemma4_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Gemma 4: in layers of full attention, keys are also the values, with key-value heads of their own."""
    if kind != "full" or not f.flag("attention_k_eq_v"):
        return {}
    heads = f.optional_size("num_global_key_value_heads")
    return {"value_projection": 0, **({"kv_heads": heads} if heads else {})}


def gemma4_channels(f: Fields) -> list[str]:
    """Experts beside the dense feed-forward of every layer, or none."""
    return ["dense+experts" if f.flag("enable_moe_block") else "dense"] * f.layers()


def gemma4_norms(f: Fields) -> int:
    """Four of the block, one of the per-layer input, three around the experts."""
    return 4 + (f.size("hidden_size_per_layer_input", least=0) > 0) + 3 * f.flag("enable_moe_block")


def gemma4_width(f: Fields, positions: list[int]) -> float:
    """Twice as wide in layers that reuse keys and values, where the config says so."""
    wide = f.size("num_kv_shared_layers", least=0) if f.flag("use_double_wide_mlp") else 0
    return f.size("intermediate_size") * (1 + wide / len(positions))


def gemma4_extras(f: Fields, model: Model) -> Numbers:
    """Per-layer inputs, and the scales of router and experts."""
    d, p, layers, x = model.hidden, f.size("hidden_size_per_layer_input", least=0), f.layers(), model.experts
    inputs = _per_layer_inputs(d, p, layers) if p else 0
    table = f.size("vocab_size_per_layer_input") * layers * p if p else 0
    return {"small_parameters": inputs + x.layers * (d + x.experts), "table_parameters": table}


def mimo_mixers(f: Fields) -> list[str]:
    """`hybrid_layer_pattern` (1 for a window), or `layer_types`; the first layer and every sixth attend to all."""
    if f.given("hybrid_layer_pattern") is not None and f.given("layer_types") is None:
        return plan.listed(plan.full_layers, {0: "full", 1: "window"}, "hybrid_layer_pattern")(f)
    if f.given("layer_types") is not None:
        return plan.full_layers(f)
    return ["full" if i == 0 or (i + 1) % 6 == 0 else "window" for i in range(f.layers())]


def mimo_extras(f: Fields, model: Model) -> Numbers:
    """One attention sink per head, by kind of layer."""
    full, window = model.attention, model.window_attention
    sinks = f.flag("add_full_attention_sink_bias") * full.layers * full.heads
    return {"small_parameters": sinks + f.flag("add_swa_attention_sink_bias") * window.layers * window.heads}


def every_fourth_window(f: Fields) -> list[str]:
    """The first two layers and every fourth attend to all."""
    return ["full" if i < 2 or i % 4 == 1 else "window" for i in range(f.layers())]


def beam_extras(f: Fields, model: Model) -> Numbers:
    """A bias of the gate per head."""
    shapes = model.attention, model.window_attention
    return {"small_parameters": sum(a.layers * a.heads for a in shapes)}


def gated_head_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Heads that differ by layer, and a gate: one number per head, or one per element as wide as the queries."""
    heads: float = f.size("num_attention_heads")
    if f.given("num_attention_heads_per_layer") is not None:
        heads = _mean(f, "num_attention_heads_per_layer", positions)
    if f.given("gating") in (True, "per-head"):
        return {"heads": heads, "extra_parameters": heads * f.size("hidden_size")}
    return {"heads": heads, "query_outputs": 2}


def step_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """A gate of one number per head."""
    gate = f.flag("use_head_wise_attn_gate") * f.size("num_attention_heads") * f.size("hidden_size")
    return {"extra_parameters": gate}


def step_channels(f: Fields) -> list[str]:
    """Experts in the layers that a list, or its text, names; from the fourth on without one."""
    layers, listed = f.layers(), f.given("moe_layers_enum")
    if isinstance(listed, str):
        entries = [entry.strip() for entry in listed.split(",") if entry.strip()]
        if not all(map(str.isdecimal, entries)):
            raise f.error("moe_layers_enum", "layer numbers joined by commas", listed)
        listed = [int(entry) for entry in entries]
    elif listed is not None:
        listed = f.positions("moe_layers_enum", layers + f.size("num_nextn_predict_layers", least=0))
    sparse = set(range(3, layers)) if listed is None else set(listed)
    return ["experts" if i in sparse else "dense" for i in range(layers)]


def baichuan_m1_mixers(f: Fields) -> list[str]:
    """A window in the layers that a list names."""
    window = f.positions("sliding_window_layers", f.layers())
    return ["window" if i in window else "full" for i in range(f.layers())]


def baichuan_m1_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Window layers may have heads of their own."""
    if kind != "window":
        return {}
    heads, kv_heads = (f.optional_size(f"num_swa_{name}") for name in ("attention_heads", "key_value_heads"))
    width = f.size("hidden_size")
    numbers = {"heads": heads, "kv_heads": kv_heads, "head_dim": heads and width // heads}
    return {name: value for name, value in numbers.items() if value}


def baichuan_m1_extras(f: Fields, model: Model) -> Numbers:
    """The kernels of the convolution over the last keys and values of a head."""
    shapes = model.attention, model.window_attention
    return {"small_parameters": 2 * f.size("conv_window") * sum(a.layers * a.kv_heads for a in shapes)}


def inkling_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """A projection to relative positions, and short convolutions of keys and values."""
    heads, kv_heads = f.size("num_attention_heads"), f.size("num_key_value_heads")
    rank, extent = f.size("d_rel"), f.size("sliding_window") if kind == "window" else f.size("rel_extent")
    kernels = 2 * f.size("conv_kernel_size") * kv_heads * f.head_dim()
    return {"extra_parameters": f.size("hidden_size") * heads * rank + rank * extent + kernels}


def inkling_extras(f: Fields, model: Model) -> Numbers:
    """Short convolutions of both mixers' outputs, the norm of the embedding, and the gates of shared experts."""
    layers, d, x = f.layers(), model.hidden, model.experts
    gates = x.layers * (f.size("n_shared_experts", least=0) * d + 1)
    return {"small_parameters": layers * 2 * f.size("conv_kernel_size") * d + d + gates}


def muse_spark_extras(f: Fields, model: Model) -> Numbers:
    """Norms before and after the experts in their latent space, and two gates of the residual stream."""
    x = model.experts
    return {"small_parameters": 2 * x.layers * x.latent + 2 * f.layers() * model.hidden}


def zaya_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Convolutions over queries and keys: one per channel, then one per head."""
    dim, kv_heads = f.head_dim(), f.size("num_key_value_heads")
    channels = (f.size("num_attention_heads") + kv_heads) * dim
    kernels = channels * (f.size("cca_time0") + 1) + channels * (dim * f.size("cca_time1") + 1)
    return {"extra_parameters": kernels + kv_heads}


def zaya_extras(f: Fields, model: Model) -> Numbers:
    """Scales and biases of the residual stream, and routers of three layers with one output more than experts."""
    layers, d, width, experts = f.layers(), model.hidden, f.size("router_hidden_size"), model.experts.experts
    router = d * width + 2 * width * width + (experts + 1) * width + 4 * width
    scales = layers * 8 * d + 2 * d
    return {"small_parameters": scales + layers * (router - d * experts) + (layers - 1) * width}


def _blocks(f: Fields, part: str) -> list[Mapping[str, Any]]:
    """Return what `block_configs` says of one part of every layer, attention or ffn."""
    blocks = f.sequence("block_configs", length=f.layers())
    parts = [block.get(part) for block in blocks if isinstance(block, Mapping)]
    mappings = [each for each in parts if isinstance(each, Mapping)]
    if len(mappings) < len(blocks):
        raise f.error("block_configs", f"a mapping with {part} for every layer", parts)
    return mappings


def _kind(part: Mapping[str, Any], kind: str) -> str:
    return "" if part.get("no_op") else "linear" if part.get("replace_with_linear") else kind


def block_mixers(f: Fields) -> list[str]:
    """Attention in the blocks that have it."""
    parts = _blocks(f, "attention")
    kinds = [_kind(part, "window" if part.get("window_length") else "full") for part in parts]
    return ["" if kind == "linear" else kind for kind in kinds]


def block_channels(f: Fields) -> list[str]:
    """Feed-forward in the blocks that have it; a linear layer in place of a mixer counts as a narrow one."""
    parts = zip(_blocks(f, "attention"), _blocks(f, "ffn"), strict=True)
    kinds = [[_kind(attention, ""), _kind(ffn, "dense")] for attention, ffn in parts]
    return ["+".join("dense" for kind in each if kind) for each in kinds]


def block_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Key-value heads that differ by layer, stated or by the query heads of a group; windows of one length."""
    heads, parts = f.size("num_attention_heads"), [_blocks(f, "attention")[i] for i in positions]
    stated = [part.get("num_key_value_heads") or part.get("n_heads_in_group") for part in parts]
    numbers = [n for n in stated if _is_count(n) and not heads % n]
    if len(numbers) < len(stated):
        expected = f"num_key_value_heads, or n_heads_in_group, that divide the {heads} heads"
        raise f.error("block_configs", expected, stated)
    kv_heads = [
        n if part.get("num_key_value_heads") else heads / n for n, part in zip(numbers, parts, strict=True)
    ]
    mean = {"kv_heads": sum(kv_heads) / len(kv_heads)}
    if kind != "window":
        return mean
    lengths = [part.get("window_length") for part in parts]
    if not _is_count(lengths[0]) or any(length != lengths[0] for length in lengths):
        raise f.error("block_configs", "window_length, the same in all layers with a window", lengths)
    return {**mean, "window": lengths[0]}


def deci_attention(f: Fields, kind: str, positions: list[int]) -> Numbers:
    """Key-value heads that differ by layer."""
    return {"kv_heads": _mean(f, "num_key_value_heads_per_layer", positions)}


def _block_ffn_width(f: Fields, part: Mapping[str, Any]) -> float:
    """Return the stated width, or 2/3 of a multiple of the hidden size, rounded up to 256."""
    stated, factor = part.get("intermediate_size"), part.get("ffn_mult")
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
        return stated
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 0:
        raise f.error("block_configs", "ffn with ffn_mult or intermediate_size", factor)
    return -(-int(2 * factor * f.size("hidden_size") / 3) // 256) * 256


def block_width(f: Fields, positions: list[int]) -> float:
    """Average the widths; a linear layer of d x d weights is as wide as d / matrices."""
    linear = f.size("hidden_size") / 3
    widths = []
    for attention, ffn in zip(_blocks(f, "attention"), _blocks(f, "ffn"), strict=True):
        kind = _kind(ffn, "dense")
        widths += [linear] * (_kind(attention, "") == "linear")
        widths += [_block_ffn_width(f, ffn)] if kind == "dense" else [linear] * (kind == "linear")
    return sum(widths) / len(positions)


def block_norms(f: Fields) -> float:
    """One norm before every mixer that is there."""
    mixers, channels = block_mixers(f), block_channels(f)
    attention = _count(mixers, "full") + _count(mixers, "window")
    return (attention + _count(channels, "dense")) / len(mixers)


def cross_attention_mixers(f: Fields) -> list[str]:
    """Text skips the layers that attend to an image."""
    image = f.positions("cross_attention_layers", f.layers())
    return ["" if i in image else "full" for i in range(f.layers())]


def cross_attention_channels(f: Fields) -> list[str]:
    """Text skips the layers that attend to an image."""
    return ["dense" if kind else "" for kind in cross_attention_mixers(f)]


def cross_attention_extras(f: Fields, model: Model) -> Numbers:
    """The layers that attend to an image, whose norms count already, and eight more rows of the embedding."""
    d, a, ff = model.hidden, model.attention, model.feed_forward
    skipped = cross_attention_mixers(f).count("")
    attention = 2 * d * (a.heads + a.kv_heads) * a.head_dim + 2 * a.head_dim + 2
    return {"unused_parameters": skipped * (attention + 3 * d * ff.width), "table_parameters": 8 * d}


def longcat_layers(kinds: str) -> Any:
    """Make a function that returns the same kinds for every layer, of which `num_layers` is the number."""
    return lambda f: [kinds] * f.size("num_layers", most=10_000)


def longcat_extras(f: Fields, model: Model) -> Numbers:
    """The router's outputs for zero experts with their corrections, and the tables of n-grams."""
    d, x, zero = model.hidden, model.experts, f.size("zero_expert_num", least=0)
    small, table = x.layers * (zero * d + zero), 0
    ratio = f.optional_size("ngram_vocab_size_ratio")
    if ratio:
        tables = f.size("emb_split_num") * (f.size("emb_neighbor_num") - 1)
        rows = sum(ratio * f.size("vocab_size") + 2 * i + 1 for i in range(tables))
        table, small = rows * (d // tables), small + tables * (d // tables) * d
    return {"small_parameters": small, "table_parameters": table}
