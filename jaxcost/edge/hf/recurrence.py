"""Recurrent layers: weights, state and FLOPs of each kind.

FLOPs are per state element and token, with a multiplication and an addition as two. They are matmul FLOPs where the
algorithm has a chunked form for matrix engines (state-space duality, arXiv:2405.21060; lightning attention,
arXiv:2401.04658; the gated delta rule, arXiv:2412.06464), else element-wise FLOPs.
"""

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


def _mamba2(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Mamba-2 (arXiv:2405.21060): x, z, B, C and dt from one projection."""
    hidden, heads, head_dim = f.size("hidden_size"), f.size("mamba_num_heads"), f.size("mamba_head_dim")
    state, groups, kernel = f.size("ssm_state_size"), f.size("n_groups"), f.size("conv_kernel")
    inner = heads * head_dim
    if heads % groups:
        raise f.error("n_groups", f"a divisor of the {heads} heads", groups)
    expand = f.optional_size("expand") if f.name("mamba_num_heads") == "num_heads" else None
    if expand is not None and expand * hidden != inner:
        raise f.error("expand", f"heads x head_dim / hidden_size = {inner} / {hidden}", expand)
    convolved = inner + 2 * groups * state
    projected = inner + convolved + heads
    vectors = 3 * heads + inner  # A, D, the bias of dt; the gated norm
    vectors += convolved * f.flag("use_conv_bias") + (projected + hidden) * f.flag("use_bias")
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


def _mamba1(f: Fields, layers: int) -> tuple[Recurrence, float]:
    """Mamba-1 as in Jamba (arXiv:2403.19887), with norms on dt, B and C."""
    hidden, state, kernel = f.size("hidden_size"), f.size("mamba_d_state"), f.size("mamba_d_conv")
    inner = f.size("mamba_expand") * hidden
    automatic = f.given("mamba_dt_rank") == "auto"
    rank = math.ceil(hidden / 16) if automatic else f.size("mamba_dt_rank")
    selected = rank + 2 * state
    vectors = inner * (state + 2) + selected  # A; D and the bias of dt; three norms
    vectors += inner * f.flag("mamba_conv_bias")
    return (
        Recurrence(
            layers=layers,
            heads=inner,
            parameters=hidden * 2 * inner + kernel * inner + inner * selected + rank * inner + inner * hidden,
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


RECURRENCES: dict[str, Callable[[Fields, int], tuple[Recurrence, float]]] = {
    "gated_delta": _gated_delta,
    "lightning": _lightning,
    "mamba1": _mamba1,
    "mamba2": _mamba2,
}
