"""LDS on a model that is additive in its rows: exactly 1 for the right method, its sign, its refusals, its truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from influence_core import Measurement, Recipe, Run, Store, Task, attribute, registry
from influence_core.costs import cost
from influence_core.errors import Unavailable
from influence_core.estimators.curvature.groups import GroupFitted
from influence_core.fitting import fit
from influence_core.metrics import NOT_MEASURED, TRUTH, Judging, lds
from influence_core.metrics.planning import planned
from influence_core.metrics.truth import subset_truth, subsets
from influence_core.outcomes import Outcomes
from tests.cases import convex

OPTIONS = Judging.checked({"subsets": 24, "seeds": 2, "rows": 5})


def zeros() -> nn.Module:
    layer = nn.Linear(3, 1, bias=False).double()
    nn.init.zeros_(layer.weight)
    return layer


def additive() -> Task:
    """One full-batch step from zero weights: the outputs are sums over the training rows, exactly.

    Test targets are far above every output, so that minus the squared error rises with the output.
    """
    generator = torch.Generator().manual_seed(3)
    x, y = torch.randn(20, 3, generator=generator).double(), torch.randn(20, generator=generator).double()
    tests = torch.randn(5, 3, generator=generator).double(), torch.full((5,), 1e3).double()
    recipe = Recipe.checked({"learning_rate": 0.1, "batch_size": 20, "epochs": 1, "dtype": "float64"})
    return Task(
        zeros, (x, y), tests, "mse", checkpoints=[zeros().state_dict()], learning_rates=[0.1], recipe=recipe
    )  # fmt: skip


def methods(*names: str) -> list:
    return [registry.made(name) for name in names]


def only(table, method: str):
    return table[table["method"] == method].iloc[0]


def test_the_gradient_that_trained_an_additive_model_scores_one(tmp_path: Path) -> None:
    task, run = additive(), Run(dtype=torch.float64, store=Store(tmp_path))
    table = lds(task, methods("grad_dot", "tracin_cp"), run, None, OPTIONS)
    for name in ("grad_dot", "tracin_cp"):
        row = only(table, name)
        assert row["value"] == pytest.approx(1.0, abs=1e-12) and row["ceiling"] == pytest.approx(1.0, abs=1e-12)
        assert row["n"] == 5 and row["note"] == "loss; 24 subsets x 2 seed(s)" and row["seconds"] > 0
    truth = only(table, TRUTH)
    assert truth["value"] == pytest.approx(1.0, abs=1e-12)  # nothing is random in this training


def test_scores_of_the_other_sign_score_minus_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, run = additive(), Run(dtype=torch.float64, store=Store(tmp_path))
    fitted = type(registry.made("grad_dot").fit(task, run))
    scores = fitted._scores
    monkeypatch.setattr(fitted, "_scores", lambda self, *query: -scores(self, *query))
    assert only(lds(task, methods("grad_dot"), run, None, OPTIONS), "grad_dot")["value"] == pytest.approx(-1.0)


def test_the_figure_is_the_mean_of_scipys_rank_correlations(tmp_path: Path) -> None:
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path))
    table = lds(task, methods("if_ggn", "grad_dot"), run, None, OPTIONS.changed(rows=task.n_test))
    kept = subsets(task.n_train, 24, run.seed)
    assert set(kept.sum(1)) == {task.n_train // 2} and len({row.tobytes() for row in kept}) == 24
    assert np.array_equal(subsets(task.n_train, 10, run.seed), kept[:10])
    y = task.split("test").targets
    margins = []
    for row in kept:
        f = Outcomes(task, run).without(np.flatnonzero(~row).tolist(), 0).outputs["test"]
        others = f.masked_fill(torch.nn.functional.one_hot(y, 3).bool(), -torch.inf).logsumexp(1)
        margins.append((f.gather(1, y[:, None])[:, 0] - others).numpy())
    for name in ("if_ggn", "grad_dot"):
        ids = task.ids("test").tolist()
        scores = attribute(task, name, ids, measurement=Measurement("margin"), run=run).scores.numpy()
        each = [spearmanr(scores[t] @ kept.T, np.stack(margins)[:, t]).statistic for t in range(task.n_test)]
        row = only(table, name)
        assert row["value"] == pytest.approx(np.mean(each), abs=1e-12) and row["ceiling"] == 1.0
        assert row["low"] < row["value"] < row["high"]
    assert only(table, "if_ggn")["value"] > 0.9 > only(table, "grad_dot")["value"]


def test_a_method_with_a_group_influence_of_its_own_is_asked_for_it(tmp_path: Path, monkeypatch) -> None:
    task, run = additive(), Run(dtype=torch.float64, store=Store(tmp_path))
    fitted = type(registry.made("grad_dot").fit(task, run))
    truth = subset_truth(task, run, OPTIONS)
    asked = []

    def group(self, test, groups, measurement=None):
        asked.append(groups)
        return torch.from_numpy(-truth.measured(test, Measurement()).mean(0))  # removal lowers what is kept

    monkeypatch.setattr(fitted, "group", group)
    assert only(lds(task, methods("grad_dot"), run, None, OPTIONS), "grad_dot")["value"] == pytest.approx(1.0)
    assert asked == [[np.flatnonzero(~row).tolist() for row in truth.kept]]


def test_what_does_not_add_up_is_listed_and_stops_nobody(tmp_path: Path) -> None:
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path))
    table = lds(task, methods("gas", "loss", "loo", "grad_dot"), run, None, OPTIONS)
    assert table["figure"].tolist() == [NOT_MEASURED] * 3 + ["lds"]
    reasons = ["not amounts", "no score for a pair of rows", "24 of 40 rows have no score"]
    for reason, note in zip(reasons, table["note"], strict=False):
        assert reason in note


def test_truths_are_trained_once_and_a_stopped_run_goes_on(tmp_path: Path, monkeypatch) -> None:
    task, run = additive(), Run(dtype=torch.float64, store=Store(tmp_path))
    subset_truth(task, run, OPTIONS.changed(subsets=10))
    trained = []
    together = Outcomes._train_together
    monkeypatch.setattr(
        Outcomes, "_train_together", lambda self, rows, *rest: (trained.extend(rows), together(self, rows, *rest))
    )
    first = lds(task, methods("grad_dot"), run, None, OPTIONS)
    assert len(trained) == (24 - 10) * 2
    again = lds(additive(), methods("grad_dot"), run, None, OPTIONS)
    assert len(trained) == 28 and again.equals(first)


def test_without_a_recipe_there_is_no_truth() -> None:
    task = convex()
    bare = Task(nn.Linear(4, 3), task.split("train").batch(slice(None)), task.split("test").batch(slice(None)))
    with pytest.raises(Unavailable, match="cannot be retrained"):
        lds(bare, methods("grad_dot"), Run(), None, OPTIONS)


def test_what_groups_do_is_priced_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, run, able = convex(), Run(dtype=torch.float64, store=Store(tmp_path)), methods("group_newton")
    fit(task, able[0], run)
    before = planned(task, able, ["lds"], run, OPTIONS)
    left = float((~subsets(task.n_train, 24, run.seed)).sum())
    price = left * cost(task, able[0], run).member
    assert price > 0 and before.methods["group_newton"] == pytest.approx(price)
    first = only(lds(task, able, run, None, OPTIONS), "group_newton")
    assert planned(task, able, ["lds"], run, OPTIONS).seconds == 0
    monkeypatch.setattr(GroupFitted, "moved", lambda *_: pytest.fail("computed again"))
    assert only(lds(task, able, run, None, OPTIONS), "group_newton")["value"] == first["value"]
