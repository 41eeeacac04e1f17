"""Calibration of kernels and serving engines to measurements."""

from jaxcost.explore.calibrate.calibration import Fitted, calibrate, fastest
from jaxcost.explore.calibrate.cross_validation import scores
from jaxcost.explore.calibrate.kernel_families import FAMILIES, Selection, selections
from jaxcost.explore.calibrate.outliers import Outlier, find_outliers
from jaxcost.explore.calibrate.serving_fit import ServingPoints
from jaxcost.explore.calibrate.validation import GROUPS, Scored, Summary, score, summaries

__all__ = [
    "FAMILIES",
    "GROUPS",
    "Fitted",
    "Outlier",
    "Scored",
    "Selection",
    "ServingPoints",
    "Summary",
    "calibrate",
    "fastest",
    "find_outliers",
    "score",
    "scores",
    "selections",
    "summaries",
]
