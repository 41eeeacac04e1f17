"""The timing of kernels of routed experts: grouped matmuls, with a permutation before and after.

Symbols: of one rank, r rows (token-expert pairs that it multiplies), e distinct experts that they reach, H local
experts, s slots (tokens with a local expert, times the experts per token); h hidden and i inner width, n matrices (3
with a gate), w and a bytes of a weight and of an activation; P peak, W bandwidth of memory.

    tile     = rows min(max(s / H, 16) / rows, 1)^adapt     rows of a tile
    filled   = S(r, e tile, padding)                        rows, padding of tiles included
    busy     = 2 filled ((n - 1) i (h + depth) + h (i + depth)) / (P matmul)
    kept     = 1 / (1 + (weights of all reached / (resident cache))^4)   share of cached weights in repeated runs
    moved    = e n h i w (1 - kept + kept / cache) + r (2 h + n i) a
    fixed    = launch + expert H + passes (r + remote_fraction (s - r)) (2 h + n i) 2 B / W
    seconds  = fixed + S(moved / (W memory), busy, serial)

`matmul` and W's share `memory` are lower where the library has no tile sizes that are tuned to the shape. Where all
experts have equally many rows, as in some benchmarks, tiles are full and `padding` is 0.

`moved` without `kept` is that of the roofline. The passes are over 16-bit activations, which permutation, activation
function, quantization and weighted sum read and write. With an ideal kernel this is max(bytes / W, FLOPs / P).
"""

from typing import Any

import jax.numpy as jnp

from jaxcost.core import smooth
from jaxcost.core.arrays import where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.kernels.matmul import KernelTiming, Machine, cached_share
from jaxcost.spec.kernels import MixtureKernel

__all__ = ["MixtureWork", "mixture_bytes", "mixture_flops", "mixture_timing"]

_SHARPNESS = 4.0  # the cached share falls from 74% to 26% between 0.77 and 1.3 of the cache's capacity
_LEAST_TILE = 16.0  # rows of the smallest tile of tensor cores
_PASSED = 2.0  # bytes of an activation between kernels


@pytree
class MixtureWork:
    """The work of one rank in a layer of routed experts."""

    rows: Scalar = field("1", "pairs of a token and one of its experts that the rank multiplies")
    experts: Scalar = field("1", "distinct experts that the rows reach")
    held: Scalar = field("1", "local experts of the rank")
    slots: Scalar = field("1", "tokens with an expert on the rank, times the experts per token")
    hidden: Scalar = field("1", "width of the residual stream")
    inner: Scalar = field("1", "width of (the held part of) an expert")
    weight_bytes: Scalar = field("B", "bytes of a weight, scales included")
    activation_bytes: Scalar = field("B", "bytes of an activation as the matmul takes it")
    matrices: Scalar = field("1", "matrices of an expert: 3 with a gate, 2 without", default=3.0)
    replayed: Scalar = field(
        "1",
        "distinct experts of all alternating runs that share the cache; 0 within a model, where no weights stay cached",
        default=0.0,
    )
    even: Scalar = field(
        "1", "1 where all reached experts have equally many rows, 0 where routing is random", default=0.0
    )
    untuned: Scalar = field(
        "1", "1 where the library has no tile sizes that are tuned to the shape, else 0", default=0.0
    )


def mixture_bytes(work: MixtureWork) -> Any:
    """Count the bytes that must move: weights of the reached experts, inputs, intermediates and outputs."""
    return _weights(work) + work.rows * _row(work) * work.activation_bytes


def mixture_flops(work: MixtureWork) -> Any:
    """Count the matmul FLOPs of the rows."""
    return 2 * work.rows * work.matrices * work.hidden * work.inner


def mixture_timing(machine: Machine, kernel: MixtureKernel, work: MixtureWork) -> KernelTiming:
    """Time routed experts by the module's equations; `machine.rate` is the matmul peak at their compute precision."""
    wanted = jnp.maximum(smooth.safe_div(work.slots, work.held), _LEAST_TILE)
    tile = kernel.rows * jnp.minimum(smooth.safe_div(wanted, kernel.rows, 1.0), 1) ** kernel.adapt
    filled = smooth.maximum(work.rows, work.experts * tile, kernel.padding * (1 - work.even))
    up = (work.matrices - 1) * work.inner * (work.hidden + kernel.depth)
    down = work.hidden * (work.inner + kernel.depth)
    reached = smooth.safe_div(work.replayed, work.experts) * _weights(work)
    kept = where(work.replayed > 0, cached_share(reached, kernel.resident * machine.cache, _SHARPNESS), 0)
    weights = smooth.safe_div(_weights(work), mixture_bytes(work))
    moved = work.rows + kernel.remote_fraction * (work.slots - work.rows)
    passed = kernel.passes * moved * _row(work) * _PASSED / machine.bandwidth
    memory = kernel.memory * (1 - work.untuned * (1 - kernel.untuned_memory))
    matmul = kernel.matmul * (1 - work.untuned * (1 - kernel.untuned_matmul))
    return KernelTiming(
        fixed=kernel.launch + kernel.expert * work.held + passed,
        bandwidth_overhead=(1 - weights * kept * (1 - 1 / kernel.cache)) / memory,
        busy=2 * filled * (up + down) / (machine.rate * matmul),
        serial=kernel.serial,
    )


def _weights(work: MixtureWork) -> Any:
    return work.experts * work.matrices * work.hidden * work.inner * work.weight_bytes


def _row(work: MixtureWork) -> Any:
    return 2 * work.hidden + work.matrices * work.inner
