"""The kinds of the layers of a model, by the rules of its family."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxcost.edge.hf.fields import Fields

__all__ = [
    "all_layers",
    "alternating_layers",
    "as_many_kv_heads",
    "bigcode_kv_heads",
    "counted_shared",
    "deepseek_channels",
    "falcon_kv_heads",
    "falcon_norms",
    "full_layers",
    "jamba_channels",
    "jamba_mixers",
    "linear_layers",
    "listed",
    "listed_channels",
    "listed_mixers",
    "llama4_channels",
    "llama4_mixers",
    "minimax_m2_mixers",
    "minimax_mixers",
    "minimax_shared",
    "nemotron_channels",
    "nemotron_draft",
    "nemotron_mixers",
    "nemotron_shared",
    "one_shared",
    "patterned_layers",
    "qwen_channels",
    "stated_shared",
    "stated_window_layers",
    "upper_windowed_layers",
    "windowed_layers",
]

# Token mixers of every layer -------------------------------------------------------------------------

_LAYER_TYPES = {
    "full_attention": "full",
    "attention": "full",
    "sliding_attention": "window",
    "chunked_attention": "window",
}
_LINEAR_TYPES = {
    **_LAYER_TYPES,
    **dict.fromkeys(("linear_attention", "mamba", "conv", "recurrent", ""), "recurrent"),
}
_CHANNEL_TYPES = {"dense": "dense", **dict.fromkeys(("sparse", "moe", "hash_moe"), "experts")}


def _entries(f: Fields, field: str, kinds: Mapping[Any, str]) -> list[str]:
    """Read a list of one entry per layer; further entries may be those of multi-token-prediction modules."""
    layers, drafts = f.layers(), f.size("num_nextn_predict_layers", least=0)
    padded = len(f.sequence(field)) == layers + drafts
    return f.entries(field, kinds, length=layers + drafts if padded else layers)[:layers]


def listed(
    rule: Callable[[Fields], list[str]], kinds: Mapping[Any, str], field: str = "layer_types"
) -> Callable[[Fields], list[str]]:
    """Make a function that returns the layers' kinds: those that a field lists, else those of the family's rule."""
    return lambda f: rule(f) if f.given(field) is None else _entries(f, field, kinds)


def listed_mixers(rule: Callable[[Fields], list[str]]) -> Callable[[Fields], list[str]]:
    """Make a function that returns the token mixers: those that `layer_types` lists, else those of a rule."""
    return listed(rule, _LINEAR_TYPES)


def _by_rule(rule: Callable[[Fields, int], Callable[[int], bool]], yes: str, no: str = "full") -> Callable:
    """Make a function that returns the layers' kinds: of `layer_types`, else `yes` or `no` by the family's rule."""

    def plan(f: Fields) -> list[str]:
        layers = f.layers()
        if f.given("layer_types") is not None:
            return _entries(f, "layer_types", _LINEAR_TYPES if f.row.recurrence else _LAYER_TYPES)
        chosen = rule(f, layers)
        return [yes if chosen(i) else no for i in range(layers)]

    return plan


def _never(f: Fields, layers: int) -> Callable[[int], bool]:
    return lambda i: False


def _windowed(f: Fields, layers: int) -> Callable[[int], bool]:
    window = f.optional_size("sliding_window")
    return lambda i: window is not None


def _stated_window(f: Fields, layers: int) -> Callable[[int], bool]:
    """Mistral: the window is required, null for none; its class default would be that of one checkpoint."""
    window = f.stated_size("sliding_window")
    return lambda i: window is not None


def _upper_windowed(f: Fields, layers: int) -> Callable[[int], bool]:
    """Qwen: with `use_sliding_window`, the layers from `max_window_layers` on have a window."""
    if not f.flag("use_sliding_window"):
        return _never(f, layers)
    first = f.size("max_window_layers", least=0)
    return lambda i: i >= first


def _alternate(f: Fields, layers: int) -> Callable[[int], bool]:
    return lambda i: i % 2 == 0


def _pattern(f: Fields, layers: int) -> Callable[[int], bool]:
    """Gemma 3: every `sliding_window_pattern`-th layer has full attention, the others a window."""
    period = f.size("sliding_window_pattern")
    return lambda i: (i + 1) % period != 0


def _linear_interval(f: Fields, layers: int) -> Callable[[int], bool]:
    period = f.size("full_attention_interval")
    return lambda i: (i + 1) % period != 0


def llama4_mixers(f: Fields) -> list[str]:
    """Layers with rotary positions attend in chunks; layers without have full attention."""
    layers = f.layers()
    if f.stated_size("attention_chunk_size") is None:
        return ["full"] * layers
    if f.given("layer_types") is None and f.given("no_rope_layers"):
        return f.entries("no_rope_layers", {0: "full", 1: "window"}, length=layers)
    period = f.size("no_rope_layer_interval")
    return _by_rule(lambda f, n: lambda i: (i + 1) % period != 0, "window")(f)


def minimax_mixers(f: Fields) -> list[str]:
    """`attn_type_list` (0 lightning, 1 softmax) as released, or `layer_types` as in transformers."""
    layers = f.layers()
    if f.given("layer_types") is not None:
        return f.entries("layer_types", _LINEAR_TYPES, length=layers)
    return f.entries("attn_type_list", {0: "recurrent", 1: "full"}, length=layers)


def minimax_m2_mixers(f: Fields) -> list[str]:
    """All layers have softmax attention; MiniMax-M2 keeps the list of its predecessor without lightning layers."""
    layers = f.layers()
    if f.given("attn_type_list") is None:
        return ["full"] * layers
    return f.entries("attn_type_list", {1: "full"}, length=layers)


def _periodic(f: Fields, period_field: str, offset_field: str) -> Callable[[int], bool]:
    period, offset = f.size(period_field), f.size(offset_field, least=0)
    if offset >= period:
        raise f.error(offset_field, f"a number below {period_field} {period}", offset)
    return lambda i: i % period == offset


def jamba_mixers(f: Fields) -> list[str]:
    """One attention layer per period, Mamba layers between."""
    attends = _periodic(f, "attn_layer_period", "attn_layer_offset")
    return ["full" if attends(i) else "recurrent" for i in range(f.layers())]


_BLOCKS = {
    **dict.fromkeys(("M", "mamba", "linear_attention"), "recurrent"),
    **dict.fromkeys(("*", "attention", "full_attention"), "full"),
    **dict.fromkeys(("-", "mlp"), "dense"),
    **dict.fromkeys(("E", "moe"), "experts"),
}


def _nemotron_blocks(f: Fields) -> list[str]:
    """Return one mixer per layer, named or by letters: M Mamba-2, * attention, - feed-forward, E experts."""
    field = "layers_block_type" if f.given("layers_block_type") is not None else "hybrid_override_pattern"
    pattern = f.given(field)
    if field == "layers_block_type" or isinstance(pattern, list):
        stated = f.given("num_hidden_layers") is not None
        return f.entries(field, _BLOCKS, length=f.layers() if stated else len(f.sequence(field)))
    layers = f.layers()
    if not isinstance(pattern, str) or len(pattern) != layers or set(pattern) - set("M*-E"):
        expected = f"{layers} letters among M * - E, one per layer"
        raise f.missing(field, expected) if pattern is None else f.error(field, expected, pattern)
    return [_BLOCKS[letter] for letter in pattern]


def nemotron_draft(f: Fields) -> tuple[str, str]:
    """One attention layer and one of experts, or as the pattern of the module says."""
    kinds = [
        _BLOCKS[letter] for letter in f.given("mtp_hybrid_override_pattern") or "*E" if letter in _BLOCKS
    ]
    mixers, channels = (
        "+".join(k for k in kinds if k in of) for of in (("recurrent", "full"), ("dense", "experts"))
    )
    return mixers, channels


def nemotron_mixers(f: Fields) -> list[str]:
    """Token mixers; "" for layers that mix channels."""
    return [kind if kind in ("recurrent", "full") else "" for kind in _nemotron_blocks(f)]


def nemotron_channels(f: Fields) -> list[str]:
    """Channel mixers; "" for layers that mix tokens."""
    return [kind if kind in ("dense", "experts") else "" for kind in _nemotron_blocks(f)]


# Channel mixers of every layer -----------------------------------------------------------------------


def all_layers(kind: str) -> Callable[[Fields], list[str]]:
    """Make a function that returns the same kind for every layer."""
    return lambda f: [kind] * f.layers()


def deepseek_channels(f: Fields) -> list[str]:
    """Dense layers first, then experts; or a list of 1 for experts, 0 for dense."""
    if isinstance(f.given("moe_layer_freq"), list):
        return _entries(f, "moe_layer_freq", {0: "dense", 1: "experts"})
    first, period = f.size("first_k_dense_replace", least=0), f.size("moe_layer_freq")
    return ["experts" if i >= first and i % period == 0 else "dense" for i in range(f.layers())]


def qwen_channels(f: Fields) -> list[str]:
    """Experts every `decoder_sparse_step` layers, except `mlp_only_layers`."""
    layers, period = f.layers(), f.size("decoder_sparse_step")
    dense = f.positions("mlp_only_layers", layers)
    return ["experts" if i not in dense and (i + 1) % period == 0 else "dense" for i in range(layers)]


def listed_channels(rule: Callable[[Fields], list[str]]) -> Callable[[Fields], list[str]]:
    """Make a function that returns the channel mixers: those that `mlp_layer_types` lists, else those of a rule."""
    return listed(rule, _CHANNEL_TYPES, "mlp_layer_types")


def llama4_channels(f: Fields) -> list[str]:
    """Experts in `moe_layers`, or at the end of every `interleave_moe_layer_step` layers."""
    layers = f.layers()
    if f.given("moe_layers") is not None:
        sparse = f.positions("moe_layers", layers)
    else:
        period = f.size("interleave_moe_layer_step")
        sparse = set(range(period - 1, layers, period))
    return ["experts" if i in sparse else "dense" for i in range(layers)]


def jamba_channels(f: Fields) -> list[str]:
    """One layer of experts per period, dense layers between; dense layers alone with one expert."""
    if f.size("num_experts") == 1:
        return ["dense"] * f.layers()
    sparse = _periodic(f, "expert_layer_period", "expert_layer_offset")
    return ["experts" if sparse(i) else "dense" for i in range(f.layers())]


def falcon_norms(f: Fields) -> int:
    """One norm where attention and feed-forward run in parallel on it, two otherwise."""
    return 1 if f.flag("parallel_attn") and not f.flag("new_decoder_architecture") else 2


# Width of all shared experts of a layer together -----------------------------------------------------


def counted_shared(f: Fields) -> int:
    """Shared experts as wide as the routed ones: count x width."""
    return (f.stated_size("n_shared_experts", least=0) or 0) * f.size("moe_intermediate_size")


def stated_shared(f: Fields) -> int:
    """The field is the width."""
    return f.size("shared_expert_intermediate_size", least=0)


def one_shared(f: Fields) -> int:
    """One shared expert as wide as the routed ones."""
    return f.size("moe_intermediate_size")


def minimax_shared(f: Fields) -> int:
    """The field is the width, 0 in every release."""
    return f.size("shared_intermediate_size", least=0)


def nemotron_shared(f: Fields) -> int:
    """Shared experts with a width of their own: count x width."""
    count = f.stated_size("n_shared_experts", least=0) or 0
    return count * f.size("moe_shared_expert_intermediate_size") if count else 0


def as_many_kv_heads(f: Fields) -> int:
    """As many as query heads where the field is missing."""
    return f.divisor_of_heads("num_key_value_heads")


def falcon_kv_heads(f: Fields) -> int:
    """Grouped heads in the new architecture, else one for all query heads or one for each."""
    if f.flag("new_decoder_architecture"):
        return f.divisor_of_heads("num_kv_heads")
    return 1 if f.flag("multi_query") else f.size("num_attention_heads")


def bigcode_kv_heads(f: Fields) -> int:
    """One for all query heads, or one for each."""
    return 1 if f.flag("multi_query") else f.size("num_attention_heads")


full_layers = _by_rule(_never, "window")
windowed_layers = _by_rule(_windowed, "window")
stated_window_layers = _by_rule(_stated_window, "window")
upper_windowed_layers = _by_rule(_upper_windowed, "window")
alternating_layers = _by_rule(_alternate, "window")
patterned_layers = _by_rule(_pattern, "window")
linear_layers = _by_rule(_linear_interval, "recurrent")
