"""Results of co-design: the exact design, its limits with their shadow prices, and the quality of the solution."""

import dataclasses
import functools
import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.evaluation import evaluate
from jaxcost.explore.codesign.problem import is_margin
from jaxcost.explore.codesign.relaxation import Relaxation
from jaxcost.explore.codesign.rounding import SMOOTH_TOLERANCE, max_violation, merit_of
from jaxcost.explore.codesign.solver import InitialPoints, Solutions, Solver
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import report_metrics
from jaxcost.report import Report
from jaxcost.spec.design import Design

__all__ = ["Codesign", "Convergence", "KnobValue", "Limit", "best_converged", "build_result", "unit_of"]

_ACTIVE_MULTIPLIER = 1e-3  # a limit with a larger multiplier is active
_AGREEMENT = 0.005  # of an objective's logarithm, within which two starts agree
_TIE = 1e-3  # of an objective's logarithm, within which solutions count as equally good
_AT_END = 0.02  # distance from an end, as a share of the range, at which a knob counts as at its end
# The leaf that sets the size of what a margin measures: a larger value widens the margin.
_LIMITING_LEAF = {
    "memory": "system.chip.memory.capacity",
    "chips": "system.chips",
    "power": "system.chip.tdp",
    "ttft": "traffic.ttft_target",
    "tpot": "traffic.tpot_target",
    "shoreline": "system.chip.shoreline",
    "area": "system.chip.process.reticle",
    **{name: f"system.chip.{name}.capacity" for name in ("sram", "hbf", "host", "cxl", "ssd")},
}


@dataclasses.dataclass(frozen=True)
class KnobValue:
    """The final value of a knob."""

    name: str
    value: float  # of its first leaf, or the factor on it
    low: float
    high: float
    relative: bool  # whether the value is a factor
    whole: bool  # whether the value is one of a list, such as the whole numbers
    end: str  # "low" or "high" at an end of the range, else ""
    slope: float  # d ln L / d ln x of the Lagrangian L by the value x: 0 unless at an end, or rounded


@dataclasses.dataclass(frozen=True)
class Limit:
    """A limit, the distance of the design from it, and its shadow price."""

    metric: str
    scenario: str
    upper: bool  # whether the bound is an upper one; a margin has a lower bound
    bound: float  # in the unit of the metric
    value: float  # of the metric, exactly evaluated
    slack: float  # -g: 0 at the limit, in logarithms
    multiplier: float  # percent by which the objective falls where the limit is relaxed by one percent
    active: bool
    path: str  # the leaf that sets the size of a margin, or the metric itself
    unit: str  # of the leaf or the metric
    limit: float  # value of the leaf, or the bound on the metric
    price: float  # change of the objective by one unit more of `limit`, in the unit of the objective


@dataclasses.dataclass(frozen=True)
class Convergence:
    """Quality of a solution: the conditions of Karush, Kuhn and Tucker, in logarithms."""

    stationarity: (
        float  # largest change of a knob by a projected step along the slope of the Lagrangian, in u
    )
    violation: float  # largest violation of a limit of the smooth problem
    complementarity: float  # largest product of a multiplier and its slack
    converged: float  # share of the starts that met their tolerances
    agreed: float  # share of the starts with the same choices whose objective is within 0.5% of the best
    starts: int
    evaluations: int  # of the model with its gradient: all starts, rounding and exact evaluation


@dataclasses.dataclass(frozen=True)
class Codesign:
    """The best design found, exactly evaluated, with its limits and the quality of the solution."""

    objective: dict[str, float]  # exponents of the metrics in the product that is minimised
    over: float  # aggregate over scenarios: 0 the mean, a for CVaR_a, 1 the worst
    failed: str  # "" where the design satisfies all limits, else the reason why none was found
    design: Design  # in the first scenario
    designs: tuple[Design, ...]  # in every scenario
    scenarios: tuple[str, ...]  # names
    choices: dict[str, Any]  # the choice on every enumerated axis, by path
    knobs: tuple[KnobValue, ...]
    value: float  # objective of the exact design
    relaxed: float  # objective of the best smooth solution, before rounding
    limits: tuple[Limit, ...]  # by multiplier, the largest first
    convergence: Convergence
    alternatives: tuple[
        tuple[dict[str, Any], float], ...
    ]  # relaxed objective of every combination, best first
    positions: np.ndarray  # of the knobs, u
    combination: int

    @functools.cached_property
    def reports(self) -> tuple[Report, ...]:
        """Exact reports, in every scenario."""
        return tuple(
            evaluate(d.system, d.model, d.traffic, d.plan, prices=d.prices, knobs=d.knobs)
            for d in self.designs
        )

    @property
    def report(self) -> Report:
        """Exact report of the first scenario."""
        return self.reports[0]

    @property
    def gap(self) -> float:
        """Exact objective over the relaxed one, less 1."""
        return self.value / self.relaxed - 1

    @property
    def active(self) -> tuple[Limit, ...]:
        """Limits with a shadow price."""
        return tuple(limit for limit in self.limits if limit.active)


def build_result(solver: Solver, relaxed: Solutions, rounded: tuple[Solutions, Solutions] | None) -> Codesign:
    """Describe a solution in the terms of the problem.

    Args:
        solver: of the problem.
        relaxed: smooth solutions from all starts.
        rounded: the exact design and the smooth solution it comes from, one row each; None where no design satisfies
            all limits, and the smooth solution nearest to it is described.
    """
    relaxation = solver.relaxation
    nearest = relaxed.take([int(np.argmin(merit_of(relaxed)))])
    failed = ""
    if rounded is None:
        exact = solver.measure(InitialPoints(combination=nearest.combination, positions=nearest.positions))
        failed = _explain_failure(solver, exact)
    else:
        exact = rounded[0]
    combination, u = int(exact.combination[0]), exact.positions[0]
    feasible = max_violation(relaxed) <= SMOOTH_TOLERANCE
    objectives = np.where(feasible, relaxed.objective, np.inf)
    same_choices = relaxed.combination == combination
    # Prices are those of the relaxed problem with the same choices: at a rounded design no limit may be active.
    alike = relaxed.take(np.flatnonzero(same_choices))
    priced = alike.take([best_converged(alike)])
    designs = tuple(relaxation.design(combination, w, u) for w in range(len(relaxation.scenarios)))
    value = float(np.exp(exact.objective[0]))
    best = objectives[same_choices].min(initial=np.inf)
    agreed = feasible[same_choices] & (alike.objective <= best + _AGREEMENT)
    by_choice = {
        c: float(np.exp(objectives[relaxed.combination == c].min())) for c in np.unique(relaxed.combination)
    }
    return Codesign(
        objective=dict(solver.problem.weights),
        over=solver.problem.level,
        failed=failed,
        design=designs[0],
        designs=designs,
        scenarios=relaxation.scenarios,
        choices=relaxation.choices[combination],
        knobs=_knob_values(relaxation, priced, u),
        value=value,
        relaxed=float(np.exp(nearest.objective[0])),
        limits=_priced_limits(solver, exact, priced, designs, value),
        convergence=Convergence(
            stationarity=float(priced.stationarity[0]),
            violation=float(max(priced.violation[0], 0)),
            complementarity=float(np.max(priced.multipliers[0] * np.abs(priced.limits[0]))),
            converged=float(np.mean(relaxed.converged)),
            agreed=float(np.mean(agreed)),
            starts=len(relaxed.combination),
            evaluations=solver.evaluations,
        ),
        alternatives=tuple(
            (relaxation.choices[c], v) for c, v in sorted(by_choice.items(), key=lambda item: item[1])
        ),
        positions=u,
        combination=combination,
    )


def best_converged(solutions: Solutions) -> int:
    """Return the row of the best solution; among rows within 0.1% of it, the converged and most stationary one."""
    merit = merit_of(solutions)
    near = np.flatnonzero(merit <= merit.min() + _TIE)
    return int(near[np.lexsort([solutions.stationarity[near], ~solutions.converged[near]])[0]])


def _explain_failure(solver: Solver, exact: Solutions) -> str:
    missing = [
        name for name, value in zip(solver.metrics, exact.metrics[0].T, strict=True) if np.isnan(value).any()
    ]
    if missing:
        return f"the model gives no number for {', '.join(missing[:4])}"
    worst = exact.limits[0].max(axis=0)[: len(solver.limits)]
    names = [
        f"{solver.limits[i].metric} by {math.expm1(worst[i]):.1%}"
        for i in np.argsort(-worst)
        if worst[i] > 1e-5
    ]
    return "no design was found that satisfies all limits; the nearest violates " + ", ".join(names[:4])


def _knob_values(relaxation: Relaxation, priced: Solutions, u: np.ndarray) -> tuple[KnobValue, ...]:
    out = []
    for k, knob in enumerate(relaxation.knobs):
        value = float(knob.value(u[k]))
        if knob.values is not None:
            value = float(knob.values[np.argmin(np.abs(knob.values - value))])
        end = "low" if u[k] <= _AT_END else "high" if u[k] >= 1 - _AT_END else ""
        out.append(
            KnobValue(
                name=knob.name,
                value=value,
                low=knob.low,
                high=knob.high,
                relative=knob.relative,
                whole=knob.values is not None,
                end=end,
                slope=float(priced.slope[0, k] / knob.per_position(value)) if value else 0.0,
            )
        )
    return tuple(out)


def _priced_limits(
    solver: Solver, exact: Solutions, priced: Solutions, designs: Sequence[Design], value: float
) -> tuple[Limit, ...]:
    units, out = report_metrics(), []
    draws = solver.scenarios // len(designs)
    for w in range(solver.scenarios):
        for c, (metric, sign, bound) in enumerate(solver.limits):
            margin = is_margin(metric)
            path = _LIMITING_LEAF.get(metric.removeprefix("margins."), "") if margin else metric
            limit, unit = _leaf(designs[w // draws], path) if margin else (bound, units[metric])
            multiplier = float(priced.multipliers[0, w, c])
            scenario = solver.relaxation.scenarios[w // draws]
            out.append(
                Limit(
                    metric=metric,
                    scenario=scenario if draws == 1 else f"{scenario} draw {w % draws}".strip(),
                    upper=sign > 0 and not margin,
                    bound=bound,
                    value=float(exact.metrics[0, w, solver.metrics.index(metric)]),
                    slack=float(-exact.limits[0, w, c]),
                    multiplier=multiplier,
                    active=multiplier > _ACTIVE_MULTIPLIER,
                    path=path,
                    unit=unit,
                    limit=limit,
                    price=-sign * multiplier * value / limit if limit else 0.0,
                )
            )
    return tuple(sorted(out, key=lambda limit: -limit.multiplier))


def _leaf(design: Design, path: str) -> tuple[float, str]:
    """Return the value and the unit of a leaf; 0 where the path is empty."""
    if not path:
        return 0.0, ""
    return float(operator.attrgetter(path)(design)), _unit(design, path)


def _unit(design: Design, path: str) -> str:
    branch, _, last = path.rpartition(".")
    fields = dataclasses.fields(operator.attrgetter(branch)(design))
    return next(f.metadata["unit"] for f in fields if f.name == last)


def unit_of(space: Space, path: str) -> str:
    """Return the unit of a metric of a Report, or of a leaf of a design."""
    return report_metrics().get(path) or _unit(space.base, path)
