"""Influence functions with a diagonal curvature, against the definition and the case where it is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from influence_core.api import attribute, self_influence
from influence_core.errors import Unavailable
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from tests.cases import CASES, N_TRAIN, normal, smooth_loss, task_of, vectors
from tests.oracles.curvature import ggn
from tests.oracles.gradients import BUILTIN, loop_gradients, stacked

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(folder))


@pytest.mark.parametrize("case", ["mlp", "cnn_inplace", "transformer", "regression_two_outputs", "binary"])
def test_equals_the_diagonal_of_the_gauss_newton_matrix(case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    model = task.model_at(-1, "cpu", F64)
    rows = [task.split(name).batch(slice(None), "cpu", F64) for name in ("train", "test")]
    diagonal = ggn(model, model(rows[0].inputs), rows[0].targets, task.loss.name).diagonal() / N_TRAIN
    names = [name for name, _ in model.named_parameters()]
    g, gt = (stacked(loop_gradients(model, BUILTIN[task.loss.name], *batch), names) for batch in rows)
    expected = (gt / (diagonal + 0.05)) @ g.T / N_TRAIN
    found = attribute(task, "if_diag", range(task.n_test), config={"damping": 0.05}, run=run_in(tmp_path)).scores
    torch.testing.assert_close(found, expected, **EXACT)
    own = self_influence(task, "if_diag", config={"damping": 0.05}, run=run_in(tmp_path))
    torch.testing.assert_close(own, (g.square() / (diagonal + 0.05)).sum(1) / N_TRAIN, **EXACT)


def test_orthogonal_features_make_it_exact(tmp_path: Path) -> None:
    def data(n: int, seed: int) -> tuple[Tensor, Tensor]:
        x = torch.linalg.qr(normal(11, 5, seed=seed))[0][:n]
        return x, normal(n, 2, seed=seed + 100)

    task = task_of(lambda: nn.Linear(5, 2, bias=False), data, "mse")
    for damping in (1e-3, 0.1):
        found, exact = (
            attribute(task, name, range(task.n_test), config={"damping": damping}, run=run_in(tmp_path)).scores
            for name in ("if_diag", "if_exact")
        )
        torch.testing.assert_close(found, exact, **EXACT)


def test_a_custom_loss_has_the_empirical_fisher_alone(tmp_path: Path) -> None:
    task = task_of(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), vectors, smooth_loss)
    with pytest.raises(Unavailable, match="labels='true'"):
        attribute(task, "if_diag", [0], run=run_in(tmp_path))
    config = {"labels": "true", "damping": 0.1}
    found = attribute(task, "if_diag", Rows("train", tuple(range(N_TRAIN))), config=config, run=run_in(tmp_path)).scores
    dots = attribute(task, "grad_dot", Rows("train", tuple(range(N_TRAIN))), run=run_in(tmp_path)).scores
    assert bool((found.diagonal() < dots.diagonal() / 0.1 / N_TRAIN).all())
