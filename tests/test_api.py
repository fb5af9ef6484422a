"""The public calls."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from influence_core.api import attribute, list_estimators, self_influence
from influence_core.errors import BadInput, Unavailable
from influence_core.estimators.gradient.gas import GasConfig
from influence_core.fitting import fit, is_fitted
from influence_core.measurement import Measurement, Rows
from influence_core.registry import made
from influence_core.run import Run
from influence_core.store import Store
from tests.cases import CASES


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


def test_an_answer_carries_its_ids_and_what_it_means(run: Run) -> None:
    task = CASES["mlp_with_str_ids"]()
    found = attribute(task, "tracin_cp", ["q3", "q0"], measurement=Measurement("margin", 1), run=run)
    assert found.scores.shape == (2, task.n_train)
    assert found.test_ids == ("q3", "q0") and found.train_ids.tolist() == task.ids("train").tolist()
    assert (found.method, found.units, found.share) == ("tracin_cp", "gradient", 1.0)
    assert found.measurement == {"kind": "margin", "target": 1}
    assert found.config["storage"] == "full"
    assert set(found.proponents(3).ids[0]) <= set(task.ids("train"))


@pytest.mark.parametrize(
    "test",
    ["q2", ["q2"], ("q2",), np.asarray(["q2"]), Rows("test", ("q2",)), iter(["q2"])],
    ids=lambda t: type(t).__name__,
)
def test_a_query_in_every_form(test: Any, run: Run) -> None:
    task = CASES["mlp_with_str_ids"]()
    found = attribute(task, "grad_dot", test, run=run)
    assert found.test_ids == ("q2",)
    assert torch.equal(found.scores, attribute(task, "grad_dot", ["q2"], run=run).scores)


@pytest.mark.parametrize("test", [2, np.int64(2), [2], torch.tensor([2]), range(2, 3)], ids=lambda t: type(t).__name__)
def test_a_query_of_numbers_in_every_form(test: Any, run: Run, tmp_path: Path) -> None:
    found = attribute(CASES["mlp"](), "grad_dot", test, run=run)
    assert found.test_ids == (2,)
    found.save(tmp_path / "x.safetensors")


def test_train_rows_and_sets_are_queries_too(run: Run) -> None:
    task = CASES["mlp"]()
    square = attribute(task, "grad_dot", Rows("train", tuple(range(task.n_train))), run=run).scores
    torch.testing.assert_close(square, square.T)
    torch.testing.assert_close(square.diagonal(), self_influence(task, "grad_dot", run=run))
    mean = attribute(task, "grad_dot", Rows("train", (0, 4), "mean"), run=run)
    torch.testing.assert_close(mean.scores, square[[0, 4]].mean(0, keepdim=True))
    assert mean.test_ids == ("mean of 2 rows",)


def test_a_config_is_a_method(run: Run) -> None:
    task = CASES["mlp"]()
    a = attribute(task, GasConfig(weights="uniform"), [0], run=run)
    b = attribute(task, "gas", [0], config={"weights": "uniform"}, run=run)
    assert torch.equal(a.scores, b.scores) and a.config == b.config


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tracin_xp", [0]), "Did you mean 'tracin_cp'"), (("tracin_cp", []), "The query is empty"),
        (("tracin_cp", [99]), "Unknown row id"), (("tracin_cp", "zero"), "Unknown row id: 'zero'"),
        (("tracin_cp", Rows("locked", (0,))), "There is no 'locked' split"), (("tracin_cp", None), "Unknown row id"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said(arguments: tuple, message: str, run: Run) -> None:
    with pytest.raises(BadInput, match=message):
        attribute(CASES["mlp"](), *arguments, run=run)


def test_the_fit_is_remembered_on_the_task_and_on_disk(run: Run) -> None:
    task, estimator = CASES["mlp"](), made("tracin_cp")
    assert not is_fitted(task, estimator, run)
    first = fit(task, estimator, run)
    assert is_fitted(task, estimator, run) and is_fitted(CASES["mlp"](), made("tracin_cp"), run)
    assert not is_fitted(task, made("tracin_cp", {"storage": "half"}), run)
    second = fit(task, made("tracin_cp"), run)
    assert second.caches is first.caches  # type: ignore[attr-defined]


def test_a_later_call_listens_to_its_own_run(run: Run, tmp_path: Path) -> None:
    """The run that fitted was cancelled since, and its progress bar is gone."""
    task, stop, reports = CASES["mlp"](), [False], []
    settings: dict[str, Any] = {"device": "cpu", "dtype": torch.float64, "store": run.store}
    fit(task, made("knn_shapley"), Run(**settings, cancel=lambda: stop[0]))
    stop[0] = True
    watched = Run(**settings, progress=lambda *report: reports.append(report))
    assert bool(self_influence(task, "knn_shapley", run=watched).isfinite().all())
    assert reports[-1][1] == reports[-1][2]


def test_a_task_without_a_store_is_answered_from_a_temporary_one() -> None:
    found = attribute(CASES["mlp"](), "grad_dot", [0], run=Run(device="cpu", dtype=torch.float64))
    assert bool(found.scores.isfinite().all())


@pytest.mark.parametrize("name", ["mlp", "transformer", "bare_parameters", "residual_cnn"])
def test_several_threads_may_ask_at_once(name: str, run: Run) -> None:
    """A server answers in threads, and they share the fitted method with its model."""
    task = CASES[name]()
    rows = task.ids("test").tolist()
    alone = {row: attribute(task, "tracin_cp", [row], run=run).scores for row in rows}
    with ThreadPoolExecutor(8) as pool:
        asked = [rows[i % len(rows)] for i in range(64)]
        for row, found in zip(asked, pool.map(lambda row: attribute(task, "tracin_cp", [row], run=run).scores, asked),
                              strict=True):  # fmt: skip
            torch.testing.assert_close(found, alone[row], rtol=1e-12, atol=1e-13)


def test_a_fitted_method_outlives_its_artifacts(tmp_path: Path) -> None:
    """With a size cap, another fit may push an artifact out that an open study still uses."""
    task = CASES["mlp"]()
    run = Run(device="cpu", dtype=torch.float64, store=Store(tmp_path, cap_bytes=1))
    fitted = fit(task, made("grad_dot"), run)
    expected = attribute(CASES["mlp"](), "grad_dot", [0, 1], run=Run(device="cpu", dtype=torch.float64)).scores
    assert len(Store(tmp_path).keys()) <= 1
    torch.testing.assert_close(fitted.scores(Rows("test", (0, 1))), expected)
    lengths = self_influence(CASES["mlp"](), "grad_dot", run=Run(device="cpu", dtype=torch.float64))
    torch.testing.assert_close(fitted.self_influence(), lengths)


def test_methods_are_listed_by_id() -> None:
    names = list_estimators()
    assert names == sorted(names) and "tracin_cp" in names


def test_self_influence_only_methods_say_so(run: Run) -> None:
    with pytest.raises(Unavailable, match="does not score pairs"):
        attribute(CASES["mlp"](), "loss", [0], run=run)
    assert self_influence(CASES["mlp"](), "loss", run=run).shape == (CASES["mlp"]().n_train,)
