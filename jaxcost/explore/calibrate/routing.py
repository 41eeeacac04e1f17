"""The tokens that the measured rank of an expert-parallel group gets: routing as benchmarks of kernels draw it.

Symbols: T tokens of the group, E experts of which each token picks k, n ranks of E / n experts each.

Benchmarks of grouped matmuls make up the router's choice. Balanced, the picks of token t are the experts
(t + j ceil(E / k)) mod E, j = 0 .. k - 1 (few tokens are spread over all starts), and rank 0 is measured. By a power
law, shares of the T k picks are drawn from a density x^-a, rounded to at most T tokens an expert, what rounding left
goes round the ranks to (from) the expert with the fewest (the most), and the rank with the most picks is measured:
its rows are more than the average rank's, its distinct experts fewer. The seeds of such draws are not known, so
averages over a few draws of our own stand in; they are the same every time.
"""

import dataclasses
import functools

import numpy as np

from jaxcost.spec.measurement import Measurements

__all__ = ["Rank", "measured_rank", "routing"]

_DRAWS = 12
_TURNS = 5  # batches of different draws that are run in turn, and so share the last-level cache
_EVERY = 3  # draws from one set of turns to the next
_LEAST = 0.02  # rows, or experts, of a rank that draws left without any
_TOP = 0.8  # of the tokens: the largest of the numbers that shares are drawn as
_BULK = 64  # picks left over by rounding above which a quarter of the experts is changed at once


@dataclasses.dataclass(frozen=True)
class Rank:
    """What the measured rank gets, on average over the draws.

    Attributes:
        rows: pairs of a token and one of the rank's experts.
        experts: distinct experts of the rank that are picked.
        reached: the same of all batches that run in turn.
        tokens: tokens that pick an expert of the rank.
    """

    rows: float
    experts: float
    reached: float
    tokens: float


@functools.lru_cache(maxsize=4096)
def measured_rank(tokens: int, experts: int, top_k: int, ranks: int, skew: float) -> Rank:
    """Route tokens as benchmarks do, and return what the measured rank gets.

    Args:
        tokens: of the group.
        experts: of all ranks.
        top_k: experts of a token.
        ranks: of the group; they divide the experts.
        skew: exponent of the power law; 0 for balanced.
    """
    if skew == 0:
        drawn = [_balanced(tokens, experts, top_k, ranks)]
    else:
        rng = np.random.default_rng(tokens * 7919 + experts * 31 + top_k * 7 + ranks)
        drawn = [_uneven(tokens, experts, top_k, ranks, skew, rng) for _ in range(_DRAWS)]
    picked = np.stack([counts for counts, _ in drawn])
    distinct = (picked > 0).sum(1).mean()
    turns = [
        (picked[(first + np.arange(_TURNS)) % len(drawn)].sum(0) > 0).sum()
        for first in range(0, len(drawn), _EVERY)
    ]
    return Rank(
        rows=float(picked.sum(1).mean()),
        experts=float(distinct),
        reached=float(max(np.mean(turns), distinct)),
        tokens=float(np.mean([seen for _, seen in drawn])),
    )


def routing(measured: Measurements) -> dict[str, np.ndarray]:
    """Return the columns of `MixtureWork` that depend on routing, of measurements of the family "mixture".

    `reached` are the distinct experts of all batches that run in turn. SGLang up to 0.5.10 multiplied, on several
    ranks, all slots of a token that has an expert on the rank, those held elsewhere with the weights of one more.
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
    own = experts // ranks
    return np.bincount(picks.ravel(), minlength=experts)[:own], int((picks < own).any(1).sum())


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
    # Tokens take the experts in the order of their picks, each in a block of its own.
    every = counts.ravel()
    taken = np.repeat(np.argsort(-every, kind="stable"), np.sort(every)[::-1])
    seen = tokens
    if len(taken) == picks:
        ours = taken.reshape(top_k, tokens) // counts.shape[1] == fullest
        seen = int(ours.any(0).sum())
    return counts[fullest], seen


def _settle(counts: np.ndarray, picks: int, most: int) -> None:
    """Add or take picks, in place, until there are as many as there must be: a pick a rank in turn."""
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
