"""How well methods track seeded leave-one-out on a network: figures measured once, and held to.

digits, 200 rows, a tanh net of 64-16-10 in float64, SGD rate .3, batches of 20, 25 epochs, weight decay 1e-3; the truth
are 200 counterfactual trainings with the same batches, on the mean loss of 30 test rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from influence_core import registry
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.primitives.training import new_model, training
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task

N, M = 200, 30
RECIPE = Recipe(  # type: ignore[call-arg]
    learning_rate=0.3, batch_size=20, epochs=25, weight_decay=1e-3, seed=0, dtype="float64",
    checkpoints=(1, 5, 9, 13, 17, 21, 25),
)  # fmt: skip
ROWS = Rows("test", tuple(range(M)), "mean")


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)).double()


@pytest.fixture(scope="module")
def task() -> Task:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[: N + M]
    x, y = torch.tensor(x[order] / 16), torch.tensor(y[order])
    rows = (x[:N], y[:N]), (x[N:], y[N:])
    bare = Task(net, *rows, checkpoints=[net().state_dict()])
    model, states = new_model(net, RECIPE), []
    for epoch in training(model, bare.split("train"), bare.loss, RECIPE):
        if epoch.number in RECIPE.checkpoints:
            states.append({name: value.clone() for name, value in model.state_dict().items()})
    return Task(net, *rows, checkpoints=states, learning_rates=[0.3] * len(states), recipe=RECIPE)


@pytest.fixture(scope="module")
def truth(task: Task) -> np.ndarray:
    """The rise of the mean test loss when each row is left out of every batch; all at once, as one stacked net."""
    names = [name for name, _ in net().named_parameters()]
    start = dict(new_model(net, RECIPE).named_parameters())
    theta = {name: start[name].detach().expand(N, *start[name].shape).clone() for name in names}
    x, y = task.split("train").raw(slice(None)).inputs, task.split("train").targets
    order = torch.Generator().manual_seed(RECIPE.seed)
    for _ in range(RECIPE.epochs):
        for index in torch.randperm(N, generator=order).split(RECIPE.batch_size):
            hidden = torch.tanh(torch.einsum("bd,nhd->nbh", x[index], theta["0.weight"]) + theta["0.bias"][:, None])
            f = torch.einsum("nbh,nch->nbc", hidden, theta["2.weight"]) + theta["2.bias"][:, None]
            error = f.softmax(2) - nn.functional.one_hot(y[index], 10)
            error = error * (index[None] != torch.arange(N)[:, None]).double().unsqueeze(2) / len(index)
            back = torch.einsum("nbc,nch->nbh", error, theta["2.weight"]) * (1 - hidden.square())
            slopes = {
                "2.weight": torch.einsum("nbc,nbh->nch", error, hidden), "2.bias": error.sum(1),
                "0.weight": torch.einsum("nbh,bd->nhd", back, x[index]), "0.bias": back.sum(1),
            }  # fmt: skip
            for name, slope in slopes.items():
                theta[name] -= 0.3 * (slope + 1e-3 * theta[name])
    xt, yt = task.split("test").raw(slice(None)).inputs, task.split("test").targets
    hidden = torch.tanh(torch.einsum("bd,nhd->nbh", xt, theta["0.weight"]) + theta["0.bias"][:, None])
    f = torch.einsum("nbh,nch->nbc", hidden, theta["2.weight"]) + theta["2.bias"][:, None]
    losses = nn.functional.cross_entropy(f.reshape(-1, 10), yt.repeat(N), reduction="none").reshape(N, M).mean(1)
    model = task.model_at(-1, "cpu", torch.float64)
    with torch.no_grad():
        whole = nn.functional.cross_entropy(model(xt), yt)
    return (losses - whole).numpy()


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with TemporaryDirectory() as folder:
        yield Run(device="cpu", dtype=torch.float64, store=Store(Path(folder)))


@pytest.mark.parametrize(
    ("method", "options", "low", "high"),
    [
        ("sgd_influence", {}, 0.95, 1.0),
        ("hydra", {}, 0.95, 1.0),
        ("if_exact", {"damping": 0.01}, 0.6, 0.8),
        ("tracin_cp", {}, 0.25, 0.45),
        ("tracin_ideal", {}, 0.25, 0.45),
        ("hydra_fast", {}, 0.25, 0.45),
        ("grad_dot", {}, 0.2, 0.5),
    ],
)
def test_agreement_with_seeded_leave_one_out(
    method: str, options: dict[str, Any], low: float, high: float, task: Task, truth: np.ndarray, run: Run
) -> None:
    scores = fit(task, registry.made(method, options), run).scores(ROWS)[0].numpy()
    assert low < spearmanr(scores, truth).statistic <= high
