"""Calibration of kernels and serving engines to measurements."""

from jaxcost.explore.calibrate.calibration import Fitted, calibrate, fastest, pool_chips
from jaxcost.explore.calibrate.cross_validation import interval_of, scores
from jaxcost.explore.calibrate.fit import Bounds
from jaxcost.explore.calibrate.kernel_families import FAMILIES, Selection, selections
from jaxcost.explore.calibrate.outliers import Outlier, find_outliers
from jaxcost.explore.calibrate.pooling import (
    CIRCUMSTANCES,
    FOLDS,
    LIBRARY,
    HeldOut,
    Pooled,
    held_out,
    pool_selections,
)
from jaxcost.explore.calibrate.serving_fit import ServingPoints, fit_engines
from jaxcost.explore.calibrate.serving_intervals import ServingInterval
from jaxcost.explore.calibrate.serving_points import serving_points, serving_steps, with_skew
from jaxcost.explore.calibrate.serving_scores import ServingScores, score_serving
from jaxcost.explore.calibrate.updating import update_rows
from jaxcost.explore.calibrate.validation import (
    GROUPS,
    MEASURED,
    NEAR_KERNEL,
    KernelNumbers,
    Scored,
    Summary,
    left_out_reasons,
    score,
    score_family,
    summaries,
)

__all__ = [
    "CIRCUMSTANCES",
    "FAMILIES",
    "FOLDS",
    "GROUPS",
    "LIBRARY",
    "MEASURED",
    "NEAR_KERNEL",
    "Bounds",
    "Fitted",
    "HeldOut",
    "KernelNumbers",
    "Outlier",
    "Pooled",
    "Scored",
    "Selection",
    "ServingInterval",
    "ServingPoints",
    "ServingScores",
    "Summary",
    "calibrate",
    "fastest",
    "find_outliers",
    "fit_engines",
    "held_out",
    "interval_of",
    "left_out_reasons",
    "pool_chips",
    "pool_selections",
    "score",
    "score_family",
    "score_serving",
    "scores",
    "selections",
    "serving_points",
    "serving_steps",
    "summaries",
    "update_rows",
    "with_skew",
]
