"""Many trainings of one recipe at once: models that differ only in the weights of their rows, stacked in one tensor.

A step of a small network is mostly the cost of starting operations; here one operation does the step of every model.
The models start from the same weights and take the rows in the same order with the same divisor, as each alone would;
their sums are added in another order, so that weights agree with those of ``training`` to rounding, not bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from influence_core.errors import NumericalProblem
from influence_core.examples import Examples
from influence_core.primitives.descent import Descent
from influence_core.primitives.losses import Loss, outputs
from influence_core.primitives.training import new_model, set_rate
from influence_core.recipe import Recipe


def can_train_together(factory: Callable[[], nn.Module], recipe: Recipe, rows: Examples, loss: Loss) -> bool:
    """Tell whether models of this kind can be stacked: plain steps of descent, all of it trained, and nothing random.

    A step of two models is tried, because what a model does when it is called cannot be known otherwise: chance of its
    own, a running statistic, a choice by value or a recurrent layer keep it from being stacked.
    """
    if recipe.optimizer != "sgd":
        return False
    model = new_model(factory, recipe)
    if any(True for _ in model.buffers()) or not all(p.requires_grad for p in model.parameters()):
        return False
    few = rows.batch(slice(0, min(2, len(rows))))
    stack = Stack(factory, recipe, torch.ones(2, len(few.targets)), "cpu")
    try:
        for _ in stack.train(Examples((few.inputs, few.targets)), loss, epochs=1):
            pass
    except (RuntimeError, NumericalProblem):  # torch says so in many ways, all of this kind
        return False
    return True


class Stack:
    """Models of one recipe that are trained together.

    Args:
        factory: Makes the untrained model.
        recipe: How all of them are trained; its seed is everyone's.
        weights: Weight of each row's loss in each model ``[n_models, n_train]``.
        device: Where.

    Memory: ``n_models`` times the parameters, their gradients and directions, and the activations of one batch.
    """

    def __init__(
        self, factory: Callable[[], nn.Module], recipe: Recipe, weights: Tensor, device: torch.device | str
    ) -> None:
        """Make the models."""
        self._model, self._recipe = new_model(factory, recipe, device), recipe
        named = dict(self._model.named_parameters())
        self._dtype, self._device = next(iter(named.values())).dtype, device
        self._weights = weights.to(device, self._dtype)
        self.parameters = {
            name: value.detach().expand(len(weights), *value.shape).clone().requires_grad_()
            for name, value in named.items()
        }

    def train(self, rows: Examples, loss: Loss, epochs: int | None = None) -> Iterator[int]:
        """Train all models, yielding the number of each finished epoch; ``epochs`` stops before the recipe's end.

        Raises:
            NumericalProblem: The loss of a model became NaN or infinite.
        """
        recipe, n = self._recipe, len(rows)
        optimizer = Descent(list(self.parameters.values()), recipe.learning_rate, recipe.momentum, recipe.weight_decay)
        order = torch.Generator().manual_seed(recipe.seed)
        steps = math.ceil(n / recipe.batch_size)
        self._model.train()
        for number in range(1, (epochs or recipe.epochs) + 1):
            total = torch.zeros(len(self._weights), dtype=self._dtype, device=self._device)
            for step, index in enumerate(torch.randperm(n, generator=order).split(recipe.batch_size)):
                batch = rows.batch(index, self._device, self._dtype)
                set_rate(optimizer, recipe, (number - 1) * steps + step, recipe.epochs * steps)

                def value(parameters: dict[str, Tensor], weight: Tensor, batch: Any = batch) -> Tensor:
                    return (loss(lambda *a, **k: self._called(parameters, a, k), batch) * weight).sum()

                summed = vmap(value)(self.parameters, self._weights[:, index.to(self._weights.device)])
                optimizer.zero_grad()
                (summed / len(index)).sum().backward()
                optimizer.step()
                total += summed.detach()
            if not bool(total.isfinite().all()):
                raise NumericalProblem(
                    "Training diverged", f"A loss is not a number in epoch {number}.",
                    "Use a smaller learning rate, or look for NaN in the data.",
                )  # fmt: skip
            yield number
        self._model.eval()

    def outputs(self, rows: Examples) -> Tensor:
        """Return what every model says of the rows ``[n_models, n, ...]``."""

        def said(parameters: dict[str, Tensor], inputs: Any) -> Tensor:
            return outputs(lambda *a, **k: self._called(parameters, a, k), inputs)

        with torch.no_grad():
            parts = [
                vmap(said, in_dims=(0, None))(self.parameters, batch.inputs)
                for _, batch in rows.batches(1024, self._device, self._dtype)
            ]
        return torch.cat(parts, 1)

    def _called(self, parameters: dict[str, Tensor], args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return functional_call(self._model, parameters, args, named)
