"""Columns that give the label away are named, and good features of ordinary data are not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from influence_core.readers import found_leaks, guessed_roles, import_table, leak_notes, open_source
from influence_core.readers.leaks import binned, powers
from influence_core.run import Run

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside this checkout")


def leaking(file: Path, label: str | None = None) -> dict[str, str]:
    with open_source(file) as source:
        return {leak.column: leak.why for leak in found_leaks(source, guessed_roles(source, label))}


def written(tmp_path: Path, columns: Mapping[str, Any]) -> Path:
    pd.DataFrame(columns).to_csv(tmp_path / "a.csv", index=False)
    return tmp_path / "a.csv"


def noisy(n: int = 600) -> tuple[np.random.Generator, np.ndarray, dict[str, Any]]:
    random = np.random.default_rng(3)
    y = random.integers(0, 2, n)
    return random, y, {f"x{k}": y * 0.6 + random.normal(size=n) for k in range(4)}


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "iris", "digits", "diabetes"])
def test_ordinary_data_raise_no_alarm(tmp_path: Path, name: str) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    assert leaking(written(tmp_path, frame), "target") == {}


@shared
def test_texts_raise_no_alarm() -> None:
    assert leaking(SHARED / "sms-spam.csv") == {}


@shared
def test_what_was_recorded_after_the_outcome_of_compas_is_named() -> None:
    found = leaking(SHARED / "compas-scores-two-years.csv")
    assert {"is_recid", "r_offense_date", "r_charge_degree", "r_jail_in", "vr_offense_date", "is_violent_recid"} <= set(
        found
    )
    assert not {
        "age",
        "race",
        "sex",
        "priors_count",
        "decile_score",
        "score_text",
        "v_decile_score",
        "c_jail_in",
    } & set(found)
    assert "97%" in found["is_recid"] and "where it has a value" in found["vr_offense_date"]


@pytest.mark.parametrize("kind", ["copy", "words", "nearly", "missing", "rare flag"])
def test_planted_leaks_are_found_and_only_they(tmp_path: Path, kind: str) -> None:
    random, y, columns = noisy()
    planted = {
        "copy": y * 10.0, "words": np.where(y > 0, "paid", "not paid"), "nearly": y + 0.02 * random.normal(size=len(y)),
        "missing": np.where(y > 0, random.normal(size=len(y)), np.nan),
        "rare flag": (y > 0) & (random.random(len(y)) < 0.3),
    }  # fmt: skip
    assert set(leaking(written(tmp_path, {**columns, "late": planted[kind], "target": y}))) == {"late"}


def test_a_number_that_follows_the_label_is_found_even_where_it_bends(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    y = random.normal(size=800)
    columns = {"a": y + 2 * random.normal(size=800), "b": random.normal(size=800), "late": np.exp(3 * y)}
    found = leaking(written(tmp_path, {**columns, "target": y}))
    assert set(found) == {"late"} and "explains" in found["late"]


def test_missing_by_chance_and_strong_features_are_no_leaks(tmp_path: Path) -> None:
    random, y, columns = noisy()
    columns["holes"] = np.where(random.random(len(y)) < 0.5, random.normal(size=len(y)), np.nan)
    columns["strong"] = y + 0.5 * random.normal(size=len(y))
    assert leaking(written(tmp_path, {**columns, "target": y})) == {}


def test_power_is_measured_on_rows_that_were_not_used() -> None:
    random = np.random.default_rng(1)
    table = pa.table({"code": [f"c{k}" for k in range(400)], "y": random.integers(0, 2, 400)})
    found = powers({"code": binned(table)["code"]}, table["y"], "classification")
    assert found["code"].alone == 0.0  # a different word in every row tells nothing of others


def test_a_large_sample_is_quick() -> None:
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {f"n{k}": random.normal(size=20_000) for k in range(30)}
    columns |= {f"w{k}": random.integers(0, 300, 20_000).astype(str) for k in range(20)}
    table, label = pa.table(columns), pa.chunked_array([pa.array(random.integers(0, 3, 20_000))])
    start = time.process_time()
    assert len(powers(binned(table), label, "classification")) == 50
    assert time.process_time() - start < 5  # far above what it takes; a pass per pair of columns would take minutes


def test_the_study_says_which_columns_may_give_the_label_away(tmp_path: Path) -> None:
    _, y, columns = noisy(200)
    file = written(tmp_path, {**columns, "late": y, "target": y})
    with open_source(file) as source:
        roles = guessed_roles(source)
        notes = leak_notes(found_leaks(source, roles))
        study = import_table(source, roles, tmp_path / "study", Run(device="cpu"))
    assert notes and "'late'" in notes[0] and notes[0] in study.header.notes
    assert "late" in study.header.feature_names[-1]  # named, not dropped
