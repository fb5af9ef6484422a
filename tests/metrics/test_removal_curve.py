"""Removal against brute force: every count retrained one after another on a convex task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from influence_core import Measurement, Rows, Run, Store, Task, attribute, registry
from influence_core.errors import BadInput, Unavailable
from influence_core.metrics import NOT_MEASURED, Judging, removal
from influence_core.metrics.removal_curve import RANDOM, removal_curves
from influence_core.metrics.truth import values_of
from influence_core.outcomes import Outcomes
from tests.cases import convex

OPTIONS = Judging.checked({"flipped": 2, "removed": 0.4})


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
            assert curve.margins[0, place, at] == margin(task, run, test_id, order[:count])
    assert (curve.margins[0, :, 0] > 0).all()  # what the model predicts is what it explains


def test_the_flip_is_the_first_one_that_a_scan_finds(judged) -> None:
    task, run, curves, _ = judged
    curve, found = curves["if_ggn"], 0
    for place, test_id in enumerate(curve.ids):
        answer = attribute(task, "if_ggn", [test_id], measurement=Measurement("margin", "predicted"), run=run)
        order = answer.scores[0].argsort(descending=True, stable=True).tolist()
        scan = [k for k in range(17) if margin(task, run, test_id, order[:k]) < 0]
        assert (scan[0] if scan else None) == curve.to_json()[place]["flip"]
        found += bool(scan)
    assert found  # the case is one where something flips


def test_proponents_do_more_than_random_rows_and_the_table_says_so(judged) -> None:
    _, _, curves, table = judged
    values = table[table["metric"] == "removal"].pivot(index="figure", columns="method", values="value")
    for count in (2, 4, 8, 16):
        drops = values.loc[f"drop at {count}"]
        assert drops["if_ggn"] > drops[RANDOM]
        at = curves["if_ggn"].counts.tolist().index(count)
        fall = curves["if_ggn"].margins[0, :, 0] - curves["if_ggn"].margins[0, :, at]
        assert drops["if_ggn"] == pytest.approx(fall.mean(), abs=1e-12)
    flips = curves["if_ggn"].flips[0]
    assert values.loc["rows to flip", "if_ggn"] == np.median(np.where(np.isnan(flips), 16, flips))
    assert values.loc["flipped", "if_ggn"] == pytest.approx(np.isfinite(flips).mean())
    refused = table[table["figure"] == NOT_MEASURED]
    assert refused["method"].tolist() == ["loss"]


def test_a_named_prediction_stands_beside_several_random_removals(judged) -> None:
    task, run, drawn, _ = judged
    first, other = drawn["if_ggn"].ids[:2]
    options = OPTIONS.changed(predictions=(first,), draws=6)
    curves = removal_curves(task, [registry.made("if_ggn")], run, options)
    assert curves[RANDOM].margins.shape == (6, 1, 6) and curves["if_ggn"].ids == (first,)
    np.testing.assert_array_equal(curves["if_ggn"].margins[0, 0], drawn["if_ggn"].margins[0, 0])
    record = curves[RANDOM].to_json()[0]
    place = int(task.positions(Rows("test", (first,)))[0])
    orders = [np.random.default_rng([run.seed, 2, draw, place]).permutation(task.n_train) for draw in range(6)]
    for at, count in enumerate(record["counts"]):
        said = [margin(task, run, first, order[:count].tolist()) for order in orders]
        assert record["margins"][at] == pytest.approx(np.mean(said), abs=1e-12)
        assert record["low"][at] == pytest.approx(np.percentile(said, 2.5), abs=1e-12)
        assert record["high"][at] == pytest.approx(np.percentile(said, 97.5), abs=1e-12)
    flipped = [any(margin(task, run, first, order[:k].tolist()) < 0 for k in record["counts"]) for order in orders]
    assert record["flipped"] == pytest.approx(np.mean(flipped)) and record["draws"] == 6
    together = removal_curves(task, [registry.made("if_ggn")], run, options.changed(predictions=(other, first)))
    np.testing.assert_array_equal(together[RANDOM].margins[:, 1], curves[RANDOM].margins[:, 0])


def test_a_prediction_that_is_not_there_is_named(judged) -> None:
    task, run, _, _ = judged
    with pytest.raises(BadInput, match="nobody"):
        removal(task, [registry.made("if_ggn")], run, None, OPTIONS.changed(predictions=("nobody",)))


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
