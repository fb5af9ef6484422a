"""Training by a recipe, step by step, so that it can be gone through again forwards and backwards.

A step reads the weights, the optimiser's state and the row weights w, all through the mean gradient of its batch,
``g = (1/B) sum_i w_i grad l_i(theta) + weight_decay theta``. Forwards the steps are those of ``training``: same
batches, same learning rates, same dropout. Backwards, ``Adjoint`` carries the gradient of any final measurement
through every step (``steps.Rule``) and collects what it is in the row weights: the exact derivative of
training, as automatic differentiation through the whole run would give it, from two derivatives of one batch per step.

Many directions at once are rows ``[k, P]``, P over the parameters that require gradients, in their order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence_core.examples import Examples
from influence_core.primitives.losses import Loss, Scalar
from influence_core.primitives.steps import Rule
from influence_core.primitives.training import set_rate
from influence_core.recipe import Recipe

_ROWS = 4096  # rows times directions that are differentiated together


@dataclass(frozen=True)
class Step:
    """One step of the recorded order.

    Attributes:
        number: From 0.
        index: Positions of the batch's rows ``[B]``.
        rate: Learning rate.
    """

    number: int
    index: Tensor
    rate: float


@dataclass(frozen=True)
class State:
    """What a step starts from, flat vectors ``[P]``: weights, and the optimiser's first and second moments.

    ``buffers`` are the model's (running statistics), ``random`` the state of the dropout stream.
    """

    weights: Tensor
    first: Tensor
    second: Tensor
    random: Tensor
    buffers: dict[str, Tensor] = field(default_factory=dict)


class _Rate:
    """Something whose learning rate ``set_rate`` can set."""

    def __init__(self) -> None:
        self.param_groups: list[dict[str, float]] = [{"lr": 0.0}]


def recorded_steps(recipe: Recipe, n: int) -> Iterator[Step]:
    """Yield the steps that ``training`` takes by a recipe on n rows."""
    order = torch.Generator().manual_seed(recipe.seed)
    per_epoch = math.ceil(n / recipe.batch_size)
    group = _Rate()
    for epoch in range(recipe.epochs):
        for k, index in enumerate(torch.randperm(n, generator=order).split(recipe.batch_size)):
            number = epoch * per_epoch + k
            set_rate(group, recipe, number, recipe.epochs * per_epoch)  # type: ignore[arg-type]
            yield Step(number, index, group.param_groups[0]["lr"])


class Replay:
    """The steps of one training on one model.

    Args:
        model: As it was before the first step, on its device.
        rows: Training rows.
        loss: Losses by row.
        rule: How a step moves the weights; its vectors are over the parameters that require gradients.
        seed: Of the dropout stream.
    """

    def __init__(self, model: nn.Module, rows: Examples, loss: Loss, rule: Rule, seed: int = 0) -> None:
        """Note the parameters that are trained."""
        self.model, self.rows, self.loss, self.rule, self.seed = model, rows, loss, rule, seed
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.sizes = [p.numel() for p in self.parameters]
        self.decay: Tensor | None = None

    def start(self) -> State:
        """Return the state before the first step."""
        flat = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        stream = torch.Generator().manual_seed(self.seed + 1).get_state()
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        return State(flat, torch.zeros_like(flat), torch.zeros_like(flat), stream, buffers)

    def load(self, state: State) -> None:
        """Put a state's weights and buffers into the model."""
        with torch.no_grad():
            for parameter, part in zip(self.parameters, state.weights.split(self.sizes), strict=True):
                parameter.copy_(part.reshape(parameter.shape))
            for name, value in self.model.named_buffers():
                if name in state.buffers:
                    value.copy_(state.buffers[name])

    def forward(self, state: State, step: Step) -> tuple[State, Tensor]:
        """Return the state after a step, and the mean gradient ``g`` ``[P]`` that it took."""
        self.load(state)
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(state.random)
            losses = self._losses(step)
            random = torch.get_rng_state()
        parts = torch.autograd.grad(losses.sum() / len(losses), self.parameters, allow_unused=True)
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        gradient = self._flat(parts) + self._decay(parts) * state.weights
        return replace(self._moved(state, gradient, step), random=random, buffers=buffers), gradient

    def _moved(self, state: State, gradient: Tensor, step: Step) -> State:
        moved = self.rule.moved((state.weights, state.first, state.second), gradient, step.rate, step.number)
        return replace(state, **dict(zip(("weights", "first", "second"), moved, strict=True)))

    def derivatives(self, state: State, step: Step, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``<g, a>`` is in the row weights and in the weights, at w = 1.

        Args:
            state: What the step starts from.
            step: The step.
            directions: ``a`` ``[k, P]``.

        Returns:
            ``(1/B) <grad l_i, a>`` ``[k, B]``, and ``(H + weight_decay) a`` ``[k, P]`` with H of the batch's mean loss.
        """
        self.load(state)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            torch.set_rng_state(state.random)
            losses = self._losses(step)
            weights = torch.ones_like(losses, requires_grad=True)
            mean = (losses * weights).sum() / len(losses)
            parts = torch.autograd.grad(mean, self.parameters, create_graph=True, allow_unused=True)
            used = [i for i, part in enumerate(parts) if part is not None and part.requires_grad]
            found = self._pulled([p for p in parts if p is not None and p.requires_grad], used, weights, directions)
        own, bent = found
        return own, bent + self._decay(parts) * directions

    def row_products(self, state: State, step: Step, directions: Tensor) -> Tensor:
        """Return ``(1/B) <grad l_i, a>`` of the batch's rows alone, ``[k, B]``."""
        with torch.enable_grad():
            gradients = self.row_gradients(state, step, torch.arange(len(step.index)))
        return directions @ gradients.T / len(step.index)

    def row_gradients(self, state: State, step: Step, places: Tensor) -> Tensor:
        """Return ``grad l_i`` of some rows of the batch, by their place in it, ``[k, P]``."""
        self.load(state)
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_rng_state(state.random)
            losses = self._losses(step)
        picked = torch.eye(len(losses), dtype=losses.dtype, device=losses.device)[places.to(losses.device)]
        parts = torch.autograd.grad(losses, self.parameters, picked, allow_unused=True, is_grads_batched=True)
        return self._rows(parts, len(places))

    def measured_gradients(self, state: State, scalar: Scalar, batch: Any) -> Tensor:
        """Return the gradient of a scalar of each row, in eval mode at some state, ``[m, P]``."""
        self.load(state)
        self.model.eval()
        with torch.enable_grad():
            values = scalar(self.model, batch)
        eye = torch.eye(len(values), dtype=values.dtype, device=values.device)
        parts = torch.autograd.grad(values, self.parameters, eye, allow_unused=True, is_grads_batched=True)
        return self._rows(parts, len(values))

    def _rows(self, parts: tuple[Tensor | None, ...], k: int) -> Tensor:
        flat = [
            p.new_zeros(k, p.numel()) if part is None else part.detach().reshape(k, -1)
            for part, p in zip(parts, self.parameters, strict=True)
        ]
        return torch.cat(flat, 1)

    def _pulled(
        self, parts: list[Tensor], used: list[int], weights: Tensor, directions: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows, bends = [], []
        for block in directions.split(max(1, _ROWS // len(weights))):
            cut = block.split(self.sizes, 1)
            pulls = [cut[i].reshape(len(block), *self.parameters[i].shape) for i in used]
            targets = [weights, *self.parameters]
            got = torch.autograd.grad(
                parts, targets, pulls, retain_graph=True, allow_unused=True, is_grads_batched=True
            )  # fmt: skip
            k = len(block)
            rows.append(weights.new_zeros(k, len(weights)) if got[0] is None else got[0].detach())
            bends.append(self._rows(got[1:], k))
        return torch.cat(rows), torch.cat(bends)

    def _losses(self, step: Step) -> Tensor:
        parameter = self.parameters[0]
        self.model.train()
        return self.loss(self.model, self.rows.batch(step.index, parameter.device, parameter.dtype))

    def _decay(self, parts: tuple[Tensor | None, ...]) -> Tensor:
        """Return the weight decay in the loss ``[P]``: an optimiser leaves alone what has no gradient."""
        if self.decay is None:
            decay = 0.0 if self.rule.decoupled else self.rule.decay
            used = [
                torch.full_like(p, 0.0 if part is None else 1.0, requires_grad=False).reshape(-1)
                for part, p in zip(parts, self.parameters, strict=True)
            ]
            self.decay = torch.cat(used).detach() * decay
        return self.decay

    def _flat(self, parts: tuple[Tensor | None, ...]) -> Tensor:
        return torch.cat([
            p.new_zeros(p.numel()) if part is None else part.reshape(-1)
            for part, p in zip(parts, self.parameters, strict=True)
        ])  # fmt: skip


class Adjoint:
    """Gradients of final measurements, carried backwards through the steps.

    Args:
        replay: The training.
        final: Gradient of each measurement in the final weights ``[k, P]``.
    """

    def __init__(self, replay: Replay, final: Tensor) -> None:
        """Start behind the last step."""
        self.replay, self.weights = replay, final
        self.first, self.second = torch.zeros_like(final), torch.zeros_like(final)

    def back(self, before: State, after: State, gradient: Tensor, step: Step) -> Tensor:
        """Go back over one step; return what each measurement is in the weights of its rows ``[k, B]``.

        Args:
            before: The state that the step started from.
            after: The state that it led to.
            gradient: The mean gradient that it took ``[P]``.
            step: The step.
        """
        sums = (self.weights, self.first, self.second)
        ended = (after.weights, after.first, after.second)
        directions, sums = self.replay.rule.pulled(ended, sums, gradient, step.rate, step.number)
        own, bent = self.replay.derivatives(before, step, directions)
        self.weights, self.first, self.second = sums[0] + bent, sums[1], sums[2]
        return own
