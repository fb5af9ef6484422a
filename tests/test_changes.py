"""What many decisions come to, and the patch as a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from influence_core.changes import COLUMNS, RESOLVES, Change, as_number, changes_of_table, patch_table, resolved_changes
from influence_core.errors import BadInput
from influence_core.reviews import Act, Decision, Reviews

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def decide(folder: Path, reviewer: str, number: int, row: int | str, action: str, **more: object) -> None:
    decision = Decision(more.pop("split", "train"), row, action, **{"given": "ant", **more})  # type: ignore[arg-type]
    Reviews(folder).record(reviewer, [Act("tab", number, decisions=(decision,))])


def test_one_reviewer_decides(folder: Path) -> None:
    decide(folder, "ann", 1, 7, "relabel", label="bee", comment="striped")
    decide(folder, "ann", 2, 3, "drop")
    decide(folder, "ann", 3, 4, "downweight", weight=0.5)
    decide(folder, "ann", 4, 5, "unsure")
    decide(folder, "ann", 5, 6, "keep")
    decide(folder, "ann", 6, 1, "relabel", label="ant")  # as it is labelled
    decide(folder, "ann", 7, 2, "relabel", label="bee", split="test")
    changes, conflicts = resolved_changes(folder, CLASSES)
    assert conflicts == []
    found = [(c.split, c.row, c.action, c.old, c.new, c.weight) for c in changes]
    assert found == [
        ("train", 1, "keep", "ant", None, None),
        ("train", 3, "drop", "ant", None, None),
        ("train", 4, "downweight", "ant", None, 0.5),
        ("train", 6, "keep", "ant", None, None),
        ("train", 7, "relabel", "ant", "bee", None),
        ("test", 2, "relabel", "ant", "bee", None),
    ]
    assert changes[4].reviewer == "ann" and changes[4].comment == "striped" and changes[4].at > 0


def test_the_majority_decides_and_a_tie_does_not(folder: Path) -> None:
    decide(folder, "ann", 1, 1, "relabel", label="bee")
    decide(folder, "bob", 1, 1, "relabel", label="bee", comment="sure")
    decide(folder, "eve", 1, 1, "drop")
    decide(folder, "ann", 2, 2, "relabel", label="bee")
    decide(folder, "bob", 2, 2, "relabel", label="cat")
    decide(folder, "eve", 2, 2, "unsure")
    decide(folder, "ann", 3, 3, "unsure")
    decide(folder, "bob", 3, 3, "drop")
    changes, conflicts = resolved_changes(folder, CLASSES)
    assert [(c.row, c.action, c.new, c.reviewer) for c in changes] == [
        (1, "relabel", "bee", "ann, bob"),
        (3, "drop", None, "bob"),
    ]
    assert changes[0].comment == "sure"
    assert [(c.row, c.old, [v.reviewer for v in c.votes]) for c in conflicts] == [(2, "ant", ["ann", "bob", "eve"])]


def test_an_owner_resolves_against_any_majority(folder: Path) -> None:
    decide(folder, "ann", 1, 2, "relabel", label="bee")
    decide(folder, "bob", 1, 2, "relabel", label="cat")
    decide(folder, f"{RESOLVES}kim", 1, 2, "relabel", label="cat")
    changes, conflicts = resolved_changes(folder, CLASSES)
    assert conflicts == [] and [(c.new, c.reviewer) for c in changes] == [("cat", "owner: kim")]
    decide(folder, "ann", 2, 2, "drop")
    decide(folder, "bob", 2, 2, "drop")
    assert resolved_changes(folder, CLASSES)[0][0].new == "cat"


def test_numbers_are_compared_as_numbers(folder: Path) -> None:
    decide(folder, "ann", 1, 1, "relabel", label="3.0", given="2")
    decide(folder, "bob", 1, 1, "relabel", label="3", given="2")
    decide(folder, "ann", 2, 2, "relabel", label="2.0", given="2")
    changes, conflicts = resolved_changes(folder)
    assert conflicts == [] and [(c.row, c.action) for c in changes] == [(1, "relabel"), (2, "keep")]
    assert len(resolved_changes(folder, CLASSES)[1]) == 1  # as class names they differ


@pytest.mark.parametrize(
    ("label", "number"),
    [("3.5", 3.5), (" −2,228.25 ", -2228.25), ("12,345", 12345.0), ("1e3", 1000.0), ("+1,000,000", 1e6),
     ("3,5", None), ("1,23", None), ("1,2345", None), ("12,34,567", None), ("3.5,000", None), (",5", None),
     ("nan", None), ("inf", None), ("", None), ("about 3", None)],
)  # fmt: skip
def test_a_number_is_read_as_people_write_it_and_a_decimal_comma_is_none(label: str, number: float | None) -> None:
    assert as_number(label) == (label if number is None else number)


def test_an_undone_decision_is_no_vote(folder: Path) -> None:
    decide(folder, "ann", 1, 1, "relabel", label="bee")
    Reviews(folder).record("ann", [Act("tab", 2, "undo")])
    assert resolved_changes(folder, CLASSES) == ([], [])


def test_a_study_without_reviews_has_no_changes_and_gets_no_file(folder: Path) -> None:
    assert resolved_changes(folder, CLASSES) == ([], [])
    assert list(folder.iterdir()) == []


EVERY = [
    Change("train", 7, "relabel", "ant", "bee", None, "ann", 1764100000.25, "a, b\n\"c\""),
    Change("train", 8, "drop", "cat", None, None, "ann, bob", 1764100001.5, ""),
    Change("test", 9, "downweight", "ant", None, 0.25, "ann", 1764100002.0, "-x"),
    Change("test", 10, "keep", "ant", None, None, "ann", 1764100003.0, ""),
]  # fmt: skip


def test_the_table_of_a_patch_gives_the_same_changes() -> None:
    table = patch_table(EVERY)
    assert tuple(table.columns) == COLUMNS and table["at"][0] == "2025-11-25T19:46:40.250000Z"
    assert changes_of_table(table, ids_are_numbers=True) == EVERY
    assert changes_of_table(patch_table([]), ids_are_numbers=True) == []
    short = table[list(COLUMNS[:5])].drop(index=2)
    assert [c.row for c in changes_of_table(short, ids_are_numbers=True)] == [7, 8, 10]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row_id": "x"}, "must be numbers"),
        ({"split": "locked"}, "Locked rows are not cleaned"),
        ({"action": "rm"}, "action is 'rm'"),
        ({"new_label": None}, "relabel with the new label ''"),
        ({"action": "drop"}, "drop with the new label 'bee'"),
        ({"action": "downweight", "new_label": None, "weight": 2}, "from 0 to 1"),
        ({"action": "downweight", "new_label": None, "weight": None}, "from 0 to 1"),
        ({"at": "yesterday"}, "at is 'yesterday'"),
    ],
)
def test_a_line_that_says_nothing_usable_is_named(change: dict[str, object], words: str) -> None:
    table = patch_table(EVERY[:1]).astype(object)
    for name, value in change.items():
        table[name] = pd.Series([value], dtype=object)
    with pytest.raises(BadInput, match="Line 1") as refused:
        changes_of_table(table, ids_are_numbers=True)
    assert words in str(refused.value)


def test_a_patch_must_have_its_columns_and_each_row_once() -> None:
    with pytest.raises(BadInput, match="no column row_id, split"):
        changes_of_table(pd.DataFrame({"a": [1]}), ids_are_numbers=True)
    with pytest.raises(BadInput, match="stands in it twice"):
        changes_of_table(patch_table([EVERY[0], EVERY[0]]), ids_are_numbers=True)
