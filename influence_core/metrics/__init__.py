"""Measures of how well a method does: each takes (task, methods, run, planted truth, options) and returns a table."""

from influence_core.metrics.agreement import agreement
from influence_core.metrics.detection import mislabel_detection
from influence_core.metrics.lds import lds
from influence_core.metrics.loo_correlation import loo_correlation
from influence_core.metrics.pbrf import pbrf
from influence_core.metrics.randomised import randomised
from influence_core.metrics.removal_curve import removal
from influence_core.metrics.table import COLUMNS, NOT_MEASURED, TRUTH, Judging

METRICS = {
    "lds": lds,
    "loo": loo_correlation,
    "pbrf": pbrf,
    "mislabel": mislabel_detection,
    "removal": removal,
    "agreement": agreement,
    "randomised": randomised,
}

__all__ = [
    "COLUMNS",
    "METRICS",
    "NOT_MEASURED",
    "TRUTH",
    "Judging",
    "agreement",
    "lds",
    "loo_correlation",
    "mislabel_detection",
    "pbrf",
    "randomised",
    "removal",
]
