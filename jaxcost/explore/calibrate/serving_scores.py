"""Predictions of measured closed loops of users by calibrated kernels and engines, and the rows that have none.

A row of the family "serving" is predicted where it is the mean TPOT or mean TTFT of a closed loop of known users, with
both times measured, on one pool of chips without pipeline stages, of a model and a library that are given. Every other
row has the first reason that holds.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from jaxcost.core.pytree import leaf_fields
from jaxcost.explore.calibrate.serving_fit import predicted
from jaxcost.explore.calibrate.serving_points import (
    SKEW,
    ServingPoints,
    serving_points,
    serving_steps,
    with_skew,
)
from jaxcost.spec.engine import Engine
from jaxcost.spec.kernels import EngineOverheads
from jaxcost.spec.measurement import Measurements
from jaxcost.spec.model import Model
from jaxcost.spec.system import System

__all__ = ["METRICS", "ServingScores", "score_serving", "unscored_reasons"]

METRICS = {"tpot_mean": "tpot", "ttft_mean": "ttft"}
_MODES = {
    "disagg": "prefill and decode on separate chips",
    "static_batch": "a static batch, not a closed loop",
}


@dataclasses.dataclass(frozen=True)
class ServingScores:
    """Predicted rows of served times, [S] in every column, and the reasons of the others.

    Attributes:
        labels: chip, library, model (as measured), metric ("tpot" or "ttft").
        line: line of the row in its file.
        measured: seconds.
        predicted: seconds.
        inside: 1 where ln(measured / predicted) lies in the stated interval, 0 where not, NaN where none is stated.
        reasons: number of the rows that are not predicted, by reason.
    """

    labels: Mapping[str, np.ndarray]
    line: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    inside: np.ndarray
    reasons: Mapping[str, int]

    def __len__(self) -> int:
        """Count the predicted rows."""
        return len(self.measured)

    @property
    def errors(self) -> np.ndarray:
        """ln(predicted / measured), [S]."""
        return np.log(self.predicted / self.measured)


def unscored_reasons(
    rows: Measurements, libraries: Collection[str], models: Collection[str]
) -> tuple[np.ndarray, ServingPoints]:
    """Return the reason why each row of one chip is not predicted, "" where it is, [R], and the points that are.

    Args:
        rows: rows of the family "serving" on one chip.
        libraries: libraries with calibrated kernels on that chip.
        models: names of models, as in the rows, that are known.
    """
    points = serving_points(rows)
    points = points.where(np.isin(points.library, list(libraries)) & np.isin(points.model, list(models)))
    paired = np.isin(rows.line, points.line)
    work, labels = rows.work, rows.labels
    reason = np.full(len(rows), "only one of TPOT and TTFT is measured", dtype=object)
    for i in range(len(rows)):
        mode, metric = str(labels["mode"][i]), str(labels["metric"][i])
        library, model = str(labels["library"][i]), str(labels["model"][i])
        if paired[i]:
            reason[i] = ""
        elif mode != "agg":
            reason[i] = _MODES.get(mode, f"mode {mode}")
        elif metric not in METRICS:
            reason[i] = f"the metric {metric}"
        elif not np.isfinite(work["concurrency"][i]):
            reason[i] = "the number of users is not stated"
        elif work["pp"][i] != 1:
            reason[i] = "pipeline stages"
        elif library not in libraries:
            reason[i] = f"no calibrated kernels of {library or 'an unnamed library'} on {labels['chip'][i]}"
        elif model not in models:
            reason[i] = f"the model {model} is not in the catalogue"
    return reason.astype(str), points


def score_serving(
    measured: Iterable[Measurements],
    systems: Mapping[str, Mapping[str, System]],
    models: Mapping[str, Model],
    engines: Mapping[str, Mapping[str, Engine]],
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    *,
    skew: float = SKEW,
) -> ServingScores:
    """Predict the rows of served times that can be, and count the others by reason.

    Args:
        measured: rows of the family "serving".
        systems: by chip and library, a system with calibrated kernels and overheads of the engine.
        models: models by their names in the rows.
        engines: by chip and library, the limits of the library's engine.
        intervals: by library and metric ("tpot", "ttft"), the 80% interval of ln(measured / predicted).
        skew: popularity of experts in models with experts whose own skew is 0.
    """
    models = {name: with_skew(model, skew) for name, model in models.items()}
    reasons: dict[str, int] = {}
    parts: list[tuple[str, ServingPoints, np.ndarray]] = []
    for part in measured:
        for chip in part.values("chip"):
            rows = part.select(chip=chip)
            known = systems.get(chip, {})
            why, points = unscored_reasons(rows, list(known), list(models))
            for one, count in zip(*np.unique(why[why != ""], return_counts=True), strict=True):
                reasons[str(one)] = reasons.get(str(one), 0) + int(count)
            if len(points):
                parts.append((chip, points, _times(known, models, points, engines.get(chip, {}))))
    chips = [np.full(len(points), chip) for chip, points, _ in parts]
    columns: dict[str, list[np.ndarray]] = {"chip": [], "library": [], "model": [], "metric": []}
    line, seconds, times, inside = [], [], [], []
    for chip, (_, points, guess) in zip(chips, parts, strict=True):
        for at, metric in enumerate(METRICS.values()):
            ends = np.asarray([_ends(intervals, name, metric) for name in points.library.tolist()])
            off = np.log(points.measured[:, at] / guess[:, at])
            hit = (off >= ends[:, 0]) & (off <= ends[:, 1])
            columns["chip"].append(chip)
            columns["library"].append(points.library)
            columns["model"].append(points.model)
            columns["metric"].append(np.full(len(points), metric))
            line.append(points.line[:, at])
            seconds.append(points.measured[:, at])
            times.append(guess[:, at])
            inside.append(np.where(np.isfinite(ends[:, 0]), hit, np.nan))
    join = lambda x: np.concatenate(x) if x else np.zeros(0)  # noqa: E731
    return ServingScores(
        labels={name: join(x).astype(str) for name, x in columns.items()},
        line=join(line).astype(int),
        measured=join(seconds),
        predicted=join(times),
        inside=join(inside),
        reasons=dict(sorted(reasons.items())),
    )


def _times(
    systems: Mapping[str, System],
    models: Mapping[str, Model],
    points: ServingPoints,
    engines: Mapping[str, Engine],
) -> np.ndarray:
    """Predict the points of one chip, s, [R, 2]."""
    columns = serving_steps(systems, models, points, engines)
    out = np.zeros((len(points), 2))
    for library in sorted(set(points.library.tolist())):
        kernels = systems[library].chip.efficiency.kernels
        engine = EngineOverheads() if kernels is None else kernels.engine
        constants = {f.name: float(getattr(engine, f.name)) for f in leaf_fields(EngineOverheads)}
        at = points.library == library
        out[at] = predicted({name: x[at] for name, x in columns.items()}, constants)
    return out


def _ends(
    intervals: Mapping[str, Mapping[str, tuple[float, float]]] | None, library: str, metric: str
) -> tuple[float, float]:
    return (intervals or {}).get(library, {}).get(metric, (np.nan, np.nan))
