"""LoGra with sides that are not projected against dense formulas, and the projection by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from influence_core.api import attribute, self_influence
from influence_core.gradient_cache import GradientSpec, TrainGradients
from influence_core.layer_projection import LayerProjection
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES
from tests.oracles.gradients import BUILTIN, at, loop_gradients

EXACT = {"rtol": 1e-8, "atol": 1e-12}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


def by_layer(task: Task, split: str) -> list[Tensor]:
    """Gradients ``[n, P_layer]`` at the explained model: a layer's weight and bias side by side."""
    model = at(task.module, dict(task.state()))
    batch = task.split(split).batch(slice(None), "cpu", torch.float64)
    found = loop_gradients(model, BUILTIN[task.loss.name], batch.inputs, batch.targets)
    layers: dict[str, list[Tensor]] = {}
    for name, value in found.items():
        layers.setdefault(name.rsplit(".", 1)[0], []).append(value.flatten(1))
    return [torch.cat(parts, 1) for parts in layers.values()]


@pytest.mark.parametrize("name", ["mlp", "regression"])
def test_logra_without_loss_is_a_blockwise_fisher(name: str, run: Run) -> None:
    task = CASES[name]()
    expected = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    own = torch.zeros(task.n_train, dtype=torch.float64)
    for train, test in zip(by_layer(task, "train"), by_layer(task, "test"), strict=True):
        fisher = train.T @ train / task.n_train
        damped = fisher + 0.1 * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)
        expected += test @ torch.linalg.solve(damped, train.T) / task.n_train
        own += (train * torch.linalg.solve(damped, train.T).T).sum(1) / task.n_train
    config = {"dimensions": 64}
    found = attribute(task, "logra", task.ids("test").tolist(), config=config, run=run)
    torch.testing.assert_close(found.scores, expected, **EXACT)
    torch.testing.assert_close(self_influence(task, "logra", config=config, run=run), own, **EXACT)


@pytest.mark.parametrize("name", ["mlp", "transformer", "cnn_inplace"])
def test_projections_of_factors_are_projections_of_gradients(name: str, run: Run) -> None:
    """Both routes of a layer, through its factors and written out, meet in the same numbers."""
    task = CASES[name]()
    spec = GradientSpec(-1)
    plain = TrainGradients(task, run, spec)
    small = LayerProjection(task, run, spec, 3)
    ones = [torch.ones(plain.plan.sizes[layer], dtype=torch.float64) for layer in plain.plan.layers]
    written = LayerProjection(task, run, spec, 3, ones, "ones")
    rows = slice(0, task.n_train)
    compared = 0
    for layer, one, two, full in zip(
        plain.plan.layers, small.block(rows), written.block(rows), plain.block(rows), strict=True
    ):
        assert one.dense().shape[1] <= max(9, full.dense().shape[1])
        if one.dense().shape == two.dense().shape and type(full).__name__ == "Factored":
            torch.testing.assert_close(one.dense(), two.dense(), rtol=1e-10, atol=1e-13, msg=layer)
            compared += 1
    assert compared or name == "cnn_inplace"


def test_inner_products_are_kept_on_average(run: Run) -> None:
    task = CASES["mlp"]()
    rows = slice(0, task.n_train)
    exact = torch.cat([side.dense() for side in TrainGradients(task, run, GradientSpec(-1)).block(rows)], 1)
    products, total = exact @ exact.T, torch.zeros(task.n_train, task.n_train, dtype=torch.float64)
    for seed in range(24):
        seeded = Run(device="cpu", dtype=torch.float64, batch_size=16, seed=seed, store=run.artifacts)
        kept = torch.cat([side.dense() for side in LayerProjection(task, seeded, GradientSpec(-1), 4).block(rows)], 1)
        total += kept @ kept.T
    correlation = torch.corrcoef(torch.stack([(total / 24).flatten(), products.flatten()]))[0, 1]
    assert float(correlation) > 0.95
    assert 0.8 < float((total / 24 * products).sum() / products.square().sum()) < 1.2


def test_the_seed_draws_the_projection(run: Run, tmp_path: Path) -> None:
    task = CASES["mlp"]()
    options: dict[str, Any] = {"config": {"dimensions": 2}}
    ids = task.ids("test").tolist()
    first = attribute(task, "logra", ids, run=run, **options).scores
    other = Run(device="cpu", dtype=torch.float64, seed=7, store=Store(tmp_path / "other"))
    assert not torch.allclose(attribute(task, "logra", ids, run=other, **options).scores, first)
