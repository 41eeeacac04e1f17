"""A trace in numbers: arrivals, lengths, sessions, and the hit rate of a prefix cache against its size."""

import dataclasses
from typing import Any

import numpy as np

from jaxcost.explore.replay.prefix_cache import NEVER, hit_tokens, stack_distances
from jaxcost.spec.trace import Trace

__all__ = ["LengthSummary", "TraceSummary", "summarize_trace"]

_CURVE_POINTS = 12
_NEARLY = 0.9  # share of the hits of an infinite cache


@dataclasses.dataclass(frozen=True)
class LengthSummary:
    """Tokens a request: mean, percentiles, maximum and coefficient of variation."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    cv: float


@dataclasses.dataclass(frozen=True)
class TraceSummary:
    """What `summarize_trace` computes; arrays of rates are over equal intervals of time."""

    requests: int
    span: float
    """Time from the first to the last arrival, s."""
    rate: float
    """Arrivals, 1/s; infinite where all requests arrive at once."""
    burstiness: float
    """Squared coefficient of variation of the gaps between arrivals."""
    prompt: LengthSummary
    output: LengthSummary
    correlation: float
    """Correlation coefficient of prompt and output tokens; 0 where one of them is constant."""
    sessions: int
    turns_mean: float
    turns_max: int
    cached_share: float
    """Share of all prompt tokens that an infinite prefix cache holds."""
    capacities: np.ndarray
    """Capacities of a prefix cache, tokens a replica, ascending; the last is infinite."""
    hit_rates: np.ndarray
    """Share of all prompt tokens that a cache of each capacity holds."""
    nearly_all: float
    """Smallest capacity in tokens with 90% of the hits of an infinite cache; infinite where this is unknown."""
    edges: np.ndarray
    """Ends of the intervals of time, s; there are none where all requests arrive at once."""
    arrival_rates: np.ndarray
    """Arrivals in each interval, 1/s."""
    prompt_rates: np.ndarray
    """Prompt tokens of these arrivals, token/s."""
    output_rates: np.ndarray
    """Output tokens of these arrivals, token/s."""


def summarize_trace(trace: Trace, assignment: Any = None, *, intervals: int = 48) -> TraceSummary:
    """Return statistics of a trace; `assignment` has the replica of each request, whose prefix caches are apart.

    Raises:
        ValueError: the trace has no block ids and the assignment has more than one replica.
    """
    distances = stack_distances(trace, assignment)
    capacities = _capacities(trace, distances)
    hits = hit_tokens(trace, distances, capacities).sum(axis=0)
    turns = np.unique(trace.session[trace.session >= 0], return_counts=True)[1]
    edges = np.linspace(0, trace.span, intervals + 1) if trace.span > 0 else np.zeros(1)
    rates = [
        np.histogram(trace.arrival, edges, weights=weights)[0] / np.diff(edges)
        if trace.span > 0
        else np.zeros(0)
        for weights in (np.ones(trace.requests), trace.prompt, trace.output)
    ]
    constant = trace.prompt.std() == 0 or trace.output.std() == 0
    return TraceSummary(
        requests=trace.requests,
        span=trace.span,
        rate=trace.rate,
        burstiness=trace.burstiness,
        prompt=_summarize_lengths(trace.prompt),
        output=_summarize_lengths(trace.output),
        correlation=0.0 if constant else float(np.corrcoef(trace.prompt, trace.output)[0, 1]),
        sessions=len(turns),
        turns_mean=float(turns.mean()) if len(turns) else 0.0,
        turns_max=int(turns.max(initial=0)),
        cached_share=float(trace.cached.sum() / trace.prompt.sum()),
        capacities=capacities,
        hit_rates=hits / trace.prompt.sum(),
        nearly_all=_nearly_all(trace, distances),
        edges=edges,
        arrival_rates=rates[0],
        prompt_rates=rates[1],
        output_rates=rates[2],
    )


def _summarize_lengths(tokens: np.ndarray) -> LengthSummary:
    p50, p90, p99 = (float(x) for x in np.percentile(tokens, (50, 90, 99)))
    mean = float(tokens.mean())
    return LengthSummary(mean, p50, p90, p99, float(tokens.max()), float(tokens.std() / mean))


def _capacities(trace: Trace, distances: np.ndarray) -> np.ndarray:
    """Return powers of two up to the largest distance, in tokens, and infinity."""
    known = distances[distances != NEVER]
    if not len(known):
        return np.array([np.inf])
    top = int(np.ceil(np.log2(known.max() * trace.block_tokens)))
    least = int(np.ceil(np.log2(known.min() * trace.block_tokens)))
    return np.append(2.0 ** np.arange(max(least, top - _CURVE_POINTS + 1), top + 1), np.inf)


def _nearly_all(trace: Trace, distances: np.ndarray) -> float:
    """Return the capacity that has 90% of the blocks that any capacity has."""
    known = np.sort(distances[distances != NEVER])
    if not len(known):
        return float("inf")
    return float(known[int(np.ceil(_NEARLY * len(known))) - 1] * trace.block_tokens)
