"""Training unrolled for automatic differentiation: every step a differentiable function of the row weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call


def batches(n: int, size: int, epochs: int, seed: int) -> list[Tensor]:
    order = torch.Generator().manual_seed(seed)
    return [index for _ in range(epochs) for index in torch.randperm(n, generator=order).split(size)]


def trained(
    model: nn.Module, loss: Callable[[Any, Tensor], Tensor], x: Tensor, y: Tensor, weights: Tensor, *,
    optimizer: str = "sgd", rate: float = 0.1, momentum: float = 0.0, decay: float = 0.0, size: int = 4,
    epochs: int = 3, seed: int = 0, schedule: str = "constant",
) -> dict[str, Tensor]:  # fmt: skip
    """Return the weights after training, differentiable in ``weights [n]``; the divisor is the batch's size."""
    theta = {name: p.detach().clone().requires_grad_(True) for name, p in model.named_parameters()}
    first = {name: torch.zeros_like(p) for name, p in theta.items()}
    second = {name: torch.zeros_like(p) for name, p in theta.items()}
    order = batches(len(x), size, epochs, seed)
    for t, index in enumerate(order):
        share = t / len(order)
        lr = rate * {"constant": 1.0, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "linear": 1 - share}[schedule]
        losses = loss(functional_call(model, theta, (x[index],)), y[index])
        mean = (losses * weights[index]).sum() / len(index)
        grads = torch.autograd.grad(mean, list(theta.values()), create_graph=True)
        for (name, p), g in zip(list(theta.items()), grads, strict=True):
            g = g + decay * p
            if optimizer == "sgd":
                first[name] = momentum * first[name] + g
                theta[name] = p - lr * first[name]
                continue
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            spread = (second[name] / (1 - 0.999 ** (t + 1))).sqrt() + 1e-8
            theta[name] = p - lr * first[name] / (1 - 0.9 ** (t + 1)) / spread
    return theta
