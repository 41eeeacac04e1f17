"""Parameters of audio encoders with their projectors.

An encoder is a function of its fields and the width of the language model. All but one are Whisper's
(arXiv:2212.04356): a stem of convolutions, then a transformer.
"""

import math
from typing import Any

from jaxcost.edge.hf.fields import Fields

__all__ = [
    "WHISPER",
    "phi4_conformer",
    "qwen2_5_omni_audio",
    "qwen2_audio",
    "qwen3_omni_audio",
    "voxtral_audio",
]

# Values of fields that configs leave out, Whisper's large encoder.
WHISPER: dict[str, Any] = {
    "d_model": 1280,
    "encoder_ffn_dim": 5120,
    "encoder_layers": 32,
    "num_mel_bins": 128,
    "max_source_positions": 1500,
    "output_dim": 3584,
    "downsample_hidden_size": 480,
}


def _either(a: Fields, field: str, other: str) -> int:
    """Read a size under its name in Whisper, or its name in other transformers."""
    return a.size(other) if a.config.get(other) is not None else a.size(field)


def _blocks(a: Fields, key_bias: bool) -> tuple[int, float]:
    """Return the width, and the parameters of the blocks and the norm behind them."""
    width = _either(a, "d_model", "hidden_size")
    inner = _either(a, "encoder_ffn_dim", "intermediate_size")
    layers = _either(a, "encoder_layers", "num_hidden_layers")
    block = 4 * width * width + (3 + key_bias) * width + 2 * width * inner + inner + width + 4 * width
    return width, layers * block + 2 * width


def _stem(a: Fields, width: int) -> int:
    """Count two convolutions over three frames."""
    return 3 * a.size("num_mel_bins") * width + 3 * width * width + 2 * width


def qwen2_audio(a: Fields, hidden: int) -> float:
    """Qwen2-Audio: Whisper with its table of positions, and one matrix."""
    width, blocks = _blocks(a, key_bias=False)
    return _stem(a, width) + a.size("max_source_positions") * width + blocks + width * hidden + hidden


def voxtral_audio(a: Fields, hidden: int) -> float:
    """Voxtral: Whisper with its table of positions, and two matrices of frames that are joined."""
    width, blocks = _blocks(a, key_bias=False)
    joined = _either(a, "encoder_ffn_dim", "intermediate_size")
    positions = a.size("max_source_positions") * width
    return _stem(a, width) + positions + blocks + joined * hidden + hidden * hidden


def qwen2_5_omni_audio(a: Fields, hidden: int) -> float:
    """Qwen2.5-Omni: Whisper without positions, a matrix, and the embeddings of begin and end."""
    width, blocks = _blocks(a, key_bias=False)
    out = a.size("output_dim")
    return _stem(a, width) + blocks + width * out + out + 2 * out


def qwen3_omni_audio(a: Fields, hidden: int) -> float:
    """Qwen3-Omni: three strided convolutions over mel bins and frames, blocks, two matrices."""
    width, blocks = _blocks(a, key_bias=True)
    channels, out = a.size("downsample_hidden_size"), a.size("output_dim")
    stem = 9 * channels + 18 * channels * channels + 3 * channels
    stem += channels * math.ceil(a.size("num_mel_bins") / 8) * width
    return stem + blocks + width * width + width + width * out + out


def phi4_conformer(a: Fields, hidden: int) -> float:
    """Phi-4-multimodal: a conformer (arXiv:2005.08100), and two pairs of matrices, of speech and of images with it."""
    width, inner = a.size("hidden_size"), a.size("intermediate_size")
    frames = a.size("time_reduction")
    strided = int(math.log2(frames)) - 1
    stem = 10 * width + strided * (10 * width + width * width + width)
    stem += a.size("input_size") // frames * width * width + width
    distances = 2 * a.size("bias_max_distance") * a.size("num_attention_heads")
    feed_forward = 3 * width * inner + 2 * inner + 3 * width
    attention = 4 * width * width + 6 * width
    convolution = 4 * width * width + 6 * width + (a.size("kernel_size") + 1) * width + 2 * width
    block = 2 * feed_forward + attention + convolution + 2 * width
    projectors = 2 * (width * hidden + hidden + hidden * hidden + hidden)
    return stem + distances + a.size("num_blocks") * block + projectors
