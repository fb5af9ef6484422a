"""The list of suspects on planted truth: order, chances, flags, what is never read, what cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from influence_core.errors import BadInput, Cancelled, Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.primitives.statistics import roc_auc
from influence_core.registry import made
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from influence_core.workflows.suspects import suspects
from influence_core.workflows.suspects.detectors import available, detectors
from influence_core.workflows.suspects.feeding import mistakes
from influence_core.workflows.suspects.oddities import oddities, unavailable
from influence_core.workflows.suspects.predictions import Search
from influence_core.workflows.suspects.pricing import suspects_cost
from tests.cases import CASES
from tests.workflows.suspect_cases import RECIPE, planted, rows


def run(tmp_path: Path) -> Run:
    return Run(device="cpu", store=Store(tmp_path / "store"))


def test_planted_errors_come_first_and_chances_are_honest(tmp_path: Path) -> None:
    task, wrong = planted(n=600, share=0.15, spread=0.6)
    found = suspects(task, run(tmp_path))
    assert found.default == "combined" and found.beliefs is not None and found.held_out == ""
    assert roc_auc(found.columns["combined"], wrong) > 0.97
    top = found.order()[: wrong.sum()]
    truth = rows(600, 1, 0.6)[1]
    right = (found.beliefs.suggested[top] == truth[top]).mean()
    assert found.beliefs.chance[top].mean() == pytest.approx(right, abs=0.1)
    assert found.estimated == pytest.approx(wrong.sum(), abs=0.04 * 600)
    for budget in (30, 60, 90):
        assert found.precision(budget) == pytest.approx(wrong[found.order()[:budget]].mean(), abs=0.1)
    assert np.allclose(found.beliefs.likelihood.sum(1), 1, atol=1e-5)
    assert np.allclose(found.beliefs.wrong, 1 - found.beliefs.likelihood[np.arange(600), task.split("train").targets],
                       atol=1e-5)  # fmt: skip
    assert np.array_equal(found.flagged, sum(values > 0 for values in (
        found.columns["training_margin"], found.columns["neighbour_votes"], found.columns["margin"])))  # fmt: skip


def test_locked_labels_change_nothing(tmp_path: Path) -> None:
    x, y = rows(20, 9)
    lists = []
    for i, labels in enumerate((y, np.full(20, 7 - 7), (y + 1) % 3)):
        task, _ = planted(n=60, locked=(x, torch.from_numpy(labels)))
        lists.append(suspects(task, run(tmp_path / str(i)), retrain=True))
    for other in lists[1:]:
        assert all(np.array_equal(lists[0].columns[name], other.columns[name]) for name in lists[0].columns)
        assert np.array_equal(lists[0].feeds, other.feeds) and lists[0].estimated == other.estimated


def test_retraining_detectors_run_only_when_asked_or_given(tmp_path: Path) -> None:
    task, _ = planted(n=40)
    where = run(tmp_path)
    assert "out_of_fold" not in suspects(task, where).columns
    trained = suspects(task, where, retrain=True)
    assert {"out_of_fold", "confident_learning"} <= trained.columns.keys() and trained.held_out == "recipe"
    given = suspects(task, where, pred_probs=np.full((40, 3), 1 / 3))
    assert given.held_out == "given" and np.allclose(given.columns["out_of_fold"], 0)
    assert suspects(task, where, ["loss", "loss"]).columns.keys() == {"loss"}


def test_a_list_that_was_cancelled_goes_on_where_it_was(tmp_path: Path) -> None:
    task, _ = planted(n=40)
    seen: list[str] = []
    stopping = Run(
        device="cpu",
        store=Store(tmp_path / "store"),
        cancel=lambda: len(seen) > 3,
        progress=lambda stage, done, total: seen.append(stage) if stage.startswith("looking") else None,
    )
    with pytest.raises(Cancelled):
        suspects(task, stopping)
    kept = len(Store(tmp_path / "store").keys())
    assert kept > 2
    whole = suspects(task, run(tmp_path))
    fresh = suspects(task, run(tmp_path / "other"))
    assert all(np.array_equal(whole.columns[name], fresh.columns[name]) for name in fresh.columns)


def test_rows_feed_the_mistakes_that_they_score_most_negative_on(tmp_path: Path) -> None:
    task, _ = planted(n=60, spread=1.6)
    found, wrong = suspects(task, run(tmp_path)), mistakes(task).tolist()
    assert len(wrong) > 3
    scores = fit(task, made("tracin_fast", None, task), run(tmp_path)).scores(Rows("test", tuple(wrong))).numpy()
    for i in range(60):
        order = np.argsort(scores[:, i], kind="stable")[:3]
        assert found.feeds[i].tolist() == [wrong[t] if scores[t, i] < 0 else -1 for t in order]


def test_a_regression_has_orders_and_no_suggestions(tmp_path: Path) -> None:
    x, _ = rows(50, 1)
    model = nn.Linear(4, 1)
    y = x[:, :1] * 3
    y[7] += 30
    task = Task(lambda: nn.Linear(4, 1), (x, y), (x[:9], y[:9]), "mse", checkpoints=[model.state_dict()], recipe=RECIPE)
    found = suspects(task, run(tmp_path))
    assert found.default == "loss" and found.beliefs is None and found.estimated is None
    assert found.order()[0] == 7 and "combined" not in found.columns and not found.flags
    trained = suspects(task, run(tmp_path), retrain=True)
    assert trained.default == "out_of_fold_error" and trained.order()[0] == 7 and trained.held_out == "recipe"


def test_one_output_with_two_classes(tmp_path: Path) -> None:
    x, y = rows(60, 1)
    y = (y > 0).astype(np.float32)
    y[5] = 1 - y[5]
    models = [nn.Linear(4, 1) for _ in range(2)]
    targets = torch.from_numpy(y).unsqueeze(1)
    task = Task(lambda: nn.Linear(4, 1), (x, targets), (x[10:30], targets[10:30]), "bce", recipe=RECIPE,
                checkpoints=[model.state_dict() for model in models])  # fmt: skip
    found = suspects(task, run(tmp_path), retrain=True)
    assert found.beliefs is not None and found.beliefs.likelihood.shape == (60, 2) and "combined" in found.columns
    assert np.array_equal(found.beliefs.suggested, 1 - y.astype(int))


def test_tokens_have_no_neighbour_votes_and_say_why(tmp_path: Path) -> None:
    task = (
        CASES["transformer"]()
        if "transformer" in CASES
        else next(made_() for name, made_ in CASES.items() if "transformer" in name)
    )
    search = Search(task, run(tmp_path))
    assert "real numbers" in detectors()["neighbour_votes"].missing(search)
    assert "neighbour_votes" not in {detector.name for detector in available(search)}
    found = suspects(task, search.run)
    assert found.default == "training_margin" and found.neighbours is None and unavailable(task)
    with pytest.raises(Unavailable, match="real numbers"):
        suspects(task, search.run, ["neighbour_votes"])


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    task, _ = planted(n=30)
    with pytest.raises(BadInput, match="none"):
        suspects(task, run(tmp_path), ["nonsense"])
    with pytest.raises(BadInput):
        suspects(task, run(tmp_path), [])
    with pytest.raises(BadInput, match="did not run"):
        suspects(task, run(tmp_path), ["loss"]).order("margin")


def test_duplicates_leaks_and_outliers_are_found(tmp_path: Path) -> None:
    x, y = rows(60, 1)
    x[11], x[40], x[3] = x[10], x[20] + 1e-4, 50.0
    test = torch.cat([rows(10, 2)[0], x[20:21]])
    labels = torch.from_numpy(y)
    task = Task(nn.Linear(4, 3), (x, labels), (test, torch.zeros(11, dtype=torch.long)))
    where = run(tmp_path)
    twins = oddities(task, where, "duplicates")
    assert list(zip(twins.positions, twins.others, strict=True))[:2] == [(10, 11), (20, 40)]
    assert twins.measures[0] == 0 < twins.measures[1] < 0.1
    leak = oddities(task, where, "leakage")
    assert leak.split == "test" and (leak.positions[0], leak.others[0], leak.measures[0]) == (10, 20, 0)
    far = oddities(task, where, "outliers")
    assert far.positions[0] == 3 and far.measures[0] > 5 and (np.diff(far.measures) <= 0).all()


def test_retraining_costs_more(tmp_path: Path) -> None:
    task, _ = planted(n=60)
    search = Search(task, run(tmp_path))
    cheap = [detector for detector in available(search) if not detector.retrains]
    dear = list(available(search))
    assert 0 < suspects_cost(search, cheap).seconds < suspects_cost(search, dear).seconds
