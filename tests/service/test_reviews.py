"""Reviewing through the service: batches, acts from a browser, queues, decisions, downloads."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from influence_core import service
from influence_core.changes import RESOLVES
from influence_core.errors import BadInput
from influence_core.service.decisions import undo_last
from influence_core.service.review_views import NextSteps
from influence_core.service.review_words import ago
from influence_core.service.reviews import is_resolution


def act(number: int, row: Any, action: str = "keep", tab: str = "t", **more: Any) -> dict[str, Any]:
    return {"tab": tab, "number": number, "decisions": [{"split": "train", "row": row, "action": action, **more}]}


@pytest.mark.parametrize("name", ["table", "linear", "image"])
def test_a_batch_has_what_a_decision_needs(own_studies: Path, name: str) -> None:
    batch = service.review_batch(name, "loss", "ann", n=5)
    assert (batch.start, batch.done, len(batch.cards)) == (0, 0, 5)
    ids = service.queue(name, "loss").row_ids
    assert [card.row_id for card in batch.cards] == list(ids[:5])
    for card in batch.cards:
        assert card.suggested not in (None, card.given)
        assert [p for _, p in card.classes] == sorted((p for _, p in card.classes), reverse=True)
        assert card.row_id not in [row.row_id for row in card.beside[0].rows] and len(card.beside[0].rows) == 6
        assert bool(card.image) == (name == "image") and bool(card.cells) == (name != "image")
    assert [c.position for c in service.review_batch(name, "loss", "ann", after=3, n=2).cards] == [3, 4]


def test_an_act_sent_again_changes_nothing_and_a_bad_one_holds_nothing_up(own_studies: Path) -> None:
    ids = service.queue("table", "loss").row_ids
    sent = [act(1, ids[0]), act(2, "no such row"), act(3, ids[1], "relabel", label="bee"), "x", act(4, ids[2], "rm")]
    first = service.record_acts("table", "ann", sent)
    assert [(tab, n) for tab, n, *_ in first.kept] == [("t", 1), ("t", 3)]
    assert sorted((tab, n) for tab, n, _ in first.refused) == [("", 0), ("t", 2), ("t", 4)]
    assert service.record_acts("table", "ann", sent).kept == first.kept
    assert len(service.decisions_log("table")) == 2
    undone = service.record_acts("table", "ann", [{"tab": "t", "number": 5, "kind": "undo"}])
    assert undone.kept == (("t", 5, (ids[1],)),)
    batch = service.review_batch("table", "loss", "ann", n=3)
    assert batch.start == 1 and batch.done == 1
    mine, other = (service.review_batch("table", "loss", name, after=0, n=1).cards[0] for name in ("ann", "bob"))
    assert mine.mine is not None and mine.mine.action == "keep" and mine.decided == ()
    assert other.mine is None and [d.reviewer for d in other.decided] == ["ann"]


def test_locked_rows_and_false_owners_are_refused(own_studies: Path) -> None:
    locked = {"tab": "t", "number": 1, "decisions": [{"split": "locked", "row": 1, "action": "drop"}]}
    assert "Locked rows are not cleaned" in service.record_acts("table", "ann", [locked]).refused[0][2]
    with pytest.raises(BadInput, match="Locked rows"):
        service.save_queue("table", "x", "locked", [1], "test")
    for name in ("", "  ", f"{RESOLVES}ann", "a" * 101):
        with pytest.raises(BadInput, match="need a name"):
            service.record_acts("table", name, [])


def test_a_saved_queue_is_found_again_by_its_token(own_studies: Path) -> None:
    ids = list(service.queue("linear", "loss").row_ids[:4])
    token = service.save_queue("linear", "Four rows", "train", ids, "a test")
    assert service.save_queue("linear", "Four rows", "train", ids, "a test") == token
    found = service.queue("linear", token)
    assert (found.row_ids, found.title, found.source) == (tuple(ids), "Four rows", "a test")
    for bad in ("f" * 32, "../study", "x"):
        with pytest.raises(BadInput, match="queue cannot be opened"):
            service.queue("linear", bad)
    with pytest.raises(BadInput, match="Unknown row id"):
        service.save_queue("linear", "x", "train", ["gone"], "a test")


def test_conflicts_agreement_and_downloads(own_studies: Path) -> None:
    ids = service.queue("table", "loss").row_ids
    service.record_acts("table", "ann", [act(1, ids[0], "drop"), act(2, ids[1])])
    service.record_acts("table", "bob", [act(1, ids[0], "relabel", label="new"), act(2, ids[1])])
    page = service.decisions_page("table")
    assert page.n_conflicts == 1 and page.conflicts[0].row_id == ids[0]
    assert page.agreement.measure == "Cohen's kappa" and page.agreement.n_rows == 2
    service.resolve_conflict("table", "train", ids[0], "drop")
    page = service.decisions_page("table")
    assert page.reviewers == ("ann", "bob") and any(is_resolution(pace.reviewer) for pace in page.pace)
    assert page.n_conflicts == 0 and page.actions == {"drop": 1, "keep": 1}
    cleaned = pd.read_csv(io.BytesIO(service.cleaned_data("table", "csv")))
    assert ids[0] not in set(cleaned["id"]) and len(cleaned) == 95
    patch = pd.read_csv(io.BytesIO(service.patch_file("table", "csv")))
    assert set(patch["row_id"]) == {ids[0], ids[1]}
    assert undo_last("table", "bob") == f"Undone: kept '{page_given(ids[1])}' on row {ids[1]}."
    assert [line.words for line in service.decisions_log("table", text="new")] == [
        f"train row {ids[0]}: relabel {page_given(ids[0])} → new"
    ]


def test_an_undo_says_beforehand_what_it_is_about(own_studies: Path) -> None:
    ids = service.queue("table", "loss").row_ids
    assert service.next_steps("table", "ann") == NextSteps(None, None)
    given = page_given(ids[0])
    one = [
        (act(1, ids[0], "relabel", label="new"), f"'{given}' → 'new' on row {ids[0]}"),
        (act(2, ids[0]), f"kept '{given}' on row {ids[0]}"),
        (act(3, ids[0], "drop"), f"dropped row {ids[0]}"),
        (act(4, ids[0], "downweight", weight=0.25), f"down-weighted row {ids[0]} to 0.25"),
        (act(5, ids[0], "unsure"), f"marked row {ids[0]} unsure"),
        (batch(6, "relabel", ids[:7], label="new"), "relabelled 7 rows as 'new'"),
        (batch(7, "drop", ids[:3]), "dropped 3 rows"),
        (batch(8, "unsure", ids[:2]), "marked 2 rows unsure"),
        ({**batch(9, "drop", ids[:2]), "decisions": [batch(9, "drop", ids[:2])["decisions"][0],
                                                     batch(9, "keep", ids[1:2])["decisions"][0]]}, "2 decisions"),
        ({**act(10, 0), "decisions": [{"split": "test", "row": a_test_row(), "action": "drop"}]},
         f"dropped test row {a_test_row()}"),
    ]  # fmt: skip
    for sent, words in one:
        assert service.record_acts("table", "ann", [sent]).kept
        step = service.next_steps("table", "ann").undo
        assert step is not None and (step.words, step.ago) == (words, "just now")
    assert service.next_steps("table", "bob") == NextSteps(None, None)

    step = service.next_steps("table", "ann").undo
    assert step is not None
    receipt = service.record_acts("table", "ann", [{"tab": "u", "number": 1, "kind": "undo"}])
    assert receipt.said == (("u", 1, one[-1][1]),)
    after = service.next_steps("table", "ann")
    assert after.redo is not None and after.redo.seq == step.seq and after.undo is not None
    with pytest.raises(BadInput, match="Nothing was undone: .*another act by now"):
        undo_last("table", "ann", step.seq)
    assert service.next_steps("table", "ann") == after
    assert undo_last("table", "ann", after.undo.seq) == "Undone: 2 decisions."
    assert service.next_steps("table", "ann").redo.words == "2 decisions"  # type: ignore[union-attr]
    while (left := service.next_steps("table", "ann").undo) is not None:
        undo_last("table", "ann", left.seq)
    assert undo_last("table", "ann") == "Nothing is left to undo."
    assert service.decisions_page("table").reviewers == ("ann",), "whose every act was undone is still there to choose"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "just now"), (59, "just now"), (60, "1 min ago"), (3599, "59 min ago"), (3600, "1 h ago"),
     (86399, "23 h ago"), (86400, "1 day ago"), (10 * 86400, "10 days ago"), (-5, "just now")],
)  # fmt: skip
def test_how_long_ago_in_words(seconds: float, words: str) -> None:
    assert ago(seconds) == words


def test_a_class_in_another_spelling_is_refused_and_new_ones_are_told(own_studies: Path) -> None:
    ids = service.queue("table", "loss").row_ids
    known = service.review_place("table", "loss")[3]
    for twin in (known[0].upper(), known[0].title()):
        refused = service.record_acts("table", "ann", [act(1, ids[0], "relabel", label=twin)]).refused
        assert f"is the class '{known[0]}' in another spelling" in refused[0][2]
    hidden = service.record_acts("table", "ann", [act(1, ids[0], "relabel", label="a\u200b")])
    assert "invisible" in hidden.refused[0][2]
    given = [act(i, ids[i], "relabel", label=label) for i, label in enumerate(("zebra", "yak", known[1]), 1)]
    service.record_acts("table", "bob", given)
    assert service.review_batch("table", "loss", "ann", n=1).new_classes == ("zebra", "yak")
    undo_last("table", "bob"), undo_last("table", "bob")
    assert service.review_batch("table", "loss", "ann", n=1).new_classes == ("zebra",)


def test_one_begins_where_one_stopped_in_this_queue_whatever_was_decided_elsewhere(own_studies: Path) -> None:
    ids = list(service.queue("table", "loss").row_ids)
    begins = lambda queue: service.review_batch("table", queue, "ann", n=1).start  # noqa: E731
    service.record_acts("table", "ann", [{**act(1, ids[5]), "evidence": {"queue": "elsewhere"}}])
    assert begins("loss") == 0
    service.record_acts("table", "ann", [{**act(2, ids[3]), "evidence": {"queue": "loss"}}])
    assert begins("loss") == 4
    service.record_acts("table", "ann", [{**act(3, ids[4]), "evidence": {"queue": "loss"}}])
    assert begins("loss") == 6, "the row that was decided elsewhere is not asked about again"
    undo_last("table", "ann")
    assert begins("loss") == 4
    token = service.save_queue("table", "x", "train", list(reversed(ids[:6])), "a test")
    assert begins(token) == 1
    everything = [{**act(i, row), "evidence": {"queue": token}} for i, row in enumerate(ids[:6], 10)]
    service.record_acts("table", "ann", everything)
    assert begins(token) == 6 and service.review_batch("table", token, "ann", n=1).done == 6


def batch(number: int, action: str, ids: Any, **more: Any) -> dict[str, Any]:
    rows = [{"split": "train", "row": row, "action": action, **more} for row in ids]
    return {"tab": "t", "number": number, "decisions": rows}


def a_test_row() -> Any:
    return service.predictions("table", service.PredictionFilter()).rows[0].row_id


def page_given(row: Any) -> str:
    return service.review_batch("table", "loss", "ann", after=0, n=1, row=row).cards[0].given


def test_guidelines_are_kept_and_bounded(own_studies: Path) -> None:
    assert service.guidelines("table") == ""
    service.save_guidelines("table", "An <b>ant</b> has six legs.")
    assert service.guidelines("table") == "An <b>ant</b> has six legs."
    with pytest.raises(BadInput, match="too long"):
        service.save_guidelines("table", "x" * 20_001)


def test_classes_are_defined_by_owners_one_at_a_time(own_studies: Path) -> None:
    classes, file = service.definable_classes("table"), own_studies / "table" / "class_definitions.json"
    assert service.class_definitions("table") == {} and not file.exists()
    service.save_class_definition("table", classes[0], "Six  legs,\n <b>no</b> wings.")
    service.save_class_definition("table", classes[1], "Wings.")
    assert service.class_definitions("table") == {classes[0]: "Six legs, <b>no</b> wings.", classes[1]: "Wings."}
    service.save_class_definition("table", classes[1], " ")
    assert list(service.class_definitions("table")) == [classes[0]]
    for label, text, words in (
        ("wasp", "Stings.", "no class of this study"),
        (classes[0], "x" * 501, "501 characters"),
    ):
        with pytest.raises(BadInput, match=words):
            service.save_class_definition("table", label, text)
    # A class that a reviewer gave to a row can be defined, too.
    row = service.review_batch("table", "loss", "ann", after=0, n=1).cards[0].row_id
    made = [{"split": "train", "row": row, "action": "relabel", "label": "wasp"}]
    service.record_acts("table", "ann", [{"tab": "t", "number": 1, "decisions": made}])
    service.save_class_definition("table", "wasp", "Stings.")
    assert service.class_definitions("table")["wasp"] == "Stings."
    assert [path.name for path in file.parent.glob("*.part")] == []
    # A damaged file hides no desk, and is not written over.
    for damaged in ("{", "[]", '{"ant": 1}', "[" * 100_000):
        file.write_text(damaged)
        assert service.class_definitions("table") == {}
        with pytest.raises(BadInput, match="is damaged"):
            service.save_class_definition("table", classes[0], "Six legs.")
        assert file.read_text() == damaged


def test_numbers_have_no_definitions(more_studies: Path) -> None:
    assert service.definable_classes("diabetes") == () and service.class_definitions("diabetes") == {}
    with pytest.raises(BadInput, match="Only classes have definitions"):
        service.save_class_definition("diabetes", "3", "Three.")
