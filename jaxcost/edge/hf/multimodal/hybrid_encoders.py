"""Encoders and projectors that come with families of several shapes of attention.

Facts: the modelling files of the same names in transformers 5.24.
"""

from typing import Any

from jaxcost.edge.hf.fields import Fields

__all__ = [
    "TOWER_ROWS",
    "gemma4_audio",
    "gemma4_pool",
    "minimax_m3_merger",
    "mllama_tiles",
    "step_downsampler",
]


def gemma4_pool(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Gemma 4: a matrix; norms of queries and keys, as wide as a head, in the encoder's blocks."""
    norms = 2 * v.size("num_hidden_layers") * v.size("head_dim")
    return v.size("hidden_size") * hidden + norms, v.size("pooling_kernel_size") ** 2


def gemma4_audio(a: Fields, hidden: int) -> float:
    """Count Gemma 4's conformer (arXiv:2005.08100), its two strided convolutions, and two output matrices."""
    width, out, heads = a.size("hidden_size"), a.size("output_proj_dims"), a.size("num_attention_heads")
    first, second = a.sequence("subsampling_conv_channels", length=2)
    stem = 9 * first + first + 9 * first * second + second + 32 * second * width  # of 128 mel bins, 32 remain
    # Two feed-forwards, attention with relative positions, the gated convolution; nine norms.
    block = (16 + 5 + 3) * width * width + (9 + a.size("conv_kernel_size")) * width + width // heads
    return stem + a.size("num_hidden_layers") * block + width * out + out + out * hidden


def mllama_tiles(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Llama 3.2 Vision: gated blocks over all tiles, embeddings of tiles and positions, a matrix."""
    width, inner, tiles = v.size("hidden_size"), v.size("intermediate_size"), v.size("max_num_tiles")
    patches = (v.size("image_size") // v.size("patch_size")) ** 2 + 1
    block = 4 * width * width + 2 * width * inner + inner + width + 4 * width + 2
    ratios = len(v.sequence("supported_aspect_ratios")) + 1
    embeddings = ratios * tiles * width * (patches + 2) + 3
    projector = v.size("vision_output_dim") * hidden + hidden
    return v.size("num_global_layers") * block + embeddings + projector, 1.0


def step_downsampler(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Step-3.7: two strided 3 x 3 convolutions that double the width, and a matrix."""
    width = v.size("hidden_size")
    convolutions = 9 * (width * 2 * width + 2 * width * 4 * width) + 2 * width + 4 * width
    return convolutions + 4 * width * hidden + hidden * whole.flag("projector_bias"), 16.0


def minimax_m3_merger(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """MiniMax-M3: two matrices of a patch, two of merged patches."""
    width, merged = v.size("hidden_size"), v.even_size("merge") ** 2
    matrices = width * hidden + hidden * hidden + merged * hidden * hidden + hidden * hidden
    return matrices + 4 * hidden, merged


# The properties of the encoders, by the names of `jaxcost.edge.hf.multimodal.encoders.VisionTransformer`.
TOWER_ROWS: dict[str, dict[str, Any]] = {
    # Norms behind both mixers of a block are as wide as scales of the two branches.
    "gemma4_vision": {
        "gated": True,
        "qkv_bias": False,
        "out_bias": False,
        "mlp_bias": False,
        "norm_bias": False,
        "patch_bias": False,
        "positions": lambda v: 2 * v.size("position_embedding_size"),
        "further_norms": 0,
        "layer_scales": True,
        "defaults": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 16,
            "head_dim": 64,
            "patch_size": 16,
            "position_embedding_size": 10240,
            "pooling_kernel_size": 3,
        },
    },
    "mllama_vision_model": {
        "qkv_bias": False,
        "out_bias": False,
        "patch_bias": False,
        "class_token": True,
        "positions": lambda v: (v.size("image_size") // v.size("patch_size")) ** 2 + 1,
        "further_norms": 2,
        "defaults": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_global_layers": 8,
            "vision_output_dim": 7680,
            "image_size": 448,
            "patch_size": 14,
            "max_num_tiles": 4,
            "supported_aspect_ratios": ((1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)),
        },
    },
    "step3p5_vision": {
        "names": {"intermediate_size": ()},
        "patch_bias": False,
        "layer_scales": True,
        "defaults": {
            "hidden_size": 1536,
            "num_hidden_layers": 47,
            "image_size": 728,
            "patch_size": 14,
            "mlp_ratio": 8960 / 1536,
            "intermediate_size": lambda v: int(v.size("hidden_size") * v.given("mlp_ratio")),
        },
    },
    "minimax_m3_vl_vision": {
        "patch_bias": False,
        "positions": lambda v: 0,
        "defaults": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "patch_size": 14,
            "temporal_patch_size": 2,
            "merge": 2,
        },
    },
}
