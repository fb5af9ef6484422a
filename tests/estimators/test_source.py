"""SOURCE on a linear regression, where its curvature is exact: the dense formula, and both of its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.estimators.gauss_newton import gauss_newton
from influence_core.estimators.trajectory.source import cut, segment_lengths
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.primitives.sides import Dense
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import CASES, made, normal
from tests.oracles.curvature import ggn

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
    torch.testing.assert_close(scores(task, "source", tmp_path, segments=2), expected / N, rtol=1e-9, atol=1e-12)


def test_one_segment_has_the_means_of_its_checkpoints(tmp_path: Path) -> None:
    weights = [normal(D, seed=5), normal(D, seed=6)]
    task = task_of(weights, recipe_of(weight_decay=0.3))
    x = task.split("train").raw(slice(None)).inputs
    hessian = 2 * x.T @ x / N + 0.3 * torch.eye(D, dtype=torch.float64)
    settle = torch.linalg.solve(hessian, torch.eye(D, dtype=torch.float64) - torch.linalg.matrix_exp(-0.6 * hessian))
    mean = (3 * gradients(task, weights[0], "train") + 9 * gradients(task, weights[1], "train")) / 12
    expected = gradients(task, weights[1], "test") @ settle @ mean.T / N
    for choice in ("exact", "ekfac"):  # the same for a linear regression
        found = scores(task, "source", tmp_path, curvature=choice)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("choice", ["exact", "ekfac"])
def test_the_curvature_of_a_segment_is_the_mean_over_its_checkpoints(choice: Any, tmp_path: Path) -> None:
    """Of a network, whose curvature changes: the whole matrix, and EK-FAC of mean factors with mean eigenvalues."""
    task = CASES["mlp"]()
    run = Run(device="cpu", dtype=torch.float64, store=Store(tmp_path))
    over = [(0, 0.3), (1, 0.7)]
    fitted = fit(task, registry.made("tracin_cp"), run)
    cache = fitted.caches[-1]  # type: ignore[attr-defined]
    spectrum = gauss_newton(cache, run, choice, over).spectrum
    x, y = task.split("train").batch(slice(None), "cpu", torch.float64)
    dense: Any = 0
    for checkpoint, weight in over:
        model = task.model_at(checkpoint, "cpu", torch.float64)
        dense = dense + weight * ggn(model, model(x), y, task.loss.name) / len(x)
    dense = dense[:, order_of(model)][order_of(model)]
    ones = [
        Dense(part) for part in torch.eye(len(dense), dtype=torch.float64).split(list(cache.plan.sizes.values()), 1)
    ]
    if choice == "exact":
        written = torch.cat([side.dense() for side in spectrum.applied(ones, lambda values: values)], 1)
        torch.testing.assert_close(written, dense, rtol=1e-9, atol=1e-12)
        return
    start = 0
    for block, name in zip(spectrum.blocks, cache.plan.layers, strict=True):
        size = cache.plan.sizes[name]
        own = dense[start : start + size, start : start + size]
        basis = torch.kron(block.left, block.right)
        torch.testing.assert_close(block.values.flatten(), (basis.T @ own @ basis).diagonal(), rtol=1e-9, atol=1e-12)
        inputs = [moment(task, checkpoint, name, x) for checkpoint, _ in over]
        turned = block.right.T @ (0.3 * inputs[0] + 0.7 * inputs[1]) @ block.right
        torch.testing.assert_close(turned, turned.diagonal().diag(), rtol=0, atol=1e-10)
        start += size


def order_of(model: nn.Module) -> Tensor:
    """Where each number of the engine's layout (a unit's weights, then its bias) is among the parameters."""
    places, start = [], 0
    for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
        o, d = layer.weight.shape
        places.append(
            torch.cat([start + torch.arange(o * d).reshape(o, d), start + o * d + torch.arange(o)[:, None]], 1)
        )
        start += o * (d + 1)
    return torch.cat([part.flatten() for part in places])


def moment(task: Task, checkpoint: int, name: str, x: Tensor) -> Tensor:
    """The mean of ``a a'`` over a layer's inputs, a 1 for the bias."""
    seen = []
    model = task.model_at(checkpoint, "cpu", torch.float64)
    model.get_submodule(name).register_forward_hook(lambda module, inputs, out: seen.append(inputs[0]))
    model(x)
    a = torch.cat([seen[0], torch.ones(len(x), 1, dtype=torch.float64)], 1)
    return a.T @ a / len(a)


def test_checkpoints_are_cut_into_parts_in_their_order() -> None:
    assert [[c for c, _ in part.over] for part in cut([1.0] * 5, 2)] == [[0, 1, 2], [3, 4]]
    assert [part.over for part in cut([1.0, 3.0], 1)] == [[(0, 0.25), (1, 0.75)]]
    assert len(cut([1.0, 1.0], 9)) == 2


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
