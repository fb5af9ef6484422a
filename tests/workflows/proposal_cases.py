"""Converged linear models on data with planted label errors, and their retraining."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe
from influence_core.task import Task


def linear(width: int, outputs: int) -> nn.Module:
    return nn.Linear(width, outputs, bias=False)


def converged(x: Tensor, y: Tensor, recipe: Recipe, weights: Tensor | None = None, outputs: int = 2) -> nn.Module:
    model = new_model(functools.partial(linear, x.shape[1], outputs), recipe)
    for _ in training(model, Examples((x, y)), LOSSES["cross_entropy"], recipe, weights):
        pass
    return model


def linear_task(x: Tensor, y: Tensor, test: tuple[Tensor, Tensor], decay: float, outputs: int = 2) -> Task:
    """A multinomial logistic regression without intercept at its minimum, float64."""
    recipe = Recipe(optimizer="lbfgs", weight_decay=decay, epochs=500, dtype="float64")
    model = converged(x, y, recipe, outputs=outputs)
    return Task(
        functools.partial(linear, x.shape[1], outputs), (x, y), test, recipe=recipe, checkpoints=[model.state_dict()]
    )


def principal(train: np.ndarray, others: list[np.ndarray], width: int) -> list[Tensor]:
    """Rows on the first principal directions of the train rows, float64."""
    mean = train.mean(0)
    directions = np.linalg.svd(train - mean, full_matrices=False)[2][:width].T
    return [torch.from_numpy((part - mean) @ directions) for part in (train, *others)]


def log_loss(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(model(x), y))


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


def auc(scores: Tensor, wrong: Tensor) -> float:
    """The chance that a wrong row scores higher than a right one, ties counted half."""
    high, low = scores[wrong], scores[~wrong]
    return float(((high[:, None] > low).double() + 0.5 * (high[:, None] == low).double()).mean())
