"""Linear datamodeling score: do summed scores order random halves of the data as retraining on them does?

For every test row the sum of a method's scores over the rows that a subset keeps (positive = helps) is ranked over the
subsets against the measurement of the models that were trained on them (a mean over seeds), and the rank correlations
are averaged over test rows (Park et al., TRAK, 2023, section 2.3). A method with a group influence of its own is asked
for the influence of the rows left out instead, with its sign turned: the same order where scores add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from influence_core.errors import Unavailable
from influence_core.estimator import Estimator, Fitted
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.metrics.intervals import ceiling, mean_correlation, seeds_agree
from influence_core.metrics.scoring import chosen_rows, grouped, judged_measurement, scored, true_measurement
from influence_core.metrics.table import TRUTH, Judging, each, framed, line
from influence_core.metrics.truth import subset_truth
from influence_core.run import Run
from influence_core.task import Task


def predicted(
    task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, kept: np.ndarray, run: Run
) -> tuple[np.ndarray, float]:
    """Return what a method says of subsets ``[n_test, M]``, higher = better for the test row, and its seconds.

    Raises:
        Unavailable: Its scores do not add up, or it has not scored every row.
    """
    found = scored(task, estimator, rows, measurement, run)
    unknown = int((~np.isfinite(found.values[0])).sum())
    if unknown:
        raise Unavailable(
            f"{estimator.named.title} does not score every row", f"{unknown} of {task.n_train} rows have no score.",
            "Ask it for all rows, or leave it out of this metric.",
        )  # fmt: skip
    fitted = fit(task, estimator, run)
    if estimator.named.additive and type(fitted).group is Fitted.group:
        return found.values @ kept.T.astype(float), found.seconds
    return -grouped(task, estimator, rows, measurement, ~kept, run).values, found.seconds


def lds(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None,
    options: Judging | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the linear datamodeling score of every method, in [-1, 1], with interval and ceiling.

    Args:
        task: With a recipe and a built-in loss.
        methods: Estimators with additive pairwise scores, or a group influence of their own.
        run: Device, store, progress; its seed draws test rows and subsets.
        planted: Not used.
        options: Subsets, seeds, test rows.

    Returns:
        A line per method, and one of how well one seed's truth agrees with another's.

    Raises:
        Unavailable: The task cannot be retrained.
    """
    options = options or Judging.checked({})
    rows, truth = chosen_rows(task, run, options.rows), subset_truth(task, run, options)
    note = f"{len(truth.kept)} subsets x {len(truth.seeds)} seed(s)"
    highest: dict[str, float] = {}
    lines: list[dict[str, Any]] = []

    def noise(measurement: Measurement) -> float:
        """Return the ceiling of a measurement, adding the line of the truth when it is first asked for."""
        if len(truth.seeds) == 1:
            return 1.0 if task.recipe is not None and task.recipe.optimizer == "lbfgs" else np.nan
        if measurement.name not in highest:
            agree = seeds_agree(truth.measured(rows, measurement))
            highest[measurement.name] = ceiling(agree.value, len(truth.seeds))
            said = f"one seed against another, {measurement.name}; {note}"
            lines.append(line(
                TRUTH, "lds", f"seeds agree ({measurement.name})", agree.value, agree.n, low=agree.low,
                high=agree.high, ceiling=highest[measurement.name], note=said,
            ))  # fmt: skip
        return highest[measurement.name]

    def judged(estimator: Estimator) -> list[dict[str, Any]]:
        measurement = judged_measurement(task, estimator)
        said, seconds = predicted(task, estimator, rows, measurement, truth.kept, run)
        kind = true_measurement(estimator, measurement)
        figure = mean_correlation(said, truth.measured(rows, kind).mean(0))
        return [line(
            estimator.named.name, "lds", "lds", figure.value, figure.n, low=figure.low, high=figure.high,
            ceiling=noise(kind), note=f"{kind.name}; {note}", seconds=seconds,
        )]  # fmt: skip

    found = each(methods, "lds", judged)
    return framed([*lines, *found])
