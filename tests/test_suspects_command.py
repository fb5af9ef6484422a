"""``suspects`` on the command line: ids, columns, options, one line per mistake."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from influence_core.__main__ import main
from influence_core.run import Run
from influence_core.study import Study
from influence_core.workflows.suspects import suspects

Call = Callable[..., str]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Call:
    def call(*argv: object, code: int = 0) -> str:
        ended = main([str(word) for word in argv])
        out, err = capfd.readouterr()
        assert ended == code, err
        if code:
            assert out == "" and err.count("\n") == 1, err
        return err if code else out

    return call


def table(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text))


def test_the_list_is_that_of_the_workflow(run: Call, studies: Path) -> None:
    study = Study(studies / "table")
    listed = suspects(study.task, Run(store=study.store))
    found = table(run("suspects", studies / "table"))
    assert found["train_id"].tolist() == listed.ids[listed.order()].tolist()
    assert np.allclose(found["combined"], listed.columns["combined"][listed.order()])
    assert set(found["suggested"]) <= set(study.header.classes) and (found["suggested"] != found["label"]).all()


def test_detectors_order_and_length_can_be_chosen(run: Call, studies: Path) -> None:
    found = table(run("suspects", studies / "table", "--detectors", "loss", "margin", "--column", "margin", "--top", 7))
    assert len(found) == 7 and found["margin"].is_monotonic_decreasing and "combined" not in found
    trained = table(run("suspects", studies / "table", "--retrain", "--top", 3))
    assert {"out_of_fold", "confident_learning"} <= set(trained)


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_probabilities_of_ones_own(run: Call, studies: Path, tmp_path: Path, kind: str) -> None:
    file, shares = tmp_path / f"shares.{kind}", np.full((60, 3), 1 / 3)
    shares[4] = [0.0, 0.5, 0.5]
    if kind == "npy":
        np.save(file, shares)
    else:
        frame = pd.DataFrame(shares, columns=["ant", "bee", "cat"])
        frame["id"] = Study(studies / "table").task.ids("train")
        frame = frame[::-1][["id", "cat", "ant", "bee"]]  # by name, not by place
        frame.to_csv(file, index=False) if kind == "csv" else frame.to_parquet(file)
    found = table(run("suspects", studies / "table", "--detectors", "out_of_fold", "--pred-probs", file))
    study = Study(studies / "table")
    given = int(study.task.split("train").targets[4])
    margins = found.set_index("train_id")["out_of_fold"]
    assert margins[study.task.ids("train")[4]] == pytest.approx(0.5 if given == 0 else 0.0)
    assert margins.drop(study.task.ids("train")[4]).abs().max() == pytest.approx(0)


def test_probabilities_by_place_without_names_are_refused(run: Call, studies: Path, tmp_path: Path) -> None:
    file = tmp_path / "shares.csv"
    pd.DataFrame(np.full((60, 3), 1 / 3), columns=["a", "b", "c"]).to_csv(file, index=False)
    assert "No column names the rows" in run("suspects", studies / "table", "--pred-probs", file, code=2)


@pytest.mark.parametrize(("options", "words"), [
    (("--detectors", "nonsense"), "Unknown detector"),
    (("--column", "nonsense"), "did not run"),
    (("--pred-probs", "missing.csv"), "missing.csv does not exist"),
    (("--pred-probs", "missing.npy"), "cannot be read"),
    (("--format", "xml"), "xml"),
])  # fmt: skip
def test_mistakes_are_one_line(run: Call, studies: Path, options: tuple[str, ...], words: str) -> None:
    assert words in run("suspects", studies / "table", *options, code=2)


def test_pickled_probabilities_are_never_loaded(run: Call, studies: Path, tmp_path: Path) -> None:
    file = tmp_path / "evil.npy"
    np.save(file, np.array([object()]), allow_pickle=True)
    assert "cannot be read" in run("suspects", studies / "table", "--pred-probs", file, code=2)
