"""``python -m influence_core check``: rows by rank or by id, the price before, and errors in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from influence_core import Measurement, Study, attribute

Call = Callable[..., str]


@pytest.fixture
def study(own_studies: Path) -> Study:
    return Study(own_studies / "table")


def test_the_rows_on_screen_are_dropped_and_the_result_is_json(run: Call, study: Study) -> None:
    row = study.task.ids("test").tolist()[0]
    words = ("check", study.path, "--method", "grad_cos", "--test", row, "--k", 4, "--seeds", 2, "--draws", 1)
    assert run(*words, "--drop", "opponents", "--preview").startswith("5 models to train, about ")
    found = json.loads(run(*words, "--drop", "opponents", "--format", "json"))
    ranked = attribute(study, "grad_cos", row, measurement=Measurement("loss", "predicted")).opponents(4).ids[0]
    assert found["changed"] == ranked and found["side"] == "opponents" and found["low"] <= found["change"]
    assert found["change"] == pytest.approx(
        sum(b - a for a, b in zip(found["actual"]["before"], found["actual"]["after"], strict=True)) / 2
    )
    said = run(*words, "--drop", "opponents")
    assert said.startswith(found["headline"]) and "Foreseen by Gradient cosine: " in said
    assert len(list(study.path.glob("checks/*/*.json"))) == 1


def test_named_rows_get_a_label_each_or_one_for_all(run: Call, study: Study) -> None:
    ids, row = study.task.ids("train").tolist()[:2], study.task.ids("test").tolist()[0]
    words = ("check", study.path, "--method", "grad_cos", "--test", row, "--flip", "rows", "--row", ids[0], "--row",
             ids[1], "--seeds", 1, "--draws", 0, "--format", "json")  # fmt: skip
    each = json.loads(run(*words, "--to", "bee", "--to", "cat"))
    given = dict(zip(study.column("train", "id").tolist(), study.column("train", "label").tolist(), strict=True))
    expected = [(i, new) for i, new in zip(ids, ("bee", "cat"), strict=True) if given[i] != new]
    assert list(zip(each["changed"], each["labels"], strict=True)) == expected
    assert each["low"] is None  # one pair has no interval, and JSON has no NaN
    assert set(json.loads(run(*words, "--to", "ant"))["labels"]) == {"ant"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "0 of --drop, --flip and --downweight are given"),
        (("--drop", "proponents", "--flip", "rows"), "2 of --drop"),
        (("--drop", "friends"), "'friends' was given. Use proponents, opponents or rows"),
        (("--drop", "rows"), "Name 1 to 1000 training rows"),
        (("--drop", "rows", "--row", "12"), "12"),
        (("--flip", "proponents"), "Give one label for each row"),
        (("--downweight", "proponents", "--weight", "2"), "The weight is 2.0"),
        (("--drop", "proponents", "--target", "emu"), "'emu' is no class"),
    ],
)
def test_mistakes_are_told_in_one_line(run: Call, study: Study, words: tuple[str, ...], said: str) -> None:
    row = study.task.ids("test").tolist()[0]
    error = run("check", study.path, "--method", "grad_cos", "--test", row, *words, code=2)
    assert said in error and error.startswith("error: ") and len(error.splitlines()) == 1
    assert not (study.path / "checks").exists()
