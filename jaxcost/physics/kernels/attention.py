"""How an attention kernel goes through its work: tiles of queries, splits of the keys, rounds of tasks.

Symbols: B sequences, q new queries of each, L keys of each (the new ones too), h query and g key heads, W the window,
d_k + d_v widths of a key and a value; c cores. A task is one tile of queries over one split of the keys.

    tiles    of `rows` queries, the h / g heads of a key head packed into one tile or not
    splits   = max(1, min(fill c / tasks, most, keys / block)):  as many as fill the cores
    stream   = rounds x (prologue + keys of a task x bytes of a key / (core x bandwidth / c))
    math     = pairs (padded to tiles) x (2 (d_k + d_v) / (peak matmul) + 1 / exponentials), in whole rounds
    seconds  = launch + reduce (if split) + S(bytes / bandwidth, stream + math)

A round counts as whole to the power `waves`. With an ideal kernel this is max(bytes / bandwidth, FLOPs / peak).
"""

from typing import Any

import jax.numpy as jnp

from jaxcost.core.arrays import clip, where
from jaxcost.core.pytree import Scalar, field, pytree
from jaxcost.physics.kernels.matmul import KernelTiming, Machine, shares_of_cache
from jaxcost.spec.kernels import UNLIMITED, AttentionKernel

__all__ = ["AttentionWork", "attention_bytes", "attention_timing"]

_SHARPNESS = 6.0  # of the fall of the cache's share: from 73% to 27% between 0.85 and 1.18 of its capacity
_UNITS = 16.0  # exponentials a cycle and core, by which the cycles of all cores are known
_WHOLE = 1e-3  # of a task: what a quotient of whole numbers may be off by


@pytree
class AttentionWork:
    """The queries and keys of one run of a kernel."""

    sequences: Scalar = field("1", "sequences B")
    queries: Scalar = field("token", "new queries q of each")
    keys: Scalar = field("token", "keys L of each, the new ones too")
    heads: Scalar = field("1", "query heads h")
    kv_heads: Scalar = field("1", "key heads g")
    window: Scalar = field("token", "keys that a query sees; 0 for all")
    key_dim: Scalar = field("1", "width d_k of a key")
    value_dim: Scalar = field("1", "width d_v of a value")
    row_bytes: Scalar = field("B", "bytes of one key and value of one head")
    query_bytes: Scalar = field("B", "bytes of an element of a query")
    replayed: Scalar = field(
        "1", "1 where the same data were read the run before, 0 within a model", default=0.0
    )


def attention_bytes(work: AttentionWork) -> Any:
    """Count the bytes that must move: keys and values in sight, queries and outputs."""
    return sum(_bytes(work))


def attention_timing(machine: Machine, kernel: AttentionKernel, work: AttentionWork) -> KernelTiming:
    """Time attention; `machine.rate` is the matmul peak at the bits it computes in."""
    q, length, window = work.queries, work.keys, _window(work)
    past = length - q
    growing = clip(window - past, 0, q)
    masked = growing * past + growing * (growing + 1) / 2 + (q - growing) * jnp.minimum(window, length)
    everything = q * past + q * (q + 1) / 2
    pairs = masked + kernel.unskipped * (everything - masked)
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

    key_seconds = work.row_bytes * machine.cores / (machine.bandwidth * kernel.core)
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
    kept = work.replayed * shares_of_cache(moved, kernel.capacity * machine.cache, _SHARPNESS)
    in_cache = machine.exponentials / _UNITS * kernel.cache / machine.bandwidth
    return KernelTiming(
        fixed=kernel.launch + kernel.reduce * jnp.minimum(splits - 1, 1),
        bandwidth_overhead=moved
        / (_bytes(work)[0] + ends)
        * ((1 - kept) / kernel.memory + kept / jnp.maximum(kernel.memory, in_cache)),
        busy=stream + math,
        serial=kernel.serial,
    )


def _bytes(work: AttentionWork, pad: Scalar = 0.0) -> tuple[Scalar, Scalar]:
    """Bytes of keys and values, and those of queries and outputs."""
    reach = jnp.minimum(jnp.minimum(work.keys, _window(work) + work.queries - 1) + pad, work.keys)
    ends = work.key_dim * work.query_bytes + work.value_dim * 2
    return (
        work.sequences * work.kv_heads * reach * work.row_bytes,
        work.sequences * work.heads * work.queries * ends,
    )


def _window(work: AttentionWork) -> Scalar:
    return where(work.window > 0, work.window, UNLIMITED)


def _rounds(x: Scalar, waves: Scalar) -> Scalar:
    """Rounds x, as many as whole ones to the power `waves`: 0 as a fluid, 1 whole."""
    whole = jnp.ceil(x - _WHOLE)
    some = whole > 0
    # Less than a thousandth of a round is none; a power of 0 has no slope.
    return x * where(some, (where(some, whole, 1) / x) ** waves, where(waves > 0, 0, 1))
