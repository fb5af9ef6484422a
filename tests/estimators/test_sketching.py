"""Influence sketching against the exact distance."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from influence_core.task import Recipe, Task
from tests.cases import made, normal
from tests.estimators.heads import fitted, linear, ridge, with_one


def test_a_sketch_of_all_directions_is_cooks_distance_and_fewer_keep_the_order(tmp_path: Path) -> None:
    x = normal(200, 60, seed=1)
    y = (x @ normal(60, seed=2) + normal(200, seed=3))[:, None]
    w = ridge(with_one(x), y[:, 0], torch.arange(200), 200 * 0.1)
    recipe = Recipe(optimizer="lbfgs", weight_decay=0.1, dtype="float64")
    task = Task(
        lambda: made(lambda: nn.Linear(60, 1), 0), (x, y), (x[:3], y[:3]), "mse", checkpoints=[linear(w[None])],
        recipe=recipe,
    )  # fmt: skip
    exact = fitted(task, "cook_distance", tmp_path).self_influence()
    whole = fitted(task, "influence_sketching", tmp_path, directions=61).self_influence()
    torch.testing.assert_close(whole, exact, rtol=1e-8, atol=1e-14)
    few = fitted(task, "influence_sketching", tmp_path, directions=20).self_influence()
    ranks = torch.stack([values.argsort().argsort().double() for values in (few, exact)])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.9
    assert not torch.allclose(few, exact, rtol=0.01)
