"""Mislabel detection: does a method's suspicion rank the planted label errors first, and better than plain loss?

Suspicion is self-influence (high = suspicious); for semivalues it is minus the mean value over the test split, because
a row is its own nearest neighbour. Methods without a self-influence are scored by harm: minus their mean score on the
test rows. The plain loss stands beside every method. In-sample: the model saw the rows it is asked about.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from influence_core import registry
from influence_core.errors import BadInput
from influence_core.estimator import Estimator
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Rows
from influence_core.primitives.statistics import average_precision, recall_at, roc_auc
from influence_core.run import Run
from influence_core.task import Task


def suspicion(task: Task, estimator: Estimator, run: Run) -> tuple[np.ndarray, str]:
    """Return how suspicious each training row is ``[n_train]``, higher is more, and what was taken."""
    fitted = fit(task, estimator, run)
    if estimator.named.self_influence and estimator.named.units != "value":
        return fitted.self_influence().double().cpu().numpy(), "self-influence"
    rows = Rows("test", tuple(task.ids("test").tolist()), reduce="mean")
    return -fitted.scores(rows, default_measurement(estimator))[0].double().cpu().numpy(), "harm on test rows"


def mislabel_detection(task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None) -> pd.DataFrame:
    """Return AUC, average precision and recall at 10% and 20% inspected, per method and for plain loss.

    Args:
        task: Any classification task.
        methods: Estimators to judge.
        run: Device, store, progress.
        planted: Which training labels are known to be wrong ``[n_train]``.

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
    rows = []
    for estimator in judged:
        scores, source = suspicion(task, estimator, run)
        known = np.isfinite(scores)
        figures = {
            "auc": roc_auc(scores[known], planted[known]),
            "average_precision": average_precision(scores[known], planted[known]),
            "recall_at_10": recall_at(scores[known], planted[known], 0.1),
            "recall_at_20": recall_at(scores[known], planted[known], 0.2),
        }
        rows += [
            {
                "method": estimator.named.name,
                "metric": "mislabel",
                "figure": name,
                "value": value,
                "n": int(known.sum()),
                "note": source,
            }
            for name, value in figures.items()
        ]
    return pd.DataFrame(rows)
