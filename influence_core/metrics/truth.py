"""What retraining says: outcomes of random half-subsets and of rows left out, trained once and read by every metric."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from influence_core import registry
from influence_core.estimators.retraining.loo import LeaveOneOutFitted
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows, measured_values
from influence_core.metrics.table import Judging
from influence_core.outcomes import Outcomes
from influence_core.run import Run
from influence_core.task import Task

SHARE = 0.5


def n_seeds(task: Task, options: Judging) -> int:
    """Return how many seeds make a truth: one where training ends at the same weights whatever the seed."""
    return 1 if task.recipe is not None and task.recipe.optimizer == "lbfgs" else options.seeds


def seeds_of(task: Task, count: int) -> list[int]:
    """Return the seeds of a truth, from the recipe's own on."""
    start = task.recipe.seed if task.recipe is not None else 0
    return [start + s for s in range(count)]


def subsets(n_train: int, count: int, seed: int, share: float = SHARE) -> np.ndarray:
    """Return which rows each subset keeps ``[count, n_train]``; more subsets begin with the same ones."""
    kept = np.zeros((count, n_train), bool)
    for place, row in enumerate(kept):
        row[np.random.default_rng([seed, place]).permutation(n_train)[: max(1, round(share * n_train))]] = True
    return kept


@dataclass
class SubsetTruth:
    """Outcomes of subsets: what each keeps ``[M, n_train]``, and what its models say."""

    task: Task
    kept: np.ndarray
    outcomes: Outcomes
    seeds: list[int]
    memo: dict[str, np.ndarray] = field(default_factory=dict)

    def measured(self, rows: Rows, measurement: Measurement) -> np.ndarray:
        """Return the measurement of every retrained model ``[R, n_test, M]``."""
        key = f"{rows}{measurement.identity()}"
        if key not in self.memo:
            self.memo[key] = np.stack([self._seed(seed, rows, measurement) for seed in self.seeds])
        return self.memo[key]

    def _seed(self, seed: int, rows: Rows, measurement: Measurement) -> np.ndarray:
        lefts = [np.flatnonzero(~row).tolist() for row in self.kept]
        return np.stack([values_of(self.task, self.outcomes, left, seed, rows, measurement) for left in lefts], 1)


def values_of(
    task: Task, outcomes: Outcomes, removed: list[int], seed: int, rows: Rows, measurement: Measurement
) -> np.ndarray:
    """Return the measurement ``[n_test]`` of the model that was trained without some rows."""
    said = outcomes.without(removed, seed).outputs[rows.split][task.positions(rows)].double()
    targets = task.query(rows, measurement, torch.float64).targets
    return measured_values(said, targets, task.loss, measurement).numpy()


def subset_truth(task: Task, run: Run, options: Judging) -> SubsetTruth:
    """Return the outcomes of random halves, retraining what is not in the table.

    Raises:
        Unavailable: The task cannot be retrained.
    """
    outcomes, seeds = Outcomes(task, run), seeds_of(task, n_seeds(task, options))
    kept = subsets(task.n_train, options.subsets, run.seed)
    outcomes.many([np.flatnonzero(~row).tolist() for row in kept], seeds, "retraining on subsets")
    return SubsetTruth(task, kept, outcomes, seeds)


def left_out_truth(task: Task, run: Run, options: Judging) -> LeaveOneOutFitted:
    """Return the outcomes of leaving rows out one at a time."""
    settings = {"n_rows": min(options.left_out, task.n_train), "n_seeds": n_seeds(task, options)}
    estimator = registry.made("loo", settings)
    registry.check_available(estimator.named, task)
    fitted = fit(task, estimator, run)
    assert isinstance(fitted, LeaveOneOutFitted)
    return fitted
