"""Families of decoders with experts; a row states what differs from Llama's layout with experts where stated."""

from typing import Any

from jaxcost.core.pytree import Scalar
from jaxcost.edge.hf.families.dense import DECODER
from jaxcost.edge.hf.fields import Fields, ModelFamily
from jaxcost.edge.hf.rules import common as rules, layers as plan
from jaxcost.spec.model import Model

__all__ = ["MIXTURE_FAMILIES", "mixture"]


def mixture(*architectures: str, **differences: Any) -> ModelFamily:
    """Return a family with experts in the layers that its fields state, and shared experts as stated."""
    layout = {
        **DECODER,
        "channels": rules.stated_channels,
        "shared_width": rules.any_shared,
        "mlp_bias": False,
    }
    return ModelFamily(architectures=architectures, **{**layout, **differences})


_TIED = {"tie_word_embeddings": True}
_SPARSE = plan.all_layers("experts")
_LATENT: dict[str, Any] = {"mixers": rules.latent_layers, "router_bias": True}
# The experts are as wide as `intermediate_size`.
_ONE_WIDTH: dict[str, Any] = {"names": {"moe_intermediate_size": ("intermediate_size",)}, "channels": _SPARSE}
_FIRST_DENSE = {"first_k_dense_replace": 1}


def _norm_after_experts(f: Fields) -> float:
    """Average the norms of a layer: two, and one after the experts."""
    channels = rules.stated_channels(f)
    return 2 + channels.count("experts") / len(channels)


def _two(f: Fields, field: str, value: Any) -> tuple[int, int]:
    """Check one number for text and one for images; a single number is that of both."""
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2 or any(isinstance(x, bool) or not isinstance(x, int) or x < 1 for x in pair):
        raise f.error(field, "a whole number, or one for text and one for images", value)
    return pair


def _two_widths(f: Fields) -> tuple[int, int]:
    """Return the widths of experts of text and of images; those of the class where they are missing."""
    value = f.value("moe_intermediate_size")
    return _two(f, "moe_intermediate_size", (1536, 512) if value is None else value)


def _image_experts(f: Fields, model: Model) -> dict[str, Scalar]:
    """Count the experts and routers that images use."""
    x, width = model.experts, _two_widths(f)[1]
    experts = _two(f, "num_experts", f.given("num_experts"))[1]
    routed = experts * (x.matrices * model.hidden * width + model.hidden + 1)
    return {"unused_parameters": x.layers * routed}


MIXTURE_FAMILIES: dict[str, ModelFamily] = {
    "afmoe": mixture(
        "AfmoeForCausalLM",
        mixers=rules.patterned_windows,
        norms_per_block=4,
        qk_norm="head",
        query_outputs=2,  # the output is gated
        router_bias=True,
        defaults={
            "head_dim": 128,
            "sliding_window": 1024,
            "sliding_window_pattern": 4,
            "first_k_dense_replace": 1,
            "n_shared_experts": 2,
        },
    ),
    "aria_text": mixture(
        "AriaTextForCausalLM",
        names={
            "moe_intermediate_size": ("intermediate_size",),
            "n_shared_experts": ("moe_num_shared_experts",),
        },
        channels=_SPARSE,
        defaults={"n_shared_experts": 2},
        nested_defaults={
            "vocab_size": 32000,
            "hidden_size": 4096,
            "intermediate_size": 4096,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_experts": 8,
            "num_experts_per_tok": 2,
        },
    ),
    "axk1": mixture("AXK1ForCausalLM", **_LATENT, norms_per_block=_norm_after_experts, defaults=_FIRST_DENSE),
    "bailing_moe": mixture(
        "BailingMoeForCausalLM",
        "BailingMoeV2ForCausalLM",
        qkv_bias="use_qkv_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        qk_norm="head",
        qk_norm_field="use_qk_norm",
        router_bias="moe_router_enable_expert_bias",
        defaults={
            "use_qkv_bias": False,
            "use_bias": False,
            "use_qk_norm": False,
            "moe_router_enable_expert_bias": False,
        },
    ),
    "cohere2_moe": mixture(
        "Cohere2MoeForCausalLM",
        norms_per_block=1,
        mixers=rules.patterned_windows,
        names={
            "moe_intermediate_size": ("intermediate_size",),
            "intermediate_size": ("prefix_dense_intermediate_size", "intermediate_size"),
        },
        defaults={**_TIED, "sliding_window": 4096, "sliding_window_pattern": 4, "head_dim": 128},
    ),
    "dbrx": mixture(
        "DbrxForCausalLM",
        channels=_SPARSE,
        qkv_bias=False,
        out_bias=False,
        names={
            "hidden_act": ("ffn_config.ffn_act_fn.name",),
            "moe_intermediate_size": ("ffn_config.ffn_hidden_size",),
        },
    ),
    "deepseek": mixture("DeepseekForCausalLM", "DeepSeekForCausalLM"),
    "dots1": mixture("Dots1ForCausalLM", qk_norm="head", router_bias=True),
    # Its released configs and their fixtures leave out what the class has as defaults.
    "ernie4_5_moe": mixture(
        "Ernie4_5_MoeForCausalLM",
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        router_bias=True,
        defaults={
            **_TIED,
            "use_bias": False,
            "moe_layer_start_index": 1,
            "n_shared_experts": 2,
            "num_experts_per_tok": lambda f: min(6, f.even_size("num_experts")),
            "moe_intermediate_size": 1536,
        },
    ),
    # Images have experts of their own, which text does not use: the second numbers of its lists.
    "ernie4_5_vl_moe_text": mixture(
        "Ernie4_5_VLMoeForConditionalGeneration",
        "Ernie4_5_VLMoeForCausalLM",
        qkv_bias="use_bias",
        out_bias="use_bias",
        mlp_bias="use_bias",
        router_bias=True,
        names={"moe_intermediate_size": ()},
        extras=_image_experts,
        defaults={
            **_TIED,
            "use_bias": False,
            "moe_layer_start_index": 1,
            "n_shared_experts": 2,
            "num_experts_per_tok": 6,
            "moe_intermediate_size": lambda f: _two_widths(f)[0],
        },
        note="experts of images are stored but not used by text",
    ),
    "exaone_moe": mixture(
        "ExaoneMoEForCausalLM",
        "ExaoneMoeForCausalLM",
        mixers=rules.patterned_windows,
        qk_norm="head",
        router_bias=True,
        defaults={**_FIRST_DENSE, "sliding_window": 4096, "sliding_window_pattern": 4, "n_shared_experts": 1},
    ),
    "flex_olmo": mixture("FlexOlmoForCausalLM", **_ONE_WIDTH, qk_norm="width"),
    "glm4_moe_lite": mixture("Glm4MoeLiteForCausalLM", **_LATENT, defaults=_FIRST_DENSE),
    "granitemoe": mixture("GraniteMoeForCausalLM", **_ONE_WIDTH),
    "granitemoe_swa": mixture(
        "GraniteMoeSWAForCausalLM",
        **_ONE_WIDTH,
        mixers=rules.first_of_period(4),
        sinks=True,
        defaults={"sliding_window": 128},
    ),
    "granitemoeshared": mixture("GraniteMoeSharedForCausalLM", **_ONE_WIDTH),
    "hunyuan_v1_moe": mixture(
        "HunYuanMoEV1ForCausalLM",
        "HunYuanForCausalLM",
        names={
            "moe_intermediate_size": ("moe_intermediate_size", "intermediate_size"),
            "first_k_dense_replace": ("moe_layer_num_skipped",),
        },
        qk_norm="head",
        qk_norm_field="use_qk_norm",
        defaults={"use_qk_norm": True, "n_shared_experts": 1},
    ),
    "hy_v3": mixture(
        "HYV3ForCausalLM",
        qk_norm="head",
        router_bias=True,
        defaults={**_FIRST_DENSE, "head_dim": 128, "n_shared_experts": 1},
    ),
    "mellum": mixture("MellumForCausalLM", qk_norm="head", channels=_SPARSE, defaults={"head_dim": 128}),
    "mistral4": mixture("Mistral4ForCausalLM", **{**_LATENT, "router_bias": False}),
    "olmoe": mixture("OlmoeForCausalLM", **_ONE_WIDTH, qk_norm="width"),
    "phimoe": mixture(
        "PhimoeForCausalLM",
        "PhiMoEForCausalLM",
        **_ONE_WIDTH,
        mixers=rules.windowed_layers,
        norm_bias=True,
        head_bias="lm_head_bias",
        defaults={"lm_head_bias": False},
    ),
    "sarvam_mla": mixture("SarvamMLAForCausalLM", **_LATENT, defaults=_FIRST_DENSE),
    "sarvam_moe": mixture(
        "SarvamMoEForCausalLM",
        qk_norm="head",
        qk_norm_field="use_qk_norm",
        router_bias=True,
        defaults={**_FIRST_DENSE, "use_qk_norm": True, "head_dim": 64, "n_shared_experts": 1},
    ),
    "solar_open": mixture(
        "SolarOpenForCausalLM", router_bias=True, defaults={"head_dim": 128, "n_shared_experts": 1}
    ),
}
