"""A table row under review beside its nearest rows: what differs, against the files, by hand."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from influence_core import Study, service
from influence_core.service.review_views import ReviewCard

READ = ("age", "city", "member", "income", "since")


@pytest.fixture
def people(more_studies: Path) -> pd.DataFrame:
    return pd.read_parquet(more_studies / "people" / "train.parquet").set_index("id")


def cards(study: str) -> tuple[ReviewCard, ...]:
    return service.review_batch(study, "loss", "ann", after=0, n=30).cards


def outside(value: Any, others: pd.Series) -> bool:
    """Tell whether no other has a value, a missing one included, or one as far out: for categories and whole dates."""
    if isinstance(value, datetime.date):
        return value < others.min() or value > others.max()
    return ("–" if pd.isna(value) else value) not in set(others.fillna("–"))


def test_a_value_that_no_near_row_has_is_marked(people: pd.DataFrame) -> None:
    marked = 0
    for card in cards("people"):
        near = people.loc[[row.row_id for row in card.beside[0].rows]]
        assert len(near) == 6
        for cell in card.cells:
            if cell.name in ("city", "member", "since"):  # a missing number is read as the median too
                assert cell.differs == outside(people.loc[card.row_id, cell.name], near[cell.name]), cell
            marked += cell.differs
        names = [cell.name for cell in card.cells]
        assert sorted(names) == sorted([*READ, "name"]) and names[-1] == "name"
        assert [cell.read for cell in card.cells] == [True] * 5 + [False]
        assert not card.cells[-1].differs and card.cells[-1].near == ""
        differ = [cell.differs for cell in card.cells[:-1]]
        assert differ == sorted(differ, reverse=True), "what differs stands first"
    assert marked > 5


def test_near_rows_are_told_by_their_range_or_most_frequent_value(people: pd.DataFrame) -> None:
    said = set()
    for card in cards("people"):
        near = people.loc[[row.row_id for row in card.beside[0].rows]]
        around = {cell.name: cell.near for cell in card.cells}
        income = near["income"]
        low, high = around["income"].split(" to ")
        assert float(low) == pytest.approx(income.min(), rel=1e-3) and float(high) == pytest.approx(
            income.max(), rel=1e-3
        )
        age, gone = near["age"].dropna(), int(near["age"].isna().sum())
        if len(age) and age.min() != age.max():
            ending = f", {gone} missing" if gone else ""
            assert around["age"] == f"{age.min():.4g} to {age.max():.4g}{ending}"
            said.add(bool(gone))
        count = near["city"].fillna("–").value_counts()
        shown, _, of = around["city"].partition(" (")
        if near["city"].notna().any():
            assert count[shown] == count.max() and of in ("", f"{count.max()} of 6)")
        assert around["since"] == f"{near['since'].min()} to {near['since'].max()}"
    assert said == {True, False}


def test_beside_a_row_stand_the_columns_furthest_from_it(more_studies: Path, people: pd.DataFrame) -> None:
    study = Study(more_studies / "people")
    ((_, batch),) = study.task.split("train").batches(100, "cpu", torch.float64)
    inputs, ids = batch.inputs.numpy(), study.task.ids("train").tolist()
    place = dict(study.encoder.parts)  # type: ignore[union-attr]
    looked = 0
    for card in cards("people"):
        for row in (row for side in card.beside if side.kind in ("near", "pro", "opp") for row in side.rows):
            apart = np.abs(inputs[ids.index(card.row_id)] - inputs[ids.index(row.row_id)])
            far = {name: float(apart[where].max()) for name, where in place.items()}
            named = [name for name, _, _ in row.differs]
            assert row.columns == 5 and row.alike == sum(value <= 1e-6 for value in far.values())
            assert len(named) == min(4, 5 - row.alike)
            expected = sorted(far.values(), reverse=True)[: len(named)]
            np.testing.assert_allclose([far[name] for name in named], expected, rtol=1e-5)
            for name, there, here in row.differs:
                for shown, row_id in ((there, row.row_id), (here, card.row_id)):
                    value = people.loc[row_id, name]
                    assert (shown == "–") == bool(pd.isna(value))
                    if name == "city" and shown != "–":
                        assert shown == value
            looked += 1
    assert looked >= 180


def test_a_regression_row_says_its_error_and_what_its_neighbours_carry(more_studies: Path) -> None:
    table = pd.read_parquet(more_studies / "diabetes" / "train.parquet")
    label = Study(more_studies / "diabetes").header.label
    given = table.set_index("id")[label]
    batch = cards("diabetes")
    for place, card in enumerate(batch):
        assert card.error is not None and card.chance is None and card.classes == ()
        off = float(card.error.replace("−", "-").replace(",", ""))
        assert off == pytest.approx(float(card.predicted) - float(card.given), abs=0.2)
        assert any(
            f"number {place + 1} of {len(table):,} rows by the size of the error" in said for said in card.reasons
        )
        near = given.loc[[row.row_id for row in card.beside[0].rows]]
        assert card.beside[0].note.startswith(f"given {near.min():.4g} to {near.max():.4g};")
        assert all(cell.near for cell in card.cells)


def test_texts_and_pictures_have_no_columns(more_studies: Path) -> None:
    for card in cards("messages")[:5]:
        assert card.cells == () and card.text and card.error is None
        assert all(row.differs == () and row.columns == 0 for side in card.beside for row in side.rows)
