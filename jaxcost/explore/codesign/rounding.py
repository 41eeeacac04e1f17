"""From a relaxed solution to a design that holds: whole numbers, and limits kept by the exact model.

Numbers that must be of a list are rounded to either side, and the rest is solved again around them. What smoothing adds
to each limit there, exact less smooth, is then added to the limit, and the rest solved once more, until the exact model
keeps all limits by a hair. Single steps and pairs of steps of the rounded numbers are tried last, by exact evaluation.
"""

import itertools

import numpy as np

from jaxcost.core.pytree import replace
from jaxcost.explore.codesign.solver import ANNEALED, Solutions, Solver, resumed

__all__ = ["HAIR", "broken", "exact", "score"]

HAIR = 2e-5  # by which limits are kept in the end, in logarithms: above the rounding of float32
_KEPT = 1e-3  # by which a smooth solution may break a limit and count as keeping it
_FAR = 1e3  # beyond the logarithm of any objective
_TO_THE_BIT = 1e-13
_COARSE = 0.01  # of a knob's range, between two numbers
_MENDED = 0.02  # by which a limit may be broken where another number, or a continuous knob, makes up for it
_REACH = 2  # numbers on either side: where two limits pinch a number between them, both next to it may fail
_DIFFERENT = 1e-9
_GAIN = 1e-5  # of the objective's logarithm, for which another round is worth it
_CORNERS = 5  # numbers that are rounded to both sides all together
_CANDIDATES = 4
_CORRECTIONS = 4
_ROUNDS = 8
_RESUMED = 2  # stage at which a solve around rounded numbers begins
_AGAIN = replace(ANNEALED, most=np.asarray(120, np.int32))  # they begin near their end
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
    candidates = relaxed.take(_best_rows(relaxed, _CANDIDATES))
    listed = np.asarray([knob.values is not None for knob in solver.relaxation.knobs])
    if listed.any():
        candidates = _dived(solver, candidates, listed)
    smooth, found = _corrected(solver, candidates, listed)
    if not listed.any():
        return _first(found, smooth)
    best = _searched(solver, found, smooth, listed)
    if listed.all():
        return best
    for _ in range(_ROUNDS):
        moved = _stepped(solver, found if best is None else best[0], listed, strict=best is None)
        tries = [rows for rows in (best[0] if best else None, moved) if rows is not None]
        if not tries:
            break
        rows = Solutions.joined(tries)
        again, exactly = _corrected(solver, _resolved(solver, rows, smooth.take([0]), listed), listed)
        better = _searched(solver, exactly, again, listed)
        if better is None or (best is not None and better[0].objective[0] >= best[0].objective[0] - _GAIN):
            break
        best = better
    return best


def broken(solutions: Solutions) -> np.ndarray:
    """Return by how much the worst limit is broken, in logarithms; below 0 where all are kept."""
    return solutions.limits.max(axis=(1, 2))


def score(solutions: Solutions) -> np.ndarray:
    """Return what the best solution has least of: the objective where limits are all but kept, then how far broken."""
    worst = broken(solutions)
    return np.where(worst <= _KEPT, solutions.objective, _FAR + worst)


def _broken(found: Solutions) -> np.ndarray:
    """Return by how much the worst limit lacks its hair; one met to the bit, as counts are, needs none."""
    return np.where(_met(found), -HAIR, found.limits).max(axis=(1, 2)) + HAIR / 4


def _met(found: Solutions) -> np.ndarray:
    return np.abs(found.limits) < _TO_THE_BIT


def _first(found: Solutions, smooth: Solutions) -> tuple[Solutions, Solutions] | None:
    kept = np.flatnonzero(_broken(found) <= 0)
    if not len(kept):
        return None
    best = kept[np.argmin(found.objective[kept])]
    return found.take([best]), smooth.take([best])


def _best_rows(solutions: Solutions, count: int, *, slack: float = 1e-3, apart: float = 1e-2) -> np.ndarray:
    """Return rows of different designs, those that keep limits but for some slack first, then by objective."""
    worst = broken(solutions)
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
    solver: Solver, positions: np.ndarray, listed: np.ndarray, reach: int = 1
) -> list[list[float]]:
    """Return for every listed knob the positions of so many values on either side, the nearer first."""
    out = []
    for k in np.flatnonzero(listed):
        knob = solver.relaxation.knobs[k]
        u = np.asarray(knob.position(knob.values))
        above = int(np.clip(np.searchsorted(u, positions[k]), 0, len(u) - 1))
        around = {float(x) for x in u[max(above - reach, 0) : above + reach]}
        out.append(sorted(around, key=lambda x: abs(x - positions[k])))
    return out


def _dived(solver: Solver, rows: Solutions, listed: np.ndarray) -> Solutions:
    """Round the coarse numbers one after the other, to both sides, with the rest solved again; then the fine ones.

    How far its neighbours are apart says how coarse a number is: what a stack more or less does, a batch makes up for.
    """
    gaps = [max(side) - min(side) for side in _neighbours(solver, rows.positions[0], listed)]
    coarse = [(gap, k) for gap, k in zip(gaps, np.flatnonzero(listed), strict=True) if gap > _COARSE]
    rounded = np.zeros_like(listed)
    for _, k in sorted(coarse, reverse=True):
        if not (listed & ~rounded).sum() > 1 and listed.all():
            break
        rounded = rounded | (np.arange(len(listed)) == k)
        rows = _cornered(solver, rows, np.arange(len(listed)) == k, rounded, reach=_REACH, fractional=True)
        rows = rows.take(_best_rows(rows, 2 * _CANDIDATES, slack=_MENDED, apart=_DIFFERENT))
    return _cornered(solver, rows, listed & ~rounded, listed)


def _cornered(
    solver: Solver,
    rows: Solutions,
    now: np.ndarray,
    rounded: np.ndarray,
    *,
    reach: int = 1,
    fractional: bool = False,
) -> Solutions:
    """Round numbers of each row to several lists of values, and solve what is not rounded again."""
    if not now.any():
        return rows
    ways, parents = [], []
    for row in range(len(rows.combination)):
        sides = _neighbours(solver, rows.positions[row], now, reach)
        if len(sides) <= _CORNERS:
            corners = list(itertools.product(*sides))
        else:
            nearest = [side[0] for side in sides]
            flips = [i for i, side in enumerate(sides) if len(side) > 1]
            corners = [tuple(nearest)] + [(*nearest[:i], sides[i][1], *nearest[i + 1 :]) for i in flips]
        for corner in corners:
            positions = rows.positions[row].copy()
            positions[now] = corner
            ways.append(positions)
            parents.append(row)
    parted = rows.take(np.asarray(parents))
    return _resolved(solver, _at(parted, np.asarray(ways)), parted, rounded, fractional=fractional)


def _at(rows: Solutions, positions: np.ndarray) -> Solutions:
    return Solutions(**{**vars(rows), "positions": positions})


def _resolved(
    solver: Solver, rows: Solutions, like: Solutions, listed: np.ndarray, *, fractional: bool = False
) -> Solutions:
    """Solve what is not rounded again; all in place where everything is.

    Numbers that are still to be rounded move as fractions: between whole numbers the model is a stair without a slope.
    """
    if listed.all():
        return rows
    parent = [0] * len(rows.combination) if len(like.combination) == 1 else slice(None)
    multipliers = np.broadcast_to(like.multipliers[parent], rows.multipliers.shape)
    free = np.tile(~listed, (len(rows.combination), 1)).astype(float)
    start = resumed(rows, multipliers=multipliers, stage=_RESUMED, free=free, fractional=fractional)
    return solver.solve(start, _AGAIN)


def _corrected(solver: Solver, rows: Solutions, listed: np.ndarray) -> tuple[Solutions, Solutions]:
    """Solve with what smoothing adds taken off the limits, until the exact model keeps them.

    Returns:
        Smooth solutions, and the same positions as the exact model sees them.
    """
    found = solver.measure(resumed(rows))
    if listed.any():
        best = _best_rows(found, 2 * _CANDIDATES, slack=_MENDED, apart=_DIFFERENT)
    else:
        best = _best_rows(found, _CANDIDATES)
    rows, found = rows.take(best), found.take(best)
    if listed.all():
        return rows, found
    smooth_limits, shift = rows.limits, np.zeros_like(rows.limits)
    kept_rows, kept_found = rows, found
    free = np.tile(~listed, (len(best), 1)).astype(float)
    stage = len(ANNEALED.tau) - 1
    for attempt in range(_CORRECTIONS):
        used = np.abs(found.limits) < 0.3
        added = np.clip(found.limits - smooth_limits, -0.1, 0.1) + np.where(_met(found), 0, HAIR * 2**attempt)
        shift = np.where(used, added, shift)
        rows = solver.solve(resumed(rows, stage=stage, free=free, shift=shift), _AGAIN)
        found, smooth_limits = solver.measure(resumed(rows)), rows.limits
        held, before = _broken(found) <= 0, _broken(kept_found) <= 0
        better = (held & ~before) | (held & (found.objective < kept_found.objective)) | (~held & ~before)
        kept_rows, kept_found = _mixed(better, rows, kept_rows), _mixed(better, found, kept_found)
        if held.all():
            break
    return kept_rows, kept_found


def _searched(
    solver: Solver, found: Solutions, smooth: Solutions, listed: np.ndarray
) -> tuple[Solutions, Solutions] | None:
    """Step from every rounded design whose own smooth problem promises more than the best so far."""
    best = _first(found, smooth)
    for row in np.argsort(smooth.objective):
        start, of = found.take([row]), smooth.take([row])
        if best is not None and of.objective[0] >= best[0].objective[0]:
            continue
        moved = _stepped(solver, start, listed)
        here = None if moved is None else _first(moved, of)
        if here is not None and (best is None or here[0].objective[0] < best[0].objective[0]):
            best = here
    return best


def _mixed(take: np.ndarray, a: Solutions, b: Solutions) -> Solutions:
    shaped = lambda x: take.reshape(-1, *[1] * (x.ndim - 1))  # noqa: E731
    return Solutions(**{name: np.where(shaped(x), x, getattr(b, name)) for name, x in vars(a).items()})


def _stepped(solver: Solver, rows: Solutions, listed: np.ndarray, *, strict: bool = True) -> Solutions | None:
    """Move rounded numbers of the first row by steps while the exact model gains; None where it does not.

    Unless strict, limits may be broken by what continuous knobs can mend afterwards.
    """
    at = rows.take([0])
    improved = False
    for _ in range(_ROUNDS):
        ways = _steps(solver, at.positions[0], listed)
        if not len(ways):
            break
        tried = solver.measure(resumed(_at(at.take(np.zeros(len(ways), int)), ways)))
        worst, now = _broken(tried), _broken(at)[0]
        slack = 0.0 if strict else _MENDED
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
