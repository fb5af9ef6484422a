"""Agreement between methods against SciPy, and the check of a randomised model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from influence_core import Measurement, Run, Store, Study, Task, attribute, registry
from influence_core.errors import BadInput, Unavailable
from influence_core.metrics import NOT_MEASURED, Judging, agreement, randomised
from influence_core.metrics.agreement import OVERLAP, matrix, overlaps
from influence_core.metrics.randomised import forgotten
from tests.cases import convex

OPTIONS = Judging.checked({"rows": 64, "top": 5})


def methods(*names: str) -> list:
    return [registry.made(name) for name in names]


def test_pairs_are_compared_as_scipy_does(tmp_path: Path) -> None:
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path))
    names = ("if_ggn", "grad_dot", "tracin_cp", "loss")
    table = agreement(task, methods(*names), run, None, OPTIONS)
    ids, kind = task.ids("test").tolist(), Measurement("margin")
    scores = {n: attribute(task, n, ids, measurement=kind, run=run).scores.numpy() for n in names[:3]}
    square, shared = matrix(table), matrix(table, OVERLAP)
    for one, other in (("if_ggn", "grad_dot"), ("tracin_cp", "if_ggn")):
        each = [spearmanr(a, b).statistic for a, b in zip(scores[one], scores[other], strict=True)]
        assert square.loc[one, other] == square.loc[other, one] == pytest.approx(np.mean(each), abs=1e-12)
        top = [
            set(np.argsort(-a)[:5]) & set(np.argsort(-b)[:5]) for a, b in zip(scores[one], scores[other], strict=True)
        ]
        assert shared.loc[one, other] == pytest.approx(np.mean([len(rows) / 5 for rows in top]), abs=1e-12)
    assert square.loc["grad_dot", "tracin_cp"] == pytest.approx(1.0)  # one checkpoint: the same up to its rate
    assert (np.diag(square) == 1).all() and list(square.columns) == list(names[:3])
    assert table[table["figure"] == NOT_MEASURED]["method"].tolist() == ["loss"]


def test_overlap_of_known_rows_and_one_method_alone() -> None:
    a, b = np.array([[4.0, 3, 2, 1], [1, 2, 3, 4]]), np.array([[1.0, 2, 3, 4], [0, 2, 3, 4]])
    assert overlaps(a, b, 2).tolist() == [0.0, 1.0] and overlaps(a, b, 9).tolist() == [1.0, 1.0]
    with pytest.raises(BadInput, match="It compares methods, and one is given"):
        agreement(convex(), methods("grad_dot"), Run(), None, OPTIONS)


def test_an_untrained_model_is_another_task_with_the_same_rows() -> None:
    task = convex()
    blank = forgotten(task)
    assert blank.fingerprint != task.fingerprint and forgotten(convex()).fingerprint == blank.fingerprint
    assert not torch.equal(blank.state()["weight"], task.state()["weight"]) and blank.learning_rates == (1.0,)
    assert torch.equal(task.state()["weight"], convex().state()["weight"]) and task.memo is not blank.memo
    data = task.split("train").batch(slice(None)), task.split("test").batch(slice(None))
    with pytest.raises(Unavailable, match="cannot be made anew"):
        forgotten(Task(nn.Linear(4, 3), *data))


def test_scores_that_follow_the_model_change_with_it(tmp_path: Path, studies: Path, monkeypatch) -> None:
    task, run = Study(studies / "table").task, Run(store=Store(tmp_path))
    table = randomised(task, methods("tracin_cp", "knn_shapley"), run, None, OPTIONS)
    row = table[table["method"] == "tracin_cp"].iloc[0]
    blank, ids = forgotten(task), task.ids("test").tolist()
    one, other = (
        attribute(t, "tracin_cp", ids, measurement=Measurement("margin"), run=run).scores for t in (task, blank)
    )
    each = [spearmanr(a, b).statistic for a, b in zip(one.numpy(), other.numpy(), strict=True)]
    assert row["value"] == pytest.approx(np.mean(each), abs=1e-9) and row["value"] < 0.9
    assert "does not look at the model's weights" in table[table["method"] == "knn_shapley"].iloc[0]["note"]
    fitted = type(registry.made("grad_dot").fit(task, run))
    fixed = torch.arange(task.n_train).float()
    monkeypatch.setattr(fitted, "_scores", lambda self, batch, m, rows: fixed.expand(len(rows.ids), -1))
    blind = randomised(task, methods("grad_dot"), run, None, OPTIONS)
    assert blind["value"][0] == pytest.approx(1.0)  # a method that shows the data alone is found out
