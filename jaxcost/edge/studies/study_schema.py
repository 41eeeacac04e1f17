"""The models of study files."""

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from jaxcost.edge.io.errors import InputError
from jaxcost.edge.io.validation import StrictModel, as_list, whole_number
from jaxcost.edge.studies.reducer_schema import Limits, Metric, check_metric, metric_list
from jaxcost.edge.studies.space_schema import Interval, Knobs, Seed, SpaceSections, ValueList
from jaxcost.explore.analysis import OBJECTIVES

__all__ = ["MAX_POINTS", "AlongSection", "BreakEvenSection", "FrontSection", "RobustSection", "StudyFile"]

MAX_POINTS = 256
_MAX_STARTS = _MAX_DRAWS = 4096


def _signed_metric(metric: Any) -> str:
    """Return a metric with a minus before it if larger is better, or if the file has one."""
    name = check_metric(str(metric).removeprefix("-"))
    return f"-{name}" if str(metric).startswith("-") or OBJECTIVES.get(name) else name


def _check_exponent(value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value == 0:
        raise InputError("an exponent other than 0, below 0 for a metric to maximize", given=value)
    return float(value)


def _check_aggregate(value: Any) -> str | float:
    if value in ("mean", "worst"):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError("mean, worst, or the a of CVaR_a from 0 to below 1", given=value)
    return float(value)


def _exponents(objective: Any) -> Any:
    if not isinstance(objective, str | dict) or not objective:
        raise InputError("a metric, or a mapping from metrics to exponents", given=objective)
    if isinstance(objective, dict):
        return objective
    name = _signed_metric(objective)
    return {name.removeprefix("-"): -1.0 if name.startswith("-") else 1.0}


_SignedMetric = Annotated[str, BeforeValidator(_signed_metric)]
_Exponent = Annotated[float, BeforeValidator(_check_exponent)]
_Aggregate = Annotated[str | float, BeforeValidator(_check_aggregate)]


class FrontSection(StrictModel):
    """A Pareto front to find; a metric to maximize has a minus before it."""

    metrics: Annotated[list[_SignedMetric], metric_list(2, 3)]
    points: Annotated[int, whole_number(2, MAX_POINTS)] = 12


class AlongSection(StrictModel):
    """Values of a number, each of which has a best design."""

    path: str
    values: ValueList


class _BetweenSection(StrictModel):
    axis: str
    first: str
    second: str


class BreakEvenSection(StrictModel):
    """Two names on an axis, and the number at which their objectives may be equal."""

    path: str
    between: _BetweenSection
    range: Interval


class RobustSection(StrictModel):
    """Draws of the uncertain constants, and the aggregate of the objective over them."""

    over: _Aggregate = 0.9
    draws: Annotated[int, whole_number(2, _MAX_DRAWS)] = 16


class StudyFile(SpaceSections):
    """configs/studies: a space with knobs for an optimizer, an objective and limits."""

    question: str = ""
    knobs: Knobs = Field(description="a mapping from dotted paths to ranges")
    objective: Annotated[dict[Metric, _Exponent], BeforeValidator(_exponents)] = Field({"usd_per_mtok": 1.0})
    limits: Limits = Field({})
    across: Annotated[list[str], BeforeValidator(as_list)] = Field([])
    over: _Aggregate = "mean"
    starts: Annotated[int, whole_number(1, _MAX_STARTS)] = 16
    seed: Seed = 0
    front: FrontSection | None = None
    along: Annotated[list[AlongSection], BeforeValidator(as_list)] = Field([])
    break_even: BreakEvenSection | None = None
    robust: RobustSection | None = None
