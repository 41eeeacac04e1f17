"""Replay of a trace on the candidates of a recommendation, with as many replicas as percentiles need."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.explore.recommend.candidates import Candidate, Verification
from jaxcost.explore.replay import replay as replay_trace, synthetic_trace
from jaxcost.spec.model import Model
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.traffic import Traffic

__all__ = ["draw_trace", "mean_traffic", "verify"]

_ROUNDS = 6
_GROWTH = 1.25  # least growth of a pool from one replay to the next


def verify(
    candidates: Sequence[Candidate],
    trace: Any,
    *,
    model: Model,
    traffic: Traffic,
    percentile: float = 99.0,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    replay: Callable[..., Any] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[Candidate]:
    """Replay a trace on candidates, with more replicas each time until the limits hold, at most 6 times.

    Where a percentile is above its limit, the pool that determines it grows by a quarter, or by the excess where that
    is larger, up to a factor of two: the prefill pool for TTFT where there is one, else the replicas.

    Args:
        candidates: the candidates, with the replicas of the closed form.
        trace: a `Trace`; its rate is scaled to that of the traffic.
        model: the language model.
        traffic: `rate`, `ttft_target` and `tpot_target`, 0 for no limit.
        percentile: the percentile to which the limits apply.
        prices: as for `serve`.
        knobs: as for `serve`.
        replay: the function that replays a trace, `jaxcost.replay` by default.
        on_progress: called with a description, the candidates done and all candidates.

    Returns:
        The candidates in the same order, with their `verification`.
    """
    run = replay_trace if replay is None else replay
    limits = {"ttft": float(traffic.ttft_target), "tpot": float(traffic.tpot_target)}
    limits = {name: limit for name, limit in limits.items() if limit > 0}
    results = []
    for done, candidate in enumerate(candidates):
        if on_progress:
            on_progress("replays", done, len(candidates))

        def measure(
            replicas: int, prefills: int, count: int, candidate: Candidate = candidate
        ) -> Verification:
            pool = None if candidate.prefill is None else (*candidate.prefill, prefills)
            outcome = run(
                candidate.system,
                model,
                trace,
                candidate.plan,
                prefill=pool,
                replicas=replicas,
                rate=float(traffic.rate),
                prices=prices,
                knobs=knobs,
            )
            return _measure(outcome, limits, percentile, replicas, prefills, count)

        replicas, prefills = candidate.replicas, candidate.prefill_replicas
        result = measure(replicas, prefills, 1)
        for count in range(2, _ROUNDS + 1):
            if result.holds or result.rejected:
                break
            ttft, tpot = (1 - result.margins.get(name, 0.0) for name in ("ttft", "tpot"))
            grow_prefill = candidate.prefill is not None and ttft > 1
            if grow_prefill:
                prefills = _grown(prefills, ttft)
            if tpot > 1 or not grow_prefill:
                replicas = _grown(replicas, tpot if grow_prefill else max(ttft, tpot))
            result = measure(replicas, prefills, count)
        results.append(dataclasses.replace(candidate, verification=result))
    return results


def _grown(replicas: int, excess: float) -> int:
    return math.ceil(replicas * min(max(excess if math.isfinite(excess) else 2.0, _GROWTH), 2.0))


def _measure(
    outcome: Any, limits: dict[str, float], percentile: float, replicas: int, prefills: int, rounds: int
) -> Verification:
    measured = {name: float(outcome.percentile(name, percentile)) for name in ("ttft", "tpot")}
    return Verification(
        percentile=percentile,
        ttft=measured["ttft"],
        tpot=measured["tpot"],
        rejected=int(np.sum(outcome.rejected)),
        usd_per_mtok=float(outcome.usd_per_mtok),
        replicas=replicas,
        prefill_replicas=prefills,
        rounds=rounds,
        margins={name: 1 - measured[name] / limit for name, limit in limits.items()},
    )


def draw_trace(traffic: Traffic, requests: int = 2000, seed: int = 0) -> Any:
    """Draw a `Trace` from a traffic: Poisson arrivals at its rate, lognormal lengths with its means.

    The squared coefficient of variation of the lengths of prompts and outputs is `traffic.variation`; 0 gives equal
    lengths. Lengths are whole and at least 1.

    Args:
        traffic: `rate`, `prompt`, `output` and `variation`.
        requests: number of requests.
        seed: seed of the random numbers.
    """
    cv = math.sqrt(float(traffic.variation))
    return synthetic_trace(
        rate=float(traffic.rate),
        requests=requests,
        prompt=float(traffic.prompt),
        output=float(traffic.output),
        prompt_cv=cv,
        output_cv=cv,
        seed=seed,
    )


def mean_traffic(trace: Any, traffic: Traffic) -> Traffic:
    """Return a traffic with the mean lengths of a trace, in whole tokens, and the variation of its prompts.

    The rate is that of the trace where the traffic has none.
    """
    mean = float(np.mean(trace.prompt))
    return replace(
        traffic,
        prompt=float(np.rint(mean)),
        output=float(np.rint(np.mean(trace.output))),
        variation=float(np.var(trace.prompt)) / mean**2,
        rate=float(traffic.rate) or float(trace.rate),
    )
