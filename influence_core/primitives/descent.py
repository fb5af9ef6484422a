"""Stochastic gradient descent with momentum, bit for bit that of ``torch.optim.SGD``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def descend_(
    weights: Tensor, direction: Tensor | None, gradient: Tensor, rate: float | Tensor, momentum: float = 0.0,
    dampening: float = 0.0, nesterov: bool = False, fresh: bool = False,
) -> None:  # fmt: skip
    """Take one step in place, in the order of operations of ``torch.optim.SGD``.

    Args:
        weights: What moves.
        direction: Of the last step, which becomes this one's; None where there is no momentum.
        gradient: With the weight decay in it; left as it is.
        rate: Learning rate, one number or one per weight.
        momentum: Part of the last direction that stays.
        dampening: Part of the gradient that does not join it.
        nesterov: Whether the step looks ahead.
        fresh: Whether this is the first step: its direction is the gradient.
    """
    if direction is not None:
        if fresh:
            direction.copy_(gradient)
        else:
            direction.mul_(momentum).add_(gradient, alpha=1 - dampening)
        gradient = gradient.add(direction, alpha=momentum) if nesterov else direction
    if isinstance(rate, Tensor):
        weights.addcmul_(gradient, rate, value=-1)
    else:
        weights.add_(gradient, alpha=-rate)


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
            direction = self._directions[place]
            fresh = bool(self._momentum) and direction is None
            if fresh:
                direction = self._directions[place] = torch.empty_like(gradient)
            descend_(parameter, direction, gradient, self.param_groups[0]["lr"], self._momentum, fresh=fresh)

    def state_dict(self) -> dict[str, Any]:
        """Return what the next step needs besides the parameters, as an optimiser of torch gives it."""
        found = {i: {"momentum_buffer": one} for i, one in enumerate(self._directions) if one is not None}
        return {"state": found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        for place, held in state["state"].items():
            self._directions[place] = held["momentum_buffer"].clone()
