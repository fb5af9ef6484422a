"""KNN-Shapley and exact influence functions beside pyDVL 0.10.0."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from influence_core import Run, Store, Task, attribute
from tests.cases import integers, made, normal

NEEDS = "pydvl"

N, M, DAMPING = 40, 6, 1.0


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def test_knn_shapley_is_the_same(tmp_path: Path) -> None:
    """Its values are of the mean over the test rows, as the mean of ours."""
    from pydvl.valuation.dataset import Dataset
    from pydvl.valuation.methods.knn_shapley import KNNShapleyValuation
    from sklearn.neighbors import KNeighborsClassifier

    x, y, xt, yt = normal(N, 4, seed=1), integers(3, N, seed=2), normal(M, 4, seed=3), integers(3, M, seed=4)
    task = Task(made(lambda: nn.Linear(4, 3), 0), (x, y), (xt, yt))
    options = {"embedding": "input", "k_neighbors": 5}
    ours = attribute(task, "knn_shapley", range(M), config=options, run=run_in(tmp_path)).scores.mean(0)
    rival = KNNShapleyValuation(
        KNeighborsClassifier(n_neighbors=5), Dataset(xt.numpy(), yt.numpy()), progress=False
    ).fit(Dataset(x.numpy(), y.numpy()))
    values = rival.result.values
    theirs = np.empty(N)
    theirs[rival.result.indices] = values
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9, atol=1e-12)


def test_exact_influence_is_the_same(tmp_path: Path) -> None:
    """The Hessian of the mean loss plus the regularisation; its scores are n times ours."""
    from pydvl.influence.torch import DirectInfluence

    x, y, xt, yt = normal(N, 4, seed=1), integers(3, N, seed=2), normal(M, 4, seed=3), integers(3, M, seed=4)

    def net() -> nn.Module:
        return made(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), 0)

    task = Task(net, (x, y), (xt, yt), checkpoints=[net().state_dict()])
    options = {"curvature": "hessian", "damping": DAMPING}
    ours = attribute(task, "if_exact", range(M), config=options, run=run_in(tmp_path)).scores
    rival = DirectInfluence(net().eval(), F.cross_entropy, regularization=DAMPING)
    rival.fit(DataLoader(TensorDataset(x, y), batch_size=N))
    theirs = rival.influences(xt, yt, x, y) / N
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-6, atol=1e-9)
