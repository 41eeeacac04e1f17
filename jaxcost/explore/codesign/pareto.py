"""Pareto fronts by gradient: minimise one metric under bounds on the others, for many bounds at once, warm-started.

The multiplier of a bound is the slope of the front: d ln first / d ln other = -l.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.explore.codesign.problem import Problem
from jaxcost.explore.codesign.result import KnobValue, build_result
from jaxcost.explore.codesign.rounding import find_exact_design, merit_of
from jaxcost.explore.codesign.solver import (
    InitialPoints,
    Solutions,
    Solver,
    initial_points,
    resume_from,
    with_bounds,
)
from jaxcost.explore.sweep import Constraint, report_metrics

__all__ = ["Front", "FrontPoint", "find_front", "warm_start"]

_UNBOUNDED = 1e290  # a bound that no design reaches
_TIGHTEST = (
    1.002  # the tightest bound, as a factor on the best value of the metric, so that it can be satisfied
)
_LEAST_RANGE = 1.05  # loosest over tightest bound, at least: metrics that agree still differ by rounding
_MAX_COMBINATIONS = 8  # that are followed along the front
_RESUMED_STAGE = 2


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """A design of a front, exactly evaluated."""

    values: dict[str, float]
    choices: dict[str, Any]
    knobs: tuple[KnobValue, ...]
    slopes: dict[str, float]  # d ln first / d ln each other metric along the front


@dataclasses.dataclass(frozen=True)
class Front:
    """Designs none of which is better than another in every metric, in the order of the first metric."""

    metrics: tuple[str, ...]
    units: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    evaluations: int


@dataclasses.dataclass(frozen=True)
class _Bounded:
    """The problem of a front: the first metric is the objective, and each other has one bound that varies."""

    solver: Solver
    names: tuple[str, ...]
    signs: tuple[float, ...]  # 1 for a metric to minimise, -1 for one to maximise

    def full_bounds(self, bounds: np.ndarray) -> np.ndarray:
        """Return all bounds [n, C] of the problem, of those [n, metrics - 1] on the other metrics."""
        out = np.tile(self.solver.bounds, (len(bounds), 1))
        last = len(self.solver.limits)
        out[:, last - len(self.names) + 1 : last] = bounds
        return out

    def columns(self) -> list[int]:
        """Return the columns of the metrics among those of the solver."""
        return [self.solver.metrics.index(name) for name in self.names]


def find_front(problem: Problem, metrics: Sequence[str], points: int) -> Front:
    """Find the designs of a problem that trade two or three metrics for one another.

    Args:
        problem: its objective is not used.
        metrics: two or three to minimise; one with a minus before its name is maximised.
        points: bounds that are tried; of three metrics the square of a whole number is best.

    Raises:
        ValueError: not two or three different metrics.
    """
    names = tuple(name.removeprefix("-") for name in metrics)
    signs = tuple(-1.0 if name.startswith("-") else 1.0 for name in metrics)
    if not 2 <= len(names) <= 3 or len(set(names)) < len(names):
        raise ValueError(f"a front is of two or three different metrics, not {', '.join(metrics) or 'none'}")
    varied = [
        Constraint(name, high=_UNBOUNDED) if sign > 0 else Constraint(name, low=1 / _UNBOUNDED)
        for name, sign in zip(names[1:], signs[1:], strict=True)
    ]
    constraints = (*problem.constraints, *varied)
    solver = Solver(dataclasses.replace(problem, objective={names[0]: signs[0]}, constraints=constraints))
    bounded = _Bounded(solver, names, signs)
    ends = _solve_ends(bounded)
    bounds = _bounds_between(bounded, ends, points)
    pool = Solutions.joined([end.take(_best_by_combination(end)) for end in ends])
    solved = _solve_from_pool(bounded, pool, bounds)
    problem.progress("front", 0.3)
    solved = _solve_from_neighbours(bounded, solved, bounds)
    problem.progress("front", 0.5)
    exact_points = []
    for number, (row, solutions) in enumerate(zip(bounded.full_bounds(bounds), solved, strict=True)):
        point = _exact_point(bounded, with_bounds(solver, row), solutions)
        exact_points += [point] if point else []
        problem.progress("front", 0.5 + 0.5 * (number + 1) / len(bounds))
    units = report_metrics()
    return Front(
        metrics=names,
        units=tuple(units.get(name, "") for name in names),
        points=tuple(_undominated(exact_points, names, signs)),
        evaluations=solver.evaluations,
    )


def warm_start(solutions: Solutions, **changes: Any) -> InitialPoints:
    """Return solutions as starting points from the middle stages of the annealing on."""
    return resume_from(solutions, **{"stage": _RESUMED_STAGE, "fractional": True} | changes)


def _exact_point(bounded: _Bounded, solver: Solver, solutions: Solutions) -> FrontPoint | None:
    rounded = find_exact_design(solver, solutions)
    if rounded is None:
        return None
    result = build_result(solver, solutions, rounded)
    slopes = {
        name: -sign * sum(limit.multiplier for limit in result.limits if limit.path == name)
        for name, sign in zip(bounded.names[1:], bounded.signs[1:], strict=True)
    }
    metrics = rounded[0].metrics[0]
    values = {
        name: float(np.mean(metrics[:, k])) for name, k in zip(bounded.names, bounded.columns(), strict=True)
    }
    return FrontPoint(values=values, choices=result.choices, knobs=result.knobs, slopes=slopes)


def _solve_ends(bounded: _Bounded) -> list[Solutions]:
    """Solve for each metric alone."""
    solver, ends = bounded.solver, []
    points = initial_points(solver)
    for number, (column, sign) in enumerate(zip(bounded.columns(), bounded.signs, strict=True), 1):
        weights = np.zeros((len(points.combination), len(solver.metrics)))
        weights[:, column] = sign
        ends.append(solver.solve(dataclasses.replace(points, weights=weights)))
        solver.problem.progress("ends", number / len(bounded.names))
    return ends


def _best_by_combination(solutions: Solutions) -> np.ndarray:
    """Return the best row of each of the best combinations."""
    best: dict[int, int] = {}
    for row in np.argsort(merit_of(solutions)):
        best.setdefault(int(solutions.combination[row]), int(row))
    return np.asarray(list(best.values())[:_MAX_COMBINATIONS])


def _best_row(solutions: Solutions) -> Solutions:
    return solutions.take([int(_best_by_combination(solutions)[0])])


def _bounds_between(bounded: _Bounded, ends: Sequence[Solutions], points: int) -> np.ndarray:
    """Return bounds on all metrics but the first, [n, metrics - 1], spaced evenly in logarithms between the ends."""
    signs, columns = bounded.signs, bounded.columns()
    at_ends = np.asarray([_best_row(end).metrics[0].mean(axis=0)[columns] for end in ends])
    axes = []
    each = points if len(columns) == 2 else max(round(points**0.5), 2)
    for k in range(1, len(columns)):
        best = at_ends[k, k] * _TIGHTEST ** signs[k]
        if len(columns) == 2:
            worst = at_ends[0, k]
        else:
            worst = at_ends[:, k].max() if signs[k] > 0 else at_ends[:, k].min()
        worst = max(worst, best * _LEAST_RANGE) if signs[k] > 0 else min(worst, best / _LEAST_RANGE)
        axes.append(np.geomspace(best, worst, each))
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)


def _solve_from_pool(bounded: _Bounded, pool: Solutions, bounds: np.ndarray) -> list[Solutions]:
    """Solve for every bound from every solution of a pool."""
    n = len(pool.combination)
    rows = pool.take(np.tile(np.arange(n), len(bounds)))
    points = warm_start(
        rows,
        bounds=bounded.full_bounds(np.repeat(bounds, n, axis=0)),
        multipliers=None,  # those of the pool belong to other objectives
        penalty=None,
        stage=1,
    )
    solved = bounded.solver.solve(points)
    return [solved.take(slice(i * n, (i + 1) * n)) for i in range(len(bounds))]


def _solve_from_neighbours(
    bounded: _Bounded, solved: Sequence[Solutions], bounds: np.ndarray
) -> list[Solutions]:
    """Solve for every bound again from the best solutions of the two nearest bounds, and append these solutions."""
    best = [_best_row(solutions) for solutions in solved]
    scale = np.log(bounds)
    near = [np.argsort(np.abs(scale - row).sum(axis=1), kind="stable")[1:3] for row in scale]
    counts = [len(others) for others in near]
    points = warm_start(
        Solutions.joined([best[j] for others in near for j in others]),
        bounds=bounded.full_bounds(np.repeat(bounds, counts, axis=0)),
    )
    again = bounded.solver.solve(points)
    ends = np.cumsum([0, *counts])
    return [
        Solutions.joined([solutions, again.take(slice(ends[i], ends[i + 1]))])
        for i, solutions in enumerate(solved)
    ]


def _undominated(
    points: Sequence[FrontPoint], names: Sequence[str], signs: Sequence[float]
) -> list[FrontPoint]:
    """Return the points that no other is better than in every metric, without duplicates, by the first metric."""
    cost = np.asarray([[p.values[n] * s for n, s in zip(names, signs, strict=True)] for p in points])
    front = []
    for i, point in enumerate(points):
        dominated = np.all(cost <= cost[i], axis=1) & np.any(cost < cost[i], axis=1)
        duplicate = np.all(cost[:i] == cost[i], axis=1).any()
        if not dominated.any() and not duplicate:
            front.append(point)
    return sorted(front, key=lambda p: signs[0] * p.values[names[0]])
