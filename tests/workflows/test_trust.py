"""What is known of methods on a study: written by evaluate, read without work, said in one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from influence_core import Study, evaluate, registry
from influence_core.api import evaluation_plan
from influence_core.errors import BadInput, StoreProblem
from influence_core.outcomes import Outcomes
from influence_core.run import Run
from influence_core.workflows.trust import advice, measured

SMALL = {"subsets": 6, "seeds": 2, "rows": 6, "left_out": 4, "flipped": 2, "top": 5}
METRICS = ["lds", "removal", "agreement", "mislabel"]


@pytest.fixture
def study(own_studies: Path) -> Study:
    for left in ("trust", "cache"):  # of what other tests measured on the studies that this is a copy of
        shutil.rmtree(own_studies / "table" / left, ignore_errors=True)
    return Study(own_studies / "table")


def test_what_evaluate_measured_is_read_back_without_any_work(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not len(measured(study).table) and measured(study).advice == "" and not len(measured(study).agreement)
    table = evaluate(study, ["if_ggn", "grad_dot", "gas"], METRICS, options=SMALL)

    def worked(*_: object) -> None:
        raise AssertionError("reading must not compute")

    monkeypatch.setattr(registry.entries()["grad_dot"].cls, "fit", worked)
    monkeypatch.setattr(Outcomes, "corrected", worked)
    known = measured(Study(study.path))
    back = known.table[table.columns]
    order = ["metric", "method", "figure"]
    pd.testing.assert_frame_equal(
        back.sort_values(order, ignore_index=True), table.sort_values(order, ignore_index=True), check_dtype=False
    )
    assert known.fidelity["method"].tolist() == (
        table[table["figure"] == "lds"].sort_values("value", ascending=False)["method"].tolist()
    )
    assert "gas" in known.unmeasured and "not amounts" in known.unmeasured["gas"]
    assert known.agreement.shape == (3, 3) and (np.diag(known.shared) == 1).all()
    first = known.followed[0]
    curve = known.curve(first)
    assert set(curve) == {"(random)", "if_ggn", "grad_dot", "gas"} and curve["if_ggn"]["counts"][0] == 0
    assert len(curve["if_ggn"]["margins"]) == len(curve["if_ggn"]["counts"]) and known.curve("nobody") == {}
    assert known.advice.startswith("On this model, ")
    one = known.table[known.table["method"] == "if_ggn"].iloc[0]
    assert one["options"]["subsets"] == 6 and one["config"]["curvature"] == "ggn"


def test_the_curve_of_a_named_prediction_joins_what_is_known(study: Study) -> None:
    ids = study.task.ids("test").tolist()
    evaluate(study, ["grad_dot"], ["removal"], options={**SMALL, "predictions": [ids[3]], "draws": 4})
    known = measured(study)
    assert known.followed == [ids[3]] and not len(known.table)  # no figure of the study's predictions
    evaluate(study, ["if_ggn"], ["removal"], options={**SMALL, "predictions": [ids[3], ids[1]]})
    known = measured(study)
    assert set(known.followed) == {ids[1], ids[3]}
    assert set(known.curve(ids[3])) == {"(random)", "grad_dot", "if_ggn"}
    assert known.curve(ids[3])["(random)"]["draws"] == 4 and known.curve(ids[1])["(random)"]["draws"] == 1
    one = known.curve(ids[3])["grad_dot"]
    assert one["low"] == one["high"] == one["margins"] and one["flipped"] in (0.0, 1.0)


def test_what_an_older_version_kept_is_still_read(study: Study) -> None:
    evaluate(study, ["grad_dot"], ["mislabel"])
    (file,) = (study.path / "trust").glob("*.json")
    record = json.loads(file.read_text())
    curve = {"ids": [4, 2], "counts": [0, 3], "margins": [[1.0, 0.5], [2.0, -1.0]], "flips": [None, 2]}
    file.write_text(json.dumps({"version": 1, "parts": record["parts"], "curves": {"grad_dot": curve}}))
    known = measured(study)
    assert "grad_dot" in set(known.table["method"]) and known.followed == [4, 2]
    one = known.curve(2)["grad_dot"]
    assert one["margins"] == [2.0, -1.0] and one["flip"] == 2 and one["flipped"] == 1.0 and one["draws"] == 1


def test_a_second_evaluation_replaces_its_own_rows_only(study: Study) -> None:
    evaluate(study, ["grad_dot", "if_ggn"], ["mislabel"])
    evaluate(study, ["grad_dot"], ["agreement", "mislabel"][1:], options=SMALL)
    table = measured(study).table
    assert table.groupby("method")["figure"].count().to_dict() == {"grad_dot": 4, "if_ggn": 4, "loss": 4}
    assert table[table["method"] == "grad_dot"]["options"].iloc[0]["rows"] == 6
    assert table[table["method"] == "if_ggn"]["options"].iloc[0]["rows"] == 64


def test_pairs_of_methods_are_kept_when_one_is_compared_with_a_third(study: Study) -> None:
    for pair in (["grad_dot", "if_ggn"], ["grad_dot", "tracin_cp"], ["tracin_cp", "if_ggn"]):
        evaluate(study, pair, ["agreement"], options=SMALL)
    square = measured(study).agreement
    assert square.shape == (3, 3) and square.notna().all(axis=None)


def test_a_plan_names_what_is_left_and_nothing_afterwards(study: Study) -> None:
    asked = {"metrics": ["lds"], "options": SMALL}
    words = evaluation_plan(study, ["grad_dot"], **asked)
    assert words.startswith("12 models to train for lds; 1 methods to fit (grad_dot): about ")
    evaluate(study, ["grad_dot"], **asked)
    assert evaluation_plan(study, ["grad_dot"], **asked).startswith("Everything is there already")
    more = evaluation_plan(study, ["grad_dot"], metrics=["lds", "loo"], options={**SMALL, "subsets": 8})
    assert more.startswith("4 models to train for lds; 10 models to train for loo: ")


def test_nothing_starts_where_a_metric_or_option_is_wrong(study: Study) -> None:
    assert study.task.n_train  # opened, which keeps its rows
    before = study.store.keys()
    for metrics, options, text in (
        (["lds", "ldz"], {}, "'ldz' is not a metric"),
        (["lds"], {"subset": 5}, "did you mean 'subsets'"),
        (["lds"], {"subsets": 1}, "'subsets' = 1"),
    ):
        with pytest.raises(BadInput, match=text):
            evaluate(study, ["grad_dot"], metrics, options=options)
    with pytest.raises(BadInput, match="No planted label errors"):
        evaluate(Study(study.path.parent / "linear"), ["grad_dot"], ["lds", "mislabel"])
    assert study.store.keys() == before and not (study.path / "trust").exists()


def test_a_damaged_record_is_named(study: Study) -> None:
    evaluate(study, ["grad_dot"], ["mislabel"], run=Run())
    (file,) = (study.path / "trust").glob("*.json")
    file.write_text("{")
    with pytest.raises(StoreProblem, match="What was measured cannot be read"):
        measured(study)


def rows(*found: tuple[str, float, float, float]) -> pd.DataFrame:
    return pd.DataFrame([
        {"method": m, "value": v, "low": v - 0.05, "high": v + h, "ceiling": 0.99, "seconds": s} for m, v, h, s in found
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (rows(("x", 0.97, 0, 40.0), ("y", 0.36, 0.05, 1.0)),
         "On this model, x tracks retraining best (0.97 of a possible 0.99); y is 40 times cheaper but only 0.36."),
        (rows(("x", 0.97, 0, 40.0), ("z", 0.95, 0.03, 4.0), ("y", 0.36, 0.05, 1.0)),
         "On this model, x tracks retraining best (0.97 of a possible 0.99); "
         "z is 10 times cheaper and hardly worse (0.95)."),
        (rows(("cg", 0.972, 0, 400.0), ("x", 0.97, 0, 2.0), ("y", 0.36, 0.05, 1.0)),
         "On this model, x tracks retraining best (0.97 of a possible 0.99)."),
        (rows(("x", 0.04, 0, 2.0)),
         "On this model, no measured method tracks retraining: the best, x, reaches 0.04 of a possible 0.99, "
         "which chance could give."),
    ],
)  # fmt: skip
def test_the_advice_is_made_from_the_numbers(table: pd.DataFrame, said: str) -> None:
    assert advice(table) == said
