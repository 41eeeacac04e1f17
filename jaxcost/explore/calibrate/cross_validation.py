"""Fit a form to measured rows, and cross-validate it on folds of a whole axis.

Rows of one chip, library and precision are fitted together. Each of K folds over an axis (shapes, head configurations,
models) is predicted by the fit to the other folds. The interval of a prediction covers 80% of these held-out errors.
Its coverage is tested in turn: the interval for a fold is made of errors of other folds, each predicted by a fit that
has seen neither. Where the axis is the chip, each chip is predicted from its datasheet and the fit to the other chips.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.explore.calibrate.fit import Bounds, Columns, Fit, fit, folds, predict

__all__ = [
    "Calibration",
    "Form",
    "LeftOut",
    "calibrate_rows",
    "interval_of",
    "labelled",
    "leave_out",
    "scores",
]

FOLDS = 6
_TAIL = 0.1  # on either side of an 80% interval


@dataclasses.dataclass(frozen=True, eq=False)
class Form:
    """The time of a family of kernels as a function of few parameters.

    Attributes:
        family: name of the family.
        run: pure JAX function of (columns, parameters of the kernel) that returns seconds [R]. The columns include the
            numbers of the chip; a parameter that is left out is ideal.
        bounds: bounds of the fitted parameters.
        constants: parameters that are not fitted: their value is `start`, `low` and `high` the range it may have.
        tied: parameters that equal a fitted one, by the name of that one.
    """

    family: str
    run: Callable[[Columns, Mapping[str, Any]], Any]
    bounds: Mapping[str, Bounds]
    constants: Mapping[str, Bounds] = dataclasses.field(default_factory=dict)
    tied: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def kernel(self, fitted: Mapping[str, Any]) -> dict[str, Any]:
        """Return all parameters of the kernel: fitted, constant and tied."""
        return {
            **{name: bounds.start for name, bounds in self.constants.items()},
            **fitted,
            **{name: fitted[other] for name, other in self.tied.items()},
        }

    def seconds(self, columns: Columns, fitted: Mapping[str, Any]) -> Any:
        """Predict seconds, [R], from the fitted parameters."""
        return self.run(columns, self.kernel(fitted))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Parameters fitted to some rows, with their errors.

    Attributes:
        values: the parameters fitted to all rows.
        low: lower ends of their 80% intervals.
        high: upper ends.
        inside: ln(predicted / measured) of the fit to all rows, [R].
        held: ln(predicted / measured) of every row by the fit without its fold, [R].
        interval: (low, high) of ln(measured / predicted) that covers the middle 80% of held-out rows.
        covered: whether each row lies in an interval made without its fold, [R].
        folds: number of folds.
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
    """A form fitted to all rows, to all but one fold, and to all but two folds.

    Attributes:
        part: the fold of every row, [R].
        folds: number of folds.
        weights: weights of the rows in every training set, [L, R].
        fits: the fit of every training set.
        errors: ln(predicted / measured) of all rows, [R], by the tuple of folds that were left out of the fit.
    """

    part: np.ndarray
    folds: int
    weights: np.ndarray
    fits: Fit
    errors: dict[tuple[int, ...], np.ndarray]


def leave_out(
    form: Form,
    columns: Columns,
    measured: np.ndarray,
    axis: np.ndarray,
    *,
    most_folds: int = FOLDS,
    seed: int = 0,
) -> LeftOut:
    """Fit a form without each fold of an axis and without each pair of folds; arguments as for `calibrate_rows`."""
    part = folds(axis, most_folds, seed=seed)
    many = int(part.max()) + 1
    pairs = [(i, j) for i in range(many) for j in range(i + 1, many)]
    left_out = [(), *((i,) for i in range(many)), *pairs]
    weights = np.stack([~np.isin(part, out) for out in left_out]).astype(float)
    groups = np.unique(axis, return_inverse=True)[1]
    fits = fit(form.seconds, form.bounds, columns, measured, weights, groups, seed=seed)
    errors = {
        out: np.log(predict(form.seconds, columns, fits.parameters(index)) / measured)
        for index, out in enumerate(left_out)
    }
    return LeftOut(part, many, weights, fits, errors)


def calibrate_rows(
    form: Form,
    columns: Columns,
    measured: np.ndarray,
    axis: np.ndarray,
    *,
    most_folds: int = FOLDS,
    seed: int = 0,
) -> Calibration:
    """Fit one set of parameters to rows, and cross-validate it on the folds of an axis.

    Args:
        form: the form of the kernels.
        columns: descriptions of the rows, [R] each.
        measured: seconds [R].
        axis: value of the held-out axis for every row [R].
        most_folds: maximum number of folds.
        seed: seed of the folds and of the starting points.
    """
    parts = leave_out(form, columns, measured, axis, most_folds=most_folds, seed=seed)
    part, many, fits, each = parts.part, parts.folds, parts.fits, parts.errors
    held = (
        np.select([part == i for i in range(many)], [each[i,] for i in range(many)]) if many > 1 else each[()]
    )
    covered = np.zeros(len(measured), bool)
    for i in range(many if many > 2 else 0):
        # The interval for fold i is made of errors of other folds j, each by the fit without i and j.
        others = np.concatenate([each[min(i, j), max(i, j)][part == j] for j in range(many) if j != i])
        low, high = interval_of(others)
        at = part == i
        covered[at] = (-held[at] >= low) & (-held[at] <= high)
    names = fits.names
    return Calibration(
        values=fits.parameters(0),
        low=dict(zip(names, fits.low[0, 0].tolist(), strict=True)),
        high=dict(zip(names, fits.high[0, 0].tolist(), strict=True)),
        inside=each[()],
        held=held,
        interval=interval_of(held),
        covered=covered,
        folds=many,
    )


def scores(errors: np.ndarray) -> tuple[float, float]:
    """Return the median and the 90th percentile of the absolute errors."""
    size = np.abs(errors)
    return float(np.median(size)), float(np.quantile(size, 0.9))


def interval_of(errors: np.ndarray) -> tuple[float, float]:
    """Return the ends (low, high) of ln(measured / predicted) between which 80% of the errors lie."""
    return float(np.quantile(-errors, _TAIL)), float(np.quantile(-errors, 1 - _TAIL))


def labelled(values: Sequence[np.ndarray]) -> np.ndarray:
    """Join several columns into one string key per row, [R]."""
    words = [[f"{x:g}" if isinstance(x, float) else str(x) for x in column.tolist()] for column in values]
    return np.asarray([" ".join(row) for row in zip(*words, strict=True)], dtype=str)
