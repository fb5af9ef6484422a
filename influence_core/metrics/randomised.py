"""The sanity check of a randomised model: scores that look at the model must change when the model forgets it all.

The scores of the trained model are compared with those of the same architecture with freshly drawn weights, on the same
rows: a high rank correlation says that a method shows the data and not what the model learned from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.estimator import Estimator
from influence_core.metrics.intervals import mean_correlation
from influence_core.metrics.scoring import chosen_rows, judged_measurement, scored
from influence_core.metrics.table import Judging, each, framed, line
from influence_core.primitives.training import new_model
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.task import Needs, Task

READS_WEIGHTS = Needs.MODEL | Needs.CHECKPOINTS | Needs.LAST_LAYER | Needs.WORD_EMBEDDING
_DRAW = 7919  # added to the recipe's seed: the model must not start where the trained one did


def forgotten(task: Task) -> Task:
    """Return the same task with untrained weights in the place of its last checkpoint.

    Raises:
        Unavailable: The task has no model factory.
    """
    if task.factory is None or Needs.MODEL not in task.provides:
        raise Unavailable(
            "The model cannot be made anew", "This task has a trained module and no model factory.",
            "Give the model as a function.",
        )  # fmt: skip
    if "forgotten" in task.memo:
        return task.memo["forgotten"]
    recipe = task.recipe or Recipe.checked({})
    seed = recipe.seed + _DRAW
    fresh = new_model(task.factory, recipe.changed(seed=seed)).state_dict()
    key = digest({"kind": "forgotten model", "task": task.fingerprint, "recipe": recipe.to_json(), "seed": seed})
    rates = task.learning_rates[-1:] if task.learning_rates is not None else None
    blank = task.with_checkpoints([{name: value.detach().cpu() for name, value in fresh.items()}], rates, key)
    task.memo["forgotten"] = blank
    return blank


def randomised(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None,
    options: Judging | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return the mean rank correlation of a method's scores of the trained model with those of an untrained one.

    Near 0 is what a method should show. It is refused where a method does not read the model's weights.

    Args:
        task: With a model factory.
        methods: Estimators with pairwise scores.
        run: Device, store, progress.
        planted: Not used.
        options: Test rows.

    Raises:
        Unavailable: The model cannot be made anew.
    """
    options = options or Judging.checked({})
    rows, blank = chosen_rows(task, run, options.rows), forgotten(task)

    def judged(estimator: Estimator) -> list[dict[str, Any]]:
        if not estimator.named.needs & READS_WEIGHTS:
            raise Unavailable(
                f"{estimator.named.title} does not look at the model's weights",
                "It would say the same of an untrained model.", "Leave it out of this metric.",
            )  # fmt: skip
        measurement = judged_measurement(task, estimator)
        one = scored(task, estimator, rows, measurement, run)
        other = scored(blank, estimator, rows, measurement, run)
        known = np.isfinite(one.values[0]) & np.isfinite(other.values[0])
        found = mean_correlation(one.values[:, known], other.values[:, known])
        note = "scores of the trained model against those of the same model with fresh weights; near 0 is right"
        return [line(
            estimator.named.name, "randomised", "spearman", found.value, found.n, low=found.low, high=found.high,
            note=note, seconds=one.seconds,
        )]  # fmt: skip

    return framed(each(methods, "randomised", judged))
