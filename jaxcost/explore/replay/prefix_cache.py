"""Hits of an LRU prefix cache of any capacity, from stack distances that are computed once.

A request looks up the leading blocks of its prompt, then touches all its blocks from the last to the first, so that the
head of a prompt is evicted last. An LRU cache of C blocks has the C blocks touched last, whatever C is. So a block is
found if at most C different blocks, itself included, were touched since its last touch: its stack distance. Blocks
that an output completes are touched with those of the prompt, before the answer is complete, where the trace has them.
Source: Mattson et al. 1970, Evaluation techniques for storage hierarchies (doi:10.1147/sj.92.0078).
"""

import dataclasses
from typing import Any

import numpy as np

from jaxcost.spec.trace import Trace

__all__ = ["NEVER", "PrefixCache", "hit_curve", "hit_tokens", "stack_distances"]

NEVER = np.iinfo(np.int64).max
"""Stack distance of a block that its replica has not served before."""


@dataclasses.dataclass(frozen=True)
class PrefixCache:
    """Memory that keeps the KV blocks of earlier prompts, with LRU eviction.

    Capacities are scalars or arrays [designs]; infinity is allowed. Blocks that the first tier evicts move to the
    slower tier, if there is one, and come back when they are touched.
    """

    capacity_tokens: Any
    """Capacity of the first tier, tokens a replica."""
    slow_capacity_tokens: Any = 0.0
    """Capacity of the slower tier behind it, tokens a replica; 0 for none."""
    load_seconds: Any = 0.0
    """Time to read one token from the slower tier, s."""
    shared: bool = False
    """Whether one cache serves all replicas; the capacities are then its own."""

    def hits(self, trace: Trace, assignment: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the prompt tokens found in both tiers together, and those of them that the slower tier has.

        Both are int64 [n, *designs]. `assignment` has the replica of each request (see `assign`), None for one
        replica.

        Raises:
            ValueError: the trace has no block ids and a capacity is finite, or replicas have caches of their own.
        """
        distances = stack_distances(trace, None if self.shared else assignment)
        fast, both = np.broadcast_arrays(
            np.asarray(self.capacity_tokens, np.float64),
            np.asarray(self.capacity_tokens, np.float64) + np.asarray(self.slow_capacity_tokens, np.float64),
        )
        total = hit_tokens(trace, distances, both)
        return total, total - hit_tokens(trace, distances, fast)


def stack_distances(trace: Trace, assignment: Any = None) -> np.ndarray:
    """Return the stack distance of every block of the trace when its request looks it up, int64 [blocks].

    A distance counts blocks, at least 1, and is `NEVER` at the first use. Within a request it is the largest of the
    block and of those before it, as a prefix ends at its first missing block. `assignment` has the replica [n] of each
    request, None for one replica; requests of a replica look up in the order of arrival. Time is O(b log b) for b
    blocks.

    Raises:
        ValueError: the trace has no block ids and the assignment has more than one replica.
    """
    n = trace.requests
    replica = np.zeros(n, np.int64) if assignment is None else np.asarray(assignment, np.int64)
    if replica.shape != (n,):
        raise ValueError(f"the assignment has shape {replica.shape}; ({n},) is expected")
    if not trace.block_tokens:
        if len(np.unique(replica)) > 1:
            raise ValueError(
                f"trace {trace.name!r} has no block ids: hits of one infinite cache are known, not those of a cache "
                "in every replica; use PrefixCache(shared=True) for one cache that all replicas share"
            )
        return np.zeros(0, np.int64)
    blocks, offsets = trace.cached_blocks
    counts = np.diff(offsets)
    # Touches in order: replica by replica, so that no touch of another replica lies between two of one.
    order = np.argsort(replica, kind="stable")
    owner = np.repeat(np.arange(n), counts[order])
    start = np.concatenate([[0], np.cumsum(counts[order])])
    place = np.arange(len(owner))
    # Entry of `blocks` that each touch refers to: the last block of a request first.
    entry = offsets[order][owner] + (start[1:][owner] - 1 - place)
    _, key = np.unique(blocks[entry], return_inverse=True)
    previous = _previous(key * (int(replica.max(initial=0)) + 1) + replica[order][owner])
    # Blocks touched in [p, q) with p the previous touch and q the start of the request: q - p touches, less those of
    # a block that the interval has touched already, whose previous touch is at p or later.
    seen = np.flatnonzero((previous >= 0) & (previous < start[owner]))
    p, q = previous[seen], start[owner[seen]]
    distance = np.full(len(owner), NEVER)
    distance[seen] = q - p - _count_at_least(previous, q, p)
    if (previous >= start[owner]).any():  # a block occurs twice in one prompt: both were looked up together
        _, earliest, same = np.unique(owner * len(owner) + key, return_index=True, return_inverse=True)
        distance = distance[earliest[same]]
    out = np.empty(len(owner), np.int64)
    out[entry] = distance
    return _running_maximum(out[trace.prompt_places], trace.offsets)


def hit_tokens(trace: Trace, distances: np.ndarray, capacity: Any) -> np.ndarray:
    """Return the prompt tokens that a cache of `capacity` tokens a replica has, int64 [n, *designs].

        hit = min(leading blocks within the capacity x tokens of a block, prompt - 1)

    `capacity` is a scalar or [designs]. The last prompt token is always computed, as its output is the first token.

    Raises:
        ValueError: the trace has no block ids and a capacity is neither 0 nor infinite.
    """
    capacity = np.asarray(capacity, np.float64)
    if np.isnan(capacity).any() or (capacity < 0).any():
        raise ValueError("the capacity of a prefix cache is at least 0 tokens")
    flat = capacity.reshape(-1)
    if not trace.block_tokens:
        if (np.isfinite(flat) & (flat > 0)).any():
            raise ValueError(
                f"trace {trace.name!r} has no block ids: hits of an infinite prefix cache are known, those of "
                f"{flat[np.isfinite(flat) & (flat > 0)][0]:g} tokens are not"
            )
        hits = trace.cached[:, None] * (flat > 0)
        return hits.reshape(trace.requests, *capacity.shape)
    order = np.argsort(flat, kind="stable")
    blocks = np.floor(flat[order] / trace.block_tokens)
    known = distances != NEVER
    smallest = np.searchsorted(blocks, distances[known].astype(np.float64))  # capacity that has the block
    owner = np.repeat(np.arange(trace.requests), np.diff(trace.offsets))[known]
    shape = trace.requests, len(flat) + 1
    counts = np.bincount(owner * shape[1] + smallest, minlength=shape[0] * shape[1]).reshape(shape)
    hits = np.empty((trace.requests, len(flat)), np.int64)
    hits[:, order] = np.cumsum(counts, axis=1)[:, :-1] * trace.block_tokens
    hits = np.minimum(hits, trace.prompt[:, None] - 1)
    return hits.reshape(trace.requests, *capacity.shape)


def hit_curve(trace: Trace, capacities: Any, assignment: Any = None) -> np.ndarray:
    """Return the share of all prompt tokens that caches of these capacities (tokens a replica) have, [capacities]."""
    hits = hit_tokens(trace, stack_distances(trace, assignment), capacities)
    return hits.sum(axis=0) / trace.prompt.sum()


def _previous(keys: np.ndarray) -> np.ndarray:
    """Return the last earlier place of each key, -1 where there is none."""
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    out = np.full(len(keys), -1, np.int64)
    out[order[1:][same]] = order[:-1][same]
    return out


def _count_at_least(values: np.ndarray, end: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the number of entries of `values[:end]` that are at least `least`, for arrays of `end` and `least`.

    A wavelet matrix: one stable partition of all values by each bit, from the highest.
    """
    values, wanted = values + 1, least  # values above `wanted` are counted, all of them at least 0
    low, high = np.zeros_like(end), end.copy()
    count = np.zeros_like(end)
    for bit in reversed(range(int(values.max(initial=0)).bit_length())):
        ones = (values >> bit) & 1
        before = np.concatenate([[0], np.cumsum(ones)])
        zeros = len(values) - int(before[-1])
        low_ones, high_ones = before[low], before[high]
        into_ones = ((wanted >> bit) & 1).astype(bool)
        count += np.where(into_ones, 0, high_ones - low_ones)
        low = np.where(into_ones, zeros + low_ones, low - low_ones)
        high = np.where(into_ones, zeros + high_ones, high - high_ones)
        values = np.concatenate([values[ones == 0], values[ones == 1]])
    return count


def _running_maximum(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return the running maximum within each segment; ranks keep segments apart without overflow."""
    distinct, rank = np.unique(values, return_inverse=True)
    segment = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * len(distinct)
    return distinct[np.maximum.accumulate(segment + rank) - segment] if len(values) else values
