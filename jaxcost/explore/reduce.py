"""Reducers of a streamed sweep: what is kept of designs that are too many to keep.

Best of all, best by group, Pareto fronts, distributions, and why designs fail; the law they obey is in
`jaxcost.explore.reducer`.
"""

from jaxcost.explore.front import Archive, Front, Pareto
from jaxcost.explore.ranking import Best, Grouped, Kept, Ranked, TopK
from jaxcost.explore.reducer import FEASIBLE, Batch, Constraint, Layout, Reducer
from jaxcost.explore.tally import MARGINS, Distribution, Feasibility, Histogram, Reasons

__all__ = [
    "FEASIBLE",
    "MARGINS",
    "Archive",
    "Batch",
    "Best",
    "Constraint",
    "Distribution",
    "Feasibility",
    "Front",
    "Grouped",
    "Histogram",
    "Kept",
    "Layout",
    "Pareto",
    "Ranked",
    "Reasons",
    "Reducer",
    "TopK",
]
