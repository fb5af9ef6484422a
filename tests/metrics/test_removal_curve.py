"""Removal against brute force: every count retrained one after another on a convex task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from influence_core import Measurement, Rows, Run, Store, Task, attribute, registry
from influence_core.errors import Unavailable
from influence_core.metrics import NOT_MEASURED, Judging, removal
from influence_core.metrics.removal_curve import RANDOM, removal_curves
from influence_core.metrics.truth import values_of
from influence_core.outcomes import Outcomes
from tests.cases import convex

OPTIONS = Judging.checked({"flipped": 3, "removed": 0.4})


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory):
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path_factory.mktemp("store")))
    methods = [registry.made("if_ggn"), registry.made("loss")]
    return task, run, removal_curves(task, methods[:1], run, OPTIONS), removal(task, methods, run, None, OPTIONS)


def margin(task: Task, run: Run, test_id, removed: list[int]) -> float:
    kind = Measurement("margin", "predicted")
    return float(values_of(task, Outcomes(task, run), removed, 0, Rows("test", (test_id,)), kind)[0])


def test_margins_are_those_of_models_trained_without_the_top_rows(judged) -> None:
    task, run, curves, _ = judged
    curve = curves["if_ggn"]
    assert list(curves) == [RANDOM, "if_ggn"] and curve.counts.tolist() == [0, 1, 2, 4, 8, 16]
    for place, test_id in enumerate(curve.ids):
        answer = attribute(task, "if_ggn", [test_id], measurement=Measurement("margin", "predicted"), run=run)
        order = answer.scores[0].argsort(descending=True, stable=True).tolist()
        for at, count in enumerate(curve.counts):
            assert curve.margins[place, at] == margin(task, run, test_id, order[:count])
    assert (curve.margins[:, 0] > 0).all()  # what the model predicts is what it explains


def test_the_flip_is_the_first_one_that_a_scan_finds(judged) -> None:
    task, run, curves, _ = judged
    curve, found = curves["if_ggn"], 0
    for place, test_id in enumerate(curve.ids):
        answer = attribute(task, "if_ggn", [test_id], measurement=Measurement("margin", "predicted"), run=run)
        order = answer.scores[0].argsort(descending=True, stable=True).tolist()
        scan = [k for k in range(17) if margin(task, run, test_id, order[:k]) < 0]
        assert (scan[0] if scan else None) == curve.to_json()["flips"][place]
        found += bool(scan)
    assert found  # the case is one where something flips


def test_proponents_do_more_than_random_rows_and_the_table_says_so(judged) -> None:
    _, _, curves, table = judged
    values = table[table["metric"] == "removal"].pivot(index="figure", columns="method", values="value")
    for count in (2, 4, 8, 16):
        drops = values.loc[f"drop at {count}"]
        assert drops["if_ggn"] > drops[RANDOM]
        at = curves["if_ggn"].counts.tolist().index(count)
        fall = curves["if_ggn"].margins[:, 0] - curves["if_ggn"].margins[:, at]
        assert drops["if_ggn"] == pytest.approx(fall.mean(), abs=1e-12)
    flips = curves["if_ggn"].flips
    assert values.loc["rows to flip", "if_ggn"] == np.median(np.where(np.isnan(flips), 16, flips))
    assert values.loc["flipped", "if_ggn"] == pytest.approx(np.isfinite(flips).mean())
    refused = table[table["figure"] == NOT_MEASURED]
    assert refused["method"].tolist() == ["loss"]


def test_a_regression_has_no_prediction_that_flips(tmp_path: Path) -> None:
    data = (torch.randn(6, 2), torch.randn(6)), (torch.randn(3, 2), torch.randn(3))
    task = Task(lambda: nn.Linear(2, 1), *data, "mse", checkpoints=[nn.Linear(2, 1).state_dict()], learning_rates=[1.0])
    with pytest.raises(Unavailable, match="cannot be retrained"):
        removal(task, [registry.made("grad_dot")], Run(store=Store(tmp_path)), None, OPTIONS)
    able = Task(
        lambda: nn.Linear(2, 1), *data, "mse", checkpoints=[nn.Linear(2, 1).state_dict()], learning_rates=[1.0],
        recipe=convex().recipe,
    )  # fmt: skip
    table = removal(able, [registry.made("grad_dot")], Run(store=Store(tmp_path)), None, OPTIONS)
    assert table["figure"].tolist() == [NOT_MEASURED] and "predicts a number" in table["note"][0]
