"""The automatic damping: what its rules say, what cannot change them, and who is asked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core.api import attribute
from influence_core.damping import SCALE_FACTOR, TIME_FACTOR, curvature_scale, training_time
from influence_core.errors import NumericalProblem
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import CASES, N_TRAIN, normal, task_of, vectors
from tests.oracles.curvature import ggn
from tests.oracles.gradients import BUILTIN, loop_gradients, stacked

F64 = torch.float64


def run_in(folder: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(folder), **more)


def used(task: Task, folder: Path, method: str = "if_exact", **options: Any) -> float:
    """The effective damping that a method says it used."""
    note = attribute(task, method, [0], config=options, run=run_in(folder)).notes[0]
    return float(note.split(":")[0].removeprefix("Effective damping "))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


# -- training time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_training_time_is_the_sum_of_the_rates(schedule: str) -> None:
    recipe = Recipe(learning_rate=0.2, schedule=schedule, epochs=7, batch_size=4, momentum=0.75)  # type: ignore[arg-type]
    steps = 7 * 3
    share = {
        "constant": lambda s: 1.0, "linear": lambda s: 1 - s / steps,
        "cosine": lambda s: (1 + math.cos(math.pi * s / steps)) / 2,
    }[schedule]  # fmt: skip
    total = sum(0.2 * share(s) for s in range(steps)) / 0.25
    assert training_time(recipe, 11) == pytest.approx(total, rel=1e-12)


def test_training_time_of_other_optimisers() -> None:
    assert training_time(Recipe(optimizer="lbfgs"), 11) == math.inf
    assert training_time(Recipe(optimizer="adam"), 11) is None


def test_stopped_descent_is_what_the_ridge_says() -> None:
    """From zero, descent along curvature s goes 1 - (1 - eta s)^T of the way; the ridge 1 / (eta T) about the same."""
    rate, steps = 0.01, 400
    s = torch.logspace(-3, 1, 50, dtype=F64)
    descent = 1 - (1 - rate * s) ** steps
    ridge = s / (s + 1 / (rate * steps))
    assert float((descent - ridge).abs().max()) < 0.25
    small = s < 0.01
    torch.testing.assert_close(descent[small], ridge[small], rtol=0.03, atol=0)


# -- scale -------------------------------------------------------------------------------------------------------------


def scaled_loss(factor: float) -> Any:
    def loss(model: Any, batch: Any) -> Tensor:
        return factor * nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")

    return loss


def test_scale_follows_its_definition(tmp_path: Path) -> None:
    task = CASES["mlp"]()
    model, batch = task.model_at(-1, "cpu", F64), task.split("train").batch(slice(None), "cpu", F64)
    g = stacked(loop_gradients(model, BUILTIN["cross_entropy"], *batch))
    loss = float(BUILTIN["cross_entropy"](model, *batch).detach()) / N_TRAIN
    expected = SCALE_FACTOR * float(g.square().sum(1).mean()) / (g.shape[1] * loss)
    assert used(task, tmp_path) == pytest.approx(expected, rel=5e-3)  # three digits


def test_for_squared_error_scale_is_a_share_of_the_mean_eigenvalue(tmp_path: Path) -> None:
    """A linear model with residuals of one size: |g|^2 = 4 r^2 |x|^2, so that the curvature's trace comes out."""
    x = normal(12, 4, seed=1)
    theta = normal(1, 4, seed=2)
    y = (x @ theta.T).squeeze(1) + 0.3 * (-1.0) ** torch.arange(12)
    task = Task(
        lambda: nn.Linear(4, 1, bias=False).double(), (x, y), (x[:2], y[:2]), "mse", checkpoints=[{"weight": theta}]
    )
    model = task.model_at(-1, "cpu", F64)
    mean = float(ggn(model, model(x), y, "mse").trace()) / 12
    assert used(task, tmp_path) == pytest.approx(2 * SCALE_FACTOR * mean / 4, rel=5e-3)


@pytest.mark.parametrize("factor", [1e-3, 7.0])
def test_a_multiplied_loss_multiplies_the_damping_and_leaves_the_order(factor: float, tmp_path: Path) -> None:
    one, other = (task_of(net, vectors, scaled_loss(value)) for value in (1.0, factor))
    config = {"labels": "true"}
    assert used(other, tmp_path, "if_ekfac", **config) == pytest.approx(
        factor * used(one, tmp_path, "if_ekfac", **config), rel=1e-2
    )


def test_repeated_rows_change_nothing(tmp_path: Path) -> None:
    def doubled(n: int, seed: int) -> tuple[Tensor, Tensor]:
        x, y = vectors(n, seed)
        return torch.cat([x, x]), torch.cat([y, y])

    once, twice = task_of(net, vectors), task_of(net, doubled)
    assert used(once, tmp_path) == used(twice, tmp_path)
    recipe = Recipe(batch_size=4, epochs=3)
    assert training_time(recipe, 12) == training_time(recipe.changed(batch_size=8), 24)


def test_perfect_rows_have_a_damping_too() -> None:
    assert curvature_scale(torch.zeros(3), 0.0, 10) > 0


# -- who is asked ------------------------------------------------------------------------------------------------------


def with_recipe(**options: Any) -> Task:
    return task_of(net, vectors, recipe=Recipe(**options))


def test_both_sides_meet_in_the_geometric_mean_and_decay_comes_on_top(tmp_path: Path) -> None:
    recipe = {"learning_rate": 0.1, "epochs": 20, "batch_size": 11}
    scale = used(task_of(net, vectors), tmp_path)
    task = with_recipe(**recipe)
    assert used(task, tmp_path) == pytest.approx((TIME_FACTOR / 2.0 * scale) ** 0.5, rel=1e-2)
    assert used(with_recipe(**recipe, weight_decay=0.5), tmp_path) == pytest.approx(used(task, tmp_path) + 0.5)
    assert used(with_recipe(optimizer="adam"), tmp_path) == scale
    assert used(with_recipe(optimizer="lbfgs", weight_decay=0.02), tmp_path) == 0.02
    assert 0 < used(with_recipe(optimizer="lbfgs"), tmp_path) <= 0.01 * scale


@pytest.mark.parametrize("method", ["if_exact", "if_cg", "if_woodbury", "if_diag", "relatif_loss", "if_kfac"])
def test_the_empty_field_is_automatic_and_a_number_is_used_as_given(method: str, tmp_path: Path) -> None:
    task = CASES["mlp"]()
    automatic = attribute(task, method, range(4), run=run_in(tmp_path))
    assert "chosen automatically" in automatic.notes[0]
    shown = used(task, tmp_path, method)
    given = attribute(task, method, range(4), config={"damping": shown}, run=run_in(tmp_path))
    assert "automatically" not in given.notes[0]
    torch.testing.assert_close(given.scores, automatic.scores, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("method", ["if_exact", "if_cg"])
def test_a_hessian_is_lifted_above_its_most_negative_direction(method: str, tmp_path: Path) -> None:
    task = CASES["mlp"]()
    with pytest.raises(NumericalProblem):
        attribute(task, method, range(4), config={"curvature": "hessian", "damping": 1e-4}, run=run_in(tmp_path))
    found = attribute(task, method, range(4), config={"curvature": "hessian"}, run=run_in(tmp_path))
    assert bool(found.scores.isfinite().all()) and "most negative direction" in found.notes[0]
    exact = used(task, tmp_path, "if_exact", curvature="hessian")
    assert used(task, tmp_path, method, curvature="hessian") == pytest.approx(exact, rel=0.05)


def test_the_order_and_batches_of_rows_cannot_change_it(tmp_path: Path) -> None:
    task = CASES["mlp"]()
    query = Rows("test", (0,))
    notes = {
        attribute(task, "if_exact", query, run=Run(device="cpu", dtype=dtype, batch_size=size, store=Store(tmp_path / f"{size}{dtype}"))).notes[0]  # noqa: E501
        for size in (2, 11) for dtype in (F64, torch.float32)
    }  # fmt: skip
    assert len(notes) == 1
