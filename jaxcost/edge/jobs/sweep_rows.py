"""Designs and results of a sweep as plain objects, and the units of what they say."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxcost.edge.studies.space_file import leaf_units
from jaxcost.explore.space import Choice, Space, coordinates, leaves_moved
from jaxcost.explore.sweep import Front, Grouped, Histogram, Ranked, Reasons, report_metrics

__all__ = ["axis_units", "design_rows", "metric_unit", "result_summary"]


def metric_unit(path: str) -> str:
    """Return the unit of a metric: that of a Report's number of this dotted path, "1" of any other."""
    return report_metrics().get(path, "1")


def axis_units(space: Space) -> dict[str, str]:
    """Map what every axis moves to its unit; "1" for factors, "" for names."""
    units = leaf_units(space.base)
    out = {}
    for leaf in (leaf for axis in space.axes for leaf in leaves_moved(axis)):
        named = isinstance(leaf, Choice)
        out[leaf.path] = "" if named else "1" if leaf.relative else units[leaf.path]
    return out


def design_rows(
    space: Space, metrics: Sequence[str], index: np.ndarray, values: np.ndarray
) -> list[dict[str, Any]]:
    """Say the same as plain objects, the metrics under a key of their own; null where an axis is inactive."""
    place = {name: column.tolist() for name, column in coordinates(space, index).items()}
    return [
        {
            "index": int(number),
            **{name: None if column[row] != column[row] else column[row] for name, column in place.items()},
            "metrics": dict(zip(metrics, values[row].tolist(), strict=True)),
        }
        for row, number in enumerate(index)
    ]


def result_summary(result: Any) -> dict[str, Any]:
    """Say of a result what its table does not."""
    if isinstance(result, Front):
        return {"complete": result.complete, "lost": result.lost, "epsilon": result.epsilon}
    if isinstance(result, Histogram):
        ends = {"least": result.least, "most": result.most} if result.count else {}
        return {"metric": result.metric, "designs": result.count, **ends}
    if isinstance(result, Reasons):
        return {"total": result.total, "feasible": result.feasible, "invalid": result.invalid}
    return {} if isinstance(result, Ranked | Grouped) else {"kind": type(result).__name__}
