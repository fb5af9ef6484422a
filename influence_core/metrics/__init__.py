"""Measures of how well a method does: each takes (task, methods, run, planted truth) and returns a table."""

from influence_core.metrics.detection import mislabel_detection
from influence_core.metrics.loo_correlation import loo_correlation

METRICS = {"loo": loo_correlation, "mislabel": mislabel_detection}

__all__ = ["METRICS", "loo_correlation", "mislabel_detection"]
