"""Analysis of one design: best plan, sensitivity, uncertainty, diagnosis."""

from jaxcost.explore.analysis.diagnosis import Finding, diagnose
from jaxcost.explore.analysis.first_token import ttft_alone
from jaxcost.explore.analysis.planner import (
    DEGREES,
    OBJECTIVES,
    Choice,
    best_plan,
    candidate_columns,
    candidate_plans,
    divisors,
    evaluate,
    is_valid,
    system_plans,
    take_candidate,
    with_degrees,
)
from jaxcost.explore.analysis.remedies import Remedy, find_remedies
from jaxcost.explore.analysis.sensitivity import elasticities, gradient, metric_names
from jaxcost.explore.analysis.uncertainty import (
    Bar,
    Constant,
    Intervals,
    Spread,
    leaves_at,
    positions,
    propagate,
)

__all__ = [
    "DEGREES",
    "OBJECTIVES",
    "Bar",
    "Choice",
    "Constant",
    "Finding",
    "Intervals",
    "Remedy",
    "Spread",
    "best_plan",
    "candidate_columns",
    "candidate_plans",
    "diagnose",
    "divisors",
    "elasticities",
    "evaluate",
    "find_remedies",
    "gradient",
    "is_valid",
    "leaves_at",
    "metric_names",
    "positions",
    "propagate",
    "system_plans",
    "take_candidate",
    "ttft_alone",
    "with_degrees",
]
