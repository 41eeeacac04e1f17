"""80% intervals of served times of a model that was left out, and how often they are right.

An interval of a library is made of ln(measured / predicted) of every model by constants that have not seen the model.
Each model of the library has the same total weight, those of other libraries have half of it: the interval is to hold
for a model, not for the models with many points. Whether it does is tested on models that neither the constants nor the
interval have seen: the errors of the interval are then those of fits without both models.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from jaxcost.explore.calibrate.cross_validation import scores

__all__ = ["METRICS", "ServingInterval", "covered_points", "serving_intervals"]

METRICS = ("tpot", "ttft")
_OTHERS = 0.5  # weight of a model of another library
_TAIL = 0.1  # on either side of an 80% interval


@dataclasses.dataclass(frozen=True)
class ServingInterval:
    """How far measured times of a model that was left out are from predicted ones, for one library and metric.

    Attributes:
        low: lower end of the 80% interval of ln(measured / predicted).
        high: upper end.
        median: median of |ln(measured / predicted)| of the library's points, each without its model.
        ninth: 90th percentile of the same.
        rows: number of these points.
        models: number of their models.
        covered: share of these points in an interval that was made without their model; NaN with fewer than 3 models.
    """

    low: float
    high: float
    median: float
    ninth: float
    rows: int
    models: int
    covered: float


def covered_points(
    library: np.ndarray,
    model: np.ndarray,
    errors: np.ndarray,
    without: Mapping[str, np.ndarray],
    use: np.ndarray,
) -> np.ndarray:
    """Return 1 where a point's error lies in an interval made without its model, else 0, [R, 2]; NaN without one.

    Args:
        library: library of every point, [R].
        model: model of every point, [R].
        errors: ln(measured / predicted) without the point's model, [R, 2].
        without: by model, the same without that model as well, [R, 2].
        use: whether a point counts, [R].
    """
    out = np.full(errors.shape, np.nan)
    for name, off in without.items():
        others = use & (model != name)
        for served in np.unique(library[model == name]):
            low, high = _ends(served, library, model, off, others)
            at = (model == name) & (library == served)
            out[at] = (errors[at] >= low) & (errors[at] <= high)
    return out


def serving_intervals(
    library: np.ndarray, model: np.ndarray, errors: np.ndarray, covered: np.ndarray, use: np.ndarray
) -> dict[str, dict[str, ServingInterval]]:
    """Return the intervals by library and metric; arguments as for `covered_points`, and its result."""
    out: dict[str, dict[str, ServingInterval]] = {}
    for name in sorted(set(library[use].tolist())):
        low, high = _ends(name, library, model, errors, use)
        at = use & (library == name)
        for j, metric in enumerate(METRICS):
            median, ninth = scores(errors[at, j])
            out.setdefault(name, {})[metric] = ServingInterval(
                low=float(low[j]),
                high=float(high[j]),
                median=median,
                ninth=ninth,
                rows=int(at.sum()),
                models=len(set(model[at].tolist())),
                covered=float(covered[at, j].mean()),
            )
    return out


def _ends(
    name: str, library: np.ndarray, model: np.ndarray, errors: np.ndarray, use: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return both ends of a library's interval, [2] each."""
    group = np.unique(np.char.add(np.char.add(library, " "), model), return_inverse=True)[1]
    rows = np.bincount(group, use.astype(float))
    weight = use * np.where(library == name, 1.0, _OTHERS) / np.maximum(rows, 1)[group]
    ends = []
    for j in range(errors.shape[1]):
        order = np.argsort(errors[:, j])
        share = np.cumsum(weight[order]) / weight.sum()
        ends.append([errors[order[np.searchsorted(share, tail)], j] for tail in (_TAIL, 1 - _TAIL)])
    return np.asarray(ends).T[0], np.asarray(ends).T[1]
