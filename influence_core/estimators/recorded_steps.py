"""The base of methods that go through the recorded steps of training again (``replay_cache.py``).

Fitting is one training run that keeps some of its states. What is explained is the recorded training, where there is a
recording, or else that by the recipe; the notes say how near it comes to the explained weights.
"""

from __future__ import annotations

from typing import Any

from influence_core.estimator import Cost, Estimator, Fitted, Sizes
from influence_core.replay_cache import Recorded
from influence_core.run import Run
from influence_core.task import Task

PASS = 2.0  # a training pass against one forward and backward pass over the same rows
_ASKED, _EACH = 3.0, 0.5  # passes per epoch of a question, and of each of its rows: measured
_STEP = 8e-3  # seconds of one recorded step, there and back, that do not depend on its size: measured


class RecordedSteps(Estimator):
    """Methods on recorded steps; subclasses say what they do at each."""

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A training run, and the disk for its states; every question goes through the steps again."""
        epochs, steps = length(task, sizes)
        once = epochs * sizes.pass_seconds
        disk = 12.0 * steps**0.5 * sizes.n_params
        return Cost(PASS * once, disk, _ASKED * once + _STEP * steps, _EACH * once)

    def identity(self, task: Task, run: Run) -> dict[str, Any]:
        """Add the recording that is followed."""
        return {**super().identity(task, run), **followed(task)}


def followed(task: Task) -> dict[str, Any]:
    """Return what tells the steps that are followed from the recipe's; nothing where they are these."""
    return {} if task.recorded is None else {"recorded": task.recorded.key}


def length(task: Task, sizes: Sizes) -> tuple[float, float]:
    """Return how often the followed training goes through the rows, and in how many steps."""
    if task.recorded is not None:
        return task.recorded.passes(sizes.n_train), float(task.recorded.marks[-1])
    epochs, size = (task.recipe.epochs, task.recipe.batch_size) if task.recipe is not None else (1, 64)
    return float(epochs), float(epochs * max(1, sizes.n_train // size))


class RecordedFitted(Fitted):
    """The recorded steps."""

    def __init__(self, estimator: Estimator, task: Task, run: Run) -> None:
        """Load the states, or train."""
        super().__init__(estimator, task, run)
        self.recorded = Recorded(task, run)

    @property
    def share(self) -> float:
        """Return the share of the parameters that are trained."""
        return self.recorded.n_params / max(1, self.task.n_params)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say which training is explained."""
        return self.recorded.notes
