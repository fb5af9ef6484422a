"""SOURCE on a linear regression, where its curvature is exact: the dense formula, and both of its limits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.estimators.trajectory.source import segment_lengths
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import made, normal

N, M, D = 30, 4, 3
ROWS = Rows("test", tuple(range(M)))


def factory() -> nn.Module:
    return made(lambda: nn.Linear(D, 1, bias=False), 0)


def task_of(weights: list[Tensor], recipe: Recipe) -> Task:
    x, y = normal(N, D, seed=1), normal(N, 1, seed=2)
    test = (normal(M, D, seed=3), normal(M, 1, seed=4))
    rates = [recipe.learning_rate] * len(weights)
    return Task(factory, (x, y), test, "mse", checkpoints=[{"weight": w[None]} for w in weights], learning_rates=rates,
                recipe=recipe)  # fmt: skip


def recipe_of(**more: object) -> Recipe:
    options = {"learning_rate": 0.05, "batch_size": 10, "epochs": 4, "checkpoints": (1, 4), "dtype": "float64"}
    return Recipe(**{**options, **more})  # type: ignore[arg-type]


def scores(task: Task, method: str, folder: Path, **options: object) -> Tensor:
    run = Run(device="cpu", dtype=torch.float64, store=Store(folder))
    return fit(task, registry.made(method, options), run).scores(ROWS)


def gradients(task: Task, w: Tensor, split: str) -> Tensor:
    x, y = task.split(split).raw(slice(None)).inputs, task.split(split).targets
    return 2 * (x @ w - y[:, 0])[:, None] * x


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_segments_are_chained_as_in_the_formula(decay: float, tmp_path: Path) -> None:
    weights = [normal(D, seed=5), normal(D, seed=6)]
    recipe = recipe_of(weight_decay=decay, momentum=0.5)
    task = task_of(weights, recipe)
    x = task.split("train").raw(slice(None)).inputs
    hessian = 2 * x.T @ x / N + decay * torch.eye(D, dtype=torch.float64)
    lengths = [0.05 * 3 / 0.5, 0.05 * 9 / 0.5]
    fade = [torch.linalg.matrix_exp(-length * hessian) for length in lengths]
    settle = [torch.linalg.solve(hessian, torch.eye(D, dtype=torch.float64) - f) for f in fade]
    query = gradients(task, weights[1], "test")
    expected = query @ settle[1] @ gradients(task, weights[1], "train").T
    expected += query @ fade[1] @ settle[0] @ gradients(task, weights[0], "train").T
    torch.testing.assert_close(scores(task, "source", tmp_path), expected / N, rtol=1e-9, atol=1e-12)


def test_a_long_training_is_the_influence_function_and_a_short_one_tracin(tmp_path: Path) -> None:
    w = normal(D, seed=5)
    long = task_of([w], recipe_of(epochs=5000, checkpoints=(5000,), weight_decay=0.1))
    influence = scores(long, "if_exact", tmp_path, damping=0.0)
    torch.testing.assert_close(scores(long, "source", tmp_path), influence, rtol=1e-8, atol=1e-12)
    short = task_of([w], recipe_of(learning_rate=1e-7, epochs=1, checkpoints=(1,)))
    dots = scores(short, "grad_dot", tmp_path)
    torch.testing.assert_close(scores(short, "source", tmp_path), 3e-7 / N * dots, rtol=1e-4, atol=1e-14)


def test_lengths_follow_the_schedule() -> None:
    lengths, known = segment_lengths(recipe_of(schedule="linear"), N, 2)
    rates = [0.05 * (1 - k / 12) for k in range(12)]
    assert known and lengths == pytest.approx([sum(rates[:3]), sum(rates[3:])])
    lengths, known = segment_lengths(recipe_of(), N, 3)
    assert not known and lengths == pytest.approx([0.05 * 4] * 3)


def test_adam_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="method='magic'"):
        scores(task_of([normal(D, seed=5)], recipe_of(optimizer="adam", checkpoints=(4,))), "source", tmp_path)
