"""Rows decided together through the service: what a batch is, what it spares, its undo, and a desk open beside it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from influence_core import service
from influence_core.errors import BadInput
from influence_core.reviews import Reviews
from influence_core.service import Batch, SuspectFilter
from influence_core.service.opened import opened
from influence_core.workflows.suspects import suspects

ALL = SuspectFilter(limit=200)


def listed(study: str = "table") -> Any:
    held = opened(study)
    return suspects(held.study.task, held.run)


def key(number: int, row: Any, action: str = "keep", **more: Any) -> dict[str, Any]:
    """What a desk sends for one press."""
    return {"tab": "desk", "number": number, "decisions": [{"split": "train", "row": row, "action": action, **more}]}


def holds(own_studies: Path) -> dict[tuple[str, Any], tuple[str, str | None]]:
    found = Reviews(own_studies / "table").standing("train")
    return {(one.reviewer, one.decision.row): (one.decision.action, one.decision.label) for one in found}


def test_each_row_gets_its_suggestion_where_that_is_more_likely_right_than_wrong(own_studies: Path) -> None:
    found, classes = listed(), opened("table").study.header.classes
    batch = service.suspect_batch("table", ALL, "suggested")
    order = found.order()
    sure = [i for i in order if found.beliefs.chance[i] > 0.5]
    assert 0 < len(sure) < 60 and batch.rows == tuple(found.ids[sure].tolist())
    assert batch.labels == tuple(classes[found.beliefs.suggested[i]] for i in sure)
    assert batch.left == ((60 - len(sure), "no suggestion is more likely right than wrong"),)
    assert batch.wrong == pytest.approx(found.beliefs.wrong[sure].mean())
    assert not (own_studies / "table" / "reviews.sqlite").exists()  # nothing is written by looking
    done = service.decide_together("table", "ann", "t", batch)
    assert done.line.words == f"{len(sure)} rows relabelled as suggested"
    assert holds(own_studies) == {
        ("ann", row): ("relabel", label) for row, label in zip(batch.rows, batch.labels, strict=True)
    }


def test_a_filtered_list_is_written_as_one_act_with_its_evidence_and_one_undo(own_studies: Path) -> None:
    found = listed()
    filter = replace(ALL, given="ant", agree=1)
    expected = service.suspect_rows("table", filter)
    batch = service.suspect_batch("table", filter, "relabel", "bee")
    assert list(batch.rows) == expected and set(batch.labels) == {"bee"} and not batch.left
    done = service.decide_together("table", " ann ", "token", batch)
    assert (done.spared, done.line.n_rows) == (0, len(expected)) and "relabelled to “bee”" in done.line.words
    assert holds(own_studies) == {("ann", row): ("relabel", "bee") for row in expected}
    assert all(one.decision.given == "ant" for one in Reviews(own_studies / "table").standing())
    (line,) = service.decisions_log("table")
    assert line.n_rows == len(expected) and line.evidence["filter"] == {"given": "ant", "agree": 1, "limit": 200}
    assert line.evidence["screen"] == "suspects" and line.evidence["ordered_by"] == found.default
    assert service.decide_together("table", "ann", "token", batch) == done  # clicked twice
    assert service.batches("table") == (done.line,) == service.batches("table", "ann")
    cards = {row.datum.row_id: row for row in service.suspects("table", ALL).rows}  # type: ignore[union-attr]
    assert [vote.label for vote in cards[expected[0]].decided] == ["bee"]
    assert service.batches("table", "bob") == ()
    said = service.undo_batch("table", "ann", done.line.tab, done.line.number)
    assert said.startswith(f"Undone: {len(expected)} row") and holds(own_studies) == {} == dict(
        service.batches("table")
    )
    assert "not hold" in service.undo_batch("table", "ann", done.line.tab, done.line.number)


def test_rows_that_carry_the_label_are_left_out(own_studies: Path) -> None:
    listed()
    batch = service.suspect_batch("table", ALL, "relabel", "ant")
    labels = opened("table").study.task.split("train").targets.numpy()
    assert batch.left == ((int((labels == 0).sum()), "labelled ant already"),)
    assert len(batch.rows) == int((labels != 0).sum())
    ids = opened("table").study.task.ids("train")
    same = service.relabelling("table", "train", ids[:9].tolist(), "bee", {})
    assert same.rows == tuple(ids[:9][labels[:9] != 1].tolist())


def test_a_desk_open_beside_it_sees_the_rows_decided_and_neither_loses_nor_doubles_anything(own_studies: Path) -> None:
    listed()
    token = service.save_queue("table", "All", "train", service.suspect_rows("table", ALL), "a test")
    cards = service.review_batch("table", token, "ann", n=50).cards
    ids = [card.row_id for card in cards]
    service.record_acts("table", "ann", [key(1, ids[0]), key(2, ids[1], "drop")])
    service.record_acts("table", "bob", [key(1, ids[2], "unsure")])
    batch = service.suspect_batch("table", ALL, "drop")
    assert service.decided_among("table", batch) == 3
    # While the list is looked at, the desk decides one more.
    service.record_acts("table", "ann", [key(3, ids[3])])
    done = service.decide_together("table", "ann", "t", batch)
    assert done.spared == 4 and done.line.n_rows == 56
    held = holds(own_studies)
    assert len(held) == 60 and [held["ann", ids[i]][0] for i in (0, 1, 3)] == ["keep", "drop", "keep"]
    assert held["bob", ids[2]] == ("unsure", None) and ("ann", ids[2]) not in held
    # The cards that the browser holds are told.
    states = service.review_states("table", token, "ann", 0)
    assert (states.first, states.n, states.done) == (0, 100, 59) and len(states.states) == 60
    assert states.states[2].mine is None and [vote.reviewer for vote in states.states[2].decided] == ["bob"]
    assert states.states[5].row_id == ids[5] and states.states[5].mine is not None
    assert {state.position: state.row_id for state in states.states} == dict(enumerate(
        service.queue("table", token).row_ids))  # fmt: skip
    others = service.review_states("table", token, "bob", 4, 2).states
    assert [(state.mine, state.decided[0].reviewer) for state in others] == [(None, "ann")] * 2
    # A press on a card of the batch holds, and the desk's own undo brings back the batch, not what was before it.
    service.record_acts("table", "ann", [key(4, ids[5], "unsure")])
    assert holds(own_studies)["ann", ids[5]] == ("unsure", None)
    undo = {"tab": "desk", "number": 5, "kind": "undo", "of": ["desk", 4]}
    assert service.record_acts("table", "ann", [undo]).kept == (("desk", 5, (ids[5],)),)
    assert holds(own_studies)["ann", ids[5]] == ("drop", None)
    # The undo of the batch takes it back alone, though the desk decided after it.
    service.record_acts("table", "ann", [key(6, ids[6], "keep")])
    service.undo_batch("table", "ann", done.line.tab, done.line.number)
    assert {row for _, row in holds(own_studies)} == {*ids[:4], ids[6]}


def test_acts_that_name_nonsense_are_refused_alone(own_studies: Path) -> None:
    for of in (7, "desk", ["desk"], ["desk", "1"], [1, 1], ["desk", True], ["desk", 2**70], {"a": 1}):
        sent = [{"tab": "x", "number": 1, "kind": "undo", "of": of}]
        receipt = service.record_acts("table", "ann", sent)
        assert not receipt.kept and "It is about the act" in receipt.refused[0][2], of
    decides = {**key(1, opened("table").study.task.ids("train")[0].item()), "of": ["desk", 1]}
    assert "names an act" in service.record_acts("table", "ann", [decides]).refused[0][2]


def test_two_batches_at_the_same_moment_share_no_row(own_studies: Path) -> None:
    listed()
    batch, lines = service.suspect_batch("table", ALL, "keep"), []

    def decide(name: str) -> None:
        try:
            lines.append(service.decide_together("table", name, "t", batch))
        except BadInput as refused:
            lines.append(refused)

    threads = [threading.Thread(target=decide, args=(name,)) for name in ("ann", "bob", "eve")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(isinstance(line, BadInput) for line in lines) == [False, True, True]
    assert len(holds(own_studies)) == 60


@pytest.mark.parametrize(("action", "label", "words"), [
    ("explode", "", "no action"), ("relabel", "dog", "no class"), ("relabel", "", "no class"),
])  # fmt: skip
def test_what_cannot_be_done_is_refused(own_studies: Path, action: str, label: str, words: str) -> None:
    with pytest.raises(BadInput, match="not been looked for"):
        service.suspect_batch("table", ALL, "drop")
    listed()
    with pytest.raises(BadInput, match=words):
        service.suspect_batch("table", ALL, action, label)


def test_locked_unknown_and_no_rows_are_refused(own_studies: Path) -> None:
    locked = opened("table").study.task.ids("locked")[0].item()
    for batch, words in (
        (Batch("locked", "drop", (locked,)), "Locked rows are not cleaned"),
        (Batch("train", "drop", ("no such",)), "Unknown row id"),
        (Batch("train", "drop", ()), "cannot be decided together"),
    ):
        with pytest.raises(BadInput, match=words):
            service.decide_together("table", "ann", "t", batch)
    with pytest.raises(BadInput, match="Locked rows"):
        service.relabelling("table", "locked", [locked], "ant", {})
    assert holds(own_studies) == {}


def test_a_regression_has_no_suggestions(more_studies: Path) -> None:
    name = next(f.name for f in sorted(more_studies.iterdir())
                if (f / "study.toml").exists() and opened(f.name).study.header.task == "regression")  # fmt: skip
    listed(name)
    with pytest.raises(BadInput, match="Nothing is suggested for numbers"):
        service.suspect_batch(name, ALL, "suggested")
    batch = service.suspect_batch(name, ALL, "keep")
    assert batch.wrong is None and len(batch.rows) == opened(name).study.n_rows("train")
    assert np.isin(opened(name).study.task.ids("train"), batch.rows).all()
