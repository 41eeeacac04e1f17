"""Reducers of a streamed sweep: what is kept of designs that are too many to keep.

Best of all, best by group, Pareto fronts, distributions, and why designs fail; the law they obey is in
`jaxcost.explore.sweep.reducer`.
"""

from jaxcost.explore.sweep.pareto_archive import Archive, Front, Pareto
from jaxcost.explore.sweep.ranking import Best, Grouped, Kept, Ranked, TopK
from jaxcost.explore.sweep.reducer import FEASIBLE, Batch, Constraint, Layout, Reducer
from jaxcost.explore.sweep.tally import MARGINS, Distribution, Feasibility, Histogram, Reasons

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
