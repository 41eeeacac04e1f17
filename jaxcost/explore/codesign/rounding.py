"""From a relaxed solution to an exact design: whole numbers, and limits that the exact model satisfies.

Knobs with a list of allowed values are rounded to either side, and the free knobs are solved again around them. The
error of the smooth limits there, exact less smooth, is then added to the limits, and the free knobs are solved once
more, until the exact model satisfies all limits by `FEASIBILITY_TOLERANCE`. Finally single steps and pairs of steps of
the rounded knobs are tried by exact evaluation.
"""

import itertools

import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.explore.codesign.solver import ANNEALED, Solutions, Solver, resume_from

__all__ = ["FEASIBILITY_TOLERANCE", "SMOOTH_TOLERANCE", "find_exact_design", "max_violation", "merit_of"]

FEASIBILITY_TOLERANCE = (
    2e-5  # margin by which exact designs satisfy limits, in logarithms: above float32 rounding
)
SMOOTH_TOLERANCE = 1e-3  # violation up to which a smooth solution counts as feasible
_INFEASIBLE = 1e3  # above the logarithm of any objective
_EQUALITY = 1e-13  # |g| of a limit that is met with equality, as limits on counts are
_COARSE_SPACING = 0.01  # of allowed values, as a share of a knob's range
_REPAIRABLE = 0.02  # violation that another allowed value, or a free knob, can make up for
_NEIGHBOURS = (
    2  # values on either side that are tried: where two limits enclose a value, the nearest two may both fail
)
_DISTINCT = 1e-9  # difference of positions of distinct roundings
_GAIN = 1e-5  # of the objective's logarithm, for which another round is worth its evaluations
_MAX_CORNERS = 5  # knobs that are rounded to both sides in all combinations
_CANDIDATES = 4
_CORRECTIONS = 4
_ROUNDS = 8
_RESUMED_STAGE = 2  # of a solve around rounded knobs
_RESUMED = replace(ANNEALED, max_evaluations=np.asarray(120, np.int32))  # it begins near its solution
_STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)


def find_exact_design(solver: Solver, relaxed: Solutions) -> tuple[Solutions, Solutions] | None:
    """Find the best design that satisfies all limits of the exact model, near the best relaxed solutions.

    Args:
        solver: of the problem.
        relaxed: its smooth solutions.

    Returns:
        The exact evaluation of the design and the smooth solution it comes from, one row each; None where no design
        satisfies all limits.
    """
    candidates = relaxed.take(_best_rows(relaxed, _CANDIDATES))
    discrete = np.asarray([knob.values is not None for knob in solver.relaxation.knobs])
    if discrete.any():
        candidates = _round_knobs(solver, candidates, discrete)
    smooth, exact = _correct_limits(solver, candidates, discrete)
    if not discrete.any():
        return _best_feasible(exact, smooth)
    best = _search_from_all(solver, exact, smooth, discrete)
    if discrete.all():
        return best
    for _ in range(_ROUNDS):
        moved = _search_steps(solver, exact if best is None else best[0], discrete, strict=best is None)
        rows = [row for row in (best[0] if best else None, moved) if row is not None]
        if not rows:
            break
        resolved = _solve_free_knobs(solver, Solutions.joined(rows), smooth.take([0]), discrete)
        resolved, exactly = _correct_limits(solver, resolved, discrete)
        improved = _search_from_all(solver, exactly, resolved, discrete)
        if improved is None or (
            best is not None and improved[0].objective[0] >= best[0].objective[0] - _GAIN
        ):
            break
        best = improved
    return best


def max_violation(solutions: Solutions) -> np.ndarray:
    """Return the largest violation of a limit [n], in logarithms; below 0 where all limits are satisfied."""
    return solutions.limits.max(axis=(1, 2))


def merit_of(solutions: Solutions) -> np.ndarray:
    """Return the quantity that the best solution minimises [n]: the objective if feasible, else the violation."""
    worst = max_violation(solutions)
    return np.where(worst <= SMOOTH_TOLERANCE, solutions.objective, _INFEASIBLE + worst)


def _excess(exact: Solutions) -> np.ndarray:
    """Return the largest g [n] plus a quarter of `FEASIBILITY_TOLERANCE`: a design is feasible at or below 0.

    A limit that is met with equality, as limits on counts are, is satisfied without a tolerance.
    """
    g = np.where(_is_equality(exact), -FEASIBILITY_TOLERANCE, exact.limits)
    return g.max(axis=(1, 2)) + FEASIBILITY_TOLERANCE / 4


def _is_equality(exact: Solutions) -> np.ndarray:
    return np.abs(exact.limits) < _EQUALITY


def _best_feasible(exact: Solutions, smooth: Solutions) -> tuple[Solutions, Solutions] | None:
    feasible = np.flatnonzero(_excess(exact) <= 0)
    if not len(feasible):
        return None
    best = feasible[np.argmin(exact.objective[feasible])]
    return exact.take([best]), smooth.take([best])


def _best_rows(solutions: Solutions, count: int, *, slack: float = 1e-3, apart: float = 1e-2) -> np.ndarray:
    """Return rows of distinct designs: first those that violate no limit by more than `slack`, by objective."""
    worst = max_violation(solutions)
    order = np.lexsort([solutions.objective, np.where(worst <= slack, 0, worst)])
    chosen: list[int] = []
    for row in order:
        same = [
            solutions.combination[row] == solutions.combination[i]
            and np.max(np.abs(solutions.positions[row] - solutions.positions[i])) < apart
            for i in chosen
        ]
        if not any(same):
            chosen.append(int(row))
        if len(chosen) == count:
            break
    return np.asarray(chosen)


def _neighbours(
    solver: Solver, positions: np.ndarray, discrete: np.ndarray, count: int = 1
) -> list[list[float]]:
    """Return for each discrete knob the positions of `count` allowed values on either side, the nearest first."""
    out = []
    for k in np.flatnonzero(discrete):
        u = _allowed_positions(solver, int(k))
        above = int(np.clip(np.searchsorted(u, positions[k]), 0, len(u) - 1))
        around = {float(x) for x in u[max(above - count, 0) : above + count]}
        out.append(sorted(around, key=lambda x: abs(x - positions[k])))
    return out


def _allowed_positions(solver: Solver, k: int) -> np.ndarray:
    knob = solver.relaxation.knobs[k]
    return np.asarray(knob.position(knob.values))


def _round_knobs(solver: Solver, rows: Solutions, discrete: np.ndarray) -> Solutions:
    """Round coarse knobs one after another to both sides, solving the others again each time; then the fine ones.

    The coarsest knob, whose neighbouring values are farthest apart, is first: finer ones can make up for its rounding.
    """
    gaps = [max(side) - min(side) for side in _neighbours(solver, rows.positions[0], discrete)]
    coarse = [
        (gap, k) for gap, k in zip(gaps, np.flatnonzero(discrete), strict=True) if gap > _COARSE_SPACING
    ]
    rounded = np.zeros_like(discrete)
    for _, k in sorted(coarse, reverse=True):
        if not (discrete & ~rounded).sum() > 1 and discrete.all():
            break
        this = np.arange(len(discrete)) == k
        rounded = rounded | this
        rows = _round_to_corners(solver, rows, this, rounded, count=_NEIGHBOURS, fractional=True)
        rows = rows.take(_best_rows(rows, 2 * _CANDIDATES, slack=_REPAIRABLE, apart=_DISTINCT))
    return _round_to_corners(solver, rows, discrete & ~rounded, discrete)


def _round_to_corners(
    solver: Solver,
    rows: Solutions,
    now: np.ndarray,
    rounded: np.ndarray,
    *,
    count: int = 1,
    fractional: bool = False,
) -> Solutions:
    """Round the knobs `now` of each row to combinations of neighbouring values, and solve the free knobs again."""
    if not now.any():
        return rows
    points, parents = [], []
    for row in range(len(rows.combination)):
        sides = _neighbours(solver, rows.positions[row], now, count)
        if len(sides) <= _MAX_CORNERS:
            corners = list(itertools.product(*sides))
        else:
            nearest = [side[0] for side in sides]
            flips = [i for i, side in enumerate(sides) if len(side) > 1]
            corners = [tuple(nearest)] + [(*nearest[:i], sides[i][1], *nearest[i + 1 :]) for i in flips]
        for corner in corners:
            positions = rows.positions[row].copy()
            positions[now] = corner
            points.append(positions)
            parents.append(row)
    parent_rows = rows.take(np.asarray(parents))
    corner_rows = _with_positions(parent_rows, np.asarray(points))
    return _solve_free_knobs(solver, corner_rows, parent_rows, rounded, fractional=fractional)


def _with_positions(rows: Solutions, positions: np.ndarray) -> Solutions:
    return Solutions(**{**vars(rows), "positions": positions})


def _free_knobs(rows: Solutions, rounded: np.ndarray) -> np.ndarray:
    return np.tile(~rounded, (len(rows.combination), 1)).astype(float)


def _solve_free_knobs(
    solver: Solver, rows: Solutions, like: Solutions, rounded: np.ndarray, *, fractional: bool = False
) -> Solutions:
    """Solve the knobs that are not rounded again, from the multipliers of `like`; return `rows` where all are rounded.

    With `fractional`, knobs that are still to be rounded move as fractions: the model of whole numbers is a step
    function without a slope.
    """
    if rounded.all():
        return rows
    parent = [0] * len(rows.combination) if len(like.combination) == 1 else slice(None)
    multipliers = np.broadcast_to(like.multipliers[parent], rows.multipliers.shape)
    points = resume_from(
        rows,
        multipliers=multipliers,
        stage=_RESUMED_STAGE,
        free=_free_knobs(rows, rounded),
        fractional=fractional,
    )
    return solver.solve(points, _RESUMED)


def _correct_limits(solver: Solver, rows: Solutions, discrete: np.ndarray) -> tuple[Solutions, Solutions]:
    """Solve with the error of the smooth limits added to the limits, until the exact model satisfies them.

    Returns:
        Smooth solutions, and the exact evaluations at the same positions.
    """
    exact = solver.measure(resume_from(rows))
    if discrete.any():
        best = _best_rows(exact, 2 * _CANDIDATES, slack=_REPAIRABLE, apart=_DISTINCT)
    else:
        best = _best_rows(exact, _CANDIDATES)
    rows, exact = rows.take(best), exact.take(best)
    if discrete.all():
        return rows, exact
    smooth_limits, shift = rows.limits, np.zeros_like(rows.limits)
    best_rows, best_exact = rows, exact
    free = _free_knobs(rows, discrete)
    last_stage = len(ANNEALED.tau) - 1
    for attempt in range(_CORRECTIONS):
        near = np.abs(exact.limits) < 0.3
        tolerance = np.where(_is_equality(exact), 0, FEASIBILITY_TOLERANCE * 2**attempt)
        error = np.clip(exact.limits - smooth_limits, -0.1, 0.1) + tolerance
        shift = np.where(near, error, shift)
        rows = solver.solve(resume_from(rows, stage=last_stage, free=free, shift=shift), _RESUMED)
        exact, smooth_limits = solver.measure(resume_from(rows)), rows.limits
        feasible, before = _excess(exact) <= 0, _excess(best_exact) <= 0
        better = (
            (feasible & ~before)
            | (feasible & (exact.objective < best_exact.objective))
            | (~feasible & ~before)
        )
        best_rows, best_exact = _merge(better, rows, best_rows), _merge(better, exact, best_exact)
        if feasible.all():
            break
    return best_rows, best_exact


def _search_from_all(
    solver: Solver, exact: Solutions, smooth: Solutions, discrete: np.ndarray
) -> tuple[Solutions, Solutions] | None:
    """Search steps from every rounded design whose smooth objective, a bound, is below the best so far."""
    best = _best_feasible(exact, smooth)
    for row in np.argsort(smooth.objective):
        bound = smooth.take([row])
        if best is not None and bound.objective[0] >= best[0].objective[0]:
            continue
        moved = _search_steps(solver, exact.take([row]), discrete)
        candidate = None if moved is None else _best_feasible(moved, bound)
        if candidate is not None and (best is None or candidate[0].objective[0] < best[0].objective[0]):
            best = candidate
    return best


def _merge(take: np.ndarray, a: Solutions, b: Solutions) -> Solutions:
    """Return the rows of `a` where `take`, else those of `b`."""
    shaped = lambda x: take.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
    return Solutions(**{name: np.where(shaped(x), x, getattr(b, name)) for name, x in vars(a).items()})


def _search_steps(
    solver: Solver, rows: Solutions, discrete: np.ndarray, *, strict: bool = True
) -> Solutions | None:
    """Move discrete knobs of the first row by steps while the exact objective falls; return None where no step helps.

    Unless strict, steps may violate limits by what free knobs can make up for afterwards.
    """
    at = rows.take([0])
    improved = False
    for _ in range(_ROUNDS):
        points = _step_points(solver, at.positions[0], discrete)
        if not len(points):
            break
        tried = solver.measure(resume_from(_with_positions(at.take(np.zeros(len(points), int)), points)))
        excess, current = _excess(tried), _excess(at)[0]
        slack = 0.0 if strict else _REPAIRABLE
        allowed = excess <= max(slack, min(current, slack))
        if allowed.any():
            allowed_rows = np.flatnonzero(allowed)
            best = allowed_rows[np.argmin(tried.objective[allowed_rows])]
            if current <= slack and tried.objective[best] >= at.objective[0] - 1e-7:
                break
        else:
            best = int(np.argmin(excess))
            if excess[best] >= current:
                break
        at, improved = tried.take([best]), True
    return at if improved else None


def _step_points(solver: Solver, positions: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    """Return positions [n, K] with one discrete knob moved by some steps, or two by one or two steps."""
    singles: list[list[tuple[int, float]]] = []
    for k in np.flatnonzero(discrete):
        u = _allowed_positions(solver, int(k))
        here = int(np.argmin(np.abs(u - positions[k])))
        moves = [(int(k), float(u[here + s])) for n in _STEPS for s in (n, -n) if 0 <= here + s < len(u)]
        singles.append(moves)
    ways = [[move] for moves in singles for move in moves]
    for a, b in itertools.combinations(singles, 2):
        ways += [[x, y] for x in a[:4] for y in b[:4]]
    out = np.tile(positions, (len(ways), 1))
    for row, way in enumerate(ways):
        for k, u in way:
            out[row, k] = u
    return out
