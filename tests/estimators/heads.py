"""Linear and softmax regressions with known fits, for the diagnostics of the last layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import integers, made, normal

N, D, M = 30, 4, 5


def fitted(task: Task, method: str, folder: Path, **options: Any) -> Any:
    run = Run(device="cpu", dtype=torch.float64, store=Store(folder))
    return fit(task, registry.made(method, options, task), run)


def rows(task: Task) -> Rows:
    return Rows("test", tuple(task.ids("test").tolist()))


def linear(weights: Tensor) -> dict[str, Tensor]:
    """State of ``nn.Linear`` from ``[C, d + 1]``, the intercept last."""
    return {"weight": weights[:, :-1].clone(), "bias": weights[:, -1].clone()}


def with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def ridge(x: Tensor, y: Tensor, keep: Tensor, penalty: float) -> Tensor:
    """Return the minimiser of ``sum_keep (f - y)^2 + penalty/2 |w|^2``, ``[d]``."""
    a, b = x[keep], y[keep]
    return torch.linalg.solve(2 * a.T @ a + penalty * torch.eye(x.shape[1], dtype=x.dtype), 2 * a.T @ b)


def regression(decay: float = 0.0) -> tuple[Task, Tensor, Tensor, Tensor]:
    x, xt = normal(N, D, seed=1), normal(M, D, seed=2)
    y = x @ normal(D, seed=3) + 0.5 * normal(N, seed=4)
    yt = xt @ normal(D, seed=3)
    a = with_one(x)
    w = ridge(a, y, torch.arange(N), N * decay)
    recipe = Recipe(optimizer="lbfgs", weight_decay=decay, dtype="float64")
    task = Task(
        lambda: made(lambda: nn.Linear(D, 1), 0), (x, y[:, None]), (xt, yt[:, None]), "mse",
        checkpoints=[linear(w[None])], recipe=recipe,
    )  # fmt: skip
    return task, a, y, w


def left_out(a: Tensor, y: Tensor, decay: float = 0.0) -> list[Tensor]:
    keep = [torch.tensor([j for j in range(N) if j != i]) for i in range(N)]
    return [ridge(a, y, rest, N * decay) for rest in keep]


def classifier(decay: float, loss: str) -> tuple[Task, Tensor, Tensor, Tensor]:
    x, xt = normal(N, D, seed=5), normal(M, D, seed=6)
    classes = 2 if loss == "bce" else 3
    y, yt = integers(classes, N, seed=7), integers(classes, M, seed=8)
    outputs = 1 if loss == "bce" else 3
    w = 0.3 * normal(outputs, D + 1, seed=9)
    targets = (y[:, None].double(), yt[:, None].double()) if loss == "bce" else (y, yt)
    recipe = Recipe(optimizer="lbfgs", weight_decay=decay, dtype="float64")
    task = Task(
        lambda: made(lambda: nn.Linear(D, outputs), 0), (x, targets[0]), (xt, targets[1]), loss,
        checkpoints=[linear(w)], recipe=recipe,
    )  # fmt: skip
    return task, with_one(x), y, w
