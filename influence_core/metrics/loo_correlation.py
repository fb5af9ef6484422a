"""Agreement with seeded leave-one-out: does a method's score track what retraining really does?

Rows left out and test rows are drawn by seed; the retrained outcomes come from the shared table. For each test row the
scores over the left-out rows are correlated with the true changes, and the correlations averaged; the noise floor of a
network is the reason to read the number beside the truth's own agreement between seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from influence_core.estimator import Estimator
from influence_core.fitting import default_measurement
from influence_core.measurement import Measurement
from influence_core.metrics.intervals import ceiling, mean_correlation, seeds_agree
from influence_core.metrics.scoring import chosen_rows, scored, true_measurement
from influence_core.metrics.table import TRUTH, Judging, each, framed, line
from influence_core.metrics.truth import left_out_truth
from influence_core.run import Run
from influence_core.task import Task

FIGURES = {"pearson": False, "spearman": True}


def loo_correlation(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None,
    options: Judging | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return mean Pearson and Spearman correlation with leave-one-out over test rows, with interval and ceiling.

    Args:
        task: With a recipe.
        methods: Estimators with pairwise scores.
        run: Device, store, progress; its seed draws the rows.
        planted: Not used.
        options: Rows left out, seeds, test rows.

    Raises:
        Unavailable: The task cannot be retrained.
    """
    options = options or Judging.checked({})
    truth_fit, rows = left_out_truth(task, run, options), chosen_rows(task, run, options.rows)
    left, seeds = np.asarray(truth_fit.rows), len(truth_fit.seeds)
    alone = 1.0 if task.recipe is not None and task.recipe.optimizer == "lbfgs" else np.nan
    truths: dict[str, np.ndarray] = {}
    lines: list[dict[str, Any]] = []

    def truth(measurement: Measurement) -> np.ndarray:
        if measurement.name not in truths:
            batch = task.query(rows, measurement, torch.float64)
            found = truth_fit.differences(batch, measurement, rows).double().cpu().numpy()
            truths[measurement.name] = found
            lines.extend(_of_truth(found, measurement.name))
        return truths[measurement.name]

    def judged(estimator: Estimator) -> list[dict[str, Any]]:
        measurement = default_measurement(estimator)
        kind = true_measurement(estimator, measurement)
        said = scored(task, estimator, rows, measurement, run)
        true = truth(kind)
        known = np.isfinite(said.values[0, left])
        note = f"{kind.name}; {int(known.sum())} rows left out, {seeds} seed(s)"
        more = {"note": note, "seconds": said.seconds}
        return [
            _compared(estimator, figure, said.values[:, left[known]], true[:, :, known], alone, **more)
            for figure in FIGURES
        ]

    found = each(methods, "loo", judged)
    return framed([*lines, *found])


def _compared(
    estimator: Estimator, figure: str, said: np.ndarray, truths: np.ndarray, alone: float, **more: Any
) -> dict[str, Any]:
    ranked, seeds = FIGURES[figure], len(truths)
    found = mean_correlation(said, truths.mean(0), ranked=ranked)
    highest = ceiling(seeds_agree(truths, ranked=ranked).value, seeds) if seeds > 1 else alone
    return line(
        estimator.named.name, "loo", figure, found.value, found.n, low=found.low, high=found.high, ceiling=highest,
        **more,
    )  # fmt: skip


def _of_truth(truths: np.ndarray, name: str) -> list[dict[str, Any]]:
    """Return how well one seed's leave-one-out agrees with another's; nothing for a single seed."""
    if len(truths) == 1:
        return []
    lines = []
    for figure, ranked in FIGURES.items():
        agree = seeds_agree(truths, ranked=ranked)
        lines.append(line(
            TRUTH, "loo", f"seeds agree ({figure}, {name})", agree.value, agree.n, low=agree.low, high=agree.high,
            ceiling=ceiling(agree.value, len(truths)), note=f"one seed against another, {len(truths)} seeds",
        ))  # fmt: skip
    return lines
