"""Training a model by a recipe and keeping the checkpoints that a study records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from influence_core.examples import Examples
from influence_core.primitives.losses import Loss
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import Epoch, new_model, training
from influence_core.recipe import Recipe
from influence_core.run import Run


def trained_checkpoints(
    factory: Callable[[], nn.Module], recipe: Recipe, rows: Examples, loss: Loss, run: Run, title: str,
    weights: torch.Tensor | None = None,
) -> tuple[dict[str, dict[str, torch.Tensor]], list[dict[str, Any]], list[float]]:  # fmt: skip
    """Train, and return the recorded weights by file name, their entries for ``study.toml``, and the losses.

    Args:
        factory: Makes the untrained model.
        recipe: How, and after which epochs weights are recorded; none named: after the last.
        rows: Training rows.
        loss: Losses by row.
        run: Progress and cancel.
        title: What is trained, for the progress.
        weights: Weight of each row's loss ``[n]``; None: 1.

    Returns:
        Weights, entries, and the mean training loss over every epoch (while its weights still moved), the first first.

    Raises:
        NumericalProblem: The loss became NaN or infinite.
        Cancelled: The user asked to stop.
    """
    model = new_model(factory, recipe)
    last = 1 if recipe.optimizer == "lbfgs" else recipe.epochs
    states: dict[str, dict[str, torch.Tensor]] = {}
    entries: list[dict[str, Any]] = []
    losses: list[float] = []

    def words(epoch: Epoch) -> str:
        return f"epoch {epoch.number} of {last}, loss {epoch.loss:.3g}"

    with one_core():
        for epoch in run.track(training(model, rows, loss, recipe, weights), f"training {title}", last, words):
            losses.append(epoch.loss)
            if epoch.number in (recipe.checkpoints or (last,)):
                file = f"checkpoints/epoch-{epoch.number:03d}.safetensors"
                states[file] = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
                entry = {"file": file, "epoch": epoch.number, "learning_rate": epoch.learning_rate, "loss": epoch.loss}
                entries.append(entry)
    return states, entries, losses
