"""From a relaxed solution to a design that holds: whole numbers, and limits kept by the exact model.

Numbers that must be of a list are rounded to either side, and the rest is solved again around them. What smoothing adds
to each limit there, exact less smooth, is then added to the limit, and the rest solved once more, until the exact model
keeps all limits by a hair. Single steps and pairs of steps of the rounded numbers are tried last, by exact evaluation.
"""

import itertools
from typing import Any

import numpy as np

from jaxcost.explore.solver import ANNEALED, Solutions, Solver, Start

__all__ = ["HAIR", "exact"]

HAIR = 2e-5  # by which limits are kept in the end, in logarithms: above the rounding of float32
_EXACT = 1e-12
_CORNERS = 5  # numbers that are rounded to both sides all together
_CANDIDATES = 6
_CORRECTIONS = 4
_COARSE = 0.05  # a number whose neighbours are further apart than that share of it is rounded before others
_ROUNDED = 1e-9
_ROUNDS = 8
_RESUMED = 2  # stage at which a solve around rounded numbers begins
_STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89)


def exact(solver: Solver, relaxed: Solutions) -> tuple[Solutions, Solutions] | None:
    """Find the best design that the exact model allows, near the best relaxed solutions.

    Args:
        solver: the problem.
        relaxed: its solutions.

    Returns:
        The design as the exact model sees it, one row, and the smooth solution it comes from; None where no design
        keeps all limits.
    """
    best = _best_rows(relaxed, _CANDIDATES)
    candidates = relaxed.take(best)
    listed = np.asarray([knob.values is not None for knob in solver.relaxation.knobs])
    if listed.any():
        # Few values first: a stack more or less moves all else, numbers of many values such as a batch among it.
        coarse = listed & _coarse(solver, candidates.positions[0])
        if coarse.any() and (listed & ~coarse).any():
            candidates = _cornered(solver, candidates, coarse, fractional=True)
            candidates = candidates.take(_best_rows(candidates, _CANDIDATES))
        candidates = _cornered(solver, candidates, listed)
    smooth, found = _corrected(solver, candidates, listed)
    if not listed.any():
        return _first(found, smooth)
    for _ in range(_ROUNDS):
        top = _first(found, smooth)
        moved = _stepped(solver, found if top is None else top[0], listed)
        if moved is None:
            break
        again, exactly = _corrected(solver, _resolved(solver, moved, smooth, listed), listed)
        better = _first(exactly, again)
        if better is None or (top is not None and better[0].objective[0] >= top[0].objective[0] - 1e-7):
            break
        smooth, found = again, exactly
    return _first(found, smooth)


def broken(solutions: Solutions) -> np.ndarray:
    """Return by how much the worst limit is broken, in logarithms; below 0 where all are kept.

    What is met to the last bit is a count, such as all of the chips in use, and kept.
    """
    g = solutions.limits
    return np.where(np.abs(g) < _EXACT, -HAIR, g).max(axis=(1, 2))


def _first(found: Solutions, smooth: Solutions) -> tuple[Solutions, Solutions] | None:
    kept = np.flatnonzero(broken(found) <= -HAIR / 4)
    if not len(kept):
        return None
    best = kept[np.argmin(found.objective[kept])]
    return found.take([best]), smooth.take([best])


def _best_rows(solutions: Solutions, count: int, listed: np.ndarray | None = None) -> np.ndarray:
    """Return rows of different designs, those that keep limits first, then by objective.

    Listed knobs differ where their values do, others by a hundredth of their range.
    """
    least = np.full(solutions.positions.shape[1], 1e-2) if listed is None else np.where(listed, 1e-9, 1e-2)
    held = broken(solutions) <= 1e-3
    order = np.lexsort([solutions.objective, ~held * np.maximum(broken(solutions), 0)])
    chosen: list[int] = []
    for row in order:
        same = [
            solutions.combination[row] == solutions.combination[i]
            and np.all(np.abs(solutions.positions[row] - solutions.positions[i]) < least)
            for i in chosen
        ]
        if not any(same):
            chosen.append(int(row))
        if len(chosen) == count:
            break
    return np.asarray(chosen)


def _start(solver: Solver, rows: Solutions, **changes: Any) -> Start:
    given: dict[str, Any] = {
        "combination": rows.combination,
        "positions": rows.positions,
        "multipliers": rows.multipliers,
        "penalty": np.minimum(rows.penalty, 40.0),
    }
    return Start(**given | changes)


def _coarse(solver: Solver, positions: np.ndarray) -> np.ndarray:
    """Tell of every knob whether its next value is far, against the value it has."""
    out = np.zeros(len(positions), bool)
    for k, knob in enumerate(solver.relaxation.knobs):
        if knob.values is not None and len(knob.values) > 1:
            value = float(knob.value(positions[k]))
            gaps = np.sort(np.abs(knob.values - value))
            out[k] = gaps[:2].sum() > _COARSE * abs(value)
    return out


def _neighbours(solver: Solver, positions: np.ndarray, listed: np.ndarray) -> list[list[float]]:
    """Return for every listed knob the positions of the values on either side, the nearer first."""
    out = []
    for k in np.flatnonzero(listed):
        knob = solver.relaxation.knobs[k]
        u = np.asarray(knob.position(knob.values))
        above = int(np.clip(np.searchsorted(u, positions[k]), 0, len(u) - 1))
        nearest = float(u[np.argmin(np.abs(u - positions[k]))])
        rounded = bool(abs(nearest - positions[k]) < _ROUNDED)
        pair = {nearest} if rounded else {float(u[max(above - 1, 0)]), float(u[above])}
        out.append(sorted(pair, key=lambda x: abs(x - positions[k])))
    return out


def _cornered(solver: Solver, rows: Solutions, listed: np.ndarray, *, fractional: bool = False) -> Solutions:
    """Round each row to several lists of values, and solve the rest of them again."""
    ways, parents = [], []
    for row in range(len(rows.combination)):
        sides = _neighbours(solver, rows.positions[row], listed)
        if len(sides) <= _CORNERS:
            corners = list(itertools.product(*sides))
        else:
            nearest = [side[0] for side in sides]
            flips = [i for i, side in enumerate(sides) if len(side) > 1]
            corners = [tuple(nearest)] + [(*nearest[:i], sides[i][1], *nearest[i + 1 :]) for i in flips]
        for corner in corners:
            positions = rows.positions[row].copy()
            positions[listed] = corner
            ways.append(positions)
            parents.append(row)
    rounded = rows.take(np.asarray(parents))
    return _resolved(solver, _at(rounded, np.asarray(ways)), rounded, listed, fractional=fractional)


def _at(rows: Solutions, positions: np.ndarray) -> Solutions:
    return Solutions(**{**vars(rows), "positions": positions})


def _resolved(
    solver: Solver, rows: Solutions, like: Solutions, listed: np.ndarray, *, fractional: bool = False
) -> Solutions:
    """Solve what is not rounded again; all in place where everything is."""
    if listed.all():
        return rows
    parent = 0 if len(like.combination) != len(rows.combination) else slice(None)
    multipliers = np.broadcast_to(like.multipliers[parent], rows.multipliers.shape)
    free = np.tile(~listed, (len(rows.combination), 1)).astype(float)
    return solver.solve(
        _start(solver, rows, multipliers=multipliers, stage=_RESUMED, free=free, fractional=fractional)
    )


def _corrected(solver: Solver, rows: Solutions, listed: np.ndarray) -> tuple[Solutions, Solutions]:
    """Solve with what smoothing adds taken off the limits, until the exact model keeps them.

    Returns:
        Smooth solutions, and the same positions as the exact model sees them.
    """
    found = solver.measure(_start(solver, rows))
    best = _best_rows(found, _CANDIDATES, listed)
    rows, found = rows.take(best), found.take(best)
    if listed.all():
        return rows, found
    smooth_limits, shift = rows.limits, np.zeros_like(rows.limits)
    kept_rows, kept_found = rows, found
    free = np.tile(~listed, (len(best), 1)).astype(float)
    stage = len(ANNEALED.tau) - 1
    for attempt in range(_CORRECTIONS):
        used = (np.abs(found.limits) < 0.3) & (np.abs(found.limits) > _EXACT)
        shift = np.where(used, np.clip(found.limits - smooth_limits, -0.1, 0.1) + HAIR * 2**attempt, shift)
        rows = solver.solve(_start(solver, rows, stage=stage, free=free, shift=shift))
        found, smooth_limits = solver.measure(_start(solver, rows)), rows.limits
        held, before = broken(found) <= -HAIR / 4, broken(kept_found) <= -HAIR / 4
        better = (held & ~before) | (held & (found.objective < kept_found.objective)) | (~held & ~before)
        kept_rows, kept_found = _mixed(better, rows, kept_rows), _mixed(better, found, kept_found)
        if held.all():
            break
    return kept_rows, kept_found


def _mixed(take: np.ndarray, a: Solutions, b: Solutions) -> Solutions:
    shaped = lambda x: take.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
    return Solutions(**{name: np.where(shaped(x), x, getattr(b, name)) for name, x in vars(a).items()})


def _stepped(solver: Solver, rows: Solutions, listed: np.ndarray) -> Solutions | None:
    """Move rounded numbers of the first row by steps while the exact model gains; None where it does not."""
    at = rows.take([0])
    improved = False
    for _ in range(_ROUNDS):
        ways = _steps(solver, at.positions[0], listed)
        if not len(ways):
            break
        tried = solver.measure(_start(solver, _at(at.take(np.zeros(len(ways), int)), ways)))
        worst, now = broken(tried), broken(at)[0]
        # Where nothing is kept yet, less broken is better; the continuous knobs can mend a little.
        slack = -HAIR / 4 if listed.all() else 0.02
        allowed = worst <= max(slack, min(now, slack))
        if allowed.any():
            rows_allowed = np.flatnonzero(allowed)
            best = rows_allowed[np.argmin(tried.objective[rows_allowed])]
            if now <= slack and tried.objective[best] >= at.objective[0] - 1e-7:
                break
        else:
            best = int(np.argmin(worst))
            if worst[best] >= now:
                break
        at, improved = tried.take([best]), True
    return at if improved else None


def _steps(solver: Solver, positions: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """Return positions with one number moved some steps, or two moved by one."""
    singles: list[list[tuple[int, float]]] = []
    for k in np.flatnonzero(listed):
        knob = solver.relaxation.knobs[k]
        u = np.asarray(knob.position(knob.values))
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
