"""The shared base of methods that retrain on subsets and read the table of outcomes."""

from __future__ import annotations

from abc import abstractmethod

from influence_core.estimator import Cost, Estimator, Sizes
from influence_core.task import Task

_STEP_OVERHEAD = 2.0  # a training pass against one forward and backward pass over the same rows: optimiser and Python


class Resampling(Estimator):
    """Retraining methods; subclasses say how many models they need."""

    @abstractmethod
    def n_models(self, task: Task) -> int:
        """Return how many models are trained."""

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """One training run per model; the disk holds each model's outputs on all rows."""
        epochs = task.recipe.epochs if task.recipe is not None else 1
        models = self.n_models(task)
        rows = sizes.n_train + sizes.n_test
        return Cost(models * epochs * sizes.pass_seconds * _STEP_OVERHEAD, models * rows * sizes.n_classes * 4)
