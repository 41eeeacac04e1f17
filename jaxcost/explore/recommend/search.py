"""Search of the cheapest plan and engine settings that serve a load within latency limits."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxcost.explore.recommend.candidates import (
    EQUAL_COST,
    Candidate,
    Settings,
    best_settings,
    evaluate_candidates,
)
from jaxcost.explore.recommend.verification import draw_trace, mean_traffic, verify
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = ["SEQUENCES", "STEP_TOKENS", "Recommendation", "recommend"]

STEP_TOKENS = (2048.0, 4096.0, 8192.0, 16384.0)
SEQUENCES = (256.0, 1024.0)


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """The candidates of a recommendation, the best first.

    Attributes:
        candidates: one candidate for every plan, with its best settings: those that are feasible by a replay, the
            cheapest first; then those that are feasible by the closed form; then the others, the nearest to feasible
            first. Costs within 0.1% count as equal: the plan with more latency margin comes first, in tenths of the
            limit, then the one with fewer chips in a replica.
        evaluated: number of plans with settings that were evaluated by the closed form.
        met: how many of them satisfy every limit by the closed form.
    """

    candidates: tuple[Candidate, ...]
    evaluated: int
    met: int

    @property
    def best(self) -> Candidate:
        """The recommended candidate, or the nearest to feasible where there is none."""
        return self.candidates[0]

    @property
    def runner_up(self) -> Candidate | None:
        """The next best plan; None where there is no other."""
        return self.candidates[1] if len(self.candidates) > 1 else None

    @property
    def feasible(self) -> bool:
        """Whether the recommended candidate satisfies every limit."""
        return self.best.feasible


def recommend(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan | Sequence[Plan] | None = None,
    *,
    max_replica_chips: int | None = None,
    degrees: Mapping[str, float] | None = None,
    step_tokens: Sequence[float] | None = None,
    sequences: Sequence[float] | None = None,
    mixed: Sequence[float] | None = None,
    split: bool = False,
    trace: Any = None,
    verified: int | None = None,
    percentile: float = 99.0,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    replay: Callable[..., Any] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Recommendation:
    """Recommend the cheapest plan and engine settings that serve a load within its limits of TTFT and TPOT.

    Every combination of degrees, settings and precisions is evaluated by `serve`, whose limits apply to means. Feasible
    ones have all margins >= 0, those of memory, power and the limit of sequences included; the least dollars per
    million output tokens win. With a trace, the first few plans are replayed, the replicas raised until the percentile
    of both latencies is within its limit, and the cheapest plan for which it is wins.

    Args:
        system: chips, links and hosts; a replica takes as many chips as its plan.
        model: the language model.
        traffic: lengths, `rate`, `ttft_target` and `tpot_target`.
        plan: everything but degrees and settings, such as precisions and the engine; several to compare precisions.
        max_replica_chips: most chips of a replica, all of the system by default; the degrees are powers of two.
        degrees: degrees to keep, of tp, pp, dp and ep, such as {"tp": 4}.
        step_tokens: token budgets to try, by default that of the engine and 2,048 to 16,384.
        sequences: limits of sequences to try, by default that of the engine, 256 and 1,024. An engine without a
            limit keeps none.
        mixed: 1 and 0 to try steps that mix prompts and decoding, and steps that do not; by default as the engine.
        split: whether to try separate prefill pools as well.
        trace: a `Trace` to replay. Its mean lengths and their variation are then those of the traffic, and its rate is
            scaled to that of the traffic where this is above 0.
        verified: plans to replay, 4 by default with a trace. Without a trace, requests are drawn from the traffic
            (`draw_trace`).
        percentile: percentile of the latencies of a replay.
        prices: as for `serve`.
        knobs: as for `serve`.
        replay: the function that replays a trace, `jaxcost.replay` by default.
        on_progress: called with a description, the steps done and all steps.

    Raises:
        ValueError: no rate, no plan that the model can be cut by, or a setting below 0.
    """
    if trace is not None:
        traffic = mean_traffic(trace, traffic)
    if not float(traffic.rate) > 0:
        raise ValueError("recommend takes a traffic with a rate above 0")
    plans = [plan or Plan()] if plan is None or isinstance(plan, Plan) else list(plan)
    chips = max(round(float(system.chips if max_replica_chips is None else max_replica_chips)), 1)
    rounds = [
        (index, template, pool) for index, template in enumerate(plans) for pool in (False, True)[: 1 + split]
    ]
    candidates: list[Candidate] = []
    for done, (index, template, pool) in enumerate(rounds):
        if on_progress:
            on_progress("plans and settings", done, len(rounds))
        candidates += evaluate_candidates(
            system,
            model,
            traffic,
            template,
            _settings(template, step_tokens, sequences, mixed),
            max_replica_chips=chips,
            fixed=degrees,
            split=pool,
            prices=prices,
            knobs=knobs,
            template=index,
        )
    if not candidates:
        raise ValueError(
            f"no plan of at most {chips} chips by which the model can be sharded with these degrees and settings"
        )
    met = sum(c.feasible for c in candidates)
    ranked = rank(best_settings(candidates))
    count = (0 if trace is None else 4) if verified is None else verified
    if count > 0:
        replayed = [c for c in ranked if c.feasible][:count] or ranked[:1]
        requests = draw_trace(traffic) if trace is None else trace
        others = [c for c in ranked if not any(c is r for r in replayed)]
        results = verify(
            replayed,
            requests,
            model=model,
            traffic=traffic,
            percentile=percentile,
            prices=prices,
            knobs=knobs,
            replay=replay,
            on_progress=on_progress,
        )
        ranked = rank([*results, *others])
    return Recommendation(tuple(ranked), len(candidates), met)


def rank(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Sort candidates as `Recommendation.candidates` states."""
    replayed = [c for c in candidates if c.verification]
    others = [c for c in candidates if not c.verification]
    if replayed and not any(c.feasible for c in replayed):
        # No replay is within the limits: the result is the nearest of those, not one that was not replayed.
        return _nearest(replayed) + _by_cost(others) + _nearest(others)
    return _by_cost(replayed) + _by_cost(others) + _nearest(candidates)


def _nearest(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those that exceed a limit, the nearest to feasible first."""
    return sorted((c for c in candidates if not c.feasible), key=lambda c: -c.worst)


def _by_cost(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return those that are feasible, the cheapest first; of the equally dear, those with more latency margin."""
    groups: list[list[Candidate]] = []
    for c in sorted((c for c in candidates if c.feasible), key=lambda c: c.usd_per_mtok):
        if groups and c.usd_per_mtok <= groups[-1][0].usd_per_mtok * (1 + EQUAL_COST):
            groups[-1].append(c)
        else:
            groups.append([c])

    def key(c: Candidate) -> tuple[float, ...]:
        return (
            -math.floor(10 * c.latency_margin),
            float(c.system.chips),
            float(c.plan.pp),
            -c.latency_margin,
        )

    return [c for group in groups for c in sorted(group, key=key)]


def _settings(
    plan: Plan,
    step_tokens: Sequence[float] | None,
    sequences: Sequence[float] | None,
    mixed: Sequence[float] | None,
) -> Settings:
    """Return the settings to try, those of the engine first; what an engine has no limit of stays unlimited."""
    engine = plan.engine

    def values(name: str, stated: Sequence[float] | None, default: Sequence[float]) -> tuple[float, ...]:
        if stated is not None:
            if not stated or min(stated) < 0:
                raise ValueError(f"{name} takes at least one number, none below 0, not {stated!r}")
            return tuple(map(float, stated))
        engines = float(getattr(engine, name))
        return (engines,) if engines == 0 else tuple(dict.fromkeys((engines, *default)))

    return Settings(
        values("step_tokens", step_tokens, STEP_TOKENS),
        values("sequences", sequences, SEQUENCES),
        values("mixed", mixed, ()) if mixed is not None else (float(engine.mixed),),
    )
