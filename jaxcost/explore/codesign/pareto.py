"""Fronts by gradient: lower one metric under a bound on each other, for many bounds at once, each warm-started.

The multiplier of a bound is the slope of the front: d ln first / d ln other = -l.
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.explore.codesign.problem import KnobValue, Tell, described, prepare, starting
from jaxcost.explore.codesign.rounding import exact, score
from jaxcost.explore.codesign.solver import Solutions, Solver, Start, resumed
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import Constraint, Evaluation, report_metrics

__all__ = ["Front", "FrontPoint", "bounded", "codesign_front", "warm"]

_FAR = 1e290  # a bound that binds nothing
_EASED = 1.002  # the tightest bound against the best value there is, so that it can be kept
_ROOM = 1.05  # the loosest against the tightest, at least: whole numbers take room where metrics agree
_CHOICES = 8  # combinations that are followed along the front
_RESUMED = 2


@dataclasses.dataclass(frozen=True)
class FrontPoint:
    """A design of a front, exactly evaluated."""

    values: dict[str, float]
    choices: dict[str, Any]
    knobs: tuple[KnobValue, ...]
    slopes: dict[str, float]  # d ln first / d ln each other metric along the front


@dataclasses.dataclass(frozen=True)
class Front:
    """Designs none of which is better in every metric, by the first."""

    metrics: tuple[str, ...]
    units: tuple[str, ...]
    points: tuple[FrontPoint, ...]
    evaluations: int


def codesign_front(
    space: Space,
    metrics: Sequence[str],
    constraints: Sequence[Constraint] = (),
    *,
    points: int = 16,
    across: Sequence[str] = (),
    over: str | float = "mean",
    starts: int = 8,
    seed: int = 0,
    optimiser: str = "bfgs",
    evaluation: Evaluation | None = None,
    gives: tuple[str, ...] = (),
    progress: Tell = lambda stage, share: None,
) -> Front:
    """Find the designs of a space that trade two or three metrics for one another.

    Args:
        space: the designs, as for `codesign`.
        metrics: two or three to lower; one with a minus before it is raised.
        constraints: limits, as for `codesign`.
        points: bounds that are tried; of three metrics the square of a whole number is best.
        across: as for `codesign`.
        over: as for `codesign`; the bounds hold in every scenario.
        starts: points each combination of choices is solved from, for the ends of the front.
        seed: of the points.
        optimiser: as for `codesign`.
        evaluation: as for `codesign`.
        gives: what `evaluation` gives.
        progress: told what is being done, and the share of it that is.

    Raises:
        ValueError: not two or three metrics, or as `codesign`.
    """
    names = [name.removeprefix("-") for name in metrics]
    signs = [-1.0 if name.startswith("-") else 1.0 for name in metrics]
    if not 2 <= len(names) <= 3 or len(set(names)) < len(names):
        raise ValueError(f"a front is of two or three different metrics, not {', '.join(metrics) or 'none'}")
    held = [
        Constraint(n, high=_FAR) if s > 0 else Constraint(n, low=1 / _FAR)
        for n, s in zip(names[1:], signs[1:], strict=True)
    ]
    solver = prepare(
        space, {names[0]: signs[0]}, (*constraints, *held), across=across, over=over, seed=seed,
        optimiser=optimiser, evaluation=evaluation, metrics=gives,
    )  # fmt: skip
    rows = [len(solver.limits) - len(held) + i for i in range(len(held))]
    ends = _ends(solver, names, signs, starts, seed, progress)
    bounds = _bounds(solver, ends, names, signs, points)
    pool = Solutions.joined([end.take(_leading(end)) for end in ends])
    solved = _from_pool(solver, pool, bounds, rows)
    progress("front", 0.3)
    solved = _from_neighbours(solver, solved, bounds, rows)
    progress("front", 0.5)
    found = []
    for number, (bound, part) in enumerate(zip(bounds, solved, strict=True)):
        own = bounded(solver, _own(solver, bound[None], rows)[0])
        exactly = exact(own, part)
        if exactly is not None:
            result = described(own, part, exactly)
            slopes = {
                name: -sign * sum(limit.multiplier for limit in result.limits if limit.path == name)
                for name, sign in zip(names[1:], signs[1:], strict=True)
            }
            values = {
                name: float(np.mean(exactly[0].metrics[0, :, solver.metrics.index(name)])) for name in names
            }
            found.append(FrontPoint(values=values, choices=result.choices, knobs=result.knobs, slopes=slopes))
        progress("front", 0.5 + 0.5 * (number + 1) / len(bounds))
    units = report_metrics()
    return Front(
        metrics=tuple(names),
        units=tuple(units.get(name, "") for name in names),
        points=tuple(_undominated(found, names, signs)),
        evaluations=solver.evaluations,
    )


def bounded(solver: Solver, bounds: np.ndarray) -> Solver:
    """Return a solver of the same problem with other bounds [C]."""
    other = copy.copy(solver)
    other.bounds = bounds
    return other


def warm(rows: Solutions, **changes: Any) -> Start:
    """Start where solutions ended, from the middle of the annealing on."""
    return resumed(rows, **{"stage": _RESUMED, "fractional": True} | changes)


def _ends(
    solver: Solver, names: Sequence[str], signs: Sequence[float], starts: int, seed: int, progress: Tell
) -> list[Solutions]:
    """Solve for each metric alone."""
    ends = []
    for number, (name, sign) in enumerate(zip(names, signs, strict=True)):
        start = starting(solver, starts, seed)
        weights = np.zeros(len(solver.metrics))
        weights[solver.metrics.index(name)] = sign
        ends.append(
            solver.solve(dataclasses.replace(start, weights=np.tile(weights, (len(start.combination), 1))))
        )
        progress("ends", (number + 1) / len(names))
    return ends


def _leading(solutions: Solutions) -> np.ndarray:
    """Return the best row of each of the best combinations."""
    best: dict[int, int] = {}
    for row in np.argsort(score(solutions)):
        best.setdefault(int(solutions.combination[row]), int(row))
    return np.asarray(list(best.values())[:_CHOICES])


def _bounds(
    solver: Solver, ends: Sequence[Solutions], names: Sequence[str], signs: Sequence[float], points: int
) -> np.ndarray:
    """Return bounds on all metrics but the first, [points, metrics - 1], even in logarithms between the ends."""
    columns = [solver.metrics.index(name) for name in names]
    at_best = np.asarray([end.take([_best(end)]).metrics[0].mean(axis=0)[columns] for end in ends])
    axes = []
    each = points if len(names) == 2 else max(round(points**0.5), 2)
    for k in range(1, len(names)):
        best = at_best[k, k] * _EASED ** signs[k]
        worst = (
            at_best[0, k]
            if len(names) == 2
            else (at_best[:, k].max() if signs[k] > 0 else at_best[:, k].min())
        )
        worst = max(worst, best * _ROOM) if signs[k] > 0 else min(worst, best / _ROOM)
        axes.append(np.geomspace(best, worst, each))
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=1)


def _best(solutions: Solutions) -> int:
    return int(_leading(solutions)[0])


def _from_pool(solver: Solver, pool: Solutions, bounds: np.ndarray, rows: Sequence[int]) -> list[Solutions]:
    """Solve for every bound from every one of a pool of solutions."""
    n = len(pool.combination)
    lanes = np.tile(np.arange(n), len(bounds))
    # Multipliers of another problem would mislead.
    changes = {"multipliers": None, "penalty": None, "stage": 1}
    solved = solver.solve(
        warm(pool.take(lanes), bounds=_own(solver, np.repeat(bounds, n, axis=0), rows), **changes)
    )
    return [solved.take(slice(i * n, (i + 1) * n)) for i in range(len(bounds))]


def _from_neighbours(
    solver: Solver, solved: Sequence[Solutions], bounds: np.ndarray, rows: Sequence[int]
) -> list[Solutions]:
    """Solve every bound again from the best solutions of the two bounds nearest to it, and add what they give."""
    best = [part.take([_best(part)]) for part in solved]
    scale = np.log(bounds)
    near = [np.argsort(np.abs(scale - row).sum(axis=1), kind="stable")[1:3] for row in scale]
    lanes = Solutions.joined([best[j] for others in near for j in others])
    counts = [len(others) for others in near]
    own = _own(solver, np.repeat(bounds, counts, axis=0), rows)
    again = solver.solve(warm(lanes, bounds=own))
    ends = np.cumsum([0, *counts])
    return [
        Solutions.joined([part, again.take(slice(ends[i], ends[i + 1]))]) for i, part in enumerate(solved)
    ]


def _own(solver: Solver, bounds: np.ndarray, rows: Sequence[int]) -> np.ndarray:
    own = np.tile(solver.bounds, (len(bounds), 1))
    own[:, list(rows)] = bounds
    return own


def _undominated(
    points: Sequence[FrontPoint], names: Sequence[str], signs: Sequence[float]
) -> list[FrontPoint]:
    cost = np.asarray([[p.values[n] * s for n, s in zip(names, signs, strict=True)] for p in points])
    kept = []
    for i, point in enumerate(points):
        beaten = np.all(cost <= cost[i], axis=1) & np.any(cost < cost[i], axis=1)
        twin = np.all(cost[:i] == cost[i], axis=1).any()
        if not beaten.any() and not twin:
            kept.append(point)
    return sorted(kept, key=lambda p: signs[0] * p.values[names[0]])
