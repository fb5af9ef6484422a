"""Held-out predictions against explicit retraining, folds, votes against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from influence_core.errors import BadInput
from influence_core.primitives.training import new_model, training
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from influence_core.workflows.suspects.held_out import checked_probabilities, fold_of_rows, held_out, held_out_outputs
from influence_core.workflows.suspects.predictions import Search, given_labels, neighbour_votes
from tests.workflows.suspect_cases import CLASSES, RECIPE, planted


def run(tmp_path: Path) -> Run:
    return Run(device="cpu", store=Store(tmp_path / "store"))


def test_held_out_outputs_are_those_of_training_without_the_fold(tmp_path: Path) -> None:
    task, _ = planted(n=40)
    found, folds = held_out_outputs(Search(task, run(tmp_path))), fold_of_rows(task)
    assert task.factory is not None
    for fold in range(5):
        model = new_model(task.factory, RECIPE)
        for _ in training(model, task.split("train"), task.loss, RECIPE, torch.from_numpy(folds != fold).double()):
            pass
        with torch.no_grad():
            expected = model(task.split("train").batch(slice(None)).inputs)
        assert torch.equal(found[folds == fold], expected[folds == fold])


def test_folds_share_the_classes_and_keep_identical_rows_together() -> None:
    task, _ = planted(n=100)
    folds, labels = fold_of_rows(task), given_labels(task).numpy()
    for label in range(CLASSES):
        counts = np.bincount(folds[labels == label], minlength=5)
        assert counts.max() - counts.min() <= 1
    x, y = task.split("train").batch(slice(None))
    twice = Task(torch.nn.Linear(4, 3), (torch.cat([x, x]), torch.cat([y, y])), (x, y))
    again = fold_of_rows(twice)
    assert np.array_equal(again[:100], again[100:]) and set(again) == set(range(5))


def test_votes_are_those_of_scikit_learn(tmp_path: Path) -> None:
    task, _ = planted()
    votes = neighbour_votes(task, run(tmp_path))
    x, labels = task.split("train").batch(slice(None)).inputs.numpy(), given_labels(task).numpy()
    distances, places = NearestNeighbors(n_neighbors=11).fit(x).kneighbors(x)
    distances, places = distances[:, 1:], places[:, 1:]  # the first is the row itself
    assert np.array_equal(votes.neighbours.numpy(), places)
    weights = np.exp(-((distances / np.median(votes.distances.numpy())) ** 2)) + 1e-6
    expected = np.stack([((labels[places] == c) * weights).sum(1) / weights.sum(1) for c in range(CLASSES)], 1)
    assert np.allclose(votes.train.numpy(), expected, atol=1e-4)
    near, twin = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(task.split("test").batch(slice(None)).inputs.numpy())
    assert np.array_equal(votes.twins.numpy(), twin[:, 0])
    assert np.allclose(votes.twin_distances.numpy(), near[:, 0], rtol=1e-5)


def test_without_a_recipe_a_linear_model_stands_in(tmp_path: Path) -> None:
    task, _ = planted(recipe=None)
    found, folds = held_out(Search(task, run(tmp_path))), fold_of_rows(task)
    assert found.source == "proxy"
    x, labels = task.split("train").batch(slice(None)).inputs.double().numpy(), given_labels(task).numpy()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(
        x[folds != 2], labels[folds != 2]
    )
    assert np.allclose(found.shares.numpy()[folds == 2], model.predict_proba(x[folds == 2]), atol=1e-10)


def test_given_probabilities_come_before_everything_else(tmp_path: Path) -> None:
    task, _ = planted(n=30)
    shares = checked_probabilities(task, np.full((30, 3), 1 / 3))
    found = held_out(Search(task, run(tmp_path), shares))
    assert found.source == "given" and torch.equal(found.shares, shares)


@pytest.mark.parametrize(
    "wrong", [np.ones((30, 3)), np.full((29, 3), 1 / 3), [["a"] * 3] * 30, np.full((30, 3), np.nan)]
)
def test_what_is_no_probability_is_refused(wrong: object) -> None:
    with pytest.raises(BadInput):
        checked_probabilities(planted(n=30)[0], wrong)  # type: ignore[arg-type]
