"""Suspects through the service: the list with its filters, the job, evidence, files; further lists."""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from influence_core import service
from influence_core.commands.work import execute
from influence_core.errors import BadInput
from influence_core.service import SuspectFilter, SuspectPage
from influence_core.service.opened import opened
from influence_core.service.slices import _parts, slice_columns
from influence_core.service.views import FitNeeded
from influence_core.workflows.suspects import suspects

ALL = SuspectFilter(limit=200)


def computed(study: str, retrain: bool = False) -> None:
    held = opened(study)
    suspects(held.study.task, held.run, retrain=retrain)


def page(study: str, filter: SuspectFilter = ALL) -> SuspectPage:
    found = service.suspects(study, filter)
    assert isinstance(found, SuspectPage)
    return found


def test_the_job_that_a_study_needs_is_priced_started_and_makes_the_list(
    own_studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("influence_core.service.tasks.ensure_worker", lambda studies: False)
    needed = service.suspects("table", ALL)
    assert isinstance(needed, FitNeeded) and needed.seconds > 0 and needed.job is None
    assert service.suspect_rows("table", ALL) == []
    with pytest.raises(BadInput, match="nothing to export"):
        service.export_suspects("table", ALL, "csv")
    job = service.start_suspects("table", False, "ann")
    assert service.start_suspects("table", False, "bob").id == job.id and job.key == needed.key
    waiting = service.suspects("table", ALL)
    assert isinstance(waiting, FitNeeded) and waiting.job is not None and waiting.job.is_active
    execute(own_studies / "table", ["find-suspects"], lambda *_: None, lambda: False)
    found = page("table")
    assert found.held_out == "" and found.more is not None and found.total == 60
    execute(own_studies / "table", ["find-suspects", "--retrain"], lambda *_: None, lambda: False)
    richer = page("table")
    assert richer.more is None and "retrainings" in richer.held_out
    assert {"out_of_fold", "confident_learning"} <= {column.name for column in richer.columns}


def test_rows_carry_their_suggestion_reasons_and_the_mistakes_they_feed(studies: Path) -> None:
    computed("table")
    found, held = page("table"), opened("table")
    listed = suspects(held.study.task, held.run)
    assert [row.datum.row_id for row in found.rows] == listed.ids[listed.order()].tolist()
    assert found.likely == listed.estimated and found.planted == 6 and found.column.name == found.columns[0].name
    assert [row.rank for row in found.rows] == list(range(1, 61))
    labels = held.study.task.split("train").targets.numpy()
    for row in found.rows[:10]:
        position = listed.ids.tolist().index(row.datum.row_id)
        assert row.suggested != row.datum.given and 0 < row.chance <= row.wrong + 1e-6
        around = labels[listed.neighbours[position]] if listed.neighbours is not None else labels[:0]
        votes = int((around == held.study.header.classes.index(row.suggested)).sum())
        assert (f"{votes} of 10 neighbours say {row.suggested}" in row.reasons) == (votes > 0)
        assert f"in {row.flagged} of {found.n_flagging} detectors" in row.reasons
        for test in row.feeds:
            assert test.split == "test" and test.given != test.predicted
    budget = found.budgets[1]
    planted = held.study.planted
    assert planted is not None and budget.budget == 6 and budget.known
    assert budget.share == pytest.approx(planted[listed.order()[:6]].mean())


def test_filters_leave_what_they_say(studies: Path) -> None:
    computed("table")
    everything = page("table")
    first = everything.rows[0]
    for filter, keeps in {
        replace(ALL, given="ant"): lambda row: row.datum.given == "ant",
        replace(ALL, given=first.datum.given, suggested=first.suggested):
            lambda row: (row.datum.given, row.suggested) == (first.datum.given, first.suggested),
        replace(ALL, agree=2): lambda row: row.flagged >= 2,
        replace(ALL, likely=True): lambda row: row.wrong > 0.5,
        replace(ALL, likely=True, given="ant", agree=1): lambda row:
            row.wrong > 0.5 and row.datum.given == "ant" and row.flagged >= 1,
        replace(ALL, planted="yes"): lambda row: row.datum.planted,
        replace(ALL, planted="no"): lambda row: not row.datum.planted,
        replace(ALL, text=str(first.datum.row_id)): lambda row: str(first.datum.row_id) in
            f"{row.datum.row_id} {row.datum.cells}",
    }.items():  # fmt: skip
        found = page("table", filter)
        expected = [row.datum.row_id for row in everything.rows if keeps(row)]
        assert 0 < found.total < 60 and [row.datum.row_id for row in found.rows] == expected, filter
        assert service.suspect_rows("table", filter) == expected
    assert page("table", replace(ALL, text="no such words")).total == 0
    flagged = page("table", replace(ALL, flagged="margin", column="margin"))
    assert flagged.total and all(row.score > 0 for row in flagged.rows)
    scores = [row.score for row in page("table", replace(ALL, column="loss")).rows]
    assert scores == sorted(scores, reverse=True)
    second = page("table", SuspectFilter(page=1, limit=7))
    assert [row.rank for row in second.rows] == list(range(8, 15)) and second.total == 60
    assert [row.datum for row in second.rows] == [row.datum for row in everything.rows[7:14]]


def test_a_slice_is_the_rows_with_a_value_or_in_a_range_of_a_column(own_studies: Path) -> None:
    computed("table")
    found = page("table", replace(ALL, sliced="height"))
    assert found.slice_columns == ("height", "width", "depth", "weight") and found.total == 60
    assert len(found.groups) == 4 and sum(count for _, count in found.groups) == 60
    values = dict(
        zip(*(opened("table").study.column("train", name).tolist() for name in ("id", "height")), strict=True)
    )
    seen: set[object] = set()
    edges = np.quantile(list(values.values()), [0, 0.25, 0.5, 0.75, 1])
    for name, count in found.groups:
        part = page("table", replace(ALL, sliced="height", group=name))
        inside = sorted(values[row.datum.row_id] for row in part.rows)
        quarter = next(i for i in range(4) if edges[i] <= inside[-1] <= edges[i + 1])
        assert part.total == count == 15 and (inside[0] > edges[quarter] or quarter == 0)
        seen |= {row.datum.row_id for row in part.rows}
    assert len(seen) == 60


def test_pictures_have_no_slices(studies: Path) -> None:
    assert slice_columns(opened("image")) == ()


def test_texts_of_their_own_are_no_slices_and_few_words_are() -> None:
    few = pa.chunked_array([["a", "b", None, "a", "b", "a"]])
    own = pa.chunked_array([[f"text {i}" for i in range(6)]])
    assert _parts(few) and not _parts(own) and not _parts(pa.chunked_array([["a", "a"]]))
    assert _parts(pa.chunked_array([[1, 2, 3]])) and _parts(pa.chunked_array([[True, False]]))
    assert not _parts(pa.chunked_array([[b"x", b"y", b"x"]])) and not _parts(pa.chunked_array([[[1], [2]]]))


@pytest.mark.parametrize("wrong", [
    {"sliced": "nonsense"}, {"sliced": "id"}, {"sliced": "height", "group": "tall"}, {"group": "tall"},
    {"sliced": "label", "group": "ant"},
    {"column": "nonsense"}, {"given": "dog"}, {"suggested": "dog"}, {"flagged": "loss"}, {"planted": "maybe"},
    {"page": -1}, {"limit": 0}, {"limit": 100_000}, {"agree": -1},
])  # fmt: skip
def test_what_no_filter_can_be_is_refused(studies: Path, wrong: dict[str, object]) -> None:
    computed("table")
    with pytest.raises(BadInput):
        service.suspects("table", replace(ALL, **wrong))


def test_evidence_is_complete_before_and_after_the_search(own_studies: Path) -> None:
    held = opened("table")
    some = held.study.task.ids("train")[1].item()
    early = service.suspect_evidence("table", "train", some)
    assert not early.ready and early.suggested != early.given and len(early.classes) == 3
    computed("table")
    found = service.suspect_evidence("table", "train", some)
    row = next(row for row in page("table").rows if row.datum.row_id == some)
    assert (found.suggested, found.chance, found.reasons, found.feeds) == (
        row.suggested, row.chance, row.reasons, row.feeds)  # fmt: skip
    assert found.ready and found.rank == row.rank and found.n_train == 60
    assert [chance for _, chance in found.classes] == sorted((c for _, c in found.classes), reverse=True)
    assert len(found.flagged_by) == row.flagged and len(found.neighbours) == 10
    assert found.disagreeing == sum(near.datum.given != found.given for near in found.neighbours)
    assert all(near.datum.row_id != some for near in found.neighbours)
    distances = [near.score for near in found.neighbours]
    assert distances == sorted(distances)
    test = service.suspect_evidence("table", "test", held.study.task.ids("test")[0].item())
    assert not test.ready and test.classes
    with pytest.raises(BadInput, match="not cleaned"):
        service.suspect_evidence("table", "locked", held.study.task.ids("locked")[0].item())


def test_the_file_has_the_rows_of_the_list(studies: Path) -> None:
    computed("table")
    filter = replace(ALL, agree=1)
    table = pd.read_csv(io.BytesIO(service.export_suspects("table", filter, "csv")))
    assert table["train_id"].tolist() == service.suspect_rows("table", filter)
    assert {"label", "suggested", "chance", "wrong", "combined", "loss"} <= set(table)


def test_further_lists(own_studies: Path) -> None:
    assert "Look for label errors first" in service.oddities("table", "outliers").reason
    computed("table")
    far = service.oddities("table", "outliers", limit=5)
    assert not far.reason and len(far.rows) <= 5 and all(row.other is None for row in far.rows)
    measures = [row.measure for row in far.rows]
    assert measures == sorted(measures, reverse=True)
    for kind in ("duplicates", "leakage"):
        assert all(row.other is not None for row in service.oddities("table", kind).rows)
    with pytest.raises(BadInput):
        service.oddities("table", "nonsense")


def test_a_regression_is_ordered_by_error(more_studies: Path) -> None:
    studies = [folder.name for folder in sorted(more_studies.iterdir()) if (folder / "study.toml").exists()]
    name = next(name for name in studies if opened(name).study.header.task == "regression")
    computed(name)
    found = page(name)
    assert found.likely is None and found.rows[0].suggested == "" and "off by" in found.rows[0].reasons[0]
    assert found.rows[0].score == max(row.score for row in found.rows)


def test_evidence_is_instant_once_it_was_drawn(studies: Path) -> None:
    computed("table")
    some = opened("table").study.task.ids("train")[3].item()
    service.suspect_evidence("table", "train", some)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        again = service.suspect_evidence("table", "train", some)
        times.append(time.perf_counter() - started)
    assert again.ready and np.median(times) < 0.1  # a hundred times less is measured; this is that nothing is computed
