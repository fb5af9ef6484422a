"""Mislabel detection: does a method's suspicion rank the planted label errors first, and better than plain loss?

Suspicion is self-influence (high = suspicious); for semivalues it is minus the mean value over the test split, because
a row is its own nearest neighbour. Methods without a self-influence are scored by harm: minus their mean score on the
test rows. The plain loss stands beside every method. In-sample: the model saw the rows it is asked about.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from influence_core import registry
from influence_core.errors import BadInput
from influence_core.estimator import Estimator
from influence_core.metrics.scoring import suspicion
from influence_core.metrics.table import Judging, each, framed, line
from influence_core.primitives.statistics import average_precision, recall_at, roc_auc
from influence_core.run import Run
from influence_core.task import Task

FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auc": roc_auc,
    "average_precision": average_precision,
    "recall_at_10": partial(recall_at, share=0.1),
    "recall_at_20": partial(recall_at, share=0.2),
}
_DRAWS = 400


def mislabel_detection(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None, options: Judging | None = None
) -> pd.DataFrame:
    """Return AUC, average precision and recall at 10% and 20% inspected, per method and for plain loss.

    Args:
        task: Any classification task.
        methods: Estimators to judge.
        run: Device, store, progress.
        planted: Which training labels are known to be wrong ``[n_train]``.
        options: Not used.

    Returns:
        A line per method and figure; intervals are over training rows, wrong and right ones drawn apart.

    Raises:
        BadInput: No truth is known, or it holds no error.
    """
    if planted is None or not planted.any():
        raise BadInput(
            "Mislabel detection cannot be measured",
            "No planted label errors are known here.",
            "Use a study with planted truth, such as the digits demo.",
        )
    names = [estimator.named.name for estimator in methods]
    judged = list(methods) if "loss" in names else [registry.made("loss"), *methods]

    def measured(estimator: Estimator) -> list[dict[str, Any]]:
        found = suspicion(task, estimator, run)
        known = np.isfinite(found.values)
        scores, wrong = found.values[known], planted[known]
        drawn = _draws(scores, wrong)
        lines = []
        for name, figure in FIGURES.items():
            low, high = _interval([figure(*draw) for draw in drawn])
            lines.append(line(
                estimator.named.name, "mislabel", name, figure(scores, wrong), int(known.sum()), low=low, high=high,
                note=found.source, seconds=found.seconds,
            ))  # fmt: skip
        return lines

    return framed(each(judged, "mislabel", measured))


def _draws(scores: np.ndarray, wrong: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return bootstrap samples of the rows, as many wrong and right ones in each as there are; the same for all."""
    random, parts = np.random.default_rng(0), [np.flatnonzero(wrong), np.flatnonzero(~wrong)]
    if not all(len(part) for part in parts):
        return []
    drawn = [np.concatenate([random.choice(part, len(part)) for part in parts]) for _ in range(_DRAWS)]
    return [(scores[rows], wrong[rows]) for rows in drawn]


def _interval(values: list[float]) -> tuple[float, float]:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return np.nan, np.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)
