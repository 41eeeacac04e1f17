"""The best design as a function of a parameter that the designer does not choose, and where two choices break even."""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.explore.codesign.pareto import warm_start
from jaxcost.explore.codesign.problem import Problem, ProgressCallback
from jaxcost.explore.codesign.result import Codesign, build_result, unit_of
from jaxcost.explore.codesign.rounding import SMOOTH_TOLERANCE, find_exact_design, max_violation, merit_of
from jaxcost.explore.codesign.solver import InitialPoints, Solutions, Solver, initial_points, with_bounds

__all__ = ["Along", "BreakEven", "Elasticities", "find_break_even", "find_path", "tabulate_elasticities"]

_TAU = 0.01  # softness of elasticities: limits that are nearly active contribute
_NEGLIGIBLE_PENALTY = 1e-9  # with which limits do not contribute to the slope of the Lagrangian
_GRID = 9
_ZOOMS = 3


@dataclasses.dataclass(frozen=True)
class Along:
    """The best design at every value of a parameter."""

    path: str
    unit: str
    values: np.ndarray  # [n]
    objective: np.ndarray  # [n], exact; NaN where no design satisfies all limits
    relaxed: np.ndarray  # [n], before rounding
    choices: tuple[dict[str, Any], ...]
    knobs: dict[str, np.ndarray]  # value of every knob, [n]
    multipliers: dict[str, np.ndarray]  # of every limit that is active anywhere, summed over scenarios, [n]
    elasticities: dict[str, np.ndarray]  # d ln objective / d ln knob, [n]
    designs: tuple[Codesign, ...]


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """The value of a parameter at which two choices, each with its best design, have the same objective."""

    path: str
    unit: str
    value: float  # NaN where the two curves do not cross
    objective: float  # at that value
    values: np.ndarray  # [n], ascending
    first: np.ndarray  # relaxed objective of the first choice, [n]; NaN where no design satisfies all limits
    second: np.ndarray  # of the second
    names: tuple[str, str]
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Elasticities:
    """d ln metric / d ln knob at one design."""

    metrics: tuple[str, ...]
    knobs: tuple[str, ...]
    table: np.ndarray  # [metrics, knobs]


@dataclasses.dataclass(frozen=True)
class _Sweep:
    """A problem at every value of a parameter: combination c at value i is combination i N + c of the solver."""

    solver: Solver
    combinations: int  # N
    count: int  # of values
    bounds: np.ndarray | None  # [n, C], where the parameter is a bound

    def solver_at(self, i: int) -> Solver:
        """Return the solver with the bounds at value i."""
        return self.solver if self.bounds is None else with_bounds(self.solver, self.bounds[i])


def find_path(problem: Problem, path: str, values: Sequence[float] | np.ndarray) -> Along:
    """Find the best design at every value of a parameter: all at once, then each again from its neighbours' solutions.

    Args:
        problem: its starts are those of each value.
        path: dotted path of a leaf that is no knob, or a metric with one bound among the constraints.
        values: of the leaf, or of the bound, in SI units.

    Raises:
        ValueError: the path is neither.
    """
    solver = Solver(problem)
    grid = np.asarray(values, float)
    sweep = _sweep(solver, path, grid)
    solved = _solve_sweep(sweep, initial_points(solver), problem.progress)
    designs = []
    for i, solutions in enumerate(solved):
        at = sweep.solver_at(i)
        designs.append(build_result(at, solutions, find_exact_design(at, solutions)))
        problem.progress("exact evaluation", (i + 1) / len(grid))
    feasible = np.asarray([not d.failed for d in designs])
    active = dict.fromkeys(limit.metric for d in designs for limit in d.active)
    multipliers = {
        name: np.asarray([sum(x.multiplier for x in d.limits if x.metric == name) for d in designs])
        for name in active
    }
    names = [knob.name for knob in designs[0].knobs]
    slopes = [_elasticities(sweep.solver, d, problem.weights) for d in designs]
    return Along(
        path=path,
        unit=unit_of(problem.space, path),
        values=grid,
        objective=np.where(feasible, [d.value for d in designs], np.nan),
        relaxed=np.asarray([d.relaxed for d in designs]),
        choices=tuple(d.choices for d in designs),
        knobs={name: np.asarray([d.knobs[k].value for d in designs]) for k, name in enumerate(names)},
        multipliers=multipliers,
        elasticities={name: np.asarray([row[k] for row in slopes]) for k, name in enumerate(names)},
        designs=tuple(designs),
    )


def find_break_even(
    problem: Problem, path: str, low: float, high: float, *, axis: str, first: str, second: str
) -> BreakEven:
    """Find the value of a parameter at which two choices have the same objective, each with its best design.

    Both curves are solved on a grid that is even in the logarithm of the parameter, then on a finer grid within the
    first interval in which they cross, and so on; the last interval is interpolated. Objectives are those of the
    relaxed problem.

    Args:
        problem: its starts are those of each value.
        path: as of `find_path`.
        low: lowest value, above 0.
        high: highest value.
        axis: path of an enumerated axis, "system" or "model".
        first: name of one of its choices.
        second: name of another.

    Raises:
        ValueError: no such axis or choice, not 0 < low < high, or as `find_path`.
    """
    if not 0 < low < high:
        raise ValueError(f"0 < low < high, not {low:g} and {high:g}")
    solver = Solver(problem)
    sides = [_combinations_with(solver, axis, name) for name in (first, second)]
    points = initial_points(solver)
    used = np.isin(points.combination, np.concatenate(sides))
    points = dataclasses.replace(
        points, combination=points.combination[used], positions=points.positions[used]
    )
    pairs: dict[float, tuple[float, float]] = {}
    interval = (low, high)
    for zoom in range(_ZOOMS):
        grid = np.geomspace(*interval, _GRID)
        grid[[0, -1]] = interval
        sweep = _sweep(solver, path, grid)
        solved = _solve_sweep(sweep, points, lambda step, share: None)
        for value, solutions in zip(grid, solved, strict=True):
            a, b = (_least_objective(solutions, side, sweep.combinations) for side in sides)
            pairs[float(value)] = (a, b)
        problem.progress("break even", (zoom + 1) / _ZOOMS)
        crossing = _crossing(pairs, interval)
        if crossing is None:
            break
        interval = crossing
    values = np.asarray(sorted(pairs))
    curves = np.asarray([pairs[v] for v in values])
    value = objective = float("nan")
    if (crossing := _crossing(pairs, interval)) is not None:
        (a, b), (gap_a, gap_b) = crossing, (_gap(pairs[x]) for x in crossing)
        t = gap_a / (gap_a - gap_b) if gap_a != gap_b else 0.0
        value = float(a * (b / a) ** t)
        objective = float(np.exp((1 - t) * np.log(pairs[a][0]) + t * np.log(pairs[b][0])))
    return BreakEven(
        path=path,
        unit=unit_of(problem.space, path),
        value=value,
        objective=objective,
        values=values,
        first=curves[:, 0],
        second=curves[:, 1],
        names=(first, second),
        low=low,
        high=high,
    )


def tabulate_elasticities(problem: Problem, design: Codesign, metrics: Sequence[str]) -> Elasticities:
    """Differentiate metrics by every knob at a design: d ln metric / d ln knob, in the mean over scenarios.

    The softness is 0.01, so that limits that are nearly active contribute.

    Args:
        problem: of the design; its objective and constraints are not used.
        design: result of `codesign`.
        metrics: of a Report; above 0.
    """
    objective = dict.fromkeys(metrics, 1.0)
    solver = Solver(dataclasses.replace(problem, objective=objective, constraints=(), over="mean"))
    rows = [_elasticities(solver, design, {name: 1.0}) for name in metrics]
    return Elasticities(
        metrics=tuple(metrics), knobs=tuple(k.name for k in design.knobs), table=np.asarray(rows)
    )


def _elasticities(solver: Solver, design: Codesign, weights: dict[str, float]) -> list[float]:
    """Return the elasticity of a product of powers of metrics by every knob."""
    row = np.zeros((1, len(solver.metrics)))
    for name, weight in weights.items():
        row[0, solver.metrics.index(name)] = weight
    points = InitialPoints(
        combination=np.asarray([design.combination]),
        positions=design.positions[None],
        weights=row,
        penalty=np.asarray([_NEGLIGIBLE_PENALTY]),
    )
    slope = solver.measure(points, tau=_TAU).slope[0]
    out = []
    for k, knob in enumerate(solver.relaxation.knobs):
        value = float(knob.value(design.positions[k]))
        out.append(float(slope[k] / knob.per_position(value)) if value else 0.0)
    return out


def _sweep(solver: Solver, path: str, values: np.ndarray) -> _Sweep:
    """Repeat every combination at every value of a leaf, or of the bound on a metric."""
    relaxation = solver.relaxation
    n = len(values)
    tiled = copy.copy(solver)
    tiled.bases = np.concatenate([solver.bases] * n)
    bases = np.concatenate([relaxation.bases] * n)
    bounds = None
    if path in relaxation.paths:
        if any(path == r.path for knob in relaxation.knobs for r in knob.ranges):
            raise ValueError(f"{path} is a knob of the space: the parameter has to be another number")
        for leaves in (tiled.bases, bases):
            leaves[:, :, relaxation.paths.index(path)] = np.repeat(values, len(solver.bases))[:, None]
    else:
        rows = [i for i, bound in enumerate(solver.limits) if bound.metric == path]
        if len(rows) != 1:
            raise ValueError(
                f"{path!r} is neither a leaf of a design nor a metric with one bound among the constraints"
            )
        bounds = np.tile(solver.bounds, (n, 1))
        bounds[:, rows[0]] = values
    tiled.relaxation = dataclasses.replace(relaxation, bases=bases, choices=relaxation.choices * n)
    return _Sweep(tiled, len(solver.bases), n, bounds)


def _solve_sweep(sweep: _Sweep, points: InitialPoints, on_progress: ProgressCallback) -> list[Solutions]:
    """Solve every value from all points, and again from the best solutions of the neighbouring values."""
    starts, per, n, bounds = len(points.combination), sweep.combinations, sweep.count, sweep.bounds
    cold = InitialPoints(
        combination=np.tile(points.combination, n) + np.repeat(np.arange(n), starts) * per,
        positions=np.tile(points.positions, (n, 1)),
        bounds=None if bounds is None else np.repeat(bounds, starts, axis=0),
        fractional=True,
    )
    solved = sweep.solver.solve(cold, on_progress=lambda share: on_progress("solve", 0.7 * share))
    parts = [solved.take(slice(i * starts, (i + 1) * starts)) for i in range(n)]
    best = [part.take([int(np.argmin(merit_of(part)))]) for part in parts]
    pairs = [(i, j) for i in range(n) for j in (i - 1, i + 1) if 0 <= j < n]
    if not pairs:
        return parts
    warm = warm_start(
        Solutions.joined([best[j] for _, j in pairs]),
        combination=np.asarray([best[j].combination[0] % per + i * per for i, j in pairs]),
        bounds=None if bounds is None else bounds[[i for i, _ in pairs]],
    )
    again = sweep.solver.solve(warm)
    on_progress("solve", 1.0)
    return [
        Solutions.joined([part, again.take([k for k, (i, _) in enumerate(pairs) if i == number])])
        for number, part in enumerate(parts)
    ]


def _combinations_with(solver: Solver, axis: str, name: str) -> np.ndarray:
    choices = solver.relaxation.choices
    if axis not in choices[0]:
        raise ValueError(f"no enumerated axis {axis!r}; there are {', '.join(choices[0])}")
    rows = np.asarray([i for i, choice in enumerate(choices) if str(choice[axis]) == name], int)
    if not len(rows):
        raise ValueError(
            f"{axis} is one of {', '.join(dict.fromkeys(str(c[axis]) for c in choices))}, not {name!r}"
        )
    return rows


def _least_objective(solutions: Solutions, side: np.ndarray, combinations: int) -> float:
    """Return the least feasible objective of some combinations, NaN where none is feasible."""
    rows = np.isin(solutions.combination % combinations, side) & (
        max_violation(solutions) <= SMOOTH_TOLERANCE
    )
    return float(np.exp(solutions.objective[rows].min())) if rows.any() else float("nan")


def _gap(pair: tuple[float, float]) -> float:
    return float(np.log(pair[0] / pair[1]))


def _crossing(
    pairs: dict[float, tuple[float, float]], interval: tuple[float, float]
) -> tuple[float, float] | None:
    inside = [v for v in sorted(pairs) if interval[0] <= v <= interval[1]]
    for a, b in itertools.pairwise(inside):
        gaps = _gap(pairs[a]), _gap(pairs[b])
        if np.isfinite(gaps).all() and gaps[0] * gaps[1] <= 0:
            return a, b
    return None
