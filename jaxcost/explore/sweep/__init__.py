"""Sweeps: every design of a space is evaluated, and reducers keep what is asked."""

from jaxcost.explore.sweep.reducer import Constraint
from jaxcost.explore.sweep.reducers import (
    FEASIBLE,
    Best,
    Distribution,
    Feasibility,
    Front,
    Grouped,
    Histogram,
    Pareto,
    Ranked,
    Reasons,
    Reducer,
    TopK,
)
from jaxcost.explore.sweep.run import (
    METRICS,
    Sweep,
    default_block,
    metrics_of,
    model_evaluation,
    report_metrics,
    sweep,
)
from jaxcost.explore.sweep.stream import Evaluation, Stream, default_chunk, merged, over_designs

__all__ = [
    "FEASIBLE",
    "METRICS",
    "Best",
    "Constraint",
    "Distribution",
    "Evaluation",
    "Feasibility",
    "Front",
    "Grouped",
    "Histogram",
    "Pareto",
    "Ranked",
    "Reasons",
    "Reducer",
    "Stream",
    "Sweep",
    "TopK",
    "default_block",
    "default_chunk",
    "merged",
    "metrics_of",
    "model_evaluation",
    "over_designs",
    "report_metrics",
    "sweep",
]
