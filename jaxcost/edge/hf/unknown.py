"""A type of model that no family names: read by its fields where they are those of a known layout."""

import re
from collections.abc import Mapping
from typing import Any

from jaxcost.edge.hf.families.mixture import mixture
from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.rules import common as rules, layers as plan
from jaxcost.edge.io.errors import InputError
from jaxcost.physics.compute.shards import parameter_count
from jaxcost.spec.model import Model

__all__ = ["UNKNOWN", "describe", "refuse_other_layouts"]


def _mixers(f: Fields) -> list[str]:
    """Return latent attention where there is a rank, else full attention and windows as stated."""
    if f.given("kv_lora_rank") is not None:
        return rules.latent_layers(f)
    if f.given("use_sliding_window") is not None:
        return plan.upper_windowed_layers(f)
    patterned = f.given("sliding_window_pattern") is not None
    return rules.patterned_windows(f) if patterned else rules.windowed_layers(f)


_BIASES = ("use_bias", "bias")

UNKNOWN = mixture(
    mixers=_mixers,
    names={
        "qkv_bias": ("qkv_bias", "add_qkv_bias", "use_qkv_bias", "attention_bias", *_BIASES),
        "out_bias": ("attention_out_bias", "attention_bias", *_BIASES),
        "mlp_bias": ("mlp_bias", "add_bias_linear", *_BIASES),
        "use_qk_norm": ("use_qk_norm", "qk_norm", "qk_layernorm"),
    },
    qkv_bias="qkv_bias",
    out_bias="out_bias",
    qk_norm="head",
    qk_norm_field="use_qk_norm",
    defaults={
        "qkv_bias": False,
        "out_bias": False,
        "use_qk_norm": False,
        "moe_intermediate_size": lambda f: f.even_size("intermediate_size"),
    },
)

# Fields of mixers, caches or residual streams that the layout does not have; a value that is not empty is refused.
_OTHER_LAYOUT = re.compile(
    r"mamba|ssm|(^|_)conv(_|$)|recurrent|lru_|rwkv|linear_(attn|num|key|value|conv)|delta|^index_|indexer"
    r"|compress|altup|laurel|latent_size|cross_attention_(layers|freq)|block_configs|block_pattern|hybrid"
    r"|state_size|^hc_|num_loops|kv_shared|cla_share|ngram|zero_expert|per_layer_input|swa_num|swa_head"
    r"|global_(head|num|key|kv)|k_eq_v|value_head_dim|per_layer$|type_vocab_size|num_codebooks|(^|_)cycles$"
    r"|layers_per_stack|(en|de)coder_layers$|^gating|keep_window"
)
_SECTIONS = re.compile(
    r"^(quantization|compression|generation|vision|audio|text|language|llm|slice)_config$|^rope_|^rotary"
    r"|auto_map|label|^task_specific|^pruned_heads|_map$|quantiz"
)

# Fields of tokens, generation, training and positions: they change no weights.
_USUAL = re.compile(
    r"^_|token|eos|bos|pad_|dropout|pdrop|loss|eps(ilon)?$|init|std$|^rope|rotary|theta|^torch|dtype|version"
    r"|^use_cache|architectures|model_type|auto_map|label|max_position|max_length|min_length|length_penalty|beam"
    r"|sample|temperature|top_[kp]$|repetition|ngram_size|output_|return_|prefix|suppress|sep_|decoder_start"
    r"|is_(decoder|encoder|composition)|cross_attention_hidden|add_cross|chunk_size_feed|remove_invalid|problem"
    r"|finetuning|diversity|early_stop|exponential_decay|typical_p|tf_legacy|bad_words|pretraining|prun|ep_size"
    r"|(routed_)?scaling|scoring_func|topk_(method|group)|n_group|norm_topk|seq_aux|softcap|logit|multiplier"
    r"|attn_implementation|flash|tie_|transformers|name_or_path|quantization|gradient|torchscript|scale_"
)


# What a field that a config leaves out is taken as.
_ASSUMED = {
    "num_key_value_heads": "num_key_value_heads is not stated: taken as the number of query heads",
    "tie_word_embeddings": "tie_word_embeddings is not stated: taken as false",
}

# Types with another layout although all their fields are those of this one: experts in the attention of JetMoE.
_OTHER_TYPES = ("jetmoe",)


def _is_empty(value: Any) -> bool:
    return value in (None, False, 0, "", (), [], {})


def refuse_other_layouts(f: Fields, given: str) -> None:
    """Refuse a type, and fields, that a decoder of attention and feed-forward layers does not have.

    Raises:
        InputError: a field of another kind of layer, or a section that no reader knows.
    """
    if given in _OTHER_TYPES:
        raise InputError(
            "another type: its layout is not modelled", file=f.file, path=f"{f.prefix}model_type", given=given
        )
    for name, value in f.config.items():
        if not isinstance(name, str) or _is_empty(value) or name in f.read:
            continue
        if _OTHER_LAYOUT.search(name) and not _USUAL.search(name):
            raise InputError(
                "a layout of attention and feed-forward layers: this type is not known, and the field belongs to "
                "another",
                file=f.file,
                path=f.prefix + name,
                given=value,
            )
        if isinstance(value, Mapping) and not _SECTIONS.search(name):
            raise InputError(
                "no section that is not known: it may change the weights",
                file=f.file,
                path=f.prefix + name,
                given=value,
            )


def describe(f: Fields, model: Model, given: str) -> list[str]:
    """Say what a type that is not known was read as, and which fields were ignored."""
    total, active = (float(count) for count in parameter_count(model))
    heads = f"{model.attention.heads:.0f} query and {model.attention.kv_heads:.0f} key-value heads"
    attention = "latent attention" if model.latent.layers else f"attention of {heads}"
    if model.window_attention.layers and not model.latent.layers:
        window = model.window_attention
        attention = (
            f"attention of {window.heads:.0f} query and {window.kv_heads:.0f} key-value heads, in "
            f"{window.layers:.0f} layers within {window.window:.0f} tokens"
        )
    x = model.experts
    experts = f", {x.experts:.0f} experts in {x.layers:.0f} layers" if x.layers else ""
    layers = len(f.row.mixers(f))
    notes = [
        f"{given!r} is not known; read as {layers} layers with {attention}{experts} and gated feed-forward: "
        f"{total / 1e9:.4g}B parameters, {active / 1e9:.4g}B of them active; compare with the published count"
    ]
    ignored = [
        name
        for name, value in f.config.items()
        if isinstance(name, str)
        and name not in f.read
        and not _is_empty(value)
        and not _USUAL.search(name)
        and not _SECTIONS.search(name)
    ]
    notes += [f"ignored fields: {', '.join(ignored)}"] if ignored else []
    return notes + [note for field, note in _ASSUMED.items() if f.value(f.name(field)) is None]
