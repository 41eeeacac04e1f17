"""Designs and results of a sweep as plain objects for JSON, and the units of their numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.edge.studies.space_file import leaf_units
from jaxcost.explore.space import ChoiceAxis, Space, coordinates, leaf_axes
from jaxcost.explore.sweep import (
    FeasibilityCounts,
    GroupBest,
    Histogram,
    ParetoFront,
    Ranking,
    report_metrics,
)

__all__ = ["axis_units", "design_rows", "metric_unit", "result_summary"]


def metric_unit(path: str) -> str:
    """Return the unit of a metric: that of the number at a dotted path of a Report, "1" for other paths."""
    return report_metrics().get(path, "1")


def axis_units(space: Space) -> dict[str, str]:
    """Map the paths of all axes to their units; "1" for factors, "" for names."""
    units = leaf_units(space.base)
    out = {}
    for leaf in (leaf for axis in space.axes for leaf in leaf_axes(axis)):
        named = isinstance(leaf, ChoiceAxis)
        out[leaf.path] = "" if named else "1" if leaf.relative else units[leaf.path]
    return out


def design_rows(
    space: Space, metrics: Sequence[str], index: np.ndarray, values: np.ndarray
) -> list[dict[str, Any]]:
    """Return designs as plain objects with their metrics under "metrics"; None where an axis is inactive."""
    columns = {name: column.tolist() for name, column in coordinates(space, index).items()}
    return [
        {
            "index": int(number),
            **{name: None if column[row] != column[row] else column[row] for name, column in columns.items()},
            "metrics": dict(zip(metrics, values[row].tolist(), strict=True)),
        }
        for row, number in enumerate(index)
    ]


def result_summary(result: Any) -> dict[str, Any]:
    """Return what the table of a result leaves out."""
    if isinstance(result, ParetoFront):
        return {"complete": result.complete, "lost": result.lost, "epsilon": result.epsilon}
    if isinstance(result, Histogram):
        ends = {"least": result.least, "most": result.most} if result.count else {}
        return {"metric": result.metric, "designs": result.count, **ends}
    if isinstance(result, FeasibilityCounts):
        return {"total": result.total, "feasible": result.feasible, "invalid": result.invalid}
    return {} if isinstance(result, Ranking | GroupBest) else {"kind": type(result).__name__}
