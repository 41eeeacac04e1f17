"""Model types that join a language model and encoders: which part is text, and the encoder and projector."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxcost.edge.hf.fields import Fields, ModelFamily
from jaxcost.edge.hf.multimodal import audio as hearing, hybrid_encoders, projectors
from jaxcost.edge.hf.multimodal.encoders import TOWERS, count_transformer, vision_fields
from jaxcost.edge.io.errors import InputError

__all__ = ["NESTED_DEFAULTS", "TEXT_PARTS", "WRAPPERS", "Wrapper", "count_encoders"]

TEXT_PARTS = ("text_config", "language_config", "llm_config")
_ENCODER_PARTS = ("vision_config", "img_processor", "embd_layer", "audio_config", "audio_processor")

# Defaults of classes of language models whose configs, as part of another, leave out what equals them.
NESTED_DEFAULTS: dict[str, dict[str, Any]] = {
    "gemma2": {
        "vocab_size": 256000,
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window": 4096,
    },
    "gemma3_text": {"sliding_window": 4096},
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
}

Projector = Callable[[Fields, Fields, int], tuple[float, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wrapper:
    """A type of model with encoders.

    Attributes:
        text: the family of the language model where its part names none.
        tied: whether the head is tied where no part says so, the default of the wrapper's class.
        inherits_tie: whether the flag of the language model counts where that of the config is false.
        tower: the vision encoder where its part names none that is known.
        tower_defaults: further values of its fields that configs leave out.
        projector: function that counts the projector; None where the encoder is not counted.
        defaults: values of fields of the whole config that are left out.
        audio: function that counts an audio encoder with its projector, and its fields that configs leave out.
        named: function of the language model's width that counts an encoder which its config describes by a name
            alone, with its projector.
    """

    text: str
    tied: bool | None = None
    inherits_tie: bool = False
    tower: str = ""
    tower_defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    projector: Projector | None = None
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    audio: tuple[Callable[[Fields, int], float], Mapping[str, Any]] | None = None
    named: Callable[[int], float] | None = None


# Gemma 3n's encoders are described by names, not sizes: MobileNet-V5-300M, and a Conformer of the Universal
# Speech Model. Their sizes are the difference between the released checkpoints and their text-only variants.
_GEMMA3N_VISION, _GEMMA3N_AUDIO = 0.30e9, 0.68e9

# CLIP ViT-L/14 for images of 336 pixels (arXiv:2103.00020).
_CLIP_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
}


def _phi3_vision(hidden: int) -> float:
    """Count CLIP, two matrices of 2 x 2 merged patches, and the embeddings of a new line and a separator."""
    tower = TOWERS["clip_vision_model"]
    encoder = count_transformer(vision_fields(_CLIP_LARGE, tower, file="", prefix=""), tower)
    merged = 4 * _CLIP_LARGE["hidden_size"]
    return encoder + merged * hidden + hidden + hidden * hidden + hidden + 2 * merged


_BIAS = {"multimodal_projector_bias": True}
_QWEN2 = Wrapper(
    text="qwen2", tied=False, inherits_tie=True, tower="qwen2_vl", projector=projectors.qwen_merger
)
_QWEN2_5 = dataclasses.replace(_QWEN2, tower="qwen2_5_vl")
_DEEP = {"deepstack_visual_indexes": (8, 16, 24)}
_QWEN3 = Wrapper(
    text="qwen3", tied=False, tower="qwen3_vl", tower_defaults=_DEEP, projector=projectors.qwen3_merger
)
_QWEN3_5 = Wrapper(
    text="qwen3_5_moe_text",
    tower="qwen3_vl",
    tower_defaults={"deepstack_visual_indexes": ()},
    projector=projectors.qwen3_merger,
)
_GLM4V = Wrapper(text="glm4", tied=False, inherits_tie=True, tower="glm4v", projector=projectors.glm_merger)
_LLAVA = Wrapper(
    text="llama",
    tied=False,
    inherits_tie=True,
    tower="clip_vision_model",
    projector=projectors.two_layers,
    defaults=_BIAS,
)
_LLAVA_NEXT = dataclasses.replace(_LLAVA, inherits_tie=False, projector=projectors.two_layers_and_newline)
_IDEFICS = Wrapper(
    text="llama",
    tied=False,
    tower="idefics3",
    projector=projectors.idefics_shuffle,
    defaults={"scale_factor": 2},
)
_KIMI = Wrapper(text="deepseek_v3", tower="moonvit", projector=projectors.moon_merger)
_DEEPSEEK_VL2 = Wrapper(
    text="deepseek_v2",
    tower="timm_siglip",
    projector=projectors.deepseek_mlp,
    defaults={
        "projector_config.depth": 2,
        "projector_config.downsample_ratio": 2,
        "projector_config.mlp_ratio": 1,
    },
)
_NO_HEAD = {"vision_use_head": False}
_GEMMA3 = Wrapper(
    text="gemma3_text",
    tower="siglip_vision_model",
    tower_defaults=_NO_HEAD,
    projector=projectors.gemma_pool,
    defaults={"mm_tokens_per_image": 256},
)

WRAPPERS: dict[str, Wrapper] = {
    "aria": Wrapper(
        text="aria_text",
        tied=False,
        tower="idefics3",
        projector=projectors.aria_queries,
        defaults={"projector_patch_to_query_dict": {"1225": 128, "4900": 256}},
    ),
    "aya_vision": Wrapper(
        text="cohere2",
        tied=True,
        tower="siglip_vision_model",
        projector=projectors.aya,
        defaults={"downsample_factor": 2, "alignment_intermediate_size": 28672, "projector_norm": True},
    ),
    "cohere2_vision": Wrapper(
        text="cohere2",
        tied=True,
        tower="siglip_vision_model",
        projector=projectors.aya,
        defaults={"downsample_factor": 2, "alignment_intermediate_size": 36864, "projector_norm": False},
    ),
    "deepseek_vl": Wrapper(
        text="llama",
        tied=True,
        tower="siglip_vision_model",
        projector=projectors.two_layers,
        defaults=_BIAS,
        tower_defaults={
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "patch_size": 16,
        },
    ),
    "deepseek_vl_v2": _DEEPSEEK_VL2,
    "ernie4_5_vl_moe": Wrapper(
        text="ernie4_5_vl_moe_text", tied=True, tower="ernie4_5_vl", projector=projectors.ernie_resampler
    ),
    "ernie4_5_moe_vl": Wrapper(
        text="ernie4_5_vl_moe_text", tied=True, tower="ernie4_5_vl", projector=projectors.ernie_resampler
    ),
    "gemma3": _GEMMA3,
    "gemma4": Wrapper(
        text="gemma4_text",
        tied=True,
        tower="gemma4_vision",
        projector=hybrid_encoders.gemma4_pool,
        audio=(
            hybrid_encoders.gemma4_audio,
            {
                "hidden_size": 1024,
                "num_hidden_layers": 12,
                "num_attention_heads": 8,
                "subsampling_conv_channels": (128, 32),
                "conv_kernel_size": 5,
                "output_proj_dims": 1536,
            },
        ),
    ),
    "gemma3n": Wrapper(text="gemma3n_text", named=lambda hidden: _GEMMA3N_VISION),
    "glm4v": _GLM4V,
    "glm4v_moe": dataclasses.replace(_GLM4V, text="glm4_moe"),
    "glm46v": _GLM4V,
    "glmga": _GLM4V,
    "idefics3": _IDEFICS,
    "internvl": Wrapper(
        text="qwen2",
        tied=True,
        tower="internvl_vision",
        projector=projectors.internvl_shuffle,
        defaults={"downsample_ratio": 0.5},
    ),
    "internvl_chat": Wrapper(
        text="qwen2",
        tower="intern_vit_6b",
        projector=projectors.internvl_shuffle,
        defaults={"downsample_ratio": 0.5},
    ),
    "inkling_mm_model": Wrapper(text="inkling_text"),
    "kimi_k3": Wrapper(text="kimi_linear"),
    "lfm2_vl": Wrapper(text="lfm2", tied=True),
    "lfm3_vl": Wrapper(text="lfm3", tied=True),
    "kimi_k25": dataclasses.replace(_KIMI, tied=True),
    "kimi_vl": _KIMI,
    "lighton_ocr": Wrapper(
        text="qwen3",
        tied=True,
        tower="pixtral",
        projector=projectors.mistral_merger,
        defaults={"spatial_merge_size": 2, "multimodal_projector_bias": False},
    ),
    "llama4": Wrapper(text="llama4_text", tower="llama4_vision_model", projector=projectors.llama4_adapter),
    "llava": _LLAVA,
    "llava_next": _LLAVA_NEXT,
    "llava_next_video": dataclasses.replace(_LLAVA_NEXT, inherits_tie=True),
    "llava_onevision": dataclasses.replace(
        _LLAVA_NEXT, inherits_tie=True, text="qwen2", tower="siglip_vision_model", tower_defaults=_NO_HEAD
    ),
    "minimax_m3_vl": Wrapper(
        text="minimax_m3_vl_text",
        tower="minimax_m3_vl_vision",
        projector=hybrid_encoders.minimax_m3_merger,
    ),
    "mllama": Wrapper(text="mllama", tower="mllama_vision_model", projector=hybrid_encoders.mllama_tiles),
    "mistral3": Wrapper(
        text="mistral",
        tied=True,
        tower="pixtral",
        projector=projectors.mistral_merger,
        defaults={"spatial_merge_size": 2, "multimodal_projector_bias": False},
    ),
    "paligemma": Wrapper(
        text="gemma",
        tied=True,
        tower="siglip_vision_model",
        tower_defaults=_NO_HEAD,
        projector=projectors.linear,
    ),
    "phi3_v": Wrapper(text="phi3", named=_phi3_vision),
    "phi4_multimodal": Wrapper(
        text="phi3",
        tied=False,
        tower="siglip_vision_model",
        tower_defaults={
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_hidden_layers": 27,
            "image_size": 448,
            "patch_size": 14,
        },
        projector=projectors.phi4_pool,
        audio=(
            hearing.phi4_conformer,
            {
                "hidden_size": 1024,
                "intermediate_size": 1536,
                "num_blocks": 24,
                "num_attention_heads": 16,
                "input_size": 80,
                "time_reduction": 8,
                "kernel_size": 3,
                "bias_max_distance": 1000,
            },
        ),
    ),
    "phi4mm": Wrapper(text="phi3", tied=True),
    "qianfan_ocr": Wrapper(
        text="qwen3",
        tied=False,
        tower="internvl_vision",
        tower_defaults={"qkv_bias": True},
        projector=projectors.internvl_shuffle,
        defaults={"downsample_ratio": 0.5},
    ),
    "qwen2_5_omni_thinker": dataclasses.replace(
        _QWEN2_5, inherits_tie=False, audio=(hearing.qwen2_5_omni_audio, hearing.WHISPER)
    ),
    "qwen2_5_vl": _QWEN2_5,
    "qwen2_audio": Wrapper(text="qwen2", tied=False, audio=(hearing.qwen2_audio, hearing.WHISPER)),
    "qwen2_vl": _QWEN2,
    "qwen3_5": dataclasses.replace(_QWEN3_5, text="qwen3_5_text"),
    "qwen3_5_moe": _QWEN3_5,
    "qwen4_exp": dataclasses.replace(_QWEN3_5, text="qwen4_exp_text"),
    "qwen3_omni_moe_thinker": dataclasses.replace(
        _QWEN3, text="qwen3_moe", audio=(hearing.qwen3_omni_audio, hearing.WHISPER)
    ),
    "qwen3_vl": _QWEN3,
    "qwen3_vl_moe": dataclasses.replace(_QWEN3, text="qwen3_moe"),
    "shieldgemma2": _GEMMA3,
    "smolvlm": _IDEFICS,
    "step3p7": Wrapper(
        text="step3p5",
        tower="step3p5_vision",
        projector=hybrid_encoders.step_downsampler,
        defaults={"projector_bias": False},
    ),
    "voxtral": Wrapper(text="llama", audio=(hearing.voxtral_audio, hearing.WHISPER)),
    "vipllava": dataclasses.replace(
        _LLAVA,
        inherits_tie=False,
        projector=projectors.vip_layers,
        defaults={"vision_feature_layers": (-2, -5, -8, -11, 6)},
    ),
}

_WHOLE = ModelFamily(architectures=(), mixers=lambda f: [], channels=lambda f: [])


def count_encoders(
    config: Mapping, outer: str, hidden: int, *, file: str, prefix: str = ""
) -> tuple[float, float, list[str]]:
    """Return the parameters of the encoders, encoder positions per token, and the parts that are not counted."""
    wrapper = WRAPPERS.get(outer)
    total, ratio, uncounted = 0.0, 1.0, []
    for part in _ENCODER_PARTS:
        section = config.get(part)
        if section is None or (part == "embd_layer" and wrapper is not None and wrapper.named is not None):
            continue
        if not isinstance(section, Mapping) and (part.endswith("_config") or not isinstance(section, str)):
            raise InputError("a mapping", file=file, path=prefix + part, given=section)
        count, part_ratio = 0.0, 1.0
        if part == "audio_config":
            count = _GEMMA3N_AUDIO if outer == "gemma3n" else 0.0
            if wrapper is not None and wrapper.audio is not None and isinstance(section, Mapping):
                counted, defaults = wrapper.audio
                audio = Fields(section, _WHOLE, defaults, file=file, prefix=f"{prefix}{part}.")
                count = counted(audio, hidden)
        elif wrapper is not None and wrapper.named is not None:
            count = wrapper.named(hidden)
        elif part == "vision_config" and wrapper is not None and wrapper.projector is not None:
            count, part_ratio = _count_vision(
                config, wrapper, wrapper.projector, hidden, file=file, prefix=prefix
            )
        if not count:
            uncounted.append(prefix + part)
        total, ratio = total + count, max(ratio, part_ratio)
    return total, ratio, uncounted


def _count_vision(
    config: Mapping, wrapper: Wrapper, projector: Projector, hidden: int, *, file: str, prefix: str
) -> tuple[float, float]:
    """Count the vision encoder and its projector, and patches per token."""
    section = config["vision_config"]
    kind = section.get("model_type")
    tower = TOWERS[kind if isinstance(kind, str) and kind in TOWERS else wrapper.tower]
    tower = dataclasses.replace(tower, defaults={**tower.defaults, **wrapper.tower_defaults})
    v = vision_fields(section, tower, file=file, prefix=f"{prefix}vision_config.")
    whole = Fields(config, _WHOLE, wrapper.defaults, file=file, prefix=prefix)
    count, ratio = projector(v, whole, hidden)
    return count_transformer(v, tower) + count, ratio
