"""The models of limits on metrics, and of section `reduce` of a space file: what a sweep keeps."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from jaxcost.edge.io.errors import InputError, nearest
from jaxcost.edge.io.validation import StrictModel, as_list, whole_number
from jaxcost.edge.studies.space_schema import Bounds
from jaxcost.explore.analysis import OBJECTIVES
from jaxcost.explore.sweep import report_metrics

__all__ = [
    "BestSection",
    "DistributionSection",
    "FeasibilitySection",
    "Limits",
    "Metric",
    "ParetoSection",
    "ReduceFile",
    "TopSection",
    "check_metric",
    "metric_list",
]

_MAX_KEPT = 100_000


def check_metric(metric: Any) -> str:
    """Return a metric of a report.

    Raises:
        InputError: a report has no such metric.
    """
    if metric not in report_metrics():
        expected = "a number of a report, such as " + ", ".join(OBJECTIVES)
        ends = [path for path in report_metrics() if path.endswith(f".{metric}")]
        suggestion = ends[0] if ends else nearest(str(metric), report_metrics())
        raise InputError(expected, given=str(metric), suggestion=suggestion)
    return metric


def metric_list(low: int, high: int) -> BeforeValidator:
    """Return the check of a list of different metrics."""

    def check(metrics: Any) -> Any:
        if not isinstance(metrics, list) or not low <= len(set(map(str, metrics))) == len(metrics) <= high:
            raise InputError(f"a list of {low} to {high} different metrics", given=metrics)
        return metrics

    return BeforeValidator(check)


Metric = Annotated[str, BeforeValidator(check_metric)]
Limits = dict[Metric, Bounds]
_Axes = Annotated[list[str], BeforeValidator(as_list)]
_MaxKept = Annotated[int, whole_number(1, _MAX_KEPT)]


class _FilteredSection(StrictModel):
    """Which designs are kept: those within limits, and only feasible ones unless `infeasible` is true."""

    where: Limits = Field({})
    infeasible: bool = False


class TopSection(_FilteredSection):
    """The first designs by a metric."""

    top: _MaxKept
    by: Metric = Field(description="a metric")
    largest: bool | None = None


class ParetoSection(_FilteredSection):
    """The designs that no other design beats in all metrics."""

    pareto: Annotated[list[Metric], metric_list(2, 4)]
    epsilon: Any = 0
    groups: _Axes = Field([])
    size: _MaxKept = 1024
    largest: list[Metric] | None = None


class BestSection(_FilteredSection):
    """The best design of every group by a metric."""

    best: Metric
    groups: _Axes = Field([])
    largest: bool | None = None


class DistributionSection(_FilteredSection):
    """How a metric is distributed."""

    distribution: Metric


class FeasibilitySection(StrictModel):
    """Which constraints designs break."""

    feasibility: Literal["all"]


_REDUCERS: dict[str, type[StrictModel]] = {
    "top": TopSection,
    "pareto": ParetoSection,
    "best": BestSection,
    "distribution": DistributionSection,
    "feasibility": FeasibilitySection,
}


def _check_reducer(section: Any) -> StrictModel:
    kinds = [kind for kind in _REDUCERS if isinstance(section, dict) and kind in section]
    if len(kinds) != 1:
        suggestion = (
            nearest(str(next(iter(section))), _REDUCERS) if isinstance(section, dict) and section else None
        )
        raise InputError(
            "a mapping with one of " + ", ".join(_REDUCERS), given=section, suggestion=suggestion
        )
    return _REDUCERS[kinds[0]].model_validate(section)


def _check_names(sections: dict[str, Any]) -> dict[str, Any]:
    for name in sections:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError("a name of letters, digits, - and _", given=name)
    if not sections:
        raise InputError("at least one reducer")
    return sections


class ReduceFile(StrictModel):
    """Section `reduce` of a space file."""

    reduce: Annotated[
        dict[str, Annotated[Any, BeforeValidator(_check_reducer)]], AfterValidator(_check_names)
    ]
