"""Forward derivatives against the adjoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from influence_core import registry
from influence_core.errors import Cancelled, Unavailable
from influence_core.fitting import fit
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.replay import Replay, recorded_steps
from influence_core.primitives.steps import Rule
from influence_core.primitives.training import new_model
from influence_core.task import Task
from tests.estimators.test_adjoint import ROWS, TEST, TRAIN, net, recipe_of, run_in, scores, task_of


@pytest.mark.parametrize("name", ["sgd", "momentum"])
def test_forwards_and_backwards_are_the_same_number(name: str, tmp_path: Path) -> None:
    task = task_of(recipe_of(name))
    adjoint = scores(task, "magic", tmp_path)
    torch.testing.assert_close(scores(task, "hydra", tmp_path), adjoint, rtol=1e-10, atol=1e-14)


def test_without_curvature_it_is_the_sum_of_the_steps(tmp_path: Path) -> None:
    """Plain SGD without weight decay: the steps' gradients against the gradient at the end."""
    recipe = recipe_of("sgd", weight_decay=0.0)
    task = task_of(recipe)
    replay = Replay(new_model(net, recipe), task.split("train"), LOSSES["cross_entropy"], Rule.of(recipe))
    state, sums = replay.start(), torch.zeros(12, sum(replay.sizes), dtype=torch.float64)
    for step in recorded_steps(recipe, 12):
        sums.index_add_(0, step.index, replay.row_gradients(state, step, torch.arange(4)) * step.rate / 4)
        state, _ = replay.forward(state, step)
    end = replay.measured_gradients(state, task.loss, task.split("test").batch(slice(None), dtype=torch.float64))
    torch.testing.assert_close(scores(task, "hydra_fast", tmp_path), end @ sums.T, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(scores(task, "hydra", tmp_path), end @ sums.T, rtol=1e-3)


def test_followed_rows_alone_are_known(tmp_path: Path) -> None:
    task = task_of(recipe_of("momentum"))
    whole, some = scores(task, "hydra", tmp_path), scores(task, "hydra", tmp_path, n_rows=4)
    known = some.isfinite()
    assert bool((known == known[:1]).all()) and int(known[0].sum()) == 4
    torch.testing.assert_close(some[:, known[0]], whole[:, known[0]])


def test_an_interrupted_fit_goes_on(tmp_path: Path) -> None:
    task = task_of(recipe_of("momentum", epochs=12))
    expected = scores(task, "hydra", tmp_path / "whole")
    reports = [0]

    def cancel() -> bool:
        reports[0] += 1
        return reports[0] > 60

    with pytest.raises(Cancelled):
        fit(task, registry.made("hydra"), run_in(tmp_path / "part", cancel=cancel))
    stages: list[tuple[str, float, float]] = []
    run = run_in(tmp_path / "part", progress=lambda *report: stages.append(report))
    again = Task(net, TRAIN, TEST, checkpoints=[task.state()], recipe=task.recipe)
    torch.testing.assert_close(fit(again, registry.made("hydra"), run).scores(ROWS), expected, rtol=0, atol=0)
    steps = max(total for stage, _, total in stages if stage.startswith("training, with derivatives"))
    assert 0 < steps < 36, "it began again from the first step"


def test_what_cannot_be_followed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="method='magic'"):
        scores(task_of(recipe_of("adam")), "hydra", tmp_path)
    monkeypatch.setattr("influence_core.estimators.trajectory.hydra.MAX_BYTES", 4 * 8 * 57 * 3)
    with pytest.raises(Unavailable, match="n_rows=3"):
        scores(task_of(recipe_of("sgd")), "hydra", tmp_path)
