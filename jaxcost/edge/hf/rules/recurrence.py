"""Recurrent layers: weights, state and FLOPs of each kind.

FLOPs are per state element and token, with a multiplication and an addition as two. They are matmul FLOPs where the
algorithm has a chunked form for matrix engines (state-space duality, arXiv:2405.21060; lightning attention,
arXiv:2401.04658; the gated delta rule, arXiv:2412.06464), else element-wise FLOPs.
"""

import functools
import math
from collections.abc import Callable

from jaxcost.edge.hf.fields import Fields
from jaxcost.spec.model import Recurrence

__all__ = ["RECURRENCES"]

_STATE_BITS = 32  # all released implementations store the state in float32

# Decay 1, outer product and its addition 2, readout 2.
_LINEAR_FLOPS = 5
# Decay 1, readout for the key 2, rank-one correction 2, readout for the query 2. Scaling the correction by beta is
# per value, not per state element.
_DELTA_FLOPS = 7
# delta x A 1, its exponential counted separately, decay 1, delta B x 2, readout 2.
_SCAN_FLOPS = 6
# Decay and input gate 2, root of 1 - a^2 3, input 2, decay and addition 2; two sigmoids and the decay are exponentials.
_GATED_UNIT_FLOPS = 9


def _inner(f: Fields, heads: int) -> int:
    """Return the width of Mamba-2: stated, or heads x head_dim, or `expand` times the hidden size."""
    width, head_dim = f.optional_size("mamba_d_ssm"), f.given("mamba_head_dim")
    if head_dim in (None, "auto"):
        return width or f.size("mamba_expand") * f.size("hidden_size")
    inner = heads * f.size("mamba_head_dim")
    if width not in (None, inner):
        raise f.error("mamba_d_ssm", f"heads x head_dim, {inner}", width)
    return inner


def _mamba2(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Mamba-2 (arXiv:2405.21060): x, z, B, C and dt from one projection."""
    hidden, heads = f.size("hidden_size"), f.size("mamba_num_heads")
    state, groups, kernel = f.size("ssm_state_size"), f.size("n_groups"), f.size("conv_kernel")
    inner = _inner(f, heads)
    if heads % groups:
        raise f.error("n_groups", f"a divisor of the {heads} heads", groups)
    expand = f.optional_size("expand") if f.name("mamba_num_heads") == "num_heads" else None
    if expand is not None and expand * hidden != inner:
        raise f.error("expand", f"heads x head_dim / hidden_size = {inner} / {hidden}", expand)
    convolved = inner + 2 * groups * state
    projected = inner + convolved + heads
    vectors = 3 * heads + inner * f.flag("mamba_rms_norm")  # A, D, the bias of dt; the gated norm
    vectors += convolved * f.flag("use_conv_bias")
    vectors += projected * f.flag("use_bias") + hidden * f.flag("mamba_out_bias")
    return (
        Recurrence(
            layers=layers,
            heads=heads,
            parameters=hidden * projected + kernel * convolved + inner * hidden,
            inner_dim=inner,
            state=inner * state,
            state_bits=_STATE_BITS,
            convolution_state=convolved * (kernel - 1),
            matmul_flops=_LINEAR_FLOPS,
        ),
        vectors,
    )


def _mamba1(f: Fields, layers: int, *, norms: bool) -> tuple[Recurrence, float]:
    """Mamba-1 (arXiv:2312.00752); Jamba (arXiv:2403.19887) adds norms of dt, B and C.

    With several heads (Zamba, arXiv:2405.16712), each projects its part of the input to dt, B and C of its own.
    """
    hidden, state, kernel = f.size("hidden_size"), f.size("mamba_d_state"), f.size("mamba_d_conv")
    inner = f.size("mamba_expand") * hidden
    automatic = f.given("mamba_dt_rank") == "auto"
    rank = math.ceil(hidden / 16) if automatic else f.size("mamba_dt_rank")
    selected = rank + 2 * state
    vectors = inner * (state + 2) + selected * norms  # A; D and the bias of dt; three norms
    vectors += inner * f.flag("mamba_conv_bias") + (2 * inner + hidden) * f.flag("mamba_proj_bias")
    return (
        Recurrence(
            layers=layers,
            heads=inner,
            parameters=3 * hidden * inner + kernel * inner + inner * selected + rank * inner,
            inner_dim=inner,
            state=inner * state,
            state_bits=_STATE_BITS,
            convolution_state=inner * (kernel - 1),
            vector_flops=_SCAN_FLOPS,
            exponentials=1,
        ),
        vectors,
    )


def _gated_delta(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Gated delta rule (arXiv:2412.06464) as in Qwen3-Next: q, k, v, z, beta and decay projected."""
    hidden, kernel = f.size("hidden_size"), f.size("linear_conv_kernel_dim")
    key_heads, heads = f.size("linear_num_key_heads"), f.size("linear_num_value_heads")
    key_dim, value_dim = f.size("linear_key_head_dim"), f.size("linear_value_head_dim")
    if heads % key_heads:
        raise f.error("linear_num_key_heads", f"a divisor of the {heads} value heads", key_heads)
    inner = heads * value_dim
    convolved = 2 * key_heads * key_dim + inner
    projected = convolved + inner + 2 * heads
    return (
        Recurrence(
            layers=layers,
            heads=heads,
            parameters=hidden * projected + kernel * convolved + inner * hidden,
            inner_dim=inner,
            state=heads * key_dim * value_dim,
            state_bits=_STATE_BITS,
            convolution_state=convolved * (kernel - 1),
            matmul_flops=_DELTA_FLOPS,
        ),
        2 * heads + value_dim,  # A, the bias of the decay; the gated norm, shared by the heads
    )


def _lightning(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Lightning attention as in MiniMax-01 (arXiv:2501.08313): q, k, v, an output gate, a fixed decay."""
    hidden, heads, head_dim = f.size("hidden_size"), f.size("num_attention_heads"), f.head_dim()
    inner = heads * head_dim
    return (
        Recurrence(
            layers=layers,
            heads=heads,
            parameters=5 * hidden * inner,
            inner_dim=inner,
            state=heads * head_dim * head_dim,
            state_bits=_STATE_BITS,
            matmul_flops=_LINEAR_FLOPS,
        ),
        inner,  # the norm before the gate
    )


def _kda(f: Fields, layers: int, *, low_rank: bool) -> tuple[Recurrence, float]:
    """Kimi delta attention (arXiv:2510.26692): q, k, v, beta; decay and output gate, of low rank or full.

    The output gate of Kimi-K3 is full where its decay is of low rank.
    """
    hidden, heads, head_dim = f.size("hidden_size"), f.size("linear_num_heads"), f.size("linear_head_dim")
    kernel, inner = f.size("linear_conv_kernel_dim"), heads * head_dim
    low, full = head_dim * (hidden + inner), hidden * inner
    decay = low if low_rank else full
    gate = low if low_rank and not f.flag("use_full_rank_gate") else full
    return (
        Recurrence(
            layers=layers,
            heads=heads,
            parameters=4 * hidden * inner + hidden * heads + decay + gate + 3 * kernel * inner,
            inner_dim=inner,
            state=inner * head_dim,
            state_bits=_STATE_BITS,
            convolution_state=3 * inner * (kernel - 1),
            matmul_flops=_DELTA_FLOPS,
        ),
        inner + heads + head_dim,  # the bias of the decay, A; the gated norm, shared by the heads
    )


def _rwkv7(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """RWKV-7 (arXiv:2503.14456): r, k, v and out; decay, in-context rate, value mix and gate of low rank.

    The first layer has no value mix, so the weights are a mean. A layer keeps the last token of both of its mixers.
    """
    hidden, head_dim = f.size("hidden_size"), f.size("head_dim")
    if hidden % head_dim:
        raise f.error("head_dim", f"a divisor of the hidden size {hidden}", head_dim)
    decay, rate, gate = (f.size(f"{name}_low_rank_dim") for name in ("decay", "a", "gate"))
    mixed = f.size("v_low_rank_dim") * (layers - 1) / layers
    # Six shifts of the token mixer and one of the channel mixer; k_k, k_a, r_k; biases of decay and rate; the norm.
    vectors = 7 * hidden + 3 * hidden + 2 * hidden + hidden * (layers - 1) / layers
    vectors += hidden * (1 + f.flag("norm_bias"))
    return (
        Recurrence(
            layers=layers,
            heads=hidden // head_dim,
            parameters=4 * hidden * hidden + 2 * hidden * (decay + rate + gate + mixed),
            inner_dim=hidden,
            state=hidden * head_dim,
            state_bits=_STATE_BITS,
            convolution_state=2 * hidden,
            matmul_flops=_DELTA_FLOPS,
        ),
        vectors,
    )


def _short_convolution(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Gated short convolution (LFM2, arXiv:2511.23404): two gates and the input from one projection; no other state."""
    hidden, kernel, bias = f.size("hidden_size"), f.size("conv_L_cache"), f.flag("conv_bias")
    return (
        Recurrence(
            layers=layers,
            heads=hidden,
            parameters=4 * hidden * hidden + kernel * hidden,
            inner_dim=hidden,
            convolution_state=hidden * (kernel - 1),
        ),
        5 * hidden * bias,
    )


def _rg_lru(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Real-gated linear recurrent unit (Griffin, arXiv:2402.19427): two branches, gates of one block per head."""
    hidden, heads, kernel = f.size("hidden_size"), f.size("num_attention_heads"), f.size("conv1d_width")
    inner = f.optional_size("lru_width") or hidden
    if inner % heads:
        raise f.error("lru_width", f"a multiple of the {heads} heads", inner)
    return (
        Recurrence(
            layers=layers,
            heads=heads,
            parameters=3 * hidden * inner + kernel * inner + 2 * inner * inner // heads,
            inner_dim=inner,
            state=inner,
            state_bits=_STATE_BITS,
            convolution_state=inner * (kernel - 1),
            vector_flops=_GATED_UNIT_FLOPS,
            exponentials=3,
        ),
        6 * inner
        + hidden,  # biases of two branches, convolution and gates; the decay; the bias of the output
    )


RECURRENCES: dict[str, Callable[[Fields, int], tuple[Recurrence, float]]] = {
    "gated_delta": _gated_delta,
    "jamba": functools.partial(_mamba1, norms=True),
    "kda": functools.partial(_kda, low_rank=True),
    "kda_full_gates": functools.partial(_kda, low_rank=False),
    "lightning": _lightning,
    "mamba1": functools.partial(_mamba1, norms=False),
    "mamba2": _mamba2,
    "rg_lru": _rg_lru,
    "rwkv7": _rwkv7,
    "short_convolution": _short_convolution,
}
