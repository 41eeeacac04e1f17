"""The timing of attention kernels: tiles of queries, splits of the keys, and waves of tasks over the cores.

Symbols: B sequences, q new queries of each, L keys of each (new ones included), h query and g key heads, W the window,
d_k + d_v widths of a key and a value; c cores. A task is one tile of queries over one split of the keys. A round is a
wave of tasks, one per slot of every core.

    tiles    of `rows` queries, the h / g heads of a key head packed into one tile or not
    splits   = max(1, min(fill c / tasks, most, keys / block)):  enough to fill the cores
    stream   = rounds x (prologue + keys of a task x bytes of a key / (core x clock))
    math     = pairs (padded to tiles) x (2 (d_k + d_v) / (peak matmul) + 1 / exponentials), in whole rounds
    convert  = bytes of all keys / (convert x c x clock): a kernel before, which widens the cache to 16 bits
    seconds  = launch + reduce (if split) + convert + S(bytes / bandwidth, stream + math)

The clock is that of the special function units, of which a core has 16. A task streams a few bytes per cycle, as many
as it has in flight over the latency of memory, whatever the bandwidth of the chip. The exponent `waves` blends between
a fractional (0) and a whole (1) number of rounds. With an ideal kernel this is max(bytes / bandwidth, FLOPs / peak).
"""

from typing import Any

import jax.numpy as jnp

from jaxcost.core.arrays import clip, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.kernels.matmul import KernelTiming, Machine, cached_share
from jaxcost.spec.kernels import UNLIMITED, AttentionKernel

__all__ = ["AttentionWork", "attention_bytes", "attention_timing"]

_SHARPNESS = 6.0  # the cached share falls from 73% to 27% between 0.85 and 1.18 of the cache's capacity
_UNITS = 16.0  # exponentials per cycle and core, from which the cycles of all cores follow
_WHOLE = 1e-3  # of a task: tolerance of a quotient of whole numbers


@pytree
class AttentionWork:
    """The queries and keys of one kernel run."""

    sequences: Scalar = field("1", "sequences B")
    queries: Scalar = field("token", "new queries q of each sequence")
    keys: Scalar = field("token", "keys L of each sequence, new ones included")
    heads: Scalar = field("1", "query heads h")
    kv_heads: Scalar = field("1", "key heads g")
    window: Scalar = field("token", "keys that a query attends to; 0 for all")
    key_dim: Scalar = field("1", "width d_k of a key")
    value_dim: Scalar = field("1", "width d_v of a value")
    row_bytes: Scalar = field("B", "bytes of one key and value of one head")
    query_bytes: Scalar = field("B", "bytes of an element of a query")
    replayed: Scalar = field(
        "1", "1 where a benchmark repeats the run on the same data, 0 within a model", default=0.0
    )


def attention_bytes(work: AttentionWork) -> Any:
    """Count the bytes that must move: keys and values within the window, queries and outputs."""
    return sum(_bytes(work))


def attention_timing(machine: Machine, kernel: AttentionKernel, work: AttentionWork) -> KernelTiming:
    """Time attention by the module's equations; `machine.rate` is the matmul peak at its compute precision."""
    q, length, window = work.queries, work.keys, _window(work)
    past = length - q
    growing = clip(window - past, 0, q)
    masked = growing * past + growing * (growing + 1) / 2 + (q - growing) * jnp.minimum(window, length)
    causal = q * past + q * (q + 1) / 2
    pairs = masked + kernel.unskipped * (causal - masked)
    pairs = jnp.minimum(pairs + q * kernel.pad, q * length)
    longest = jnp.minimum(jnp.minimum(length, window + kernel.rows - 1) + kernel.pad, length)
    longest = longest + kernel.unskipped * (length - longest)

    group = work.heads / work.kv_heads
    together = group ** where(work.window > 0, kernel.packed_window, kernel.packed)
    tiles = jnp.ceil(q * together / kernel.rows - _WHOLE) * (group / together)
    tasks = work.sequences * work.kv_heads * tiles
    seen = length ** (1 - kernel.aware) * jnp.minimum(length, window) ** kernel.aware
    splits = jnp.minimum(jnp.minimum(kernel.fill * machine.cores / tasks, kernel.splits), seen / kernel.block)
    splits = jnp.maximum(1, splits)
    tasks = tasks * splits

    cycles = machine.exponentials / _UNITS  # of all cores, per second
    key_seconds = work.row_bytes * machine.cores / (kernel.core * cycles)
    first = kernel.prologue + longest / splits * key_seconds
    each = kernel.prologue + pairs / q / splits * key_seconds
    stream = jnp.maximum(
        first, jnp.maximum(1, _rounds(tasks / (kernel.slots * machine.cores), kernel.waves)) * each
    )

    pair = 2 * (work.key_dim + work.value_dim) / (machine.rate * kernel.matmul) + 1 / (
        machine.exponentials * kernel.exponentials
    )
    padded = jnp.maximum(1, kernel.rows * tiles / (q * group))
    filled = _rounds(tasks / machine.cores, kernel.waves) / (tasks / machine.cores)
    alone = kernel.rows * longest / splits * pair * machine.cores
    math = jnp.maximum(alone, work.sequences * work.heads * pairs * padded * pair * filled)

    cached, ends = _bytes(work, kernel.pad)
    moved = cached * kernel.traffic + ends * kernel.traffic_ends
    kept = work.replayed * cached_share(moved, kernel.capacity * machine.cache, _SHARPNESS)
    in_cache = cycles * kernel.cache / machine.bandwidth
    converting = _bytes(work)[0] / (kernel.convert * cycles)
    return KernelTiming(
        fixed=kernel.launch + kernel.reduce * jnp.minimum(splits - 1, 1) + converting,
        bandwidth_overhead=moved
        / (_bytes(work)[0] + ends)
        * ((1 - kept) / kernel.memory + kept / jnp.maximum(kernel.memory, in_cache)),
        busy=stream + math,
        serial=kernel.serial,
    )


def _bytes(work: AttentionWork, pad: Scalar = 0.0) -> tuple[Scalar, Scalar]:
    """Return the bytes of keys and values, and those of queries and outputs."""
    reach = jnp.minimum(jnp.minimum(work.keys, _window(work) + work.queries - 1) + pad, work.keys)
    ends = work.key_dim * work.query_bytes + work.value_dim * 2
    return (
        work.sequences * work.kv_heads * reach * work.row_bytes,
        work.sequences * work.heads * work.queries * ends,
    )


def _window(work: AttentionWork) -> Scalar:
    return where(work.window > 0, work.window, UNLIMITED)


def _rounds(x: Scalar, waves: Scalar) -> Scalar:
    """Return the effective number of rounds: x for waves = 0, ceil(x) for waves = 1."""
    whole = jnp.ceil(x - _WHOLE)
    some = whole > 0
    # Less than a thousandth of a round counts as none, since 0 to a power has no finite gradient.
    return x * where(some, (where(some, whole, 1) / x) ** waves, where(waves > 0, 0, 1))
