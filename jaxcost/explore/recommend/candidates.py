"""Candidates of a recommendation: plans, engine settings and prefill pools, and their evaluation by `serve`.

The candidates of one plan template are evaluated in one call, batched over the last axis.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcost.core.pytree import leaf_fields, replace
from jaxcost.explore.serve import Service, serve
from jaxcost.physics.compute.shards import can_shard
from jaxcost.spec.model import Model
from jaxcost.spec.plan import Plan
from jaxcost.spec.prices import Knobs, Prices
from jaxcost.spec.system import System
from jaxcost.spec.traffic import Traffic

__all__ = [
    "EQUAL_COST",
    "FEASIBILITY_TOLERANCE",
    "Candidate",
    "Settings",
    "Verification",
    "best_settings",
    "evaluate_candidates",
    "list_degrees",
]

FEASIBILITY_TOLERANCE = 1e-4  # rounding of a margin that is 0 at the largest rate
EQUAL_COST = 1e-3  # relative difference of cost below which candidates count as equally dear
# Standard deviations above the mean of requests in flight that a limit of sequences must hold: the number is close to
# Poisson, of which 99.9% is below mean + 3 sqrt(mean).
_DEVIATIONS = 3.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """The engine settings that are tried.

    Attributes:
        step_tokens: token budgets of a step.
        sequences: limits of sequences; budgets below a limit are left out, as engines refuse them.
        mixed: 1 where steps mix prompts and decoding, 0 where prompts have steps of their own.
    """

    step_tokens: tuple[float, ...]
    sequences: tuple[float, ...]
    mixed: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Verification:
    """The replay of a trace on a candidate.

    Attributes:
        percentile: the percentile of both latencies, such as 99.
        ttft: that percentile of the time to first token, s.
        tpot: that percentile of the time per output token, s.
        rejected: requests that fit in no replica.
        usd_per_mtok: dollars per million output tokens over the trace.
        replicas: replicas of the plan in the last replay.
        prefill_replicas: replicas of the prefill pool, 0 without one.
        rounds: replays that were made, each with more replicas than the one before it.
        margins: 1 - measured / limit of each limit that is set.
    """

    percentile: float
    ttft: float
    tpot: float
    rejected: int
    usd_per_mtok: float
    replicas: int
    prefill_replicas: int
    rounds: int
    margins: dict[str, float]

    @property
    def holds(self) -> bool:
        """Whether every limit holds and no request was rejected."""
        return self.rejected == 0 and min(self.margins.values(), default=0.0) >= 0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A plan with engine settings, and the deployment that serves the load with it.

    Attributes:
        system: the system of a replica, with as many chips as the plan uses.
        plan: plan and engine settings of a replica.
        prefill: system and plan of the prefill pool, None without one.
        service: the result of `serve`, in floats.
        margins: margins of the service, and `sequences`: 1 - (mean + 3 sqrt(mean)) / limit, with the mean requests in
            flight of a data-parallel rank.
        template: index of the plan that the degrees and settings were added to.
        verification: the replay of a trace, None where the candidate is evaluated by the closed form alone.
    """

    system: System
    plan: Plan
    prefill: tuple[System, Plan] | None
    service: Service
    margins: dict[str, float]
    template: int = 0
    verification: Verification | None = None

    @property
    def feasible(self) -> bool:
        """Whether every limit holds: that of the replay where there is one, else that of the closed form."""
        if self.verification is not None:
            return self.verification.holds
        return not self.exceeded

    @property
    def exceeded(self) -> tuple[str, ...]:
        """The violated constraints of the closed form, the worst first."""
        violated = [name for name, m in self.margins.items() if m < -FEASIBILITY_TOLERANCE]
        return tuple(sorted(violated, key=self.margins.__getitem__))

    @property
    def worst(self) -> float:
        """The smallest margin of the closed form, and of the replay where there is one."""
        replayed = () if self.verification is None else self.verification.margins.values()
        return min(*self.margins.values(), *replayed)

    @property
    def latency_margin(self) -> float:
        """The smaller margin of TTFT and TPOT, of the replay where there is one; 1 without limits."""
        margins = self.margins if self.verification is None else self.verification.margins
        return min((margins[name] for name in ("ttft", "tpot") if name in margins), default=1.0)

    @property
    def usd_per_mtok(self) -> float:
        """Dollars per million output tokens: of the replay where there is one, else of the closed form."""
        if self.verification is not None:
            return self.verification.usd_per_mtok
        return float(self.service.usd_per_mtok)

    @property
    def replicas(self) -> int:
        """Replicas of the plan."""
        v = self.verification
        return round(float(self.service.replicas)) if v is None else v.replicas

    @property
    def prefill_replicas(self) -> int:
        """Replicas of the prefill pool, 0 without one."""
        v = self.verification
        return round(float(self.service.prefill_replicas)) if v is None else v.prefill_replicas

    @property
    def chips(self) -> int:
        """Chips of all pools."""
        pool = 0.0 if self.prefill is None else float(self.prefill[0].chips)
        return round(self.replicas * float(self.system.chips) + self.prefill_replicas * pool)


class Degrees(NamedTuple):
    """Degrees of sharding of one replica."""

    tp: int
    pp: int
    dp: int
    ep: int

    @property
    def chips(self) -> int:
        """Chips of the replica."""
        return self.tp * self.pp * self.dp


def list_degrees(
    model: Model, max_replica_chips: int, *, fixed: Mapping[str, float] | None = None, prefill: bool = False
) -> list[Degrees]:
    """List the degrees that are tried, the fewest chips first.

    tp, pp and dp are powers of two with a product of at most `max_replica_chips`. Experts are distributed over no ranks
    or over all tp x dp, as engines have it. dp is above 1 only where experts are distributed over it: the other ranks
    are independent, and are counted as replicas.

    Args:
        model: the language model; plans that it cannot be cut by are left out.
        max_replica_chips: most chips of a replica.
        fixed: degrees to keep, such as {"tp": 4}.
        prefill: True for the degrees of a prefill pool, which has no pipeline and dp = 1.
    """
    powers = [2**k for k in range(max(max_replica_chips, 1).bit_length())]
    experts = float(model.experts.layers) > 0
    degrees = []
    for tp, pp, dp in itertools.product(powers, repeat=3):
        if tp * pp * dp > max_replica_chips or (prefill and pp * dp > 1) or (dp > 1 and not experts):
            continue
        spread = {tp * dp} if dp > 1 else {1, tp} if experts else {1}
        degrees += [Degrees(tp, pp, dp, ep) for ep in sorted(spread)]
    degrees = [d for d in degrees if all(getattr(d, name) == value for name, value in (fixed or {}).items())]
    degrees.sort(key=lambda d: (d.chips, d.pp, d.dp, d.ep))
    if not degrees:
        return []
    tp, pp, dp, ep = np.asarray(degrees, np.float64).T
    valid = np.asarray(can_shard(model, Plan(tp=tp, pp=pp, dp=dp, ep=ep)))
    return [d for d, ok in zip(degrees, np.broadcast_to(valid, tp.shape), strict=True) if ok]


def evaluate_candidates(
    system: System,
    model: Model,
    traffic: Traffic,
    plan: Plan,
    settings: Settings,
    *,
    max_replica_chips: int,
    fixed: Mapping[str, float] | None = None,
    split: bool = False,
    prices: Prices | None = None,
    knobs: Knobs | None = None,
    template: int = 0,
) -> list[Candidate]:
    """Evaluate every combination of degrees, settings and, with `split`, prefill degrees in one call of `serve`.

    Args:
        system: chips, links and hosts; a replica has as many chips as its plan uses.
        model: the language model.
        traffic: load and limits.
        plan: everything but degrees and settings.
        settings: the engine settings that are tried; a prefill pool has those of `plan`.
        max_replica_chips: most chips of a replica.
        fixed: degrees of a replica to keep; those of a prefill pool are free.
        split: True to evaluate separate prefill pools, False for none.
        prices: as for `serve`.
        knobs: as for `serve`.
        template: `Candidate.template` of the results.
    """
    degrees = list_degrees(model, max_replica_chips, fixed=fixed)
    pools = list_degrees(model, max_replica_chips, prefill=True) if split else [None]
    # Steps of a decode pool have no prompts, so that only the first budget and policy matter there.
    budgets, policies = (settings.step_tokens, settings.mixed)
    if split:
        budgets, policies = budgets[:1], policies[:1]
    rows = [
        (d, pool, budget, limit, mixed)
        for d in degrees
        for pool in pools
        for budget in budgets
        for limit in settings.sequences
        for mixed in policies
        if budget == 0 or limit <= budget
    ]
    if not rows:
        return []
    column = lambda values: np.asarray(list(values), np.float64)  # noqa: E731
    engine = replace(
        plan.engine,
        step_tokens=column(r[2] for r in rows),
        sequences=column(r[3] for r in rows),
        mixed=column(r[4] for r in rows),
    )
    plans = replace(_with_degrees(plan, [r[0] for r in rows], column), engine=engine)
    systems = replace(system, chips=column(r[0].chips for r in rows))
    prefill = None
    if split:
        sizes = [pool for _, pool, *_ in rows if pool is not None]
        pool_system = replace(system, chips=column(pool.chips for pool in sizes))
        prefill = pool_system, replace(_with_degrees(plan, sizes, column), chunk=0.0)
    services = jax.device_get(
        serve(systems, model, traffic, plans, prefill=prefill, prices=prices, knobs=knobs)
    )
    return [
        _candidate(_at((systems, plans, prefill, services), i), traffic, template) for i in range(len(rows))
    ]


def _with_degrees(plan: Plan, degrees: Sequence[Degrees], column: Any) -> Plan:
    return replace(plan, cp=1.0, **{n: column(getattr(d, n) for d in degrees) for n in Degrees._fields})


def _at(tree: Any, index: int) -> Any:
    """Return one design of a batch, in floats."""
    return jax.tree.map(lambda x: float(np.asarray(x)[index] if np.ndim(x) else x), tree)


def _candidate(parts: tuple, traffic: Traffic, template: int) -> Candidate:
    system, plan, prefill, service = parts
    margins = {f.name: float(getattr(service.margins, f.name)) for f in leaf_fields(type(service.margins))}
    targets = {"ttft": float(traffic.ttft_target), "tpot": float(traffic.tpot_target)}
    margins = {name: m for name, m in margins.items() if targets.get(name) != 0}
    limit = plan.engine.sequences
    if limit > 0:
        mean = service.in_flight / plan.dp
        margins["sequences"] = 1 - (mean + _DEVIATIONS * math.sqrt(mean)) / limit
    return Candidate(system, plan, prefill, service, margins, template)


def best_settings(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Choose the settings of every plan: for each degrees, template and prefill pool one candidate.

    The cheapest feasible settings are chosen. Among those within 0.1% of the cheapest, the smallest latency margin is
    the largest; the first of equals is chosen. Where none is feasible, the largest worst margin is.
    """
    groups: dict[tuple, list[Candidate]] = {}
    for c in candidates:
        of = tuple(getattr(c.plan, name) for name in Degrees._fields)
        pool = None if c.prefill is None else tuple(getattr(c.prefill[1], n) for n in Degrees._fields)
        groups.setdefault((c.template, of, pool), []).append(c)
    return [_choose(group) for group in groups.values()]


def _choose(group: Sequence[Candidate]) -> Candidate:
    feasible = [c for c in group if c.feasible]
    if not feasible:
        return max(group, key=lambda c: c.worst)
    least = min(c.usd_per_mtok for c in feasible)
    near = [c for c in feasible if c.usd_per_mtok <= least * (1 + EQUAL_COST)]
    return max(near, key=lambda c: c.latency_margin)
