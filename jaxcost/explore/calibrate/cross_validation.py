"""Fit a form to measured rows, and say how well it predicts what it has not seen.

Rows of one chip, library and precision are fitted together. How well a form predicts is seen on whole axes held out:
of K folds over an axis (shapes, head configurations, models) each is predicted from the others. The interval of a
prediction is that of such errors, and is itself tested: for every fold it is taken from the errors of folds that
were predicted without either. Where the axis is the chip, each is predicted from its datasheet and what others share.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.explore.calibrate.fit import Bounds, Columns, Fit, fit, folds, predict

__all__ = ["Calibration", "Form", "LeftOut", "calibrate_rows", "labelled", "leave_out", "scores"]

FOLDS = 6
_TAIL = 0.1  # on either side of an 80% interval


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """A family of kernels as a function of few parameters.

    Attributes:
        family: its name.
        run: (columns, parameters of the kernel) to seconds, a pure function of JAX; columns hold the chip's numbers
            too, and a parameter that is absent is ideal.
        bounds: the parameters that are fitted.
        constants: parameters that are not: `start`, and between what they might be.
        tied: parameters that are equal to a fitted one, by name.
    """

    family: str
    run: Callable[[Columns, Mapping[str, Any]], Any]
    bounds: Mapping[str, Bounds]
    constants: Mapping[str, Bounds] = dataclasses.field(default_factory=dict)
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def kernel(self, fitted: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters of the kernel, given those that are fitted."""
        return {
            **{name: bounds.start for name, bounds in self.constants.items()},
            **fitted,
            **{name: fitted[other] for name, other in self.tied.items()},
        }

    def seconds(self, columns: Columns, fitted: Mapping[str, Any]) -> Any:
        """Predict seconds, [R], with the parameters that are fitted."""
        return self.run(columns, self.kernel(fitted))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Parameters fitted to some rows, and how far off they are.

    Attributes:
        values: the parameters fitted to all rows.
        low: lower ends of their 80% intervals.
        high: upper ends.
        inside: ln(predicted / measured) of the rows as fitted, [R].
        held: the same, each row predicted without its fold, [R].
        interval: ln(measured / predicted) that holds the middle 80% of held-out rows, (low, high).
        covered: whether each row lies within an interval that was made without its fold, [R].
        folds: in how many parts the axis was cut.
    """

    values: dict[str, float]
    low: dict[str, float]
    high: dict[str, float]
    inside: np.ndarray
    held: np.ndarray
    interval: tuple[float, float]
    covered: np.ndarray
    folds: int


@dataclasses.dataclass(frozen=True, eq=False)
class LeftOut:
    """A form fitted to all rows, to all but one fold, and to all but two.

    Attributes:
        part: the fold of every row [R].
        folds: how many there are.
        weights: of the rows in every fit, [L, R].
        found: the fits.
        errors: ln(predicted / measured) of all rows [R], by the folds that a fit has not seen.
    """

    part: np.ndarray
    folds: int
    weights: np.ndarray
    found: Fit
    errors: dict[tuple[int, ...], np.ndarray]


def leave_out(
    form: Form,
    columns: Columns,
    measured: np.ndarray,
    axis: np.ndarray,
    *,
    most_folds: int = FOLDS,
    even: bool = False,
    seed: int = 0,
) -> LeftOut:
    """Fit a form without each fold of an axis, and without each two; arguments are those of `calibrate_rows`."""
    part = folds(axis, most_folds, seed=seed)
    many = int(part.max()) + 1
    pairs = [(i, j) for i in range(many) for j in range(i + 1, many)]
    left_out = [(), *((i,) for i in range(many)), *pairs]
    # Every fold counts the same where they are few and large: chips differ in how many rows they have.
    share = np.bincount(part).mean() / np.bincount(part) if even else np.ones(many)
    weights = np.stack([~np.isin(part, out) * share[part] for out in left_out])
    groups = np.unique(axis, return_inverse=True)[1]
    found = fit(form.seconds, form.bounds, columns, measured, weights, groups, seed=seed)
    errors = {
        out: np.log(predict(form.seconds, columns, found.lane(lane)) / measured)
        for lane, out in enumerate(left_out)
    }
    return LeftOut(part, many, weights, found, errors)


def calibrate_rows(
    form: Form,
    columns: Columns,
    measured: np.ndarray,
    axis: np.ndarray,
    *,
    most_folds: int = FOLDS,
    even: bool = False,
    seed: int = 0,
) -> Calibration:
    """Fit one set of parameters to rows and hold out each fold of an axis in turn.

    Args:
        form: the family.
        columns: what describes the rows, [R] each.
        measured: seconds [R].
        axis: the value of the held-out axis for every row [R].
        most_folds: at most so many folds.
        even: whether every fold counts the same, however many rows it has.
        seed: of folds and starts.
    """
    parts = leave_out(form, columns, measured, axis, most_folds=most_folds, even=even, seed=seed)
    part, many, found, each = parts.part, parts.folds, parts.found, parts.errors
    held = (
        np.select([part == i for i in range(many)], [each[i,] for i in range(many)]) if many > 1 else each[()]
    )
    covered = np.zeros(len(measured), bool)
    for i in range(many if many > 2 else 0):
        # What i's interval is made of has seen neither i nor what it is tested on.
        others = np.concatenate([each[min(i, j), max(i, j)][part == j] for j in range(many) if j != i])
        low, high = _interval(others)
        at = part == i
        covered[at] = (-held[at] >= low) & (-held[at] <= high)
    names = found.names
    return Calibration(
        values=found.lane(0),
        low=dict(zip(names, found.low[0].tolist(), strict=True)),
        high=dict(zip(names, found.high[0].tolist(), strict=True)),
        inside=each[()],
        held=held,
        interval=_interval(held),
        covered=covered,
        folds=many,
    )


def scores(errors: np.ndarray) -> tuple[float, float]:
    """Median and 90th percentile of the absolute errors."""
    size = np.abs(errors)
    return float(np.median(size)), float(np.quantile(size, 0.9))


def _interval(errors: np.ndarray) -> tuple[float, float]:
    """ln(measured / predicted) between which 80% of such errors lie."""
    return float(np.quantile(-errors, _TAIL)), float(np.quantile(-errors, 1 - _TAIL))


def labelled(values: Sequence[np.ndarray]) -> np.ndarray:
    """Join several columns to one key a row."""
    words = [[f"{x:g}" if isinstance(x, float) else str(x) for x in column.tolist()] for column in values]
    return np.asarray([" ".join(row) for row in zip(*words, strict=True)], dtype=str)
