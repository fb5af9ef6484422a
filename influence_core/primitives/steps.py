"""How an optimiser moves the weights in one step, and the derivative of that: gradient descent and Adam.

Everything is a flat vector ``[P]``, or rows of such ``[k, P]``. A step reads the weights, the optimiser's state (the
direction of descent in ``first``; Adam's moments in ``first`` and ``second``) and the mean gradient of its batch, in
which a weight decay that is part of the loss stands already:

::

    descent   v <- momentum v + (1 - dampening) g   (the first time: v = g),   theta <- theta - rate v
              nesterov: theta <- theta - rate (g + momentum v)
    adam      m <- b1 m + (1 - b1) g,   v <- b2 v + (1 - b2) g^2
              theta <- theta - rate / (1 - b1^s) m / (sqrt(v) / sqrt(1 - b2^s) + eps)
    decoupled theta <- (1 - rate decay) theta  before either

as ``torch.optim.SGD``, ``Adam`` and ``AdamW``, up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from influence_core.primitives.descent import descend_
from influence_core.recipe import Recipe

Vector = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Rule:
    """An optimiser and its settings.

    Attributes:
        kind: Descent, or Adam.
        momentum: Of descent, with ``dampening`` and ``nesterov``.
        betas: Of Adam, with ``eps``.
        decay: Weight decay, one number or one per weight ``[P]``.
        decoupled: Whether it shrinks the weights by itself instead of being part of the loss.
        scale: What the learning rate is multiplied by, one number or one per weight.
        taken: Steps that the optimiser had taken before the first.
    """

    kind: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decay: float | Tensor = 0.0
    decoupled: bool = False
    scale: float | Tensor = 1.0
    taken: int = 0

    @classmethod
    def of(cls, recipe: Recipe) -> Rule:
        """Return the rule of a recipe of gradient steps."""
        kind = "adam" if recipe.optimizer == "adam" else "sgd"
        return cls(kind, momentum=recipe.momentum if kind == "sgd" else 0.0, decay=recipe.weight_decay)

    def moved(self, state: Vector, gradient: Tensor, rate: float, number: int) -> Vector:
        """Return weights and state after a step.

        Args:
            state: Weights, first and second ``[P]``; left as they are.
            gradient: The mean gradient, with a coupled weight decay in it.
            rate: Learning rate.
            number: Of the step, from 0.
        """
        weights, first, second = state
        weights = self.shrunk(weights, rate)
        if self.kind == "sgd":
            weights, first = weights.clone(), first.clone()
            fresh = number + self.taken == 0
            descend_(weights, first, gradient, self.rates(rate), self.momentum, self.dampening, self.nesterov, fresh)
            return weights, first, second
        (b1, b2), s = self.betas, number + self.taken + 1
        first = first * b1 + (1 - b1) * gradient
        second = second * b2 + (1 - b2) * gradient.square()
        spread = second.sqrt() / (1 - b2**s) ** 0.5 + self.eps
        return weights - self.rates(rate) / (1 - b1**s) * first / spread, first, second

    def pulled(self, after: Vector, sums: Vector, gradient: Tensor, rate: float, number: int) -> tuple[Tensor, Vector]:
        """Return the derivative in the mean gradient ``[k, P]``, and those in the state that the step started from.

        Args:
            after: Weights and state that the step led to ``[P]``.
            sums: Derivatives of something in these ``[k, P]``.
            gradient: The mean gradient that it took ``[P]``.
            rate: Learning rate.
            number: Of the step, from 0.

        Returns:
            The derivative in the gradient; and in weights, first and second with the gradient held fixed.
        """
        weights, first, second = sums
        rates, kept = self.rates(rate), self.shrunk(weights, rate)
        if self.kind == "sgd":
            fresh = number + self.taken == 0
            moved = -rates * weights
            first = first + (self.momentum * moved if self.nesterov else moved)
            share = 1.0 if fresh else 1 - self.dampening
            own = share * first + moved if self.nesterov else share * first
            return own, (kept, torch.zeros_like(first) if fresh else self.momentum * first, second)
        (b1, b2), s = self.betas, number + self.taken + 1
        root, size = after[2].sqrt(), rates / (1 - b1**s)
        correction = (1 - b2**s) ** 0.5
        spread = root / correction + self.eps
        first = first - size / spread * weights
        # A coordinate that has never had a gradient does not move, whatever its second moment is.
        slope = torch.where(root > 0, after[1] / (2 * spread.square() * correction * root.clamp_min(1e-300)), 0.0)
        second = second + size * slope * weights
        return (1 - b1) * first + (1 - b2) * 2 * gradient * second, (kept, b1 * first, b2 * second)

    def pushed(self, changes: Tensor, speeds: Tensor, bent: Tensor, rate: float, number: int) -> tuple[Tensor, Tensor]:
        """Return derivatives of weights and directions ``[k, P]`` after a step of descent, from those before it.

        Args:
            changes: Of the weights.
            speeds: Of the direction.
            bent: Of the mean gradient, with a coupled weight decay in it.
            rate: Learning rate.
            number: Of the step, from 0.
        """
        fresh = number + self.taken == 0
        speeds = bent if fresh else self.momentum * speeds + (1 - self.dampening) * bent
        moved = bent + self.momentum * speeds if self.nesterov else speeds
        return self.shrunk(changes, rate) - self.rates(rate) * moved, speeds

    def rates(self, rate: float) -> float | Tensor:
        """Return the learning rate of every weight."""
        return rate * self.scale

    def shrunk(self, weights: Tensor, rate: float) -> Tensor:
        """Return weights, or derivatives in them, after a decoupled weight decay."""
        return weights * (1 - self.rates(rate) * self.decay) if self.decoupled else weights
