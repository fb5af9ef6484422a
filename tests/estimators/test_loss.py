"""The training loss equals PyTorch's own, row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from influence_core.api import attribute, self_influence
from influence_core.errors import BadInput, NumericalProblem, Unavailable
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, made, vectors

EXACT = Run(device="cpu", dtype=torch.float64, batch_size=4)
TRAIN, TEST = vectors(11, 1), vectors(4, 2)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Linear(6, 3))


def row_losses(seed: int) -> Tensor:
    model = made(network, seed).eval()
    with torch.no_grad():
        return torch.stack([F.cross_entropy(model(x[None]), y[None]) for x, y in zip(*TRAIN, strict=True)])


def task() -> Task:
    return Task(network, TRAIN, TEST, checkpoints=[made(network, seed).state_dict() for seed in range(3)])


def test_last_is_the_explained_model() -> None:
    assert_close(self_influence(task(), "loss", run=EXACT), row_losses(2), rtol=0, atol=1e-14)


def test_sum_adds_all_checkpoints() -> None:
    found = self_influence(task(), "loss", config={"checkpoints": "sum"}, run=EXACT)
    assert_close(found, row_losses(0) + row_losses(1) + row_losses(2), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ("binary", "regression", "custom_loss_through_method", "dict_input"))
def test_any_loss_and_any_input(name: str) -> None:
    one = CASES[name]()
    model, train = one.model_at(-1, dtype=torch.float64), one.split("train")
    with torch.no_grad():
        expected = torch.cat([
            one.loss(model, train.batch(slice(i, i + 1), dtype=torch.float64)) for i in range(len(train))
        ])  # fmt: skip
    assert_close(self_influence(one, "loss", run=EXACT), expected, rtol=1e-12, atol=1e-13)


def test_changing_the_answer_changes_nothing_kept() -> None:
    one = task()
    first = self_influence(one, "loss", run=EXACT)
    first += 1
    assert_close(self_influence(one, "loss", run=EXACT), row_losses(2), rtol=0, atol=1e-14)


def test_the_sum_reuses_what_the_last_stored(tmp_path: Path) -> None:
    run = Run(device="cpu", store=Store(tmp_path))
    one = task()

    def stored() -> int:
        found = [run.artifacts.find(key) for key in run.artifacts.keys()]
        return sum(item is not None and item.meta["inputs"]["kind"] == "train losses" for item in found)

    self_influence(one, "loss", run=run)
    assert stored() == 1
    self_influence(one, "loss", config={"checkpoints": "sum"}, run=run)
    assert stored() == 3


def test_there_are_no_pairs() -> None:
    with pytest.raises(Unavailable, match="does not score pairs"):
        attribute(task(), "loss", [0], run=EXACT)


def test_a_loss_that_is_no_number_per_row_is_named() -> None:
    x = TRAIN[0].clone()
    x[6, 0] = torch.inf
    with pytest.raises(NumericalProblem, match="Training row 6"):
        self_influence(Task(made(network, 0), (x, TRAIN[1]), TEST), "loss", run=EXACT)

    def mean_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    with pytest.raises(BadInput, match="one loss per row"):
        self_influence(Task(made(network, 0), TRAIN, TEST, loss=mean_loss), "loss", run=EXACT)
