"""Stochastic gradient descent with momentum, bit for bit that of ``torch.optim.SGD``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Descent:
    """Steps of gradient descent with momentum and weight decay: ``torch.optim.SGD`` without what comes with it.

    The first optimiser of torch that a program makes loads its compiler, which takes longer than to train most models.

    Args:
        parameters: What is trained.
        rate: Size of a step; the entry ``lr`` of ``param_groups`` is what counts.
        momentum: Part of the last direction that the next one keeps.
        decay: Weight of half the squared length of the parameters in the loss.
    """

    def __init__(self, parameters: Sequence[Tensor], rate: float, momentum: float, decay: float) -> None:
        """Start at rest."""
        self.param_groups: list[dict[str, Any]] = [{"lr": rate}]
        self._parameters, self._momentum, self._decay = list(parameters), momentum, decay
        self._directions: list[Tensor | None] = [None] * len(self._parameters)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        del set_to_none
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move every parameter that has a gradient."""
        for place, parameter in enumerate(self._parameters):
            if (gradient := parameter.grad) is None:
                continue
            if self._decay:
                gradient = gradient.add(parameter, alpha=self._decay)
            if self._momentum:
                direction = self._directions[place]
                if direction is None:
                    direction = self._directions[place] = gradient.detach().clone()
                else:
                    direction.mul_(self._momentum).add_(gradient)
                gradient = direction
            parameter.add_(gradient, alpha=-self.param_groups[0]["lr"])

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step needs besides the parameters, as an optimiser of torch gives it."""
        found = {i: {"momentum_buffer": one} for i, one in enumerate(self._directions) if one is not None}
        return {"state": found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        for place, held in state["state"].items():
            self._directions[place] = held["momentum_buffer"].clone()
