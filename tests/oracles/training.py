"""Training by hand: the loop of a recipe written out, with the rows that are left out simply not looked at.

The divisor of a step is the number of rows that the full run has in that batch, whoever is missing from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection

import torch
from torch import Tensor


def sgd_without(
    model: torch.nn.Module, losses: Callable[[torch.nn.Module, Tensor, Tensor], Tensor], x: Tensor, y: Tensor, *,
    removed: Collection[int], rate: float, momentum: float, decay: float, batch_size: int, epochs: int, seed: int,
    schedule: str = "constant",
) -> None:  # fmt: skip
    """Heavy-ball steps ``b = momentum b + g + decay theta; theta -= rate b`` in place; rows in a seeded order."""
    order = torch.Generator().manual_seed(seed)
    parameters = list(model.parameters())
    buffers = [torch.zeros_like(p) for p in parameters]
    n, step = len(y), 0
    steps = epochs * math.ceil(n / batch_size)
    for _ in range(epochs):
        permutation = torch.randperm(n, generator=order).tolist()
        for start in range(0, n, batch_size):
            batch = permutation[start : start + batch_size]
            kept = [i for i in batch if i not in removed]
            total = [torch.zeros_like(p) for p in parameters]
            for i in kept:  # one row at a time: no batching to share with the code under test
                loss = losses(model, x[i : i + 1], y[i : i + 1]).sum()
                for whole, part in zip(total, torch.autograd.grad(loss, parameters), strict=True):
                    whole += part
            share = step / steps
            factor = {"constant": 1.0, "linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}[schedule]
            with torch.no_grad():
                for p, b, g in zip(parameters, buffers, total, strict=True):
                    b.mul_(momentum).add_(g / len(batch) + decay * p)
                    p.sub_(rate * factor * b)
            step += 1


def ridge(x: Tensor, y: Tensor, weights: Tensor, decay: float) -> Tensor:
    """Return ``theta [d + 1]`` minimising ``sum_i w_i (x_i theta + b - y_i)^2 + decay/2 |theta, b|^2``."""
    a = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    hessian = 2 * (a * weights[:, None]).T @ a + decay * torch.eye(a.shape[1], dtype=x.dtype)
    return torch.linalg.solve(hessian, 2 * a.T @ (weights * y))
