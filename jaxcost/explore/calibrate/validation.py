"""Errors of calibrated kernels on measured rows, compared with the plain roofline and a rule of thumb."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxcost.core.pytree import leaf_fields
from jaxcost.explore.calibrate import message_forms, mixture_form
from jaxcost.explore.calibrate.cross_validation import scores
from jaxcost.explore.calibrate.fit import predict
from jaxcost.explore.calibrate.kernel_families import KernelFamily, Selection, Systems
from jaxcost.spec.measurement import Measurements, concatenate

__all__ = [
    "GROUPS",
    "MEASURED",
    "NEAR_KERNEL",
    "KernelNumbers",
    "Scored",
    "Summary",
    "left_out_reasons",
    "score",
    "score_family",
    "summaries",
]

GROUPS = ("op", "chip", "library", "precision", "measured", "size", "model")
# What the numbers of a prediction rest on: the values of the group "measured".
NEAR_KERNEL = "kernel"  # the kernel was not measured: a near one stands in
MEASURED = {
    "shapes": "this chip",
    "chip": "its generation",
    "generation": "other generations",
    NEAR_KERNEL: "a near kernel",
}
_OTHERWISE = {
    "matmul": "measured through another library's layers (vidur), not a kernel of a serving library",
    "latent_attention": "the block with its projections, not the kernel alone",
    "all_to_all": "no time",
}
_LABELS = ("chip", "library", "precision")
_DECILES = 10
# Rule of thumb of aiconfigurator: this share of the bandwidth, and these seconds per operator.
_THUMB_SHARE, _THUMB_LAUNCH = 0.8, 3e-6


@dataclasses.dataclass(frozen=True)
class Scored:
    """Rows with their predictions.

    Attributes:
        labels: the labels of `GROUPS` but "size", [R] each.
        measured: seconds [R].
        predicted: seconds [R].
        roofline: seconds of the plain roofline [R]; NaN where there is none.
        inside: 1 where ln(measured / predicted) lies in the stated interval, 0 where not, NaN without one, [R].
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
        inside: share of rows in the stated interval; None without one.
        roofline: median of |ln(roofline / measured)|; None without roofline.
        thumb: the same of the rule of thumb.
    """

    name: str
    rows: int
    median: float
    ninth: float
    bias: float
    inside: float | None
    roofline: float | None
    thumb: float | None


def score(
    selection: Selection, kernel: Mapping[str, float], interval: tuple[float, float], basis: str
) -> Scored:
    """Predict the rows of a selection with the parameters of a kernel, and compare them with its interval."""
    run, columns, rows = selection.form.run, selection.columns, selection.rows
    predicted = predict(run, columns, kernel)
    off = np.log(rows.seconds / predicted)
    op = np.full(len(rows), selection.family.name)
    labels = {name: _label(rows, name) for name in _LABELS}
    return Scored(
        labels={"op": op, **labels, "measured": np.full(len(rows), ""), "model": _models(selection)},
        measured=rows.seconds,
        predicted=predicted,
        roofline=predict(run, columns, {}),
        inside=(off >= interval[0]) & (off <= interval[1]),
        basis=basis,
    )


@dataclasses.dataclass(frozen=True)
class KernelNumbers:
    """The parameters of a kernel on a chip as a file gives them.

    Attributes:
        numbers: parameters by name.
        interval: (low, high) of ln(measured / predicted) that the file states.
        basis: name of the file.
        circumstance: a key of `MEASURED`: what was measured.
    """

    numbers: Mapping[str, float]
    interval: tuple[float, float]
    basis: str
    circumstance: str


def score_family(
    family: KernelFamily,
    measurements: Sequence[Measurements],
    systems: Systems,
    numbers_of: Callable[[Mapping[str, str], tuple[str, str]], KernelNumbers | str],
) -> tuple[list[Scored], dict[str, int]]:
    """Predict all rows of a family at once, each with the parameters of its library's kernel on its chip.

    Args:
        family: the family.
        measurements: measurements of its source.
        systems: a system of every chip; rows of other chips are left to the caller.
        numbers_of: returns the parameters for the labels and the place of a kernel, or the reason why there are none.

    Returns:
        The rows with predictions, one `Scored` per file, and the number of rows without, by reason.
    """
    parts = [part.where(np.isin(_label(part, "chip"), list(systems))) for part in measurements]
    parts = [part.where(family.wanted(part)) for part in parts if len(part)]
    parts = [part for part in parts if len(part)]
    if not parts:
        return [], {}
    rows = concatenate(parts)
    keys = family.keys(rows)
    values = np.full((len(rows), len(fields := [f.name for f in leaf_fields(family.kernel)])), np.nan)
    runs = np.full(len(rows), None, object)
    ends, basis, measured = (
        np.zeros((len(rows), 2)),
        np.full(len(rows), "", object),
        np.full(len(rows), "", object),
    )
    reasons: dict[str, int] = {}
    for key in np.unique(keys):
        at = keys == key
        labels = {name: str(rows.labels[name][at][0]) for name in family.by}
        labels |= family.marks(systems[labels["chip"]])
        place = family.place(labels)
        found = numbers_of(labels, place) if place is not None else family.unplaced(labels)
        if isinstance(found, str):
            what = f"{family.name} {' '.join(word for word in labels.values() if word)}: {found}"
            reasons[what] = reasons.get(what, 0) + int(at.sum())
            continue
        runs[at] = family.refine(family.form(systems[labels["chip"]]), labels).run
        values[at] = [found.numbers[name] for name in fields]
        ends[at], basis[at], measured[at] = found.interval, found.basis, MEASURED[found.circumstance]
    placed = basis != ""
    rows, values, ends, basis, measured = (
        rows.where(placed),
        values[placed],
        ends[placed],
        basis[placed],
        measured[placed],
    )
    if not len(rows):
        return [], reasons
    predicted, roofline = _predict_rows(family, rows, systems, fields, values, runs[placed])
    off = np.log(rows.seconds / predicted)
    labels = {
        "op": np.full(len(rows), family.name),
        **{name: _label(rows, name) for name in _LABELS},
        "measured": measured.astype(str),
        "model": _model_names(rows, family.axis_name, family.axis(rows)),
    }
    inside = (off >= ends[:, 0]) & (off <= ends[:, 1])
    return [
        Scored(
            {name: label[at] for name, label in labels.items()},
            rows.seconds[at],
            predicted[at],
            roofline[at],
            inside[at],
            str(name),
        )
        for name in np.unique(basis.astype(str))
        if (at := basis == name).any()
    ], reasons


def _predict_rows(
    family: KernelFamily,
    rows: Measurements,
    systems: Systems,
    fields: Sequence[str],
    values: np.ndarray,
    runs: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the seconds of rows with parameters [R, P], and at the peaks of their chips, [R] each.

    Rows of equal form are predicted together: a form is compiled for every number of rows.
    """
    of = np.asarray([id(run) for run in runs])
    ideal = family.kernel()
    peaks = [float(getattr(ideal, name)) for name in fields]
    out = np.empty((2, len(rows)))
    for key in np.unique(of):
        some = of == key
        run = runs[some][0]
        columns = family.columns(rows.where(some), systems)
        for i, given in enumerate((values[some], np.broadcast_to(peaks, values[some].shape))):
            out[i, some] = predict(run, columns, dict(zip(fields, given.T, strict=True)))
    return out[0], out[1]


def summaries(scored: Iterable[Scored], group: str) -> list[Summary]:
    """Summarise the errors by a label among `GROUPS`; "size" groups each op's rows into deciles of their ideal time."""
    parts = list(scored)
    ops = np.concatenate([part.labels["op"] for part in parts])
    errors = np.concatenate([part.errors for part in parts])
    inside = np.concatenate([part.inside for part in parts])
    measured = np.concatenate([part.measured for part in parts])
    ideal = np.concatenate([part.roofline for part in parts])
    size = np.where(np.isfinite(ideal), ideal, measured)
    if group == "size":
        keys = np.empty(len(ops), dtype=object)
        for op in np.unique(ops):
            at = ops == op
            tenth = np.argsort(np.argsort(size[at], kind="stable"), kind="stable") * _DECILES // at.sum()
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
                    inside=_known(np.mean, inside[at]),
                    roofline=_known(np.median, np.abs(plain[at])),
                    thumb=_known(np.median, np.abs(thumb[at])),
                )
            )
    return out


def _known(summary: Callable[[np.ndarray], Any], values: np.ndarray) -> float | None:
    """Summarise the values that are there; None without any."""
    values = np.asarray(values, float)
    known = values[np.isfinite(values)]
    return float(summary(known)) if len(known) else None


def left_out_reasons(source: str, rows: Measurements) -> np.ndarray:
    """Return the reason why no family of kernels takes each row of a source, [R]."""
    stated = {
        "mixture": mixture_form.left_out,
        "collective": message_forms.left_out,
        "all_to_all": message_forms.left_out,
    }.get(source)
    out = stated(rows).astype(object) if stated else np.full(len(rows), "", object)
    out[out == ""] = _OTHERWISE.get(source, "no family of kernels takes them")
    return out


def _label(rows: Measurements, name: str) -> np.ndarray:
    return rows.labels.get(name, np.full(len(rows), "")).astype(str)


def _models(selection: Selection) -> np.ndarray:
    return _model_names(selection.rows, selection.family.axis_name, selection.axis)


def _model_names(rows: Measurements, axis_name: str, axis: np.ndarray) -> np.ndarray:
    """Return the model of every row; where rows name none, the value on the held-out axis, such as a shape."""
    named = _label(rows, "model")
    return named if (named != "").any() else np.char.add(f"{axis_name} ", axis)
