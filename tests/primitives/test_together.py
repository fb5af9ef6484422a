"""Training in a stack against training alone, in float64: the same models to rounding; what cannot be stacked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.together import Stack, can_train_together
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(3, 3),
    )  # fmt: skip


def recipe(**options) -> Recipe:
    return Recipe.checked({
        "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "epochs": 5, "batch_size": 7,
        "dtype": "float64", **options,
    })  # fmt: skip


def rows() -> Examples:
    generator = torch.Generator().manual_seed(1)
    return Examples((torch.randn(23, 4, generator=generator), torch.randint(3, (23,), generator=generator)))


@pytest.mark.parametrize("factory", [mlp, cnn])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_each_model_of_a_stack_is_the_one_that_is_trained_alone(factory, schedule: str) -> None:
    how, data, loss = recipe(schedule=schedule, seed=3), rows(), LOSSES["cross_entropy"]
    weights = torch.ones(4, 23)
    weights[1, ::2] = 0
    weights[2, 5] = 0
    weights[3, :7] = 0.5
    before = torch.get_rng_state()
    stack = Stack(factory, how, weights, "cpu")
    assert list(stack.train(data, loss)) == [1, 2, 3, 4, 5]
    said = stack.outputs(data)
    assert torch.equal(torch.get_rng_state(), before) and said.shape == (4, 23, 3)
    for place, weight in enumerate(weights):
        alone = new_model(factory, how)
        list(training(alone, data, loss, how, weight))
        for name, value in alone.named_parameters():
            torch.testing.assert_close(stack.parameters[name][place], value, rtol=0, atol=1e-12)
        with torch.no_grad():
            torch.testing.assert_close(said[place], alone(data.batch(slice(None), "cpu", torch.float64).inputs))


class Chance(nn.Module):
    """Chance that no layer shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.layer(x), 0.2, self.training)


class Choice(Chance):
    """A choice by value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        f = self.layer(x)
        return f if f.sum() > 0 else -f


def frozen() -> nn.Module:
    model = mlp()
    next(model.parameters()).requires_grad_(False)
    return model


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def dropping() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.1))


def test_models_with_statistics_chance_or_choices_and_other_optimisers_are_trained_alone() -> None:
    data, loss = rows(), LOSSES["cross_entropy"]
    before = torch.get_rng_state()
    for factory in (mlp, cnn):
        assert can_train_together(factory, recipe(), data, loss)
    for factory in (frozen, normed, dropping, Chance, Choice):
        assert not can_train_together(factory, recipe(), data, loss), factory
    for optimizer in ("adam", "lbfgs"):
        assert not can_train_together(mlp, recipe(optimizer=optimizer), data, loss)
    assert torch.equal(torch.get_rng_state(), before)
