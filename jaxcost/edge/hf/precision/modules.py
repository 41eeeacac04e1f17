"""The weight matrices of a checkpoint by class, with the module names under which checkpoints store them.

The sizes weigh one matrix against another where a checkpoint stores them in different precisions. They are no parameter
count: small vectors are left out, and a missing size counts as 1.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jaxcost.edge.hf.multimodal.wrappers import TEXT_PARTS

__all__ = ["WeightMatrix", "list_matrices", "text_config"]

_BLOCKS = ("attn_config", "ffn_config")  # DBRX
_RECURRENT = ("linear", "mamba", "recurrent", "conv", "kda", "gdn")
_MOST = 10_000  # layers, experts
# Families that use the embedding as output head where the file does not say.
_TIED = """gemma gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_text cohere cohere2 minicpm3 starcoder2
    smollm3 lfm2 lfm2_moe mpt bloom gpt2 gpt_bigcode falcon opt ernie4_5 ernie4_5_moe""".split()
_UNGATED_ACTIVATIONS = ("relu", "relu2", "gelu_new", "gelu_fast")
_EXPERTS = ("num_experts", "n_routed_experts", "num_local_experts", "moe_num_experts")


@dataclasses.dataclass(frozen=True)
class WeightMatrix:
    """Equal weight matrices of a model.

    Attributes:
        tensor_class: "weight" (dense feed-forward, shared experts), "mixer" (attention and recurrence), "expert"
            (routed experts), "wide" (embedding, head, router, encoder) or "draft" (multi-token-prediction module).
        kind: "linear", "expert", "head", "embedding", "router" or "encoder".
        names: dotted names under which checkpoints store the matrix, from the layer on.
        inputs: input features.
        outputs: output features.
        count: number of matrices.
        active: number of those that one token multiplies.
    """

    tensor_class: str
    kind: str
    names: tuple[str, ...]
    inputs: float
    outputs: float
    count: float = 1
    active: float = 1


def text_config(config: Mapping) -> dict:
    """Return the fields of the language model: those of the file, replaced by those of its text part."""
    part = next((config[k] for k in TEXT_PARTS if isinstance(config.get(k), Mapping)), {})
    fields = {**config, **{k: v for k, v in part.items() if v is not None}}
    for block in _BLOCKS:
        if isinstance(fields.get(block), Mapping):
            fields |= fields[block]
    return fields


def list_matrices(config: Mapping, *, every_expert: bool = False) -> list[WeightMatrix]:
    """Return the matrices of a model; `every_expert` names experts one by one, else expert 0 stands for all."""
    c = text_config(config)
    layers = _count(c, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    mixers, channels = _mixers(c, layers), _channels(c, layers)
    matrices = []
    for i, (kinds, channel) in enumerate(zip(mixers, channels, strict=True)):
        matrices += _layer(c, f"layers.{i}", kinds, channel, every_expert)
    for j in range(
        _count(c, "num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules", default=0)
    ):
        for matrix in _layer(c, "", mixers[-1], channels[-1], False):
            if matrix.kind == "router":
                continue
            prefixes = (f"mtp.layers.{j}", f"mtp.{j}", f"layers.{layers + j}", f"mtp_layers.{j}")
            names = tuple(f"{p}{name}" for p in prefixes for name in matrix.names)
            matrices.append(dataclasses.replace(matrix, tensor_class="draft", names=names))
    return matrices + list(_ends(c)) + list(_encoder(config))


def _size(c: Mapping, *names: str, default: float = 1) -> float:
    """Return the first of the fields that is a positive number."""
    for name in names:
        value = c.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 2**40:
            return value
    return default


def _count(c: Mapping, *names: str, default: int = 1) -> int:
    """Return a number of layers or experts; files with more than is plausible are refused where they are counted."""
    return min(int(_size(c, *names, default=default)), _MOST)


def _entries(c: Mapping, layers: int, *names: str) -> list | None:
    """Return the first of the fields that is a list with one entry per layer."""
    return next((c[n] for n in names if isinstance(c.get(n), list) and len(c[n]) == layers), None)


def _mixers(c: Mapping, layers: int) -> list[tuple[str, ...]]:
    """Return the token mixers of each layer: attention, recurrence, both or none."""
    family = str(c.get("model_type", ""))
    if family.startswith("falcon_h1"):
        return [("attention", "recurrence")] * layers
    if family.startswith(("mamba", "rwkv", "falcon_mamba")):
        return [("recurrence",)] * layers
    pattern = c.get("hybrid_override_pattern")
    if isinstance(pattern, str | list) and len(pattern) == layers:
        return [{"M": ("recurrence",), "*": ("attention",)}.get(str(letter), ()) for letter in pattern]
    types = _entries(c, layers, "layer_types", "layers_block_type")
    if types:
        return [_mixer_of(str(t)) for t in types]
    linear = c.get("linear_attn_config")
    if isinstance(linear, Mapping) and isinstance(linear.get("kda_layers"), list):
        recurrent = {n - 1 for n in linear["kda_layers"] if isinstance(n, int)}  # numbered from 1
    elif (softmax := _entries(c, layers, "attn_type_list")) is not None:
        recurrent = {i for i, kind in enumerate(softmax) if kind == 0}
    elif period := _size(c, "full_attention_interval", default=0):
        recurrent = {i for i in range(layers) if (i + 1) % period}
    elif period := _size(c, "attn_layer_period", default=0):
        recurrent = {i for i in range(layers) if i % period != c.get("attn_layer_offset", 0)}
    else:
        recurrent = set()
    return [("recurrence",) if i in recurrent else ("attention",) for i in range(layers)]


def _mixer_of(layer_type: str) -> tuple[str, ...]:
    if layer_type in ("mlp", "moe"):
        return ()
    return ("recurrence",) if any(word in layer_type for word in _RECURRENT) else ("attention",)


def _channels(c: Mapping, layers: int) -> list[str]:
    """Return the channel mixer of each layer: dense, experts or "" for none."""
    pattern = c.get("hybrid_override_pattern")
    if isinstance(pattern, str | list) and len(pattern) == layers:
        return [{"-": "dense", "E": "experts"}.get(str(letter), "") for letter in pattern]
    blocks = _entries(c, layers, "layers_block_type")
    if blocks and {"mlp", "moe"} & {str(b) for b in blocks}:
        return [{"mlp": "dense", "moe": "experts"}.get(str(b), "") for b in blocks]
    if not _size(c, *_EXPERTS, default=0) or c.get("enable_moe_block") is False:
        return ["dense"] * layers
    sparse = _sparse_layers(c, layers)
    return ["experts" if i in sparse else "dense" for i in range(layers)]


def _sparse_layers(c: Mapping, layers: int) -> set[int]:
    """Return the layers with experts."""
    if (types := _entries(c, layers, "mlp_layer_types")) is not None:
        return {i for i, t in enumerate(types) if t != "dense"}
    if (flags := _entries(c, layers, "moe_layer_freq", "is_moe_layer")) is not None:
        return {i for i, flag in enumerate(flags) if flag}
    if isinstance(c.get("moe_layers"), list):
        return _layer_numbers(c, "moe_layers")
    step = int(_size(c, "interleave_moe_layer_step", "decoder_sparse_step"))
    period = int(_size(c, "expert_layer_period", "moe_layer_freq"))
    first = _size(c, "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index", default=0)
    offset = _size(c, "expert_layer_offset", default=0)
    dense = _layer_numbers(c, "mlp_only_layers")
    return {
        i
        for i in range(layers)
        if i >= first and (i + 1) % step == 0 and i % period == offset and i not in dense
    }


def _layer_numbers(c: Mapping, name: str) -> set[int]:
    value = c.get(name)
    return {n for n in value if isinstance(n, int)} if isinstance(value, list) else set()


def _layer(
    c: Mapping, layer: str, mixers: tuple[str, ...], channel: str, every_expert: bool
) -> Iterator[WeightMatrix]:
    if "attention" in mixers:
        yield from _attention(c, layer)
    if "recurrence" in mixers:
        yield from _recurrence(c, layer)
    if channel == "dense" or (channel == "experts" and c.get("enable_moe_block") is True):  # Gemma 4 has both
        width = _size(
            c, "intermediate_size_mlp", "intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim"
        )
        yield from _feed_forward(c, "weight", "linear", _blocks(c, layer), width)
    if channel == "experts":
        yield from _mixture(c, layer, every_expert)


def _names(layer: str, blocks: tuple[str, ...], matrices: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{block}.{matrix}" for block in blocks for matrix in matrices.split())


def _is_one_mixer_per_layer(c: Mapping) -> bool:
    blocks = c.get("layers_block_type")
    return "hybrid_override_pattern" in c or (
        isinstance(blocks, list) and "mamba" in blocks and "moe" in blocks
    )


def _attention(c: Mapping, layer: str) -> Iterator[WeightMatrix]:
    blocks = (
        ("mixer",) if _is_one_mixer_per_layer(c) else ("self_attn", "self_attention", "attention", "attn")
    )

    def matrix(names: str, inputs: float, outputs: float) -> WeightMatrix:
        return WeightMatrix("mixer", "linear", _names(layer, blocks, names), inputs, outputs)

    hidden, heads = (
        _size(c, "hidden_size", "n_embd", "d_model"),
        _size(c, "num_attention_heads", "n_head", "n_heads"),
    )
    rank, head = _size(c, "q_lora_rank", default=0), _size(c, "head_dim", default=hidden / heads)
    latent, rope = _size(c, "kv_lora_rank", default=0), _size(c, "qk_rope_head_dim", default=0)
    value = _size(c, "v_head_dim", default=head)
    if latent:
        nope = _size(c, "qk_nope_head_dim")
        head = nope + rope
        yield matrix("kv_a_proj_with_mqa fused_qkv_a_proj_with_mqa", hidden, latent + rope)
        yield matrix("kv_b_proj", latent, heads * (nope + value))
    else:
        pairs = _size(c, "num_key_value_heads", "num_kv_heads", "multi_query_group_num", default=heads)
        fused = " qkv_proj query_key_value c_attn W_pack wqkv Wqkv"
        yield matrix("k_proj wk" + fused, hidden, pairs * head)
        yield matrix("v_proj wv" + fused, hidden, pairs * value)
    if rank:
        yield matrix("q_a_proj wq_a fused_qkv_a_proj_with_mqa", hidden, rank)
        yield matrix("q_b_proj wq_b", rank, heads * head)
    else:
        gates = 2 if c.get("attn_output_gate") is True else 1
        fused = "" if latent else " qkv_proj query_key_value c_attn W_pack wqkv Wqkv"
        yield matrix("q_proj wq" + fused, hidden, gates * heads * head)
    yield matrix("o_proj out_proj wo dense c_proj", heads * value, hidden)
    if (index := _size(c, "index_n_heads", default=0)) and rank:
        yield matrix("indexer.wq_b", rank, index * _size(c, "index_head_dim"))


def _recurrence(c: Mapping, layer: str) -> Iterator[WeightMatrix]:
    def matrix(names: str, inputs: float, outputs: float) -> WeightMatrix:
        full = tuple(f"{layer}.{name}" for name in names.split())
        return WeightMatrix("mixer", "linear", full, inputs, outputs)

    hidden = _size(c, "hidden_size", "d_model")
    kda = c.get("linear_attn_config")
    if values := _size(c, "linear_num_value_heads", default=0):
        wide = values * _size(c, "linear_value_head_dim")
        keys = _size(c, "linear_num_key_heads") * _size(c, "linear_key_head_dim")
        yield matrix("linear_attn.in_proj_qkv linear_attn.in_proj_qkvz", hidden, 2 * keys + wide)
        yield matrix("linear_attn.in_proj_z linear_attn.in_proj_qkvz", hidden, wide)
        yield matrix("linear_attn.in_proj_a linear_attn.in_proj_ba", hidden, values)
        yield matrix("linear_attn.in_proj_b linear_attn.in_proj_ba", hidden, values)
        yield matrix("linear_attn.out_proj", wide, hidden)
    elif isinstance(kda, Mapping):
        wide = _size(kda, "num_heads") * _size(kda, "head_dim")
        for name in ("q_proj", "k_proj", "v_proj"):
            yield matrix(f"self_attn.{name}", hidden, wide)
        yield matrix("self_attn.o_proj", wide, hidden)
    else:
        heads, width = (
            _size(c, "mamba_num_heads", "mamba_n_heads"),
            _size(c, "mamba_head_dim", "mamba_d_head"),
        )
        inner = heads * width if heads * width > 1 else _size(c, "expand", "mamba_expand", default=2) * hidden
        shared = "linear_attn.{0} self_attn.{0} conv.{0} mixer.{0} mamba.{0}"
        states = 2 * _size(c, "n_groups", default=0) * _size(c, "ssm_state_size", default=0)
        yield matrix(shared.format("in_proj"), hidden, 2 * inner + states)
        yield matrix(shared.format("out_proj"), inner, hidden)


def _blocks(c: Mapping, layer: str) -> tuple[str, ...]:
    names = ("mixer",) if _is_one_mixer_per_layer(c) else ("mlp", "feed_forward", "ffn")
    return tuple(f"{layer}.{name}" for name in names)


def _feed_forward(
    c: Mapping,
    tensor_class: str,
    kind: str,
    blocks: tuple[str, ...],
    width: float,
    count: float = 1,
    active: float = 1,
) -> Iterator[WeightMatrix]:
    hidden = _size(c, "hidden_size", "n_embd", "d_model")
    if tensor_class == "expert":
        hidden = _size(c, "moe_latent_size", default=hidden)

    def matrix(names: str, inputs: float, outputs: float) -> WeightMatrix:
        full = tuple(f"{block}.{name}" for block in blocks for name in names.split())
        return WeightMatrix(tensor_class, kind, full, inputs, outputs, count, active)

    activation = c.get("mlp_hidden_act") or c.get("hidden_act") or c.get("activation_function")
    if activation not in _UNGATED_ACTIVATIONS:
        yield matrix("gate_proj w1 gate_up_proj", hidden, width)
    yield matrix("up_proj w3 gate_up_proj dense_h_to_4h fc1 fc_in c_fc", hidden, width)
    yield matrix("down_proj w2 dense_4h_to_h fc2 fc_out c_proj", width, hidden)


def _mixture(c: Mapping, layer: str, every_expert: bool) -> Iterator[WeightMatrix]:
    hidden, experts = _size(c, "hidden_size", "d_model"), _size(c, *_EXPERTS)
    active = _size(
        c, "num_experts_per_tok", "num_experts_per_token", "moe_topk", "top_k", "experts_per_token"
    )
    width = _size(c, "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    shared, part = _shared_experts(c)
    blocks = _blocks(c, layer)
    if not _is_one_mixer_per_layer(c):
        blocks += (f"{layer}.block_sparse_moe", f"{layer}.moe")
    if shared:
        parts = tuple(f"{block}.{part}" for block in blocks)
        yield from _feed_forward(c, "weight", "linear", parts, shared)
    for number in range(min(int(experts), _MOST) if every_expert else 1):
        parts = tuple(f"{b}.experts{n}" for b in blocks for n in (f".{number}", ""))
        one = 1 if every_expert else experts
        yield from _feed_forward(c, "expert", "expert", parts, width, one, one * min(active / experts, 1))
    names = tuple(f"{b}.{n}" for b in blocks for n in ("gate", "router"))
    yield WeightMatrix("wide", "router", names, hidden, experts)


def _shared_experts(c: Mapping) -> tuple[float, str]:
    """Return the width of all shared experts of a layer together, and the name of their module."""
    if width := _size(c, "shared_expert_intermediate_size", default=0):
        return width, "shared_expert"
    if width := _size(c, "shared_intermediate_size", default=0):
        return width, "shared_mlp"
    if str(c.get("model_type", "")).startswith("llama4"):
        return _size(c, "intermediate_size"), "shared_expert"
    count = _size(c, "n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0)
    return count * _size(c, "moe_shared_expert_intermediate_size", "moe_intermediate_size"), "shared_experts"


def _ends(c: Mapping) -> Iterator[WeightMatrix]:
    hidden, words = _size(c, "hidden_size", "n_embd", "d_model"), _size(c, "vocab_size", "padded_vocab_size")
    names = ("embed_tokens", "embeddings", "word_embeddings", "wte", "embed")
    yield WeightMatrix("wide", "embedding", names, hidden, words)
    tied = c.get("tie_word_embeddings")
    if not (c.get("model_type") in _TIED if tied is None else tied is True):
        yield WeightMatrix("wide", "head", ("lm_head", "output_layer", "embed_out", "head"), hidden, words)


def _encoder(config: Mapping) -> Iterator[WeightMatrix]:
    """Return one matrix for each layer of a vision encoder, with the parameters of its whole block."""
    v: Any = config.get("vision_config")
    if not isinstance(v, Mapping):
        return
    hidden = _size(v, "hidden_size", "vt_hidden_size", "embed_dim", "width")
    inner = _size(v, "intermediate_size", "vt_intermediate_size", "mlp_dim", default=4 * hidden)
    places = "visual.blocks vision_tower.blocks vision_tower.encoder.layers vision_tower.vision_model.encoder.layers "
    places += "vision_model.model.layers vision_model.encoder.layers vision_model.transformer.layers"
    for i in range(_count(v, "depth", "num_hidden_layers", "vt_num_hidden_layers", "layers")):
        names = tuple(f"{p}.{i}.mlp.{n}" for p in places.split() for n in ("fc1", "linear_fc1", "gate_proj"))
        yield WeightMatrix("wide", "encoder", names, hidden, 4 * hidden + 2 * inner)
