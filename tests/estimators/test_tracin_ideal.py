"""TracIn over all steps against its sum written out, and the change of the loss that it adds up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.primitives.training import new_model
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.estimators.test_adjoint import TEST, TRAIN, net, recipe_of, run_in, scores, task_of


def test_ideal_tracin_is_its_sum_written_out(tmp_path: Path) -> None:
    recipe = recipe_of("sgd")
    task = task_of(recipe)
    model = new_model(net, recipe)
    parameters = list(model.parameters())
    order = torch.Generator().manual_seed(recipe.seed)
    expected = torch.zeros(3, 12, dtype=torch.float64)

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        parts = torch.autograd.grad(nn.functional.cross_entropy(model(x[None]), y[None]), parameters)
        return torch.cat([part.flatten() for part in parts])

    for _ in range(recipe.epochs):
        for index in torch.randperm(12, generator=order).split(4):
            tests = torch.stack([gradient(x, y) for x, y in zip(*TEST, strict=True)])
            rows = torch.stack([gradient(TRAIN[0][i], TRAIN[1][i]) for i in index])
            expected[:, index] += recipe.learning_rate / 4 * tests @ rows.T
            step, offset = rows.mean(0), 0
            with torch.no_grad():
                for p in parameters:
                    g = step[offset : offset + p.numel()].reshape(p.shape)
                    offset += p.numel()
                    p -= recipe.learning_rate * (g + recipe.weight_decay * p)
    torch.testing.assert_close(scores(task, "tracin_ideal", tmp_path), expected, rtol=1e-10, atol=1e-14)


def test_scores_add_up_to_the_change_of_the_loss_with_an_error_of_the_size_of_the_steps(tmp_path: Path) -> None:
    gaps = []
    for rate in (0.1, 0.01, 0.001):
        recipe = recipe_of("sgd", learning_rate=rate, weight_decay=0.0)
        task, model = task_of(recipe), new_model(net, recipe)
        with torch.no_grad():
            before = nn.functional.cross_entropy(model(TEST[0]), TEST[1], reduction="none")
            model.load_state_dict(dict(task.state()))
            after = nn.functional.cross_entropy(model(TEST[0]), TEST[1], reduction="none")
        total = scores(task, "tracin_ideal", tmp_path).sum(1)
        gaps.append(float((total - (before - after)).abs().max() / (before - after).abs().max()))
    assert gaps[1] < 0.2 * gaps[0] and gaps[2] < 0.2 * gaps[1] and gaps[2] < 1e-3


def test_a_row_in_no_step_has_no_score(tmp_path: Path) -> None:
    """One epoch of batches covers every row once: with a recipe of one step only its batch is known."""
    recipe = Recipe(batch_size=12, epochs=1, learning_rate=0.1, dtype="float64")  # type: ignore[call-arg]
    task = task_of(recipe)
    one: Any = fit(task, registry.made("tracin_ideal"), run_in(tmp_path))
    plain = Task(net, TRAIN, TEST, checkpoints=[new_model(net, recipe).state_dict()])
    dots = fit(plain, registry.made("grad_dot"), Run(device="cpu", dtype=torch.float64, store=Store(tmp_path / "b")))
    rows = Rows("test", (0, 1, 2))
    torch.testing.assert_close(one.scores(rows), dots.scores(rows) * 0.1 / 12, rtol=1e-10, atol=1e-14)
