"""Co-design by gradient: the best design of a space under constraints."""

from jaxcost.explore.codesign.parametric import (
    Along,
    BreakEven,
    Elasticities,
    break_even,
    codesign_along,
    elasticity_table,
)
from jaxcost.explore.codesign.pareto import Front, codesign_front
from jaxcost.explore.codesign.problem import Codesign, KnobValue, Limit, codesign
from jaxcost.explore.codesign.relaxation import relax
from jaxcost.explore.codesign.solver import limits_of

__all__ = [
    "Along",
    "BreakEven",
    "Codesign",
    "Elasticities",
    "Front",
    "KnobValue",
    "Limit",
    "break_even",
    "codesign",
    "codesign_along",
    "codesign_front",
    "elasticity_table",
    "limits_of",
    "relax",
]
