"""DataInf against its own definition, written out densely, and against the exact inverse where they are one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from influence_core.api import attribute, self_influence
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, N_TRAIN, integers, made, normal
from tests.oracles.gradients import BUILTIN, loop_gradients, stacked

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(folder))


def by_layer(task: Task, split: str, layers: list[str]) -> list[Tensor]:
    model = task.model_at(-1, "cpu", F64)
    batch = task.split(split).batch(slice(None), "cpu", F64)
    found = loop_gradients(model, BUILTIN[task.loss.name], *batch)
    names = [name for name, _ in model.named_parameters()]
    return [stacked(found, [name for name in names if name.startswith(f"{layer}.")]) for layer in layers]


@pytest.mark.parametrize("damping", [None, 0.02])
@pytest.mark.parametrize(("case", "layers"), [("mlp", ["0", "2"]), ("cnn_inplace", ["0", "3", "5"])])
def test_equals_the_mean_of_dense_inverses(case: str, layers: list[str], damping: float | None, tmp_path: Path) -> None:
    task = CASES[case]()
    pairs, own = torch.zeros(task.n_test, N_TRAIN, dtype=F64), torch.zeros(N_TRAIN, dtype=F64)
    for g, gt in zip(by_layer(task, "train", layers), by_layer(task, "test", layers), strict=True):
        d = g.shape[1]
        lam = float(g.square().sum(1).mean()) / (10 * d) if damping is None else damping
        eye = lam * torch.eye(d, dtype=F64)
        mean = sum(torch.linalg.inv(torch.outer(row, row) + eye) for row in g) / N_TRAIN
        pairs += gt @ mean @ g.T / N_TRAIN
        own += (g @ mean * g).sum(1) / N_TRAIN
    run, config = run_in(tmp_path), {"damping": damping}
    found = attribute(task, "if_datainf", range(task.n_test), config=config, run=run).scores
    # The paper's damping is kept to six digits, so that the order of rows cannot change it.
    close = {"rtol": 2e-5, "atol": 2e-6 * float(pairs.abs().max())} if damping is None else EXACT
    torch.testing.assert_close(found, pairs, **close)
    torch.testing.assert_close(self_influence(task, "if_datainf", config=config, run=run), own, **close)


def test_one_row_and_one_layer_is_the_exact_inverse(tmp_path: Path) -> None:
    train = (normal(1, 5, seed=1), integers(3, 1, seed=2))
    test = (normal(4, 5, seed=3), integers(3, 4, seed=4))
    task = Task(made(lambda: nn.Linear(5, 3), 0), train, test, "cross_entropy")
    run, config = run_in(tmp_path), {"damping": 0.02}
    exact = attribute(task, "if_woodbury", range(4), config=config, run=run).scores
    torch.testing.assert_close(attribute(task, "if_datainf", range(4), config=config, run=run).scores, exact, **EXACT)


def test_the_damping_is_by_layer_and_said(tmp_path: Path) -> None:
    task = CASES["mlp"]()
    note = attribute(task, "if_datainf", [0], run=run_in(tmp_path)).notes[0]
    expected = [float(g.square().sum(1).mean()) / (10 * g.shape[1]) for g in by_layer(task, "train", ["0", "2"])]
    assert f"{min(expected):.3g} to {max(expected):.3g}" in note and "by layer" in note
