"""The tokens that the measured rank of an expert-parallel group receives, with the synthetic routing of benchmarks.

Symbols: T tokens of the group, E experts of which each token picks k, n ranks of E / n experts each.

Benchmarks of grouped matmuls replace the router by synthetic routing:

- balanced: token t picks the experts (t + j ceil(E / k)) mod E, j = 0 .. k - 1, with few tokens spread over all
  starts; rank 0 is measured.
- power law: the T k picks are shared out by draws from a density x^-a and rounded, at most T per expert. The picks
  left over by rounding go to the expert with the fewest picks of each rank in turn (missing ones come from the expert
  with the most). The rank with the most picks is measured: it has more rows and fewer distinct experts than average.

The random seeds of the benchmarks are unknown, so averages over a few draws with a fixed seed take their place.
"""

import dataclasses
import functools

import numpy as np

from jaxcost.spec.measurement import Measurements

__all__ = ["Rank", "measured_rank", "routing"]

_DRAWS = 12
_BATCHES = (
    5  # batches of different draws that a benchmark runs alternately, so that they share the last-level cache
)
_EVERY = 3  # draws between the first batches of two such sets
_LEAST = 0.02  # rows, or experts, of a rank without picks
_TOP = 0.8  # upper end of the drawn numbers, as a share of the tokens
_BULK = 64  # left-over picks above which a quarter of the experts is changed at once


@dataclasses.dataclass(frozen=True)
class Rank:
    """The load of the measured rank, on average over the draws.

    Attributes:
        rows: pairs of a token and one of the rank's experts.
        experts: distinct experts of the rank that one batch picks.
        reached: distinct experts that all alternating batches pick.
        tokens: tokens that pick an expert of the rank.
    """

    rows: float
    experts: float
    reached: float
    tokens: float


@functools.lru_cache(maxsize=4096)
def measured_rank(tokens: int, experts: int, top_k: int, ranks: int, skew: float) -> Rank:
    """Route tokens as benchmarks do, and return the load of the measured rank.

    Args:
        tokens: tokens of the group.
        experts: experts of all ranks.
        top_k: experts per token.
        ranks: ranks of the group, a divisor of the experts.
        skew: exponent of the power law; 0 for balanced routing.
    """
    if skew == 0:
        drawn = [_balanced(tokens, experts, top_k, ranks)]
    else:
        rng = np.random.default_rng(tokens * 7919 + experts * 31 + top_k * 7 + ranks)
        drawn = [_uneven(tokens, experts, top_k, ranks, skew, rng) for _ in range(_DRAWS)]
    picked = np.stack([counts for counts, _ in drawn])
    distinct = (picked > 0).sum(1).mean()
    together = [
        (picked[(first + np.arange(_BATCHES)) % len(drawn)].sum(0) > 0).sum()
        for first in range(0, len(drawn), _EVERY)
    ]
    return Rank(
        rows=float(picked.sum(1).mean()),
        experts=float(distinct),
        reached=float(max(np.mean(together), distinct)),
        tokens=float(np.mean([seen for _, seen in drawn])),
    )


def routing(measured: Measurements) -> dict[str, np.ndarray]:
    """Return the columns of `MixtureWork` that depend on routing, [R] each, of measurements of the family "mixture".

    `reached` counts the distinct experts of all alternating batches. With expert parallelism, SGLang up to 0.5.10
    multiplied all k rows of a token with an expert on the rank, those of remote experts with one more local expert.
    vLLM passes all tokens of the group to the kernels of every rank, so that all T k are slots.
    """
    work = measured.work
    names = ("tokens", "experts", "top_k", "expert_parallel")
    ranks = [
        measured_rank(*(int(x) for x in row), float(skew))
        for *row, skew in zip(*(work[name] for name in names), work["skew"], strict=True)
    ]
    rows, experts, reached, tokens = np.array([dataclasses.astuple(rank) for rank in ranks]).T
    held = work["experts"] / work["expert_parallel"]
    everything = (measured.labels["library"] == "sglang") & (measured.labels["version"] == "0.5.10")
    everything = everything.astype(bool) & (work["expert_parallel"] > 1)
    rows = np.maximum(np.where(everything, tokens * work["top_k"], rows), _LEAST)
    experts = np.maximum(np.where(everything, np.minimum(experts + 1, held), experts), _LEAST)
    tokens = np.where((measured.labels["library"] == "vllm").astype(bool), work["tokens"], tokens)
    return {
        "rows": rows,
        "experts": experts,
        "reached": np.maximum(reached, experts),
        "held": held,
        "slots": np.maximum(tokens * work["top_k"], rows),
    }


def _balanced(tokens: int, experts: int, top_k: int, ranks: int) -> tuple[np.ndarray, int]:
    """Count the picks of each expert of rank 0, and the tokens that pick any of them."""
    stride = -(-experts // top_k)
    first = np.arange(tokens)
    if tokens < stride:
        first = first * stride / tokens
    picks = (first[:, None] + np.arange(top_k) * stride).astype(int) % experts
    local = experts // ranks
    return np.bincount(picks.ravel(), minlength=experts)[:local], int((picks < local).any(1).sum())


def _uneven(
    tokens: int, experts: int, top_k: int, ranks: int, skew: float, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Count the picks of each expert of the rank with the most, and the tokens that pick any of them."""
    picks = tokens * top_k
    low, high = (1.0, max(tokens * _TOP, 1.0001)) if picks > experts else (0.01, 2.0)
    uniform = rng.random(experts)
    if skew == 1:
        drawn = low * (high / low) ** uniform
    else:
        power = 1 - skew
        drawn = ((high**power - low**power) * uniform + low**power) ** (1 / power)
    counts = np.minimum(np.round(drawn / drawn.sum() * picks), tokens).astype(int).reshape(ranks, -1)
    _settle(counts, picks, tokens)
    fullest = counts.sum(1).argmax()
    # Benchmarks assign tokens to the experts in the order of their picks, one block of tokens per expert.
    every = counts.ravel()
    taken = np.repeat(np.argsort(-every, kind="stable"), np.sort(every)[::-1])
    seen = tokens
    if len(taken) == picks:
        ours = taken.reshape(top_k, tokens) // counts.shape[1] == fullest
        seen = int(ours.any(0).sum())
    return counts[fullest], seen


def _settle(counts: np.ndarray, picks: int, most: int) -> None:
    """Add or remove picks in place, one per rank in turn, until their number is `picks`."""
    left = picks - counts.sum()
    while left != 0:
        more = left > 0
        if len(counts) == 1 and abs(left) > _BULK:
            order = np.argsort(counts[0])
            order = order[counts[0][order] < most] if more else order[::-1][counts[0][order[::-1]] > 0]
            order = order[: max(len(order) // 4, 1)]
            counts[0][order] += np.sign(left)
            left -= np.sign(left) * len(order)
            continue
        rank = np.arange(min(len(counts), abs(left)))
        expert = counts[rank].argmin(1) if more else counts[rank].argmax(1)
        can = counts[rank, expert] < most if more else counts[rank, expert] > 0
        if not can.any():
            break
        counts[rank[can], expert[can]] += np.sign(left)
        left -= np.sign(left) * can.sum()
