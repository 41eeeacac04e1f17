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
from jaxcost.edge.hf.multimodal import WRAPPERS, count_encoders
from jaxcost.edge.hf.parts import find_text
from jaxcost.edge.hf.recurrence import RECURRENCES
from jaxcost.edge.hf.unknown import describe, refuse_other_layouts
from jaxcost.edge.io.errors import InputError
from jaxcost.spec.model import Attention, Experts, FeedForward, LatentAttention, Model, Recurrence

__all__ = ["ReadModel", "read_checkpoint", "read_hf_config"]

_ACTIVATION_EXPONENTIALS = {
    "silu": 1,
    "swish": 1,
    "swiglu": 1,
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
    "mamba_proj_bias": False,
    "qk_layernorm": False,
}

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
        refuse_other_layouts(f)
    encoders, ratio, uncounted = count_encoders(
        part.whole, part.outer, f.size("hidden_size"), file=file, prefix=part.whole_prefix
    )
    if uncounted and f.prefix == part.whole_prefix and part.outer not in WRAPPERS:
        section = uncounted[0].removeprefix(part.whole_prefix)
        raise InputError(
            f"no {section}: this encoder of {part.family or part.given} is not supported; without it the language "
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
    if f.given("moe_latent_size") is not None:
        raise f.error(
            "moe_latent_size",
            "nothing: experts in a latent space are not modelled",
            f.given("moe_latent_size"),
        )


def _language_model(f: Fields, family: str) -> Model:
    by_layer = f.row.mixers(f), f.row.channels(f)
    hidden, layers = f.size("hidden_size"), len(by_layer[0])
    # Mixers of a layer that run side by side are joined by "+".
    mixers, channels = ([kind for kinds in each for kind in kinds.split("+")] for each in by_layer)
    attention = _attention(f, mixers, "full", {})
    width = f.size("sliding_window") if "window" in mixers else 0
    window_attention = _attention(f, mixers, "window", {"window": width, "compression": 0})
    latent = _latent(f, mixers.count("latent"))
    recurrence, state_vectors = _recurrence(f, mixers.count("recurrent"))
    feed_forward = _feed_forward(f, channels.count("dense"))
    experts = _experts(f, channels.count("experts"))
    per_block = f.row.norms_per_block
    norms = (per_block(f) if callable(per_block) else per_block) * layers + f.row.further_norms
    vocabulary = f.size("vocab_size")
    extra_small, extra_table = _gemma3n_extras(f, layers) if family == "gemma3n_text" else (0, 0)
    small = (
        norms * hidden * (f.row.norm_scale + f.flag(f.row.norm_bias))
        + _attention_vectors(f, attention, "full")
        + _attention_vectors(f, window_attention, "window")
        + latent.layers * _latent_vectors(f, latent)
        + recurrence.layers * state_vectors
        + feed_forward.layers * f.flag(f.row.mlp_bias) * _bias(f, feed_forward.width)
        + experts.layers * _expert_vectors(f, experts)
        + vocabulary * f.flag(f.row.head_bias)
        + extra_small
    )
    block, steps = _DIFFUSION.get(family, (0, 1))
    has_channel = feed_forward.layers + experts.layers > 0
    model = Model(
        hidden=hidden,
        vocabulary=vocabulary,
        tied=f.flag("tie_word_embeddings"),
        blocks=layers if max(len(mixers), len(channels)) > layers else 0,
        attention=attention,
        window_attention=window_attention,
        latent=latent,
        recurrence=recurrence,
        feed_forward=feed_forward,
        experts=experts,
        norms=norms,
        activation_exponentials=f.word("hidden_act", _ACTIVATION_EXPONENTIALS) if has_channel else 1,
        small_parameters=small,
        table_parameters=_position_table(f) + extra_table,
        diffusion_block=block,
        diffusion_steps=steps,
    )
    extras = f.row.extras(f, model) if f.row.extras else {}
    return replace(model, **{name: getattr(model, name) + value for name, value in extras.items()})


def _attention(f: Fields, mixers: list[str], kind: str, reach: dict[str, int]) -> Attention:
    """Read the shape of the layers of one kind, whose fields may have names of their own."""
    layers = mixers.count(kind)
    if layers == 0:
        return Attention(**reach)
    f = f.of_shape(kind)
    head_dim = f.head_dim()
    return Attention(
        layers=layers,
        shared_layers=_shared_layers(f, mixers, kind),
        heads=f.size("num_attention_heads"),
        kv_heads=f.kv_heads(),
        head_dim=head_dim,
        value_dim=f.optional_size("v_head_dim") or head_dim,
        query_outputs=f.row.query_outputs,
        **reach,
    )


def _shared_layers(f: Fields, mixers: list[str], kind: str) -> int:
    """Count the layers of a kind among the last ones, which reuse the keys and values of earlier layers."""
    if f.given("num_kv_shared_layers") is None:
        return 0
    shared = f.size("num_kv_shared_layers", least=0, most=len(mixers) - 1)
    return mixers[len(mixers) - shared :].count(kind)


def _attention_vectors(f: Fields, a: Attention, kind: str) -> Scalar:
    """Count the biases, query and key scales and sinks of all layers of a kind."""
    if a.layers == 0:
        return 0
    f = f.of_shape(kind)
    query, keys, values = a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.value_dim
    norm = f.row.qk_norm if not f.row.qk_norm_field or f.flag(f.row.qk_norm_field) else ""
    if norm == "width":
        norm = f.word("qk_norm_type", {"per_layer": "width", "per_head": "head"})
    return a.layers * (
        f.flag(f.row.qkv_bias) * (query * a.query_outputs + keys + values)
        + f.flag(f.row.out_bias) * f.size("hidden_size")
        + {"": 0, "head": 2 * a.head_dim, "head_bias": 4 * a.head_dim, "width": query + keys}[norm]
        + f.row.sinks * a.heads
    )


def _latent(f: Fields, layers: int) -> LatentAttention:
    if layers == 0:
        return LatentAttention()
    return LatentAttention(
        layers=layers,
        heads=f.size("num_attention_heads"),
        query_rank=f.stated_size("q_lora_rank") or 0,
        kv_rank=f.size("kv_lora_rank"),
        nope_dim=f.size("qk_nope_head_dim"),
        rope_dim=f.size("qk_rope_head_dim"),
        value_dim=f.size("v_head_dim"),
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


def _feed_forward(f: Fields, layers: int) -> FeedForward:
    if layers == 0:
        return FeedForward()
    return FeedForward(layers=layers, width=_width(f), matrices=2 + f.row.gated)


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
    if top_k > experts:
        raise f.error("num_experts_per_tok", f"at most {f.name('num_experts')}, {experts}", top_k)
    return Experts(
        layers=layers,
        experts=experts,
        top_k=top_k,
        width=f.even_size("moe_intermediate_size"),
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


def _gemma3n_extras(f: Fields, layers: int) -> tuple[int, int]:
    """Count the parameters of Gemma 3n in addition to Gemma 3 blocks; return (small, table) parameters.

    LAuReL, AltUp and the gates of the per-layer embeddings are small matrices and counted with the vectors: their bytes
    are read in every pass, and their FLOPs, 2 to 4% of those of a block, are neglected.
    """
    d, p = f.size("hidden_size"), f.size("hidden_size_per_layer_input")
    rank, n = f.size("laurel_rank"), f.size("altup_num_inputs")
    laurel = 2 * d * rank
    per_layer_input = 2 * d * p
    altup = n * n + n**3 + d * n + d  # correction, prediction, router, output scale
    model = d * layers * p + p + 2 * (n - 1) * d * d  # per-layer projection and its norm; AltUp's in and out
    table = f.size("vocab_size_per_layer_input") * layers * p
    return layers * (laurel + per_layer_input + altup) + model, table


def _draft(f: Fields, model: Model) -> Scalar:
    """Count one multi-token-prediction module: a block like the last, a 2d x d projection and five norms."""
    if f.size("num_nextn_predict_layers", least=0) == 0:
        return 0
    d, latent, dense, x = model.hidden, model.latent, model.feed_forward, model.experts
    a = model.attention if model.attention.layers else model.window_attention
    queries = a.heads * a.head_dim * (a.query_outputs + 1)
    mixer = d * (queries + 2 * a.kv_heads * a.head_dim) if a.layers else 0
    if latent.layers:
        head = latent.nope_dim + latent.rope_dim
        query = d * latent.query_rank + (latent.query_rank or d) * latent.heads * head
        up = latent.kv_rank * latent.heads * (latent.nope_dim + latent.value_dim)
        mixer = query + d * (latent.kv_rank + latent.rope_dim) + up + latent.heads * latent.value_dim * d
    sparse = x.experts * (x.matrices * d * x.width + d) + x.matrices * d * x.shared_width
    return mixer + (sparse if x.layers else dense.matrices * d * dense.width) + 2 * d * d + 5 * d
