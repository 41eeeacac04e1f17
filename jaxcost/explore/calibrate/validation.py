"""Errors of calibrated kernels on measured rows, compared with the plain roofline and a rule of thumb."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from jaxcost.explore.calibrate.cross_validation import scores
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.kernel_families import Selection

__all__ = ["GROUPS", "Scored", "Summary", "score", "summaries"]

GROUPS = ("op", "chip", "library", "precision", "size", "model")
_DECILES = 10
# Rule of thumb of aiconfigurator: this share of the bandwidth, and these seconds per operator.
_THUMB_SHARE, _THUMB_LAUNCH = 0.8, 3e-6


@dataclasses.dataclass(frozen=True)
class Scored:
    """Rows with their predictions.

    Attributes:
        labels: op, chip, library, precision, model and other labels of the rows, [R] each.
        measured: seconds [R].
        predicted: seconds [R].
        roofline: seconds of the plain roofline [R].
        inside: whether ln(measured / predicted) lies in the stated interval, [R].
        basis: the file that has the kernel's parameters.
    """

    labels: Mapping[str, np.ndarray]
    measured: np.ndarray
    predicted: np.ndarray
    roofline: np.ndarray
    inside: np.ndarray
    basis: str

    @property
    def errors(self) -> np.ndarray:
        """ln(predicted / measured), [R]."""
        return np.log(self.predicted / self.measured)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The errors of a group of rows.

    Attributes:
        name: name of the group.
        rows: number of rows.
        median: median of |ln(predicted / measured)|.
        ninth: 90th percentile of the same.
        bias: median of ln(predicted / measured).
        inside: share of rows in the stated interval.
        roofline: median of |ln(roofline / measured)|.
        thumb: the same of the rule of thumb.
    """

    name: str
    rows: int
    median: float
    ninth: float
    bias: float
    inside: float
    roofline: float
    thumb: float


def score(
    selection: Selection, kernel: Mapping[str, float], interval: tuple[float, float], basis: str
) -> Scored:
    """Predict the rows of a selection with the parameters of a kernel, and compare them with its interval."""
    run, columns, rows = selection.form.run, selection.columns, selection.rows
    predicted = predict(run, columns, kernel)
    off = np.log(rows.seconds / predicted)
    op = np.full(len(rows), selection.family.name)
    labels = {name: rows.labels.get(name, np.full(len(rows), "")).astype(str) for name in GROUPS[1:-2]}
    return Scored(
        labels={"op": op, **labels, "model": _models(selection)},
        measured=rows.seconds,
        predicted=predicted,
        roofline=predict(run, columns, {}),
        inside=(off >= interval[0]) & (off <= interval[1]),
        basis=basis,
    )


def summaries(scored: Iterable[Scored], group: str) -> list[Summary]:
    """Summarise the errors by a label among `GROUPS`; "size" groups each op's rows into deciles of their ideal time."""
    parts = list(scored)
    ops = np.concatenate([part.labels["op"] for part in parts])
    errors = np.concatenate([part.errors for part in parts])
    inside = np.concatenate([part.inside for part in parts])
    measured = np.concatenate([part.measured for part in parts])
    ideal = np.concatenate([part.roofline for part in parts])
    if group == "size":
        keys = np.empty(len(ops), dtype=object)
        for op in np.unique(ops):
            at = ops == op
            tenth = np.argsort(np.argsort(ideal[at], kind="stable"), kind="stable") * _DECILES // at.sum()
            keys[at] = [f"{op} {n + 1}" for n in tenth]
        order = [f"{op} {n + 1}" for op in dict.fromkeys(ops.tolist()) for n in range(_DECILES)]
    else:
        keys = np.concatenate([part.labels[group] for part in parts]).astype(object)
        order = sorted(set(keys.tolist()))
    plain = np.log(ideal / measured)
    thumb = np.log((ideal / _THUMB_SHARE + _THUMB_LAUNCH) / measured)
    out = []
    for key in order:
        at = keys == key
        if at.any() and key:
            median, ninth = scores(errors[at])
            out.append(
                Summary(
                    name=key,
                    rows=int(at.sum()),
                    median=median,
                    ninth=ninth,
                    bias=float(np.median(errors[at])),
                    inside=float(inside[at].mean()),
                    roofline=scores(plain[at])[0],
                    thumb=scores(thumb[at])[0],
                )
            )
    return out


def _models(selection: Selection) -> np.ndarray:
    """Return the model of every row; where rows name none, the value on the held-out axis, such as a shape."""
    named = selection.rows.labels.get("model")
    if named is not None and (named != "").any():
        return named.astype(str)
    return np.char.add(f"{selection.family.axis_name} ", selection.axis)
