"""Correlation with leave-one-out: the truth agrees with itself, calibrated methods agree with it, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from torch import nn

from influence_core import Measurement, Run, Store, Study, Task, attribute, evaluate, registry
from influence_core.errors import Unavailable
from influence_core.metrics import NOT_MEASURED, TRUTH, loo_correlation
from tests.cases import convex


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory):
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path_factory.mktemp("store")))
    names = ["loo", "if_exact", "if_ggn", "rps_l2", "grad_dot", "knn_shapley"]
    return task, run, loo_correlation(task, [registry.made(name) for name in names], run)


def value(table, method: str, figure: str) -> float:
    (found,) = table[(table["method"] == method) & (table["figure"] == figure)]["value"]
    return found


def test_leave_one_out_agrees_with_itself(judged) -> None:
    _, _, table = judged
    for figure in ("pearson", "spearman"):
        assert value(table, "loo", figure) == pytest.approx(1.0, abs=1e-12)
    note = table[table["method"] == "loo"]["note"].iloc[0]
    assert note == "loss; 16 rows left out, 1 seed(s)"  # the rows of both draws
    assert (table["ceiling"] == 1).all()  # its training has no noise


def test_methods_in_units_of_the_measurement_agree_on_a_convex_task(judged) -> None:
    _, _, table = judged
    for name in ("if_exact", "if_ggn"):
        assert value(table, name, "spearman") > 0.95
        assert value(table, name, "pearson") > max(0.9, value(table, "grad_dot", "pearson"))
    assert value(table, "grad_dot", "spearman") > 0.5
    assert value(table, "knn_shapley", "pearson") < value(table, "if_exact", "pearson")


def test_the_figure_is_the_mean_over_test_rows_of_scipys_correlations(judged) -> None:
    task, run, table = judged
    truth_config = {"n_rows": 24, "n_seeds": 1}
    ids = list(range(task.n_test))
    for name, measurement in (("grad_dot", Measurement()), ("rps_l2", Measurement("logit"))):
        truth = attribute(task, "loo", ids, config=truth_config, measurement=measurement, run=run).scores.numpy()
        scores = attribute(task, name, ids, measurement=measurement, run=run).scores.numpy()
        known = np.isfinite(truth[0])
        assert known.sum() == 24
        for figure, correlation in (("pearson", pearsonr), ("spearman", spearmanr)):
            each = [correlation(s[known], t[known]).statistic for s, t in zip(scores, truth, strict=True)]
            assert value(table, name, figure) == pytest.approx(np.mean(each), abs=1e-10)
            row = table[(table["method"] == name) & (table["figure"] == figure)].iloc[0]
            assert row["n"] == task.n_test and row["low"] < row["value"] < row["high"]


def test_a_study_trained_by_sgd_is_judged_with_paired_seeds(studies: Path) -> None:
    study = Study(studies / "table")
    table = evaluate(study, ["tracin_cp", "gas"], ["loo"], options={"seeds": 2})
    assert table["method"].tolist() == [TRUTH] * 2 + ["tracin_cp"] * 2 + ["gas"] * 2
    judged = table[table["method"] != TRUTH]
    assert judged["value"].between(-1, 1).all() and judged["note"].eq("loss; 24 rows left out, 2 seed(s)").all()
    assert value(table, "tracin_cp", "spearman") > 0.2
    agree = table.set_index("figure").loc["seeds agree (spearman, loss)"]
    rank = judged[judged["figure"] == "spearman"]["ceiling"]
    assert agree["low"] < agree["value"] < agree["high"]
    assert rank.tolist() == pytest.approx([(2 * agree["value"] / (1 + agree["value"])) ** 0.5] * 2)
    again = evaluate(study, ["tracin_cp", "gas"], ["loo"], options={"seeds": 2})
    assert again.equals(table)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    task, run = convex(), Run(store=Store(tmp_path))
    table = loo_correlation(task, [registry.made("if_exact"), registry.made("loss")], run)
    assert table["figure"].tolist() == ["pearson", "spearman", NOT_MEASURED]
    assert "Training loss has no score for a pair of rows" in table["note"].iloc[2]
    train, test = task.split("train").batch(slice(None)), task.split("test").batch(slice(None))
    with pytest.raises(Unavailable, match="cannot run here: It needs a training recipe"):
        loo_correlation(Task(nn.Linear(4, 3), train, test), [registry.made("grad_dot")], run)


def test_constant_scores_have_no_correlation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path))
    fitted = type(registry.made("grad_dot").fit(task, run))
    monkeypatch.setattr(
        fitted, "_scores", lambda self, batch, m, rows: torch.full((len(rows.ids), task.n_train), 0.1).double()
    )
    table = loo_correlation(task, [registry.made("grad_dot")], run)
    assert table["value"].isna().all() and set(table["n"]) == {0}
