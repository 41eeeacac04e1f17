"""Co-design by gradient: the best design of a space under constraints."""

from jaxcost.explore.codesign.api import (
    break_even,
    codesign,
    codesign_along,
    codesign_front,
    elasticity_table,
)
from jaxcost.explore.codesign.parametric import Along, BreakEven, Elasticities
from jaxcost.explore.codesign.pareto import Front
from jaxcost.explore.codesign.problem import Problem, ProgressCallback, list_limits
from jaxcost.explore.codesign.relaxation import relax
from jaxcost.explore.codesign.result import Codesign, KnobValue, Limit

__all__ = [
    "Along",
    "BreakEven",
    "Codesign",
    "Elasticities",
    "Front",
    "KnobValue",
    "Limit",
    "Problem",
    "ProgressCallback",
    "break_even",
    "codesign",
    "codesign_along",
    "codesign_front",
    "elasticity_table",
    "list_limits",
    "relax",
]
