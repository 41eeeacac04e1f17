"""Parameters of the vision and audio encoders that come with some language models."""

from collections.abc import Callable, Mapping

from jaxcost.edge.hf.fields import Fields, ModelFamily

__all__ = ["ENCODERS"]

_CHANNELS = {"num_channels": 3, "in_channels": 3}  # the vision configs' default

# Gemma 3n's encoders are described by names, not sizes: MobileNet-V5-300M, and a Conformer of the Universal
# Speech Model. Their sizes are the difference between the released checkpoints and their text-only variants.
_GEMMA3N_VISION, _GEMMA3N_AUDIO = 0.30e9, 0.68e9

_LEAST_SHUFFLE = 0.05  # smallest ratio of a pixel shuffle: at most 400 patches per token

_PLAIN = ModelFamily(architectures=(), mixers=lambda f: [], channels=lambda f: [])


def _fields(config: Mapping, part: str, f: Fields) -> Fields:
    return Fields(config[part], _PLAIN, _CHANNELS, file=f.file, prefix=f"{part}.")


def _block(width: int, inner: int) -> int:
    """Count a block: four biased projections, two biased matrices, two biased norms."""
    return 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width


def _patches(v: Fields) -> int:
    """Return the patches of an image, a whole number per side."""
    image, patch = v.size("image_size"), v.size("patch_size")
    if image % patch:
        raise v.error("patch_size", f"a divisor of the image size {image}", patch)
    return (image // patch) ** 2


def _siglip(config: Mapping, f: Fields) -> tuple[float, float]:
    """SigLIP with Gemma 3's projector, which pools the patches of an image into 256 tokens."""
    v, hidden = _fields(config, "vision_config", f), f.size("hidden_size")
    width, patch = v.size("hidden_size"), v.size("patch_size")
    patches = _patches(v)
    stem = v.size("num_channels") * patch * patch * width + width + patches * width
    blocks = v.size("num_hidden_layers") * _block(width, v.size("intermediate_size"))
    whole = Fields(config, _PLAIN, {"mm_tokens_per_image": 256}, file=f.file)
    projector = width * hidden + width
    return stem + blocks + 2 * width + projector, patches / whole.size("mm_tokens_per_image")


def _llama4(config: Mapping, f: Fields) -> tuple[float, float]:
    """Llama 4's vision transformer, its pixel shuffle and adapter, and the projector."""
    v, hidden = _fields(config, "vision_config", f), f.size("hidden_size")
    width, patch = v.size("hidden_size"), v.size("patch_size")
    shuffle = v.given("pixel_shuffle_ratio")
    if (
        isinstance(shuffle, bool)
        or not isinstance(shuffle, int | float)
        or not _LEAST_SHUFFLE <= shuffle <= 1
    ):
        raise v.error("pixel_shuffle_ratio", f"a number from {_LEAST_SHUFFLE} to 1", shuffle)
    stem = v.size("num_channels") * patch * patch * width + width + (_patches(v) + 1) * width + 4 * width
    blocks = v.size("num_hidden_layers") * _block(width, v.size("intermediate_size"))
    middle, out = v.size("projector_input_dim"), v.size("projector_output_dim")
    adapter = v.size("intermediate_size") * middle + middle * out
    return stem + blocks + adapter + v.size("vision_output_dim") * hidden, 1 / shuffle**2


def _qwen3_vision(config: Mapping, f: Fields) -> tuple[float, float]:
    """Qwen3-VL's vision transformer and the merger of 2 x 2 patches."""
    v = _fields(config, "vision_config", f)
    width, merged = v.size("hidden_size"), v.size("spatial_merge_size") ** 2
    pixels = v.size("in_channels") * v.size("temporal_patch_size") * v.size("patch_size") ** 2
    stem = pixels * width + width + v.size("num_position_embeddings") * width
    blocks = v.size("depth") * _block(width, v.size("intermediate_size"))
    wide, out = merged * width, v.size("out_hidden_size")
    merger = 2 * width + wide * wide + wide + wide * out + out
    return stem + blocks + merger, merged


def _gemma3n_vision(config: Mapping, f: Fields) -> tuple[float, float]:
    return _GEMMA3N_VISION, 1.0


def _gemma3n_audio(config: Mapping, f: Fields) -> tuple[float, float]:
    return _GEMMA3N_AUDIO, 1.0


ENCODERS: dict[tuple[str, str], Callable[[Mapping, Fields], tuple[float, float]]] = {
    ("gemma3_text", "vision_config"): _siglip,
    ("gemma3n_text", "audio_config"): _gemma3n_audio,
    ("gemma3n_text", "vision_config"): _gemma3n_vision,
    ("llama4_text", "vision_config"): _llama4,
    ("qwen3_5_moe_text", "vision_config"): _qwen3_vision,
}
