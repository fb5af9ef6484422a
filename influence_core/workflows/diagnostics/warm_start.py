"""Leave-one-out from where the model stands: the training goes on from the explained weights, with and without a row.

::

    truth[t, i] = m_t(trained on from theta* with all rows) - m_t(trained on from theta* without row i)

Both trainings take the recipe once more, with the same batches, order and divisor. Leave-one-out of the ``loo`` method
starts again from the untrained model; a network that has not converged can answer the two questions differently, and
influence functions are asked the first (Basu, Pope & Feizi, ICLR 2021, retrain from the optimum). Positive = proponent.

Cost: a training per row, and one more.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.measurement import Measurement, Rows, measured_values
from influence_core.primitives.losses import CustomLoss, outputs
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 1


def warm_differences(
    task: Task, left_out: Sequence[int], query: Rows, measurement: Measurement, run: Run, epochs: int | None = None
) -> Tensor:
    """Return what leaving a row out of further training does to a measurement ``[n_test, rows left out]``, float64.

    Args:
        task: With a trained model, a recipe, a factory and a built-in loss.
        left_out: Positions of training rows, one at a time.
        query: Rows of the test split.
        measurement: Of the outputs.
        run: Device, store, progress.
        epochs: Passes of the further training; None: the recipe's.

    Raises:
        Unavailable: The task cannot be trained on.
    """
    if task.recipe is None or task.factory is None or isinstance(task.loss, CustomLoss):
        raise Unavailable(
            "This task cannot be trained further", "It needs a recipe, a model factory and a built-in loss.",
            "Give recipe=Recipe(...), the model as a function, and cross_entropy, bce or mse.",
        )  # fmt: skip
    recipe = task.recipe if epochs is None else task.recipe.changed(epochs=epochs, checkpoints=())
    targets = task.query(query, measurement, torch.float64).targets
    at, found = task.positions(query), []
    jobs = [None, *left_out]
    for row in run.track(jobs, "training on without a row", len(jobs)):
        said = _outputs(task, recipe, row, run)[at].double()
        found.append(measured_values(said, targets, task.loss, measurement))
    return torch.stack([found[0] - value for value in found[1:]], 1)


def _outputs(task: Task, recipe: Recipe, row: int | None, run: Run) -> Tensor:
    """Return the outputs ``[n_test, ...]`` after the recipe was taken from the explained weights without a row."""
    inputs: dict[str, Any] = {
        "kind": "warm outcome", "version": VERSION, "task": task.fingerprint, "recipe": recipe.to_json(), "row": row,
    }  # fmt: skip

    def produce(writer: Writer) -> None:
        assert task.factory is not None
        model = new_model(task.factory, recipe, run.device)
        model.load_state_dict(dict(task.state()))
        weights = torch.ones(task.n_train, dtype=torch.float64)
        if row is not None:
            weights[row] = 0.0
        with nullcontext() if recipe.optimizer == "lbfgs" else one_core():
            for _ in training(model, task.split("train"), task.loss, recipe, weights):
                run.check_cancelled()
        parameter = next(model.parameters())
        with torch.no_grad():
            batches = task.split("test").batches(1024, parameter.device, parameter.dtype)
            writer.save("test", torch.cat([outputs(model, batch.inputs) for _, batch in batches]))

    return run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).tensor("test")
