"""The result of a replay: times of every request, totals of every design, and statistics over them."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from jaxcost.explore.replay.scheduler import Log

__all__ = ["GAP_EDGES", "METRICS", "Replay", "Timeline", "add_gaps", "add_to_timeline", "weighted_quantile"]

METRICS = ("ttft", "tpot", "itl", "e2e", "queueing")
GAP_EDGES = np.concatenate([[0.0], np.geomspace(1e-4, 1e3, 141)])  # s; 20 bins a decade
_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


class Timeline(NamedTuple):
    """Averages over intervals of time."""

    edges: np.ndarray  # s, [bins + 1, *batch]
    running: np.ndarray  # requests, [bins, *batch]
    kv_tokens: np.ndarray  # tokens of the pages in use, [bins, *batch]
    waiting: np.ndarray  # requests that have arrived and were not admitted yet, [bins, *batch]


@dataclasses.dataclass(frozen=True, eq=False)
class Replay:
    """A trace served by every design of a batch.

    Times of requests are `[requests, *batch]`, in seconds from the first arrival; NaN for rejected requests. Totals are
    `[*batch]`. Statistics are over the requests that were served.
    """

    prompt: np.ndarray  # tokens, [requests]
    output: np.ndarray  # tokens, [requests]
    arrival: np.ndarray  # s; in a closed loop when the request was sent
    admitted: np.ndarray  # s, start of the step that first admitted it
    first: np.ndarray  # s, first token
    finish: np.ndarray  # s, last token
    longest_gap: np.ndarray  # s, between two tokens
    preemptions: np.ndarray
    cached: np.ndarray  # prompt tokens found in the prefix cache
    rejected: np.ndarray  # larger than the pool of a replica
    replica: np.ndarray  # that decoded it
    duration: np.ndarray  # s, from the first arrival to the last token
    busy: np.ndarray  # s of steps, all replicas
    steps: np.ndarray  # all replicas
    chips: np.ndarray  # all replicas and pools
    dynamic_joules: np.ndarray  # of the chips' work
    idle_joules: np.ndarray  # of the chips at rest
    host_joules: np.ndarray  # of the servers
    usd: np.ndarray  # all hardware for the duration
    gco2e: np.ndarray  # g
    pool_tokens: np.ndarray  # tokens that the cache of a (decode) replica holds
    gap_counts: np.ndarray  # tokens by the time since the one before, [bins, *batch]
    timeline: Timeline
    table_error: float  # root mean square relative error of the step tables at random points
    iterations: int
    seconds: float  # that the replay took
    schedule: Any = None  # what `retime` needs, where it was recorded

    @property
    def batch(self) -> tuple[int, ...]:
        """Shape of the batch of designs."""
        return self.arrival.shape[1:]

    @property
    def ttft(self) -> np.ndarray:
        """Time to first token, s."""
        return self.first - self.arrival

    @property
    def e2e(self) -> np.ndarray:
        """Time to the last token, s."""
        return self.finish - self.arrival

    @property
    def queueing(self) -> np.ndarray:
        """Time until the request was admitted, s."""
        return self.admitted - self.arrival

    @property
    def tpot(self) -> np.ndarray:
        """Mean time per output token after the first, s; NaN for requests of one token."""
        others = self._column(self.output) - 1.0
        return np.where(others > 0, (self.finish - self.first) / np.maximum(others, 1), np.nan)

    @property
    def joules(self) -> np.ndarray:
        """Energy of the trace at the servers' plugs, J."""
        return self.dynamic_joules + self.idle_joules + self.host_joules

    @property
    def completed(self) -> np.ndarray:
        """Requests served, `[*batch]`."""
        return np.sum(~self.rejected, 0)

    @property
    def output_tokens(self) -> np.ndarray:
        """Output tokens of the requests served, `[*batch]`."""
        return np.sum(np.where(self.rejected, 0, self._column(self.output)), 0)

    @property
    def tokens_per_second(self) -> np.ndarray:
        """Output tokens a second of the whole deployment."""
        return self.output_tokens / self.duration

    @property
    def tokens_per_second_per_chip(self) -> np.ndarray:
        """Output tokens a second and chip."""
        return self.tokens_per_second / self.chips

    @property
    def usd_per_mtok(self) -> np.ndarray:
        """Dollars per million output tokens, hardware paid for the whole duration."""
        return 1e6 * self.usd / np.maximum(self.output_tokens, 1)

    @property
    def joules_per_token(self) -> np.ndarray:
        """Energy of an output token, idle energy included, J."""
        return self.joules / np.maximum(self.output_tokens, 1)

    @property
    def gco2e_per_mtok(self) -> np.ndarray:
        """Grams of CO2e per million output tokens."""
        return 1e6 * self.gco2e / np.maximum(self.output_tokens, 1)

    @property
    def hit_rate(self) -> np.ndarray:
        """Prompt tokens found in the prefix cache over all prompt tokens of the requests served."""
        served = np.where(self.rejected, 0, self._column(self.prompt))
        return np.sum(np.where(self.rejected, 0, self.cached), 0) / np.maximum(np.sum(served, 0), 1)

    def percentile(self, metric: str, q: float) -> np.ndarray:
        """Return the percentile q, 0 to 100, of "ttft", "tpot", "e2e" or "queueing" over requests, or of "itl".

        Requests of one token have no TPOT. "itl" is the time between two tokens, over all tokens, from a histogram of
        20 bins a decade; where prompts have steps of their own, the first of a request is taken for one of the others.
        """
        if metric == "itl":
            return self._gap_quantile(q / 100)
        return np.nanpercentile(self._values(metric), q, axis=0)

    def mean(self, metric: str) -> np.ndarray:
        """Return the mean of a metric of `percentile`."""
        if metric == "itl":
            others = np.where(self.rejected, 0, self._column(self.output) - 1)
            return np.nansum(self.finish - self.first, 0) / np.maximum(np.sum(others, 0), 1)
        return np.nanmean(self._values(metric), axis=0)

    def attained(self, *, ttft: float = np.inf, tpot: float = np.inf) -> np.ndarray:
        """Return the share of all requests whose TTFT and TPOT are within limits, s; rejected ones are not."""
        within = (self.ttft <= ttft) & ~(self.tpot > tpot) & ~self.rejected
        return np.mean(within, 0)

    def goodput(self, *, ttft: float = np.inf, tpot: float = np.inf) -> np.ndarray:
        """Return the requests a second that were served within limits, s, over the duration."""
        return self.attained(ttft=ttft, tpot=tpot) * len(self.output) / self.duration

    def summary(self) -> dict[str, np.ndarray]:
        """Return mean and percentiles of all metrics, and the totals, by name."""
        out: dict[str, np.ndarray] = {}
        for metric in METRICS:
            out[f"mean_{metric}"] = self.mean(metric)
            out |= {f"p{q:g}_{metric}": self.percentile(metric, q) for q in _PERCENTILES}
        out |= {"completed": self.completed, "rejected": np.sum(self.rejected, 0)}
        names = (
            "duration tokens_per_second tokens_per_second_per_chip joules_per_token usd_per_mtok gco2e_per_mtok"
            " hit_rate steps chips"
        )
        out |= {name: getattr(self, name) for name in names.split()}
        return out | {"preemptions": np.sum(np.where(self.rejected, 0, self.preemptions), 0)}

    def design(self, index: tuple[int, ...] | int) -> "Replay":
        """Return the replay of one design of a batch."""
        at = (index,) if isinstance(index, int) else tuple(index)
        total = {"duration", "busy", "steps", "chips", "usd", "gco2e", "pool_tokens"}
        total |= {"dynamic_joules", "idle_joules", "host_joules"}
        rows = {"arrival", "admitted", "first", "finish", "longest_gap", "preemptions", "cached", "rejected"}
        rows |= {"replica", "gap_counts"}
        changes = {name: getattr(self, name)[at] for name in total}
        changes |= {name: getattr(self, name)[(slice(None), *at)] for name in rows}
        t = self.timeline
        line = Timeline(*(x[(slice(None), *at)] for x in t))
        return dataclasses.replace(self, **changes, timeline=line, schedule=None)

    def _column(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(-1, *(1 for _ in self.batch))

    def _values(self, metric: str) -> np.ndarray:
        if metric not in METRICS:
            raise ValueError(f"no metric {metric!r}; there are {', '.join(METRICS)}")
        return np.where(self.rejected, np.nan, getattr(self, metric))

    def _gap_quantile(self, share: float) -> np.ndarray:
        counts = self.gap_counts.reshape(len(self.gap_counts), -1)
        found = [weighted_quantile(GAP_EDGES, column, share) for column in counts.T]
        return np.reshape(found, self.batch)


def weighted_quantile(edges: np.ndarray, counts: np.ndarray, share: float) -> float:
    """Return a quantile of a histogram, linear within bins; NaN for an empty one."""
    total = np.concatenate([[0.0], np.cumsum(counts)])
    if total[-1] == 0:
        return float("nan")
    at = share * total[-1]
    bin_ = int(np.clip(np.searchsorted(total, at, side="left") - 1, 0, len(counts) - 1))
    within = (at - total[bin_]) / max(counts[bin_], 1e-300)
    return float(edges[bin_] + within * (edges[bin_ + 1] - edges[bin_]))


def add_gaps(gaps: np.ndarray, log: Log) -> None:
    """Add the times between tokens of a log to a histogram `[bins, lanes]`, in place."""
    bins, lanes = gaps.shape
    rows, lane = np.nonzero(log.opened > 0)
    sequences, steps = log.sequences[rows, lane], log.steps[rows, lane]
    for width, count in ((log.opened, sequences), (log.others, sequences * (steps - 1))):
        place = np.searchsorted(GAP_EDGES[1:-1], width[rows, lane], side="right")
        gaps += np.bincount(place * lanes + lane, count, bins * lanes).reshape(bins, lanes)


def add_to_timeline(timeline: np.ndarray, log: Log, horizon: np.ndarray) -> None:
    """Add running requests and pages, times seconds, to the bins `[2, bins, lanes]` that steps overlap, in place.

    Args:
        timeline: bins of equal length from 0 to `horizon`.
        log: the steps.
        horizon: s, `[lanes]`.
    """
    _, bins, lanes = timeline.shape
    rows, lane = np.nonzero(log.seconds > 0)
    start, seconds = log.start[rows, lane], log.seconds[rows, lane]
    width = np.maximum(horizon[lane], 1e-9) / bins
    first, last = (np.minimum(x / width, bins - 1).astype(int) for x in (start, start + seconds))
    for offset in range(int((last - first).max(initial=-1)) + 1):
        bin_ = first + offset
        inside = bin_ <= last
        low = np.maximum(start, bin_ * width)
        high = np.minimum(start + seconds, (bin_ + 1) * width)
        overlap = np.where(inside, np.maximum(high - low, 0), 0)
        place = np.minimum(bin_, bins - 1) * lanes + lane
        for k, load in enumerate((log.running, log.pages)):
            total = np.bincount(place, overlap * load[rows, lane], bins * lanes)
            timeline[k] += total.reshape(bins, lanes)
