"""Obvious gradients: one row at a time, plain autograd, float64. Imports nothing of ``influence_core``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def called(model: nn.Module, inputs: Any) -> Tensor:
    """Call the model with a tensor, keywords or positions."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def doubled(inputs: Any) -> Any:
    """Floating tensors in float64, integers as they are."""
    if isinstance(inputs, dict):
        return {name: doubled(value) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(doubled(value) for value in inputs)
    return inputs.double() if inputs.is_floating_point() else inputs


def row(inputs: Any, i: int) -> Any:
    """Row i as a batch of one."""
    if isinstance(inputs, dict):
        return {name: row(value, i) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(row(value, i) for value in inputs)
    return inputs[i : i + 1]


def cross_entropy(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
    logits = called(model, inputs)
    return (torch.logsumexp(logits, 1) - logits[range(len(targets)), targets]).sum()


def squared_error(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
    f = called(model, inputs)
    return ((f.reshape(len(f), -1) - targets.reshape(len(f), -1)) ** 2).mean(1).sum()


def binary(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
    f = called(model, inputs).reshape(-1)
    y = targets.reshape(-1).to(f.dtype)
    return -(y * F.logsigmoid(f) + (1 - y) * F.logsigmoid(-f)).sum()


ObjectiveOfRow = Callable[[nn.Module, Any, Tensor], Tensor]
BUILTIN: dict[str, ObjectiveOfRow] = {"cross_entropy": cross_entropy, "mse": squared_error, "bce": binary}


def at(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A float64 eval-mode copy of a model at some weights."""
    twin = copy.deepcopy(model)
    twin.load_state_dict(state)
    return twin.double().eval().requires_grad_(True)


def loop_gradients(model: nn.Module, objective: ObjectiveOfRow, inputs: Any, targets: Tensor) -> dict[str, Tensor]:
    """Gradients ``{parameter name: [n, *shape]}`` of every row, one backward pass per row."""
    inputs, targets = doubled(inputs), doubled(targets)
    named = dict(model.named_parameters())
    rows = []
    for i in range(len(targets)):
        value = objective(model, row(inputs, i), targets[i : i + 1])
        grads = torch.autograd.grad(value, list(named.values()), allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(named.values(), grads, strict=True)])
    return {name: torch.stack([grads[k] for grads in rows]) for k, name in enumerate(named)}


def stacked(gradients: dict[str, Tensor], names: Sequence[str] | None = None) -> Tensor:
    """Return ``[n, P]``: the named parameters side by side."""
    return torch.cat([gradients[name].reshape(len(gradients[name]), -1) for name in names or gradients], 1)


def tracin(
    model: nn.Module, states: Sequence[dict[str, Tensor]], rates: Sequence[float], objective: ObjectiveOfRow,
    test: tuple[Any, Tensor], train: tuple[Any, Tensor], names: Sequence[str] | None = None,
) -> Tensor:  # fmt: skip
    """Return ``sum_c rate_c G_test,c G_train,c'`` ``[n_test, n_train]`` by the loop."""
    total = torch.zeros(len(test[1]), len(train[1]), dtype=torch.float64)
    for state, rate in zip(states, rates, strict=True):
        twin = at(model, state)
        query, rows = (stacked(loop_gradients(twin, objective, *data), names) for data in (test, train))
        total += rate * query @ rows.T
    return total
