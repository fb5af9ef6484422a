"""A training with the weights that it passed through."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.threads import one_core
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe


def checkpointed(
    network: Callable[[], nn.Module], rows: tuple[Tensor, Tensor], recipe: Recipe, loss: str = "cross_entropy"
) -> tuple[list[dict[str, Tensor]], list[float]]:
    """Return weights and learning rates at the recipe's checkpoints; it names none: after every epoch."""
    model, states, rates = new_model(network, recipe), [], []
    with one_core():  # steps of small nets are too short to be shared
        for epoch in training(model, Examples(rows), LOSSES[loss], recipe):
            if not recipe.checkpoints or epoch.number in recipe.checkpoints:
                states.append({key: value.clone() for key, value in model.state_dict().items()})
                rates.append(epoch.learning_rate)
    return states, rates
