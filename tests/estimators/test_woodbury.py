"""Influence functions with the empirical Fisher matrix, against its dense inverse."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from influence_core.api import attribute, self_influence
from influence_core.errors import NumericalProblem, Unavailable
from influence_core.estimators.curvature import woodbury
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import CASES, N_TRAIN
from tests.oracles.gradients import BUILTIN, loop_gradients, stacked

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def run_in(folder: Path, **more: object) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(folder), **more)  # type: ignore[arg-type]


def rows(task: Task, split: str) -> torch.Tensor:
    model = task.model_at(-1, "cpu", F64)
    names = [name for name, _ in model.named_parameters()]
    return stacked(
        loop_gradients(model, BUILTIN[task.loss.name], *task.split(split).batch(slice(None), "cpu", F64)), names
    )


@pytest.mark.parametrize("case", ["mlp", "cnn_inplace", "transformer", "regression", "linear_alone"])
def test_equals_the_dense_inverse(case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    g, gt = rows(task, "train"), rows(task, "test")
    inverse = torch.linalg.inv(g.T @ g / N_TRAIN + 0.05 * torch.eye(g.shape[1], dtype=F64))
    run = run_in(tmp_path, batch_size=4)
    found = attribute(task, "if_woodbury", range(task.n_test), config={"damping": 0.05}, run=run).scores
    torch.testing.assert_close(found, gt @ inverse @ g.T / N_TRAIN, **EXACT)
    own = self_influence(task, "if_woodbury", config={"damping": 0.05}, run=run)
    torch.testing.assert_close(own, (g @ inverse * g).sum(1) / N_TRAIN, **EXACT)
    mean = attribute(task, "if_woodbury", Rows("test", (0, 2), "mean"), config={"damping": 0.05}, run=run).scores
    torch.testing.assert_close(mean, found[[0, 2]].mean(0, keepdim=True), **EXACT)


def test_the_damping_is_not_part_of_what_is_kept_and_decay_adds_to_it(tmp_path: Path) -> None:
    task, run = CASES["mlp"](), run_in(tmp_path)
    stages: list[str] = []
    attribute(task, "if_woodbury", [0], config={"damping": 0.05}, run=run)
    found = attribute(CASES["mlp"](), "if_woodbury", [0], config={"damping": 0.03},
                      run=run_in(tmp_path, progress=lambda stage, done, total: stages.append(stage)))  # fmt: skip
    assert stages == []
    decayed = CASES["mlp"]()
    decayed.recipe = Recipe(weight_decay=0.01)
    again = attribute(decayed, "if_woodbury", [0], config={"damping": 0.02}, run=run)
    torch.testing.assert_close(again.scores, found.scores, **EXACT)
    assert "Effective damping 0.03: damping 0.02 plus weight decay 0.01." in again.notes[0]


def test_no_damping_and_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NumericalProblem, match="singular"):
        attribute(CASES["mlp"](), "if_woodbury", [0], config={"damping": 0}, run=run_in(tmp_path))
    monkeypatch.setattr(woodbury, "MAX_ROWS", 5)
    run = run_in(tmp_path / "b")
    with pytest.raises(Unavailable, match="11 rows need .* if_ekfac"):
        attribute(CASES["mlp"](), "if_woodbury", [0], run=run)
    assert run.artifacts.keys() == []
