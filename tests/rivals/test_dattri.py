"""TracIn and KNN-Shapley beside dattri 0.3.0."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from influence_core import Run, Store, Task, attribute
from tests.cases import integers, made, normal

NEEDS = "dattri"

N, M = 23, 6
RATES = [0.3, 0.2]


def net(seed: int = 0) -> nn.Module:
    return made(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), seed)


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return (normal(N, 4, seed=1), integers(3, N, seed=2)), (normal(M, 4, seed=3), integers(3, M, seed=4))


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


@pytest.mark.parametrize("cosine", [False, True])
def test_tracin_without_its_projection_is_the_same(cosine: bool, tmp_path: Path) -> None:
    """``grad_cos`` is of one checkpoint here, so that its rule for several does not matter."""
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask

    train, test = data()
    states = [net(seed).state_dict() for seed in range(1 if cosine else len(RATES))]
    task = Task(net, train, test, checkpoints=states, learning_rates=RATES[: len(states)])
    ours = attribute(task, "grad_cos" if cosine else "tracin_cp", range(M), run=run_in(tmp_path)).scores

    model = net().eval()

    def loss(parameters: dict[str, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
        x, y = rows
        return F.cross_entropy(torch.func.functional_call(model, parameters, x.unsqueeze(0)), y.unsqueeze(0))

    rates = torch.ones(1) if cosine else torch.tensor(RATES)
    rival = TracInAttributor(AttributionTask(loss, model, states), rates.double(), normalized_grad=cosine)
    rival.projector_kwargs = None  # its constructor always sets a random projection to 512 dimensions
    theirs = rival.attribute(*(DataLoader(TensorDataset(*part), batch_size=5) for part in (train, test)))
    assert theirs.shape == (N, M)  # transposed against ours, and in float32
    torch.testing.assert_close(ours, theirs.T.double(), rtol=1e-5, atol=1e-6)


def test_knn_shapley_is_the_same(tmp_path: Path) -> None:
    from dattri.algorithm.data_shapley import KNNShapleyAttributor

    train, test = data()
    options = {"embedding": "input", "k_neighbors": 3}
    ours = attribute(Task(net(), train, test), "knn_shapley", range(M), config=options, run=run_in(tmp_path)).scores
    rival = KNNShapleyAttributor(k_neighbors=3)
    theirs = rival.attribute(*(DataLoader(TensorDataset(*part), batch_size=5) for part in (train, test)))
    theirs = theirs if theirs.shape == ours.shape else theirs.T
    torch.testing.assert_close(ours, theirs.double(), rtol=1e-5, atol=1e-6)
