"""The reducers of a streamed sweep: best designs, best by group, Pareto fronts, distributions, and failure counts.

The law that all of them obey is in `jaxcost.explore.sweep.reducer`.
"""

from jaxcost.explore.sweep.pareto_archive import Pareto, ParetoArchive, ParetoFront
from jaxcost.explore.sweep.ranking import Best, GroupBest, KeptDesigns, Ranking, TopK
from jaxcost.explore.sweep.reducer import FEASIBLE, Batch, BatchSchema, Constraint, Reducer
from jaxcost.explore.sweep.tally import MARGINS, Distribution, Feasibility, FeasibilityCounts, Histogram

__all__ = [
    "FEASIBLE",
    "MARGINS",
    "Batch",
    "BatchSchema",
    "Best",
    "Constraint",
    "Distribution",
    "Feasibility",
    "FeasibilityCounts",
    "GroupBest",
    "Histogram",
    "KeptDesigns",
    "Pareto",
    "ParetoArchive",
    "ParetoFront",
    "Ranking",
    "Reducer",
    "TopK",
]
