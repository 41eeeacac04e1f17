"""Parameters of the vision encoders that come with some language models.

A vision encoder is a transformer over patches, described by data, and a projector into the language model.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxcost.edge.hf.fields import Fields, ModelFamily
from jaxcost.edge.hf.multimodal.hybrid_encoders import TOWER_ROWS

__all__ = ["TOWERS", "VisionTransformer", "count_transformer", "patches", "vision_fields"]

# Names of a field in the configs of different encoders.
_NAMES = {
    "hidden_size": ("hidden_size", "embed_dim", "vt_hidden_size", "width", "d_model"),
    "intermediate_size": ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim"),
    "num_hidden_layers": ("num_hidden_layers", "depth", "vt_num_hidden_layers", "layers", "encoder_layers"),
    "num_attention_heads": ("num_attention_heads", "num_heads", "vt_num_attention_heads", "heads"),
    "num_channels": ("num_channels", "in_channels", "in_chans"),
    "grid_height": ("pos_emb_height", "init_pos_emb_height"),
    "grid_width": ("pos_emb_width", "init_pos_emb_width"),
    "merge": ("merge_kernel_size", "spatial_merge_size"),
}
_DEFAULTS: dict[str, Any] = {"num_channels": 3}


def patches(v: Fields) -> int:
    """Return the patches of an image; pixels beyond the last patch of a side are left out."""
    return (v.even_size("image_size") // v.even_size("patch_size")) ** 2


def _class_and_patches(v: Fields) -> int:
    return patches(v) + 1


def _grid(v: Fields) -> int:
    return v.size("grid_height") * v.size("grid_width")


def _no_rows(v: Fields) -> int:
    return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionTransformer:
    """The properties of a vision transformer. A string in place of a bool names the config field that decides.

    Attributes:
        names: names of fields that differ from those of other encoders.
        defaults: values of fields that a config leaves out, those of the released encoder's class.
        gated: whether the feed-forward has a gate.
        qkv_bias: biases of the query, key and value projections.
        out_bias: a bias of the attention's output projection.
        mlp_bias: biases of the feed-forward.
        norm_bias: whether norms have a bias.
        patch_bias: a bias of the patch embedding.
        class_token: a learned token in front of the patches.
        positions: function that returns the rows of the table of positions.
        further_norms: norms outside the blocks.
        layer_scales: whether a block scales its two branches by a vector.
        qk_norm: norms of queries and keys, each as wide as all heads.
        pooling_head: an attention head that pools the image.
    """

    names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    gated: bool = False
    qkv_bias: bool | str = True
    out_bias: bool | str = True
    mlp_bias: bool = True
    norm_bias: bool = True
    patch_bias: bool = True
    class_token: bool = False
    positions: Callable[[Fields], int] = patches
    further_norms: int = 1
    layer_scales: bool = False
    qk_norm: bool | str = False
    pooling_head: bool | str = False


_PLAIN = ModelFamily(architectures=(), mixers=lambda f: [], channels=lambda f: [], names=_NAMES)


def vision_fields(config: Mapping, tower: VisionTransformer, *, file: str, prefix: str) -> Fields:
    """Return validated access to the config of a vision encoder."""
    row = dataclasses.replace(_PLAIN, names={**_NAMES, **tower.names})
    return Fields(config, row, {**_DEFAULTS, **tower.defaults}, file=file, prefix=prefix)


def count_transformer(v: Fields, tower: VisionTransformer) -> float:
    """Count the parameters of a vision transformer without its projector."""
    width, inner = v.size("hidden_size"), v.even_size("intermediate_size")
    norm = width * (1 + (tower.norm_bias and v.given("norm_type") != "rms_norm"))
    feed_forward = (2 + tower.gated) * width * inner
    attention = 4 * width * width + (3 * v.flag(tower.qkv_bias) + v.flag(tower.out_bias)) * width
    biases = tower.mlp_bias * ((1 + tower.gated) * inner + width)
    vectors = 2 * norm + 2 * width * (tower.layer_scales + v.flag(tower.qk_norm))
    block = attention + feed_forward + biases + vectors
    frames = v.optional_size("temporal_patch_size") or 1
    pixels = v.size("num_channels") * frames * v.even_size("patch_size") ** 2
    stem = (pixels + tower.patch_bias + tower.class_token + tower.positions(v)) * width
    head = block - norm + width if v.flag(tower.pooling_head) else 0  # one norm, and the query that pools
    return stem + v.size("num_hidden_layers") * block + tower.further_norms * norm + head


_CLIP = VisionTransformer(patch_bias=False, class_token=True, positions=_class_and_patches, further_norms=2)
_SIGLIP = VisionTransformer(
    pooling_head="vision_use_head", defaults={"image_size": 224, "vision_use_head": True}
)
_PIXTRAL = VisionTransformer(
    gated=True,
    qkv_bias=False,
    out_bias=False,
    mlp_bias=False,
    norm_bias=False,
    patch_bias=False,
    positions=_no_rows,
    defaults={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "patch_size": 16,
        "image_size": 1024,
    },
)
_IDEFICS = VisionTransformer(
    defaults={
        "hidden_size": 1152,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "image_size": 224,
        "patch_size": 32,
    }
)
_INTERNVL = VisionTransformer(
    qkv_bias="qkv_bias",
    class_token=True,
    positions=_class_and_patches,
    further_norms=0,
    layer_scales=True,
    qk_norm="use_qk_norm",
    names={"qkv_bias": ("qkv_bias", "attention_bias"), "use_qk_norm": ("use_qk_norm", "qk_normalization")},
    defaults={
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "image_size": 448,
        "patch_size": 14,
        "qkv_bias": False,
        "use_qk_norm": False,
    },
)
_QWEN_PATCHES = {"patch_size": 14, "temporal_patch_size": 2, "merge": 2}
_QWEN2_VL = VisionTransformer(
    names={"hidden_size": ("embed_dim",), "out_hidden_size": ("hidden_size",), "intermediate_size": ()},
    patch_bias=False,
    positions=_no_rows,
    further_norms=0,
    defaults={
        **_QWEN_PATCHES,
        "hidden_size": 1280,
        "out_hidden_size": 3584,
        "num_hidden_layers": 32,
        "mlp_ratio": 4,
        "intermediate_size": lambda v: v.size("mlp_ratio") * v.size("hidden_size"),
    },
)
_QWEN2_5_VL = VisionTransformer(
    gated=True,
    norm_bias=False,
    patch_bias=False,
    positions=_no_rows,
    further_norms=0,
    defaults={
        **_QWEN_PATCHES,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_hidden_layers": 32,
        "out_hidden_size": 3584,
    },
)
_QWEN3_VL = VisionTransformer(
    positions=lambda v: v.size("num_position_embeddings"),
    further_norms=0,
    defaults={
        **_QWEN_PATCHES,
        "patch_size": 16,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_position_embeddings": 2304,
        "out_hidden_size": 3584,
    },
)
# The blocks are as wide inside as the projector's output; `intermediate_size` is the projector's.
_GLM4V = VisionTransformer(
    names={"intermediate_size": ("out_hidden_size",), "projector_width": ("intermediate_size",)},
    gated=True,
    qkv_bias="attention_bias",
    out_bias=False,
    mlp_bias=False,
    norm_bias=False,
    further_norms=2,
    defaults={
        **_QWEN_PATCHES,
        "attention_bias": False,
        "image_size": 336,
        "hidden_size": 1536,
        "num_hidden_layers": 24,
        "intermediate_size": 4096,
        "out_hidden_size": 4096,
        "projector_width": 13696,
    },
)
_MOONVIT = VisionTransformer(
    positions=_grid,
    defaults={
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "grid_height": 64,
        "grid_width": 64,
        "merge": 2,
    },
)
_ERNIE = VisionTransformer(
    names={"intermediate_size": ()},
    patch_bias=False,
    positions=_no_rows,
    defaults={
        "hidden_size": 1280,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "merge": 2,
        "temporal_merge_size": 2,
        "mlp_ratio": 4,
        "intermediate_size": lambda v: v.size("mlp_ratio") * v.size("hidden_size"),
    },
)
# A timm encoder; its config has names of sizes, and SigLIP-SO400M's fractional ratio of widths.
_TIMM_SIGLIP = VisionTransformer(
    names={"intermediate_size": ()},
    defaults={
        "hidden_size": 1152,
        "num_hidden_layers": 27,
        "patch_size": 14,
        "image_size": 384,
        "intermediate_size": 4304,
    },
)
_LLAMA4 = VisionTransformer(patch_bias=False, class_token=True, positions=_class_and_patches, further_norms=2)

TOWERS: dict[str, VisionTransformer] = {
    "clip_vision_model": _CLIP,
    "ernie4_5_vl": _ERNIE,
    "glm4v": _GLM4V,
    "idefics3": _IDEFICS,
    "intern_vit_6b": _INTERNVL,
    "internvl_vision": _INTERNVL,
    "llama4_vision_model": _LLAMA4,
    "moonvit": _MOONVIT,
    "pixtral": _PIXTRAL,
    "qwen2_5_vl": _QWEN2_5_VL,
    "qwen2_vl": _QWEN2_VL,
    "qwen3_vl": _QWEN3_VL,
    "siglip_vision_model": _SIGLIP,
    "timm_siglip": _TIMM_SIGLIP,
    **{name: VisionTransformer(**row) for name, row in TOWER_ROWS.items()},
}
