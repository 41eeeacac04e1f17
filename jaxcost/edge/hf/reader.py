"""Read a Hugging Face config.json into a `Model`: every size is read or derived, none is guessed.

Parameter counts follow the released modules. Matrices are described by the sizes that `jaxcost.physics.compute.shards`
multiplies; norms, biases and other vectors are counted in `small_parameters`, and tables that are read one row per
token in `table_parameters`.
"""

import dataclasses
from collections.abc import Mapping

import jax

from jaxcost.core.pytree import Scalar, replace
from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.multimodal.wrappers import WRAPPERS, count_encoders
from jaxcost.edge.hf.parts import find_text
from jaxcost.edge.hf.rules.recurrence import RECURRENCES
from jaxcost.edge.hf.unknown import describe, refuse_other_layouts
from jaxcost.edge.io.errors import InputError
from jaxcost.spec.model import (
    Attention,
    Experts,
    FeedForward,
    Indexer,
    LatentAttention,
    Model,
    Recurrence,
)

__all__ = ["ReadModel", "read_checkpoint", "read_hf_config"]

_ACTIVATION_EXPONENTIALS = {
    "silu": 1,
    "swish": 1,
    "swiglu": 1,
    "swigluoai": 1,
    "situ": 1,
    "gelu": 1,
    "gelu_new": 1,
    "gelu_fast": 1,
    "gelu_python": 1,
    "gelu_pytorch_tanh": 1,
    "gegelu": 1,
    "xielu": 1,
    "relu": 0,
    "relu2": 0,
}

# Flags that have one value in all released checkpoints; the other value would change the weights.
_ONLY_VARIANTS = {
    "attn_output_gate": True,
    "do_layer_norm_before": True,
}

# Fields of `Model` of the kinds of softmax attention: to the whole context, a window, or what an indexer selects.
_SHAPES = {"full": "attention", "window": "window_attention", "sparse": "sparse_attention"}

# LLaDA's sampler (arXiv:2502.09992): blocks of 32 tokens, one denoising pass per token. It is not part of its config.
_DIFFUSION = {"llada": (32, 32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadModel:
    """A model as read from a config.

    Attributes:
        model: the model, with plain floats in its leaves.
        family: the family that it was read as; "" for a type that no family names.
        notes: what was left out, ignored or taken as known, one sentence each.
    """

    model: Model
    family: str
    notes: tuple[str, ...]


def read_hf_config(config: Mapping, *, file: str) -> Model:
    """Convert a parsed config.json to a model; `read_checkpoint` also says what was left out."""
    return read_checkpoint(config, file=file).model


def read_checkpoint(config: Mapping, *, file: str, strict: bool = False) -> ReadModel:
    """Convert a parsed config.json to a model.

    Args:
        config: the mapping; a multimodal config has the language model under `text_config`.
        file: file of the config, for errors.
        strict: refuse a type that no family names, instead of reading it by its fields.

    Returns:
        The model, its family, and notes.

    Raises:
        InputError: a field is missing, of the wrong type, out of range or inconsistent with another; or the variant is
            not supported; or the type is not known and its fields are not those of a known layout.
    """
    if not isinstance(config, Mapping):
        raise InputError("a mapping of config.json's fields", file=file, given=type(config).__name__)
    part = find_text(config, file=file, strict=strict)
    f, notes = part.fields, list(part.notes)
    _refuse_unsupported(f)
    model = _language_model(f, part.family)
    if not part.family:
        refuse_other_layouts(f, part.given)
    encoders, ratio, uncounted = count_encoders(
        part.whole, part.outer, f.size("hidden_size"), file=file, prefix=part.whole_prefix
    )
    if uncounted and not part.given and f.prefix == part.whole_prefix and part.outer not in WRAPPERS:
        section = uncounted[0].removeprefix(part.whole_prefix)
        raise InputError(
            f"no {section}: this encoder of {part.family} is not supported; without it the language "
            "model is read",
            file=file,
            path=uncounted[0],
            given=part.whole[section].get("model_type", "an encoder"),
        )
    model = replace(
        model, draft_parameters=_draft(f, model), encoder_parameters=encoders, encoder_ratio=ratio
    )
    notes += [f"{section} is not counted: its encoder is not described" for section in uncounted]
    notes += [f.row.note] if f.row.note else []
    notes += describe(f, model, part.given) if part.given else []
    return ReadModel(model=jax.tree_util.tree_map(float, model), family=part.family, notes=tuple(notes))


def _refuse_unsupported(f: Fields) -> None:
    """Refuse variants whose weights the tree of a `Model` cannot hold."""
    if f.given("word_embed_proj_dim") not in (None, f.given("hidden_size")):
        raise f.error("word_embed_proj_dim", "the hidden size or nothing", f.given("word_embed_proj_dim"))
    for field, wanted in _ONLY_VARIANTS.items():
        if f.given(field) is not None and f.flag(field) is not wanted:
            expected = f"{str(wanted).lower()}, the only variant modelled"
            raise f.error(field, expected, f.given(field))
    for field, value in f.row.only.items():
        given = f.given(field)
        if given is not None and given != value:
            shown = str(value).lower() if isinstance(value, bool) else value
            raise f.error(field, f"{shown}, the only variant modelled", given)


def _positions(kinds: list[str], kind: str) -> list[int]:
    """Return the layers that have a kind of mixer, as often as they have it."""
    return [layer for layer, mixers in enumerate(kinds) for mixer in mixers.split("+") if mixer == kind]


def _language_model(f: Fields, family: str) -> Model:
    mixers, channels = f.row.mixers(f), f.row.channels(f)
    hidden, layers = f.size("hidden_size"), len(mixers)
    token = {kind: _positions(mixers, kind) for kind in (*_SHAPES, "latent", "recurrent")}
    dense, sparse = _positions(channels, "dense"), _positions(channels, "experts")
    shapes = {kind: _attention(f, token[kind], kind, layers) for kind in _SHAPES}
    latent = _latent(f, len(token["latent"]))
    recurrence, state_vectors = _recurrence(f, len(token["recurrent"]))
    indexer, index_vectors = f.row.indexer(f) if f.row.indexer else (Indexer(), 0)
    feed_forward = _feed_forward(f, dense)
    experts = _experts(f, len(sparse))
    per_block = f.row.norms_per_block
    norms = (per_block(f) if callable(per_block) else per_block) * layers + f.row.further_norms
    vocabulary = f.size("vocab_size")
    small = (
        norms * hidden * (f.row.norm_scale + f.flag(f.row.norm_bias))
        + sum(_attention_vectors(f, shape) for shape in shapes.values())
        + latent.layers * _latent_vectors(f, latent)
        + recurrence.layers * state_vectors
        + indexer.layers * index_vectors
        + feed_forward.layers * f.flag(f.row.mlp_bias) * _bias(f, feed_forward.width)
        + experts.layers * _expert_vectors(f, experts)
        + vocabulary * f.flag(f.row.head_bias)
    )
    block, steps = _DIFFUSION.get(family, (0, 1))
    has_channel = feed_forward.layers + experts.layers > 0
    token_mixers = sum(map(len, token.values()))
    model = Model(
        hidden=hidden,
        vocabulary=vocabulary,
        tied=f.flag("tie_word_embeddings"),
        blocks=layers if max(token_mixers, len(dense) + len(sparse)) > layers else 0,
        attention=shapes["full"],
        window_attention=shapes["window"],
        sparse_attention=shapes["sparse"],
        latent=latent,
        indexer=indexer,
        recurrence=recurrence,
        feed_forward=feed_forward,
        experts=experts,
        norms=norms,
        activation_exponentials=f.word("hidden_act", _ACTIVATION_EXPONENTIALS) if has_channel else 1,
        small_parameters=small,
        table_parameters=_position_table(f),
        diffusion_block=block,
        diffusion_steps=steps,
    )
    extras = f.row.extras(f, model) if f.row.extras else {}
    return replace(model, **{name: getattr(model, name) + value for name, value in extras.items()})


def _attention(f: Fields, positions: list[int], kind: str, layers: int) -> Attention:
    """Read the shape of the layers of one kind, whose fields may have names of their own."""
    reach = {"full": {}, "window": {"compression": 0}, "sparse": {}}[kind]
    if not positions:
        return Attention(**reach)
    f = f.of_layers(kind, positions)
    special = f.row.attention(f, kind, positions) if f.row.attention else {}
    if kind == "window":
        reach = {**reach, "window": special.get("window") or f.size("sliding_window")}
    head_dim = special.get("head_dim") or f.head_dim()
    numbers = {
        "layers": len(positions),
        "shared_layers": _shared_layers(f, positions, layers),
        "heads": special.get("heads") or f.size("num_attention_heads"),
        "kv_heads": special.get("kv_heads") or f.kv_heads(),
        "head_dim": head_dim,
        "value_dim": f.optional_size("v_head_dim") or head_dim,
        "query_outputs": f.row.query_outputs,
        "stored_share": _stored_share(f, positions),
    }
    return Attention(**{**numbers, **reach, **special})


def _shared_layers(f: Fields, positions: list[int], layers: int) -> int:
    """Count the layers of a kind that reuse the keys and values of earlier layers.

    These are the last `num_kv_shared_layers` layers, or all but the first of each group of `cla_share_factor`.
    """
    if f.given("use_cla") is not None and f.flag("use_cla"):
        group = f.size("cla_share_factor")
        return sum(position % group > 0 for position in positions)
    if f.given("num_kv_shared_layers") is None:
        return 0
    first = layers - f.size("num_kv_shared_layers", least=0, most=layers - 1)
    return sum(position >= first for position in positions)


def _attention_vectors(f: Fields, a: Attention) -> Scalar:
    """Count the biases, query and key scales and sinks of all layers of a kind."""
    if a.layers == 0:
        return 0
    query, keys, values = a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.value_dim
    own = a.layers - a.shared_layers
    norm = f.row.qk_norm if not f.row.qk_norm_field or f.flag(f.row.qk_norm_field) else ""
    if norm == "width":
        norm = f.word("qk_norm_type", {"per_layer": "width", "per_head": "head"})
    query_norm, key_norm = {
        "": (0, 0),
        "head": (a.head_dim, a.head_dim),
        "head_bias": (2 * a.head_dim, 2 * a.head_dim),
        "width": (query, keys),
    }[norm]
    return (
        f.flag(f.row.qkv_bias)
        * (a.layers * query * a.query_outputs + own * (keys + a.value_projection * values))
        + f.flag(f.row.out_bias) * a.layers * f.size("hidden_size")
        + a.layers * (query_norm + f.row.sinks * a.heads)
        + own * key_norm
    )


def _latent(f: Fields, layers: int) -> LatentAttention:
    if layers == 0:
        return LatentAttention()
    return LatentAttention(
        layers=layers,
        heads=f.size("num_attention_heads"),
        query_rank=f.stated_size("q_lora_rank", least=0) or 0,
        kv_rank=f.size("kv_lora_rank"),
        nope_dim=f.size("qk_nope_head_dim"),
        rope_dim=f.size("qk_rope_head_dim", least=0),
        value_dim=f.size("v_head_dim"),
        selected=f.size("index_topk") if f.row.indexer else 0,
    )


def _latent_vectors(f: Fields, latent: LatentAttention) -> Scalar:
    """Count the norms of the two compressions and, where there are any, the biases."""
    down = latent.query_rank + latent.kv_rank + latent.rope_dim
    biases = (down + f.size("hidden_size")) * f.flag("attention_bias") if latent.layers else 0
    return latent.query_rank + latent.kv_rank + biases


def _recurrence(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Return the recurrent part, and the vectors of one of its layers."""
    if layers == 0:
        return Recurrence(), 0
    return RECURRENCES[f.row.recurrence](f, layers)


def _feed_forward(f: Fields, positions: list[int]) -> FeedForward:
    if not positions:
        return FeedForward()
    width = f.row.dense_width(f, positions) if f.row.dense_width else _width(f)
    share = _stored_share(f, positions)
    return FeedForward(layers=len(positions), width=width, matrices=2 + f.row.gated, stored_share=share)


def _stored_share(f: Fields, positions: list[int]) -> float:
    """Return the share of the layers that store weights, where they take turns in using `num_mem_blocks` blocks."""
    blocks = f.optional_size("num_mem_blocks")
    return 1.0 if blocks is None else min(blocks / len(positions), 1.0)


def _width(f: Fields) -> int:
    """Read the dense width: 4 x hidden where GPT-2 and Falcon omit it; Gemma 3n lists it per layer."""
    value = f.given("intermediate_size")
    if value is None and f.name("intermediate_size") in ("n_inner", "ffn_hidden_size"):
        return 4 * f.size("hidden_size")
    return f.even_size("intermediate_size")


def _experts(f: Fields, layers: int) -> Experts:
    if layers == 0:
        return Experts()
    experts = f.even_size("num_experts")
    top_k = f.even_size("num_experts_per_tok")
    # A token that picks one of the zero experts, which have no weights, uses one routed expert less.
    zero = f.size("zero_expert_num", least=0)
    if top_k > experts + zero:
        raise f.error("num_experts_per_tok", f"at most {f.name('num_experts')}, {experts}", top_k)
    return Experts(
        layers=layers,
        experts=experts,
        top_k=top_k * experts / (experts + zero),
        width=f.even_size("moe_intermediate_size"),
        latent=f.optional_size("moe_latent_size") or 0,
        shared_width=f.row.shared_width(f) if f.row.shared_width else 0,
        matrices=2 + f.row.gated,
    )


def _expert_vectors(f: Fields, x: Experts) -> Scalar:
    """Count the router's biases, the experts' biases and the shared expert's gate of one layer."""
    if x.layers == 0:
        return 0
    hidden, shared = f.size("hidden_size"), x.shared_width > 0
    expert = f.row.expert_bias or f.flag(f.row.mlp_bias)
    return (
        f.flag(f.row.router_bias) * x.experts
        + expert * (x.experts * _bias(f, x.width) + shared * _bias(f, x.shared_width))
        + f.row.shared_gate * shared * hidden
    )


def _bias(f: Fields, width: Scalar) -> Scalar:
    return width * (1 + f.row.gated) + f.size("hidden_size")


def _position_table(f: Fields) -> int:
    if f.row.position_rows is None:
        return 0
    field, beyond = f.row.position_rows
    return (f.size(field) + beyond) * f.size("hidden_size")


def _draft(f: Fields, model: Model) -> Scalar:
    """Count one multi-token-prediction module: a block like the last, a 2d x d projection and five norms."""
    if f.size("num_nextn_predict_layers", least=0) == 0:
        return 0
    mixers, channels = f.row.draft(f) if f.row.draft else (f.row.mixers(f)[-1], f.row.channels(f)[-1])
    d = model.hidden
    mixer = sum(_mixer_parameters(model, kind) for kind in mixers.split("+"))
    return mixer + sum(_channel_parameters(model, kind) for kind in channels.split("+")) + 2 * d * d + 5 * d


def _mixer_parameters(model: Model, kind: str) -> Scalar:
    """Count the matrices of one token mixer, its indexer included."""
    d, latent = model.hidden, model.latent
    if kind == "recurrent":
        return model.recurrence.parameters
    index = model.indexer.parameters if kind in ("latent", "sparse") else 0
    if kind == "latent":
        query = d * latent.query_rank + (latent.query_rank or d) * latent.heads * (
            latent.nope_dim + latent.rope_dim
        )
        up = latent.kv_rank * latent.heads * (latent.nope_dim + latent.value_dim)
        return (
            query + d * (latent.kv_rank + latent.rope_dim) + up + latent.heads * latent.value_dim * d + index
        )
    if kind not in _SHAPES:
        return 0
    a = getattr(model, _SHAPES[kind])
    query, value = a.heads * a.head_dim, a.heads * a.value_dim
    projected = (
        d * a.query_rank
        + (a.query_rank or d) * query * a.query_outputs
        + d * a.kv_heads * (a.head_dim + a.value_projection * a.value_dim)
    )
    out = a.output_rank * (value + a.output_groups * d) if a.output_rank else value * d
    return projected + out + a.extra_parameters + index


def _channel_parameters(model: Model, kind: str) -> Scalar:
    """Count the matrices of one channel mixer."""
    d, dense, x = model.hidden, model.feed_forward, model.experts
    if kind == "dense":
        return dense.matrices * d * dense.width
    routed = x.experts * (x.matrices * (x.latent or d) * x.width + d) + 2 * x.latent * d
    return routed + x.matrices * d * x.shared_width if kind == "experts" else 0
