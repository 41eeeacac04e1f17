"""Parameters of the projectors between a vision encoder and the language model, and patches per token.

A projector is a function of the encoder's fields, those of the whole config, and the width of the language model.
"""

from jaxcost.edge.hf.fields import Fields
from jaxcost.edge.hf.multimodal.encoders import patches

__all__ = [
    "aria_queries",
    "aya",
    "deepseek_mlp",
    "ernie_resampler",
    "gemma_pool",
    "glm_merger",
    "idefics_shuffle",
    "internvl_shuffle",
    "linear",
    "llama4_adapter",
    "mistral_merger",
    "moon_merger",
    "phi4_pool",
    "qwen3_merger",
    "qwen_merger",
    "two_layers",
    "two_layers_and_newline",
    "vip_layers",
]

_LEAST_RATIO = 0.05  # smallest ratio of a pixel shuffle: at most 400 patches per token


def _mlp(inner: int, middle: int, outer: int, bias: bool = True) -> int:
    """Count two matrices, with biases."""
    return inner * middle + middle * outer + bias * (middle + outer)


def _merged(v: Fields) -> int:
    """Return the patches that are merged into one token."""
    return v.even_size("merge") ** 2


def _ratio(f: Fields, field: str) -> float:
    """Read the ratio of a pixel shuffle, and return the patches per token."""
    ratio = f.given(field)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not _LEAST_RATIO <= ratio <= 1:
        raise f.error(field, f"a number from {_LEAST_RATIO} to 1", ratio)
    return 1 / ratio**2


def two_layers(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """LLaVA: two matrices; the features of several layers of the encoder may be joined."""
    taken = whole.given("vision_feature_layer")
    width = v.size("hidden_size") * (len(taken) if isinstance(taken, list | tuple) else 1)
    return _mlp(width, hidden, hidden, whole.flag("multimodal_projector_bias")), 1


def two_layers_and_newline(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """LLaVA-NeXT: two matrices and the embedding of a new line."""
    count, ratio = two_layers(v, whole, hidden)
    return count + hidden, ratio


def vip_layers(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """ViP-LLaVA: a norm over the joined features of several layers of the encoder, two matrices."""
    width = v.size("hidden_size") * len(whole.sequence("vision_feature_layers"))
    return 2 * width + _mlp(width, hidden, hidden), 1


def linear(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """PaliGemma: one matrix with a bias."""
    return v.size("hidden_size") * hidden + hidden, 1


def gemma_pool(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Gemma 3: a matrix and a norm; the patches of an image are pooled into `mm_tokens_per_image` tokens."""
    width, image, patch = v.size("hidden_size"), v.size("image_size"), v.size("patch_size")
    if image % patch:
        raise v.error("patch_size", f"a divisor of the image size {image}", patch)
    return width * hidden + width, patches(v) / whole.size("mm_tokens_per_image")


def mistral_merger(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Mistral Small 3.1: a norm, a matrix that merges patches, two matrices."""
    width, merged = v.size("hidden_size"), whole.size("spatial_merge_size") ** 2
    bias = whole.flag("multimodal_projector_bias")
    return width + merged * width * width + _mlp(width, hidden, hidden, bias), merged


def idefics_shuffle(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Idefics 3: a pixel shuffle and one matrix."""
    merged = whole.size("scale_factor") ** 2
    return merged * v.size("hidden_size") * hidden, merged


def internvl_shuffle(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """InternVL: a pixel shuffle, a norm, two matrices."""
    merged = _ratio(whole, "downsample_ratio")
    wide = round(merged) * v.size("hidden_size")
    return 2 * wide + _mlp(wide, hidden, hidden), merged


def qwen_merger(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Qwen2-VL and Qwen2.5-VL: a norm like those of the blocks, two matrices of merged patches."""
    width, merged = v.size("hidden_size"), _merged(v)
    norm = width * (2 if v.name("hidden_size") == "embed_dim" else 1)
    return norm + _mlp(merged * width, merged * width, v.size("out_hidden_size")), merged


def qwen3_merger(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Qwen3-VL: a merger, and one for each layer of the encoder whose features enter layers of the language model."""
    width, merged = v.size("hidden_size"), _merged(v)
    matrices = _mlp(merged * width, merged * width, v.size("out_hidden_size"))
    deep = len(v.sequence("deepstack_visual_indexes"))
    return 2 * width + matrices + deep * (2 * merged * width + matrices), merged


def glm_merger(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """GLM-4.5V: a strided convolution, then a matrix, a norm and a gated feed-forward."""
    width, merged, out = v.size("hidden_size"), _merged(v), v.size("out_hidden_size")
    convolution = merged * width * out + out
    return convolution + out * out + 2 * out + 3 * out * v.size("projector_width"), merged


def moon_merger(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Kimi: a norm and two matrices of merged patches."""
    width, merged = v.size("hidden_size"), _merged(v)
    return 2 * width + _mlp(merged * width, merged * width, hidden), merged


def ernie_resampler(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """ERNIE 4.5 VL: two matrices and a norm over merged patches, the same over merged frames, a matrix and a norm."""
    merged, frames = _merged(v), v.size("temporal_merge_size")
    wide = merged * v.size("hidden_size")
    spatial, temporal = _mlp(wide, wide, wide) + 2 * wide, _mlp(frames * wide, wide, wide) + 2 * wide
    return spatial + temporal + wide * hidden + hidden + hidden, merged


def llama4_adapter(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Llama 4: a pixel shuffle, an adapter of two matrices, one matrix."""
    middle, out = v.size("projector_input_dim"), v.size("projector_output_dim")
    adapter = v.size("intermediate_size") * middle + middle * out
    return adapter + v.size("vision_output_dim") * hidden, _ratio(v, "pixel_shuffle_ratio")


def aria_queries(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Aria: queries that attend to the patches twice projected, a norm, a feed-forward; fewer queries than patches."""
    table = whole.given("projector_patch_to_query_dict")
    queries = (
        max((n for n in table.values() if isinstance(n, int)), default=0) if isinstance(table, dict) else 0
    )
    if queries < 1:
        raise whole.error("projector_patch_to_query_dict", "numbers of queries by number of patches", table)
    width = v.size("hidden_size")
    attention = 8 * width * width + 5 * width + 4 * width
    return queries * width + attention + 2 * width + width * hidden + hidden * hidden, patches(v) / queries


def phi4_pool(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Phi-4-multimodal: embeddings of a new line and a separator, two matrices of 2 x 2 averaged patches."""
    width = v.size("hidden_size")
    return 2 * width + _mlp(width, hidden, hidden), 4


def aya(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """Aya Vision and Command A Vision: a pixel shuffle and a gated feed-forward, with a norm in front in Aya."""
    merged = whole.size("downsample_factor") ** 2
    wide, inner = merged * v.size("hidden_size"), whole.size("alignment_intermediate_size")
    norm = 2 * wide * whole.flag("projector_norm")
    return norm + wide * inner + inner + inner // 2 * hidden + hidden, merged


def deepseek_mlp(v: Fields, whole: Fields, hidden: int) -> tuple[float, float]:
    """DeepSeek-VL2: matrices of merged patches, and the embeddings of a new line and a separator."""
    depth, merged = whole.size("projector_config.depth"), whole.size("projector_config.downsample_ratio") ** 2
    inner = whole.size("projector_config.mlp_ratio") * hidden
    first = merged * v.size("hidden_size") * inner + inner
    between = max(depth - 2, 0) * (inner * inner + inner)
    return first + between + inner * hidden + hidden + 2 * hidden, merged
