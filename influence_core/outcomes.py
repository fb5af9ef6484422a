"""The one table of retrained outcomes: (rows left out, seed) -> the retrained model's outputs on every row.

Append-only, keyed by task, recipe, subset and seed, never by method: leave-one-out, and every later method that
retrains, read the same rows. What has not been computed is absent, never 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.primitives.losses import outputs
from influence_core.primitives.training import new_model, training
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Task

VERSION = 2


@dataclass(frozen=True)
class Outcome:
    """Outputs of one retrained model: split -> ``[n, ...]``."""

    outputs: dict[str, Tensor]


class Outcomes:
    """Retrained outcomes of one task.

    Args:
        task: With a recipe and a model factory.
        run: Where they are kept, progress, cancel.
    """

    def __init__(self, task: Task, run: Run) -> None:
        """Check that the task can be retrained."""
        if task.recipe is None or task.factory is None:
            raise Unavailable(
                "This task cannot be retrained",
                "It has no recipe or no model factory.",
                "Give recipe=Recipe(...) and the model as a function.",
            )
        self.task, self.run, self.recipe, self.factory = task, run, task.recipe, task.factory

    def without(self, removed: Iterable[int], seed: int) -> Outcome:
        """Return the outcome of training without some rows (positions), retraining if it is not in the table."""
        artifact = self.run.artifacts.obtain(
            *self._identity(removed, seed), lambda w: self._train(w, removed, seed), self.run.waiting
        )
        return _read(artifact)

    def known(self, removed: Iterable[int], seed: int) -> Outcome | None:
        """Return an outcome that has been computed already, or None."""
        artifact = self.run.artifacts.find(self._identity(removed, seed)[0])
        return None if artifact is None else _read(artifact)

    def _identity(self, removed: Iterable[int], seed: int) -> tuple[str, dict[str, object]]:
        inputs: dict[str, object] = {
            "kind": "outcome", "version": VERSION, "task": self.task.fingerprint, "recipe": self.recipe.to_json(),
            "removed": sorted(removed), "seed": seed,
        }  # fmt: skip
        return digest(inputs), inputs

    def _train(self, writer: Writer, removed: Iterable[int], seed: int) -> None:
        task, recipe = self.task, self.recipe.changed(seed=seed)
        weights = torch.ones(task.n_train)
        weights[list(removed)] = 0.0
        model = new_model(self.factory, recipe, self.run.device)
        for _ in training(model, task.split("train"), task.loss, recipe, weights):
            self.run.check_cancelled()
        parameter = next(model.parameters())
        for split in task.splits:
            batches = task.split(split).batches(1024, parameter.device, parameter.dtype)
            with torch.no_grad():
                writer.save(split, torch.cat([outputs(model, batch.inputs) for _, batch in batches]))


def _read(artifact: Artifact) -> Outcome:
    return Outcome({name: artifact.tensor(name) for name in artifact.names()})
