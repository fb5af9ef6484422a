"""Agreement with seeded leave-one-out: does a method's score track what retraining really does?

Rows left out and test rows are drawn by seed; the retrained outcomes come from the shared table. For each test row the
scores over the left-out rows are correlated with the true changes, and the correlations averaged; the noise floor of a
network is the reason to read the number beside the truth's own agreement between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from influence_core import registry
from influence_core.errors import BadInput
from influence_core.estimator import Estimator
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.statistics import pearson, spearman
from influence_core.run import Run
from influence_core.task import Task

N_TEST = 64
N_LEFT_OUT = 24
N_SEEDS = 2


def loo_correlation(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None
) -> pd.DataFrame:
    """Return mean Pearson and Spearman correlation with leave-one-out over test rows, with a standard error.

    Args:
        task: With a recipe.
        methods: Estimators with pairwise scores.
        run: Device, store, progress; its seed draws the rows.
        planted: Not used.

    Raises:
        BadInput: A method has no pairwise scores.
        Unavailable: The task cannot be retrained.
    """
    alone = [estimator.named.title for estimator in methods if not estimator.named.scores]
    if alone:
        raise BadInput(
            "This method cannot be compared with leave-one-out",
            f"{alone[0]} has no score for a pair of rows.",
            "Leave it out of this metric.",
        )
    seeds = 1 if task.recipe is not None and task.recipe.optimizer == "lbfgs" else N_SEEDS
    truth_estimator = registry.made("loo", {"n_rows": min(N_LEFT_OUT, task.n_train), "n_seeds": seeds})
    registry.check_available(truth_estimator.named, task)
    truth_fit = fit(task, truth_estimator, run)
    generator = torch.Generator().manual_seed(run.seed + 1)
    chosen = torch.randperm(task.n_test, generator=generator)[:N_TEST].numpy()
    rows = Rows("test", tuple(task.ids("test")[chosen].tolist()))
    tables = []
    for estimator in methods:
        measurement = default_measurement(estimator)
        scores = fit(task, estimator, run).scores(rows, measurement).double().cpu().numpy()
        kinds = estimator.named.measurements
        truth = truth_fit.scores(rows, measurement if kinds else Measurement()).double().cpu().numpy()
        known = np.isfinite(truth[0]) & np.isfinite(scores[0])
        for figure, correlation in (("pearson", pearson), ("spearman", spearman)):
            values = np.asarray([correlation(s[known], t[known]) for s, t in zip(scores, truth, strict=True)])
            values = values[np.isfinite(values)]
            mean = float(values.mean()) if len(values) else float("nan")
            error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
            note = f"{int(known.sum())} rows left out, {seeds} seed(s), standard error {error:.3f}"
            tables.append(
                {
                    "method": estimator.named.name,
                    "metric": "loo",
                    "figure": figure,
                    "value": mean,
                    "n": len(values),
                    "note": note,
                }
            )
    return pd.DataFrame(tables)
