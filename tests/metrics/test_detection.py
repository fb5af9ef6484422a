"""Mislabel detection: planted errors on a convex task, the plain loss always beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from influence_core import Recipe, Rows, Run, Store, Study, Task, evaluate, registry, self_influence
from influence_core.errors import BadInput
from influence_core.metrics import NOT_MEASURED, mislabel_detection
from influence_core.metrics.detection import _draws, _interval
from influence_core.metrics.scoring import suspicion
from influence_core.primitives.training import new_model, training

N, FLIPPED = 80, 8
FIGURES = ["auc", "average_precision", "recall_at_10", "recall_at_20"]


@pytest.fixture(scope="module")
def noisy() -> tuple[Task, np.ndarray]:
    """Two clear clouds, eight labels of which are wrong, and regularised logistic regression at its optimum."""
    random = np.random.default_rng(4)
    labels = np.arange(N + 20) % 2
    x = torch.from_numpy(3 * (2 * labels[:, None] - 1) * [1.0, 0.5, 0.0] + random.normal(size=(N + 20, 3)))
    planted = np.zeros(N, dtype=bool)
    planted[random.permutation(N)[:FLIPPED]] = True
    given = torch.from_numpy(np.where(planted, 1 - labels[:N], labels[:N]))
    recipe = Recipe(optimizer="lbfgs", weight_decay=0.02, epochs=200, dtype="float64")
    data = (x[:N], given), (x[N:], torch.from_numpy(labels[N:]))
    blank = Task(lambda: nn.Linear(3, 2), *data, recipe=recipe)
    model = new_model(lambda: nn.Linear(3, 2), recipe)
    list(training(model, blank.split("train"), blank.loss, recipe))
    task = Task(lambda: nn.Linear(3, 2), *data, recipe=recipe, checkpoints=[model.state_dict()], learning_rates=[1.0])
    return task, planted


def methods(*names: str) -> list:
    return [registry.made(name) for name in names]


def test_planted_errors_are_found_and_the_figures_are_scikit_learns(noisy, tmp_path: Path) -> None:
    task, planted = noisy
    run = Run(dtype=torch.float64, store=Store(tmp_path))
    names = ["tracin_cp", "if_ggn", "knn_shapley", "gas"]
    table = mislabel_detection(task, methods(*names), run, planted)
    assert table["method"].unique().tolist() == ["loss", *names]
    assert table["figure"].tolist() == FIGURES * 5 and set(table["metric"]) == {"mislabel"} and set(table["n"]) == {N}
    values = table.pivot(index="method", columns="figure", values="value")
    for name in ("loss", "tracin_cp", "if_ggn", "knn_shapley"):
        assert values.loc[name, "auc"] > 0.95 and values.loc[name, "recall_at_20"] == 1.0, name
        scores = suspicion(task, registry.made(name), run).values
        assert values.loc[name, "auc"] == pytest.approx(roc_auc_score(planted, scores), abs=1e-12)
        assert values.loc[name, "average_precision"] == pytest.approx(
            average_precision_score(planted, scores), abs=1e-12
        )
        top = np.argsort(-scores, kind="stable")[: N // 10]
        assert len(np.unique(scores)) < N or values.loc[name, "recall_at_10"] == planted[top].sum() / FLIPPED


def test_the_plain_loss_stands_beside_every_method_once(noisy, tmp_path: Path) -> None:
    task, planted = noisy
    run = Run(store=Store(tmp_path))
    assert mislabel_detection(task, methods("grad_dot"), run, planted)["method"].unique().tolist() == [
        "loss",
        "grad_dot",
    ]
    both = mislabel_detection(task, methods("grad_dot", "loss"), run, planted)
    assert both["method"].tolist() == ["grad_dot"] * 4 + ["loss"] * 4


def test_what_suspicion_is_depends_on_what_a_method_has(noisy, tmp_path: Path) -> None:
    task, _ = noisy
    run = Run(dtype=torch.float64, store=Store(tmp_path))
    everyone = Rows("test", tuple(range(task.n_test)))
    found = suspicion(task, registry.made("tracin_cp"), run)
    assert found.source == "self-influence"
    assert np.array_equal(found.values, self_influence(task, "tracin_cp", run=run).numpy())
    for name in ("gas", "knn_shapley"):  # no self-influence; a row is its own nearest neighbour
        found = suspicion(task, registry.made(name), run)
        fitted = registry.made(name).fit(task, run)
        assert found.source == "harm on test rows"
        np.testing.assert_allclose(found.values, -fitted.scores(everyone).mean(0).numpy(), rtol=0, atol=1e-12)


def test_rows_without_a_score_are_not_judged(noisy, tmp_path: Path) -> None:
    task, planted = noisy
    rows = [*np.flatnonzero(planted)[:2].tolist(), *np.flatnonzero(~planted)[:3].tolist()]
    table = mislabel_detection(task, [registry.made("loo", {"rows": rows})], Run(store=Store(tmp_path)), planted)
    loo = table[table["method"] == "loo"].set_index("figure")
    assert set(loo["n"]) == {5} and loo.loc["auc", "value"] == 1.0 and set(table[table["method"] == "loss"]["n"]) == {N}


def test_without_truth_there_is_nothing_to_measure(noisy, studies: Path) -> None:
    task, planted = noisy
    for truth in (None, np.zeros(N, dtype=bool)):
        with pytest.raises(BadInput, match="No planted label errors are known here.*digits demo"):
            mislabel_detection(task, methods("loss"), Run(), truth)
    with pytest.raises(BadInput, match="No planted label errors"):
        evaluate(Study(studies / "linear"), ["loss"])
    with pytest.raises(BadInput, match="No planted label errors"):
        evaluate(task, ["loss"], ["mislabel"])


def test_evaluate_reads_the_truth_of_a_study(studies: Path) -> None:
    study = Study(studies / "table")
    table = evaluate(study, ["tracin_cp", "tracin"])
    assert table["method"].tolist() == ["loss"] * 4 + ["tracin_cp"] * 8
    expected = roc_auc_score(study.planted, self_influence(study, "loss").numpy())
    assert table["value"][0] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(BadInput, match="Unknown metric: 'ldss' is not a metric. Use one of: lds, loo, pbrf"):
        evaluate(study, ["tracin_cp"], ["mislabel", "ldss"])
    with pytest.raises(BadInput, match="Unknown method: 'trac' is not registered"):
        evaluate(study, ["trac"])


def test_a_method_that_cannot_run_says_so(noisy) -> None:
    task, planted = noisy
    bare = Task(nn.Linear(3, 2), (task.split("train").batch(slice(None))), (task.split("test").batch(slice(None))))
    table = mislabel_detection(bare, methods("tracin_cp", "grad_dot"), Run(), planted)
    refused = table[table["figure"] == NOT_MEASURED]
    assert refused["method"].tolist() == ["tracin_cp"] and refused["note"].str.contains("TracIn cannot run here").all()
    assert table["method"].tolist() == ["loss"] * 4 + ["tracin_cp"] + ["grad_dot"] * 4


def test_the_interval_holds_the_figure_and_narrows_with_more_errors() -> None:
    random = np.random.default_rng(0)
    widths = []
    for n in (200, 2000):
        wrong = np.arange(n) < n // 10
        scores = random.normal(size=n) + 1.5 * wrong
        low, high = _interval([roc_auc_score(w, s) for s, w in _draws(scores, wrong)])
        assert low < roc_auc_score(wrong, scores) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2  # ten times the rows
