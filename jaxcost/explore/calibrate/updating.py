"""Update the parameters of a kernel from few rows of one chip: a normal prior of each, and the most probable values.

Of every parameter the prior has a value and the ends of an 80% interval. In the unbounded u of `fit.py` it is normal,
with that value as mean and half of the interval over 1.2816 as standard deviation, independent of the other parameters.
The fit minimizes the robust loss of the rows plus the squared distances from the prior (maximum a posteriori).
"""

from collections.abc import Mapping

import numpy as np

from jaxcost.explore.calibrate.cross_validation import Calibration, interval_of
from jaxcost.explore.calibrate.fit import EIGHTIETH, Bounds, Prior, fit, folds, predict
from jaxcost.explore.calibrate.kernel_families import Selection

__all__ = ["prior_of", "update_rows"]

Ends = tuple[float, float, float]  # value, low, high
_EDGE = 0.002  # nearest share of the range to a bound that a prior has
_UNKNOWN = 3.0  # standard deviation, in u, of a parameter without interval
_NARROWEST = 0.02  # standard deviation of the surest parameter
_FOLDS = 4
_TESTED = 24  # rows from which held-out errors give an interval
_SEPARATE = 3  # values of the held-out axis from which folds are left out


def prior_of(bounds: Mapping[str, Bounds], numbers: Mapping[str, Ends]) -> Prior:
    """Return the prior of the parameters of a form; one without numbers starts at its start, with a wide prior.

    Args:
        bounds: bounds and start of every parameter.
        numbers: (value, low, high) of parameters by name.
    """
    mean, width = np.zeros(len(bounds)), np.full(len(bounds), _UNKNOWN)
    for i, (name, limit) in enumerate(bounds.items()):
        value, low, high = numbers.get(name, (limit.start, limit.low, limit.high))
        mean[i] = _u(limit, value)
        if name in numbers:
            width[i] = max((_u(limit, high) - _u(limit, low)) / (2 * EIGHTIETH), _NARROWEST)
    return Prior(mean, width)


def _u(limit: Bounds, value: float) -> float:
    if limit.low > 0:
        share = np.log(max(value, 1e-30) / limit.low) / np.log(limit.high / limit.low)
    else:
        share = (value - limit.low) / (limit.high - limit.low)
    share = np.clip(share, _EDGE, 1 - _EDGE)
    return float(np.log(share / (1 - share)))


def update_rows(
    part: Selection, numbers: Mapping[str, Ends], interval: tuple[float, float], *, seed: int = 0
) -> Calibration:
    """Update a kernel's parameters from rows, and predict rows of other shapes than each fold's.

    Args:
        part: the rows, of one chip.
        numbers: (value, low, high) of the prior by parameter.
        interval: (low, high) of ln(measured / predicted) by the prior, which stays where there are too few rows to
            tell another.
        seed: seed of the folds and of the starting points.

    Returns:
        The parameters with their errors; with fewer than three shapes the held-out errors are those of the prior.
    """
    form, measured = part.form, part.rows.seconds
    prior = prior_of(form.bounds, numbers)
    groups = np.unique(part.axis, return_inverse=True)[1]
    some = int(groups.max()) + 1 >= _SEPARATE
    fold = folds(part.axis, _FOLDS, seed=seed) if some else np.zeros(len(measured), int)
    count = int(fold.max()) + 1
    # With one fold the second training set has no rows, and the parameters of the prior.
    outs = [np.zeros(len(measured), bool), *(fold == i for i in range(count))]
    # Each training set starts from the prior: one that starts from the fit to all rows would know those left out.
    found = [
        fit(
            form.seconds,
            form.bounds,
            part.columns,
            measured,
            (~out)[None].astype(float),
            groups,
            prior=prior,
            seed=seed,
        )
        for out in outs
    ]
    errors = [np.log(predict(form.seconds, part.columns, one.parameters(0)) / measured) for one in found]
    held = np.select([fold == i for i in range(count)], errors[1:])
    ends = interval_of(held) if some and len(held) >= _TESTED else interval
    return Calibration(
        values=found[0].parameters(0),
        low=dict(zip(found[0].names, found[0].low[0, 0].tolist(), strict=True)),
        high=dict(zip(found[0].names, found[0].high[0, 0].tolist(), strict=True)),
        inside=errors[0],
        held=held,
        interval=ends,
        covered=(-held >= ends[0]) & (-held <= ends[1]),
        folds=count if some else 0,
    )
