"""Sweeps: the evaluation of every design of a space, and the reducers that keep what is of interest."""

from jaxcost.explore.sweep.pareto_archive import Pareto, ParetoFront
from jaxcost.explore.sweep.ranking import Best, GroupBest, Ranking, TopK
from jaxcost.explore.sweep.reducer import FEASIBLE, Constraint, Reducer
from jaxcost.explore.sweep.run import (
    METRICS,
    Sweep,
    build_stream,
    default_block,
    metrics_of,
    model_evaluation,
    report_metrics,
    sweep,
)
from jaxcost.explore.sweep.stream import Evaluation, SweepStream, default_chunk, merge_states, over_designs
from jaxcost.explore.sweep.tally import Distribution, Feasibility, FeasibilityCounts, Histogram

__all__ = [
    "FEASIBLE",
    "METRICS",
    "Best",
    "Constraint",
    "Distribution",
    "Evaluation",
    "Feasibility",
    "FeasibilityCounts",
    "GroupBest",
    "Histogram",
    "Pareto",
    "ParetoFront",
    "Ranking",
    "Reducer",
    "Sweep",
    "SweepStream",
    "TopK",
    "build_stream",
    "default_block",
    "default_chunk",
    "merge_states",
    "metrics_of",
    "model_evaluation",
    "over_designs",
    "report_metrics",
    "sweep",
]
