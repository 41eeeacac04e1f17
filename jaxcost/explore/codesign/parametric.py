"""Designs along a number that the designer does not choose: which wall binds where, and where two ways break even."""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.explore.codesign.pareto import bounded, warm
from jaxcost.explore.codesign.problem import Codesign, Tell, described, prepare, starting, unit_of
from jaxcost.explore.codesign.rounding import broken, exact, score
from jaxcost.explore.codesign.solver import Solutions, Solver, Start
from jaxcost.explore.space import Space
from jaxcost.explore.sweep import Constraint, Evaluation

__all__ = ["Along", "BreakEven", "Elasticities", "break_even", "codesign_along", "elasticity_table"]

_TAU = 0.01  # softness of elasticities: limits about to bind show
_UNBOUND = 1e-9  # penalty with which limits weigh nothing
_GRID = 9
_ZOOMS = 3


@dataclasses.dataclass(frozen=True)
class Along:
    """The best design at every value of one number."""

    path: str
    unit: str
    values: np.ndarray  # [n]
    objective: np.ndarray  # [n], exact; NaN where no design keeps all limits
    relaxed: np.ndarray  # [n]
    choices: tuple[dict[str, Any], ...]
    knobs: dict[str, np.ndarray]  # value of every knob, [n]
    multipliers: dict[
        str, np.ndarray
    ]  # of every limit that costs something anywhere, summed over scenarios, [n]
    elasticities: dict[str, np.ndarray]  # d ln objective / d ln knob, [n]
    designs: tuple[Codesign, ...]


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """Where two ways of building cost the same, each at its best."""

    path: str
    unit: str
    value: float  # NaN where the two curves do not cross
    objective: float  # there
    values: np.ndarray  # [n], ascending
    first: np.ndarray  # relaxed objective of the first way, [n]; NaN where it keeps no limits
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


def codesign_along(
    space: Space,
    objective: Any,
    constraints: Sequence[Constraint],
    path: str,
    values: Sequence[float] | np.ndarray,
    *,
    across: Sequence[str] = (),
    over: str | float = "mean",
    starts: int = 8,
    seed: int = 0,
    optimiser: str = "bfgs",
    evaluation: Evaluation | None = None,
    metrics: tuple[str, ...] = (),
    progress: Tell = lambda stage, share: None,
) -> Along:
    """Find the best design at every value of a number, all at once, each then again from its neighbours'.

    Args:
        space: the designs, as for `codesign`.
        objective: as for `codesign`.
        constraints: as for `codesign`.
        path: dotted path of a leaf that is no knob, or a metric with one bound among the constraints.
        values: of the leaf, or of the bound, in SI units.
        across: as for `codesign`.
        over: as for `codesign`.
        starts: points each combination is solved from at every value.
        seed: of the points.
        optimiser: as for `codesign`.
        evaluation: as for `codesign`.
        metrics: as for `codesign`.
        progress: told what is being done, and the share of it that is.

    Raises:
        ValueError: a path of neither kind, or as `codesign`.
    """
    solver = prepare(
        space, objective, constraints, across=across, over=over, seed=seed, optimiser=optimiser,
        evaluation=evaluation, metrics=metrics,
    )  # fmt: skip
    grid = np.asarray(values, float)
    wide, bounds = _widened(solver, path, grid)
    per = len(solver.bases)
    solved = _solve_all(wide, bounds, per, len(grid), starting(solver, starts, seed), progress)
    designs = []
    for i, part in enumerate(solved):
        own = wide if bounds is None else bounded(wide, bounds[i])
        designs.append(described(own, part, exact(own, part)))
        progress("recheck", (i + 1) / len(grid))
    kept = np.asarray([not d.failed for d in designs])
    names = dict.fromkeys(limit.metric for d in designs for limit in d.active)
    priced = {
        name: np.asarray([sum(x.multiplier for x in d.limits if x.metric == name) for d in designs])
        for name in names
    }
    slopes = [_elasticities(wide, d, list(wide.objective.metrics)) for d in designs]
    return Along(
        path=path,
        unit=unit_of(space, path),
        values=grid,
        objective=np.where(kept, [d.value for d in designs], np.nan),
        relaxed=np.asarray([d.relaxed for d in designs]),
        choices=tuple(d.choices for d in designs),
        knobs={
            k.name: np.asarray([d.knobs[j].value for d in designs]) for j, k in enumerate(designs[0].knobs)
        },
        multipliers=priced,
        elasticities={
            k.name: np.asarray([slope[j] for slope in slopes]) for j, k in enumerate(designs[0].knobs)
        },
        designs=tuple(designs),
    )


def break_even(
    space: Space,
    objective: Any,
    constraints: Sequence[Constraint],
    path: str,
    low: float,
    high: float,
    *,
    axis: str,
    first: str,
    second: str,
    across: Sequence[str] = (),
    over: str | float = "mean",
    starts: int = 8,
    seed: int = 0,
    optimiser: str = "bfgs",
    evaluation: Evaluation | None = None,
    metrics: tuple[str, ...] = (),
    progress: Tell = lambda stage, share: None,
) -> BreakEven:
    """Find the value of a number at which two ways of building are equally good, each with its best design.

    Both curves are solved on a grid of the number's logarithm, then on a finer one within the first step in which they
    cross, and so on; the last step is cut in proportion. Objectives are those of the relaxed problem.

    Args:
        space: the designs, as for `codesign`; `axis` is among what is enumerated.
        objective: as for `codesign`.
        constraints: as for `codesign`.
        path: as for `codesign_along`.
        low: least value, above 0.
        high: largest.
        axis: path of a choice, "system" or "model".
        first: name of one of its choices.
        second: name of another.
        across: as for `codesign`.
        over: as for `codesign`.
        starts: points each combination is solved from at every value.
        seed: of the points.
        optimiser: as for `codesign`.
        evaluation: as for `codesign`.
        metrics: as for `codesign`.
        progress: told what is being done, and the share of it that is.

    Raises:
        ValueError: no such axis or choice, not 0 < low < high, or as `codesign_along`.
    """
    if not 0 < low < high:
        raise ValueError(f"0 < low < high, not {low:g} and {high:g}")
    solver = prepare(
        space, objective, constraints, across=across, over=over, seed=seed, optimiser=optimiser,
        evaluation=evaluation, metrics=metrics,
    )  # fmt: skip
    ways = [_way(solver, axis, name) for name in (first, second)]
    start = starting(solver, starts, seed)
    wanted = np.isin(start.combination, np.concatenate(ways))
    start = dataclasses.replace(
        start, combination=start.combination[wanted], positions=start.positions[wanted]
    )
    seen: dict[float, tuple[float, float]] = {}
    ends = (low, high)
    for zoom in range(_ZOOMS):
        grid = np.geomspace(*ends, _GRID)
        grid[[0, -1]] = ends
        wide, bounds = _widened(solver, path, grid)
        solved = _solve_all(wide, bounds, len(solver.bases), len(grid), start, lambda stage, share: None)
        for value, part in zip(grid, solved, strict=True):
            seen[float(value)] = (
                _least(part, ways[0], len(solver.bases)),
                _least(part, ways[1], len(solver.bases)),
            )
        progress("break even", (zoom + 1) / _ZOOMS)
        crossing = _crossing(seen, ends)
        if crossing is None:
            break
        ends = crossing
    values = np.asarray(sorted(seen))
    curves = np.asarray([seen[v] for v in values])
    value = at = float("nan")
    if (crossing := _crossing(seen, ends)) is not None:
        (a, b), (gap_a, gap_b) = crossing, (_gap(seen[x]) for x in crossing)
        t = gap_a / (gap_a - gap_b) if gap_a != gap_b else 0.0
        value = float(a * (b / a) ** t)
        at = float(np.exp((1 - t) * np.log(seen[a][0]) + t * np.log(seen[b][0])))
    return BreakEven(
        path=path,
        unit=unit_of(space, path),
        value=value,
        objective=at,
        values=values,
        first=curves[:, 0],
        second=curves[:, 1],
        names=(first, second),
        low=low,
        high=high,
    )


def elasticity_table(
    space: Space,
    design: Codesign,
    metrics: Sequence[str],
    *,
    across: Sequence[str] = (),
    evaluation: Evaluation | None = None,
    gives: tuple[str, ...] = (),
) -> Elasticities:
    """Differentiate metrics by every knob at a design: d ln metric / d ln knob, in the mean over scenarios.

    Softness is 0.01, so that a limit about to bind shows.

    Args:
        space: where the design is from.
        design: what `codesign` found there.
        metrics: of a Report; above 0.
        across: as for that design.
        evaluation: as for that design.
        gives: what `evaluation` gives.
    """
    solver = prepare(space, dict.fromkeys(metrics, 1.0), across=across, evaluation=evaluation, metrics=gives)
    rows = [_elasticities(solver, design, [(name, 1.0)]) for name in metrics]
    return Elasticities(
        metrics=tuple(metrics), knobs=tuple(k.name for k in design.knobs), table=np.asarray(rows)
    )


def _elasticities(solver: Solver, design: Codesign, weights: Sequence[tuple[str, float]]) -> list[float]:
    row = np.zeros((1, len(solver.metrics)))
    for name, weight in weights:
        row[0, solver.metrics.index(name)] = weight
    start = Start(
        combination=np.asarray([design.combination]),
        positions=design.positions[None],
        weights=row,
        penalty=np.asarray([_UNBOUND]),
    )
    slope = solver.measure(start, tau=_TAU).slope[0]
    out = []
    for k, knob in enumerate(solver.relaxation.knobs):
        value = float(knob.value(design.positions[k]))
        out.append(float(slope[k] / knob.per_position(value)) if value else 0.0)
    return out


def _widened(solver: Solver, path: str, values: np.ndarray) -> tuple[Solver, np.ndarray | None]:
    """Return a solver with every combination at every value, or the bounds [n, C] where the path is of a limit."""
    relaxation = solver.relaxation
    n = len(values)
    if path in relaxation.paths:
        if any(path == r.path for knob in relaxation.knobs for r in knob.ranges):
            raise ValueError(f"{path} is a knob of the space; along it goes what is none")
        wide = copy.copy(solver)
        wide.relaxation = dataclasses.replace(
            relaxation,
            bases=_set(relaxation.bases, relaxation.paths.index(path), values),
            choices=relaxation.choices * n,
        )
        wide.bases = _set(solver.bases, relaxation.paths.index(path), values)
        return wide, None
    rows = [i for i, (metric, _, _) in enumerate(solver.limits) if metric == path]
    if len(rows) != 1:
        raise ValueError(
            f"{path!r} is neither a leaf of a design nor a metric with one bound among the limits"
        )
    wide = copy.copy(solver)
    wide.relaxation = dataclasses.replace(
        relaxation, bases=np.concatenate([relaxation.bases] * n), choices=relaxation.choices * n
    )
    wide.bases = np.concatenate([solver.bases] * n)
    bounds = np.tile(solver.bounds, (n, 1))
    bounds[:, rows[0]] = values
    return wide, bounds


def _set(bases: np.ndarray, leaf: int, values: np.ndarray) -> np.ndarray:
    out = np.concatenate([bases] * len(values))
    out[:, :, leaf] = np.repeat(values, len(bases))[:, None]
    return out


def _solve_all(
    wide: Solver, bounds: np.ndarray | None, per: int, n: int, start: Start, progress: Tell
) -> list[Solutions]:
    """Solve every value from all starts, and again from the best of its neighbours."""
    lanes = len(start.combination)
    combination = np.tile(start.combination, n) + np.repeat(np.arange(n), lanes) * per
    first = Start(
        combination=combination,
        positions=np.tile(start.positions, (n, 1)),
        bounds=None if bounds is None else np.repeat(bounds, lanes, axis=0),
        fractional=True,
    )
    solved = wide.solve(first, progress=lambda share: progress("solve", 0.7 * share))
    parts = [solved.take(slice(i * lanes, (i + 1) * lanes)) for i in range(n)]
    rows = [p.take([int(np.argmin(score(p)))]) for p in parts]
    pairs = [(i, j) for i in range(n) for j in (i - 1, i + 1) if 0 <= j < n]
    if not pairs:
        return parts
    joined = Solutions.joined([rows[j] for _, j in pairs])
    again = wide.solve(
        warm(
            joined,
            combination=np.asarray([rows[j].combination[0] % per + i * per for i, j in pairs]),
            bounds=None if bounds is None else bounds[[i for i, _ in pairs]],
        )
    )
    progress("solve", 1.0)
    return [
        Solutions.joined([part, again.take([k for k, (i, _) in enumerate(pairs) if i == number])])
        for number, part in enumerate(parts)
    ]


def _way(solver: Solver, axis: str, name: str) -> np.ndarray:
    choices = solver.relaxation.choices
    if axis not in choices[0]:
        raise ValueError(f"no choice {axis!r} is enumerated; there are {', '.join(choices[0])}")
    found = np.asarray([i for i, choice in enumerate(choices) if str(choice[axis]) == name], int)
    if not len(found):
        raise ValueError(
            f"{axis} is one of {', '.join(dict.fromkeys(str(c[axis]) for c in choices))}, not {name!r}"
        )
    return found


def _least(solutions: Solutions, way: np.ndarray, per: int) -> float:
    mine = np.isin(solutions.combination % per, way) & (broken(solutions) <= 1e-3)
    return float(np.exp(solutions.objective[mine].min())) if mine.any() else float("nan")


def _gap(pair: tuple[float, float]) -> float:
    return float(np.log(pair[0] / pair[1]))


def _crossing(
    seen: dict[float, tuple[float, float]], ends: tuple[float, float]
) -> tuple[float, float] | None:
    inside = [v for v in sorted(seen) if ends[0] <= v <= ends[1]]
    for a, b in itertools.pairwise(inside):
        gaps = _gap(seen[a]), _gap(seen[b])
        if np.isfinite(gaps).all() and gaps[0] * gaps[1] <= 0:
            return a, b
    return None
