"""TrackStar with sides that are not projected against its dense formula."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from influence_core.api import attribute, self_influence
from influence_core.errors import Unavailable
from influence_core.run import Run
from influence_core.store import Store
from tests.cases import CASES
from tests.estimators.test_logra import EXACT, by_layer


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


def test_trackstar_without_loss_is_its_formula(run: Run) -> None:
    task = CASES["mlp"]()
    parts: dict[str, list[Tensor]] = {"train": [], "test": []}
    for train, test in zip(by_layer(task, "train"), by_layer(task, "test"), strict=True):
        moment = train.square().mean(0)
        scale = moment.clamp_min(1e-12 * float(moment.max())).rsqrt()
        fisher = (train * scale).T @ (train * scale) / task.n_train
        damped = fisher + 0.1 * fisher.diagonal().mean() * torch.eye(len(fisher), dtype=torch.float64)
        values, vectors = torch.linalg.eigh(damped)
        root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        parts["train"].append(train * scale @ root)
        parts["test"].append(test * scale @ root)
    units = {split: torch.nn.functional.normalize(torch.cat(value, 1), dim=1) for split, value in parts.items()}
    found = attribute(task, "trackstar", task.ids("test").tolist(), config={"dimensions": 64}, run=run)
    torch.testing.assert_close(found.scores, units["test"] @ units["train"].T, **EXACT)
    assert float(found.scores.abs().max()) <= 1 + 1e-12
    with pytest.raises(Unavailable, match="no self-influence"):
        self_influence(task, "trackstar", run=run)
