"""Cards and input attribution of texts and of mixed tables, against the files and by hand."""

from __future__ import annotations

import datetime
import re
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from influence_core import Measurement, Rows, Study, service
from influence_core.encoder import ColumnsEncoder, TextEncoder
from influence_core.service import PredictionFilter
from influence_core.service.cells import cut, in_words, word_contributions
from influence_core.workflows.input_attribution import integrated_gradients

COLUMNS = ("age", "city", "member", "income", "since")


@pytest.fixture
def texts(more_studies: Path) -> Path:
    return more_studies / "messages"


@pytest.fixture
def people(more_studies: Path) -> Path:
    return more_studies / "people"


def owners(path: Path) -> list[str]:
    """The column of every encoded number, by how its name begins."""
    encoder = Study(path).encoder
    assert isinstance(encoder, ColumnsEncoder)
    found = [next(column for column in COLUMNS if name.startswith(column)) for name in encoder.feature_names]
    assert set(found) == set(COLUMNS) and found.count("city") >= 4 and found.count("age") == 2
    return found


def place(term: str) -> int:
    return zlib.crc32(term.encode()) % 512


def contributions(path: Path, position: int) -> np.ndarray:
    """The contribution of every encoded number to the predicted class."""
    task = Study(path).task
    query = task.query(Rows("test", (task.ids("test")[position],)), Measurement("logit", "predicted"))
    return integrated_gradients(task, query.inputs, int(query.targets[0]), 0.0).values.numpy()


# -- texts ------------------------------------------------------------------------------------------------------------


def test_texts_are_short_on_small_cards_and_whole_on_the_big_one(texts: Path) -> None:
    rows = pd.read_parquet(texts / "test.parquet")
    listed = {datum.row_id: datum for datum in service.predictions("messages", PredictionFilter()).rows}
    for row_id, text in zip(rows["id"], rows["message"], strict=True):
        shown = listed[row_id].text
        assert shown is not None
        if len(text) <= 300:
            assert shown == text
        else:
            assert shown.endswith("…") and len(shown) <= 301 and text.startswith(shown[:-1] + " ")
        assert service.row_card("messages", "test", row_id, "gas").datum.text == text
        query = service.query("messages", service.ExplainRequest((row_id,), "grad_cos"))
        assert query.data[0].text == text and query.data[0].cells == () and query.data[0].image is None
    assert any(len(text) > 300 for text in rows["message"])
    assert "test text m60, labelled" in listed["m60"].alt


def test_whole_texts_are_searched(texts: Path) -> None:
    rows = pd.read_parquet(texts / "test.parquet")
    for text in ("NO65", "<b>", "lunch", rows["message"][0][-60:]):
        expected = {
            i for i, message in zip(rows["id"], rows["message"], strict=True) if text.lower() in message.lower()
        }
        found = service.predictions("messages", PredictionFilter(text=text)).rows
        assert {datum.row_id for datum in found} == expected and expected


@pytest.mark.parametrize("position", [0, 3, 11])
def test_words_of_the_row_carry_its_contributions(position: int, texts: Path) -> None:
    rows = pd.read_parquet(texts / "test.parquet")
    values = contributions(texts, position)
    words = re.findall(r"\w+", rows["message"][position].lower())
    terms = set(words) | {f"{a} {b}" for a, b in zip(words, words[1:], strict=False)}
    places = [place(term) for term in terms]  # those that meet share equally
    expected = {term: values[place(term)] / places.count(place(term)) for term in terms}
    shown = service.input_attribution("messages", "test", rows["id"][position])
    assert sum(expected.values()) == pytest.approx(values.sum(), rel=1e-4, abs=1e-6)
    strongest = sorted((abs(value) for value in expected.values()), reverse=True)[:8]
    assert [abs(value) for _, value in shown.parts] == pytest.approx(strongest, rel=1e-4, abs=1e-7)
    for word, value in shown.parts:
        assert value == pytest.approx(expected[word.lower()], rel=1e-4, abs=1e-7)
    assert (
        "How far each word or pair of words moves the logit of" in shown.note and "against an empty text" in shown.note
    )
    assert shown.alt.startswith("The words that matter most for ") and shown.image is None


def test_contributions_of_words_add_up_where_they_share_a_place() -> None:
    encoder = TextEncoder("text", 3, (1.0,) * 3)
    values = np.array([3.0, -2.0, 0.5])
    found = word_contributions(encoder, pa.table({"text": ["one two two three four five six seven"]}), values)
    assert len({name for name, _ in found}) == len(found) == 7 + 7  # the words and their pairs
    assert sum(value for _, value in found) == pytest.approx(1.5)
    assert word_contributions(encoder, pa.table({"text": [""]}), np.zeros(3)) == []
    one = dict(word_contributions(TextEncoder("text", 1, (1.0,)), pa.table({"text": ["a b"]}), np.array([6.0])))
    assert one == pytest.approx({"a": 2.0, "b": 2.0, "a b": 2.0})


def test_a_cut_ends_at_a_word() -> None:
    assert cut("one two three", 9) == "one two…"
    assert cut("short", 300) == "short" and cut("x" * 400, 300) == "x" * 300 + "…"


# -- mixed tables -----------------------------------------------------------------------------------------------------


def test_cells_stand_as_in_the_table(people: Path) -> None:
    rows = pd.read_parquet(people / "test.parquet")
    assert rows["age"].isna().any() and rows["city"].isna().any()
    for _, row in rows.iterrows():
        shown = service.row_card("people", "test", row["id"], "gas").datum.cells
        found = dict(shown)
        assert [name for name, _ in shown][-1] == "name" and len(found) == 6  # the model does not see it: last
        assert found["city"] == ("–" if pd.isna(row["city"]) else row["city"])
        assert found["age"] == ("–" if np.isnan(row["age"]) else f"{row['age']:.0f}")
        assert found["since"] == row["since"].isoformat() and found["member"] == str(row["member"]).lower()
        assert found["income"] == (f"{row['income']:.0f}" if row["income"] >= 1e4 else f"{row['income']:.4g}")


def test_the_most_telling_column_comes_first(people: Path) -> None:
    train, test = (Study(people).task.split(split).batch(slice(None)).inputs.numpy() for split in ("train", "test"))
    rows = pd.read_parquet(people / "test.parquet")
    spread = train.std(0)
    distance = np.abs(test - train.mean(0)) / np.where(spread > 0, spread, 1.0)
    assert distance.shape[1] == len(owners(people))
    for position, row_id in enumerate(rows["id"]):
        by_column = pd.Series(distance[position]).groupby(owners(people)).max()
        shown = service.row_card("people", "test", row_id, "gas").datum.cells[:-1]
        ranked = [by_column[name] for name, _ in shown]
        assert ranked == sorted(ranked, reverse=True) and set(by_column.index) == {name for name, _ in shown}
    small = service.predictions("people", PredictionFilter(limit=1)).rows[0]
    assert small.cells == service.row_card("people", "test", small.row_id, "gas").datum.cells[:6]


@pytest.mark.parametrize("position", [0, 4, 9])
def test_parts_of_a_column_are_summed(position: int, people: Path) -> None:
    values = contributions(people, position)
    shown = service.input_attribution("people", "test", int(pd.read_parquet(people / "test.parquet")["id"][position]))
    expected = pd.Series(values).groupby(owners(people)).sum()
    assert set(dict(shown.parts)) == set(expected.index)
    for name, value in shown.parts:
        assert value == pytest.approx(expected[name], rel=1e-5, abs=1e-7)
    sizes = [abs(value) for _, value in shown.parts]
    assert sizes == sorted(sizes, reverse=True) and "average numbers and no categories" in shown.note


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"), (float("nan"), "–"), (True, "true"), (7, "7"), (1234567, "1234567"), (0.123456, "0.1235"),
        (208512.4, "208512"), (1e15, "1e+15"), ("a" * 90, "a" * 80 + "…"), (datetime.date(2024, 2, 3), "2024-02-03"),
        (datetime.datetime(2024, 2, 3), "2024-02-03"), (datetime.datetime(2024, 2, 3, 4, 5), "2024-02-03 04:05:00"),
    ],
)  # fmt: skip
def test_values_as_cards_show_them(value: object, shown: str) -> None:
    assert in_words(value) == shown
