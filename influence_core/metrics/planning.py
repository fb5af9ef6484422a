"""What judging will cost, said before it starts: models to be trained that are not in the table yet, and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from influence_core.costs import cost, seconds_in_words, sizes
from influence_core.errors import Unavailable
from influence_core.estimator import Estimator
from influence_core.fitting import is_fitted
from influence_core.metrics.table import Judging
from influence_core.metrics.truth import n_seeds, seeds_of, subsets
from influence_core.outcomes import Correction, Outcomes
from influence_core.registry import missing
from influence_core.run import Run
from influence_core.task import Task

_STEP = 2.0  # of a training pass against one forward and backward pass over the same rows: optimiser and Python
_STACKED = 0.4  # of that, where many small models are trained in one stack
_CONVERGED = 100  # passes that a convex model needs to the precision of its numbers
_SEARCH = 4  # further models per prediction while the flip is searched for


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        models: Models to be trained, by metric; removal's number is an upper estimate.
        fits: Methods to be fitted.
        seconds: Of both together, an estimate.
    """

    models: dict[str, int]
    fits: tuple[str, ...]
    seconds: float

    @property
    def words(self) -> str:
        """Return the plan in one sentence."""
        parts = [f"{count} models to train for {name}" for name, count in self.models.items() if count]
        parts += [f"{len(self.fits)} methods to fit ({', '.join(self.fits)})"] if self.fits else []
        return f"{'; '.join(parts) or 'Everything is there already'}: {seconds_in_words(self.seconds)}."


def planned(task: Task, methods: Sequence[Estimator], metrics: Sequence[str], run: Run, options: Judging) -> Plan:
    """Return what ``evaluate`` will have to do."""
    able = [estimator for estimator in methods if not missing(estimator.named, task)]
    fits = [estimator for estimator in able if not is_fitted(task, estimator, run)]
    seconds = sum(cost(task, estimator, run).seconds for estimator in fits)
    models = _models(task, len(able), metrics, run, options)
    if any(models.values()) and task.recipe is not None:
        passes = _CONVERGED if task.recipe.optimizer == "lbfgs" else task.recipe.epochs
        each = passes * sizes(task, run).pass_seconds * _STEP
        stacked = _STACKED if Outcomes(task, run).stacked > 1 else 1.0
        seconds += sum(n * each * (1.0 if name == "loo" else stacked) for name, n in models.items())
    if "pbrf" in metrics:
        seconds += options.left_out * 100 * sizes(task, run).pass_seconds * _STEP
    return Plan(models, tuple(estimator.named.name for estimator in fits), seconds)


def _models(task: Task, n_methods: int, metrics: Sequence[str], run: Run, options: Judging) -> dict[str, int]:
    """Return how many models each metric has to train; none where nothing can be retrained."""
    try:
        outcomes = Outcomes(task, run)
    except Unavailable:
        return {}
    seeds, found = seeds_of(task, n_seeds(task, options)), {}
    if "lds" in metrics:
        removed = [tuple(np.flatnonzero(~row).tolist()) for row in subsets(task.n_train, options.subsets, run.seed)]
        found["lds"] = sum(not outcomes.has(Correction(rows), seed) for rows in removed for seed in seeds)
    if "loo" in metrics:
        generator = torch.Generator().manual_seed(run.seed)
        drawn = torch.randperm(task.n_train, generator=generator)[: options.left_out].tolist()
        removed = [(), *((row,) for row in drawn)]
        found["loo"] = sum(not outcomes.has(Correction(rows), seed) for rows in removed for seed in seeds)
    if "removal" in metrics:
        found["removal"] = (n_methods + 1) * min(options.flipped, task.n_test) * (6 + _SEARCH)
    return found
