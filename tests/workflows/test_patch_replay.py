"""Patches on newer data: a decision is never made about a row that says something else, and moved rows are found."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_core.__main__ import main
from influence_core.changes import Change
from influence_core.errors import BadInput
from influence_core.study import Study
from influence_core.workflows import patch_replay, patches

OTHER = {"ant": "bee", "bee": "cat", "cat": "ant"}
N = 8

Row = tuple[str, float]  # label, and all that is said


@pytest.fixture(scope="module")
def folder(studies_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("numbered") / "study"
    shutil.copytree(studies_folder / "table", place, ignore=shutil.ignore_patterns("cache"))
    return place


def study_of(folder: Path, rows: list[Row]) -> Study:
    """Rows that are numbered by their place, from 1."""
    values = pa.array([value for _, value in rows], pa.float64())
    table = pa.table({
        "id": pa.array(range(1, len(rows) + 1), pa.int64()),
        "label": pa.array([label for label, _ in rows], pa.string()),
        **dict.fromkeys(("height", "width", "depth", "weight"), values),
    })  # fmt: skip
    pq.write_table(table, folder / "train.parquet")
    return Study(folder)


ROWS = st.lists(
    st.tuples(st.sampled_from(sorted(OTHER)), st.sampled_from([float(i) for i in range(6)])), min_size=1, max_size=N
)
ACTIONS = st.lists(st.sampled_from(["relabel", "drop", "downweight", "keep"]), min_size=N, max_size=N)


def decided(study: Study, rows: list[Row], actions: list[str]) -> list[Change]:
    changes = [
        Change("train", i, action, label, OTHER[label] if action == "relabel" else None,
               0.5 if action == "downweight" else None)
        for i, ((label, _), action) in enumerate(zip(rows, actions, strict=False), 1)
    ]  # fmt: skip
    return patches.with_rows_seen(changes, study)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, newer=ROWS, actions=ACTIONS, order=st.permutations(range(N)), follow=st.booleans())
def test_no_decision_about_a_row_that_says_something_else(
    folder: Path, rows: list[Row], newer: list[Row], actions: list[str], order: list[int], follow: bool
) -> None:
    """Rows deleted, inserted, shuffled and edited; contents repeat, so that some rows cannot be told apart."""
    changes = decided(study_of(folder, rows), rows, actions)
    mixed = [*rows, *newer]
    now = [mixed[i] for i in order if i < len(mixed)] or newer
    done = patch_replay.replayed(study_of(folder, now), changes, follow=follow)
    touched = Counter()
    for outcome in done.outcomes:
        change = outcome.change
        label, said = rows[change.row - 1]
        place = outcome.at[1] if outcome.at is not None else change.row
        if outcome.result in ("applied", "already", "conflict") and not (
            change.action == "drop" and outcome.found is None
        ):
            assert now[place - 1][1] == said  # what was reviewed
        if outcome.result == "applied":
            assert now[place - 1][0] == label
            assert outcome.at is None or (follow and [value for _, value in now].count(said) == 1)
            touched[place] += 1
        elif outcome.result == "moved":
            assert not follow and now[place - 1][1] == said
        elif outcome.result == "changed":
            assert now[change.row - 1][1] != said
        elif outcome.result == "missing":
            assert change.row > len(now)
    assert max(touched.values(), default=1) == 1
    after = done.table.to_pydict()
    left = dict(zip([i for i, split in zip(after["id"], after["split"], strict=True) if split == "train"],
                    after["label"], strict=False))  # fmt: skip
    for i, (label, _) in enumerate(now, 1):
        assert i in touched or left[i] == label


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(N)), actions=ACTIONS, above=st.integers(0, 3))
def test_rows_that_moved_are_all_found(folder: Path, order: list[int], actions: list[str], above: int) -> None:
    rows = [("ant", float(i)) for i in range(N)]
    changes = decided(study_of(folder, rows), rows, actions)
    now = [("cat", 50.0 + i) for i in range(above)] + [rows[i] for i in order]
    study = study_of(folder, now)
    done = patch_replay.replayed(study, changes, follow=True)
    assert all(o.result == ("already" if o.change.action == "keep" else "applied") for o in done.outcomes)
    assert [o.at or ("train", o.change.row) for o in done.outcomes] == [
        ("train", above + order.index(i) + 1) for i in range(N)
    ]
    left = patch_replay.replayed(study, changes)
    moved = sum(above + order.index(i) != i for i in range(N))
    assert len(left.of("moved")) == moved


def test_what_cannot_be_found_is_said(folder: Path) -> None:
    rows = [("ant", float(i)) for i in range(4)]
    changes = decided(study_of(folder, rows), rows, ["relabel", "drop", "relabel", "relabel"])
    # the first is twice there, the second gone, the third at another place with another label, the fourth edited
    study = study_of(folder, [("bee", 9.0), ("ant", 0.0), ("ant", 0.0), ("ant", 30.0), ("cat", 2.0)])
    done = patch_replay.replayed(study, changes)
    assert [o.result for o in done.outcomes] == ["changed", "changed", "moved", "changed"]
    words = done.in_words()
    assert words.startswith("0 applied, 0 so already, 0 in conflict, 0 missing, 3 with other content, 1 moved.")
    assert "train row 1: its content is not what was reviewed" in words
    assert "train row 3: what was reviewed is now train row 5; --follow changes it there" in words
    there = patch_replay.replayed(study, changes, follow=True)
    assert there.outcomes[2].result == "conflict"
    assert "train row 3: the label at train row 5 is 'cat', but 'ant' was reviewed" in there.in_words()


def test_a_patch_without_contents_is_replayed_by_ids_and_says_so(folder: Path) -> None:
    rows = [("ant", 1.0), ("bee", 2.0)]
    changes = [replace(change, content="") for change in decided(study_of(folder, rows), rows, ["relabel", "drop"])]
    done = patch_replay.replayed(study_of(folder, [("ant", 5.0), ("bee", 6.0)]), changes)
    assert [o.result for o in done.outcomes] == ["applied", "applied"]
    assert "The content of 2 rows was not compared: the patch does not know it." in done.in_words()


def test_retraining_refuses_rows_that_say_something_else(folder: Path) -> None:
    rows = [("ant", 1.0), ("bee", 2.0)]
    changes = decided(study_of(folder, rows), rows, ["relabel", "keep"])
    patch_replay.check_content(study_of(folder, rows), changes)
    with pytest.raises(BadInput, match="content of train row 1 is not what was reviewed"):
        patch_replay.check_content(study_of(folder, rows[::-1]), changes)


def test_the_command_follows_and_merges(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [("ant", 1.0), ("bee", 2.0), ("cat", 3.0)]
    changes = decided(study_of(folder, rows), rows, ["relabel", "drop", "relabel"])
    ann = [replace(change, reviewer="ann", at=1.0) for change in changes]
    bob = [replace(ann[0], reviewer="bob", comment="sure", at=2.0), replace(ann[2], new="bee", reviewer="bob")]
    for name, said in (("ann.csv", ann), ("bob.parquet", bob)):
        (tmp_path / name).write_bytes(patches.patch_bytes(said, name.split(".")[1]))
    study_of(folder, [("cat", 9.0), *rows])
    out, both = tmp_path / "out.parquet", tmp_path / "both.json"
    files = ["--patch", str(tmp_path / "ann.csv"), "--patch", str(tmp_path / "bob.parquet")]
    assert main(["replay", str(folder), *files, "--follow", "--out", str(out), "--merged", str(both)]) == 0
    said = capsys.readouterr().out
    assert "2 applied" in said and "both.json: 2 decisions" in said
    assert "contradict each other, so unchanged: train row 3 (ann: relabel ant; bob: relabel bee)" in said
    table = pq.read_table(out).to_pandas()
    train = table[table["split"] == "train"].set_index("id")["label"].to_dict()
    assert train == {1: "cat", 2: "bee", 4: "cat"}
    found = patches.read_patch(both, Study(folder))
    assert [(c.row, c.reviewer, c.comment) for c in found] == [(1, "ann, bob", "sure"), (2, "ann", "")]


def test_a_number_that_was_reviewed_in_its_first_digits_is_the_one_in_the_data() -> None:
    for found, old, same in (
        ("-1.0177866710876793", "−1.018", True), ("1234567.25", "1,234,567", True), ("0.5", "0.5", True),
        ("0.52", "0.5", False), ("-1.0171", "−1.018", False), ("3", "3.0", True), ("3", None, True), ("x", "y", False),
    ):  # fmt: skip
        change = Change("train", 1, "relabel", old, "7")
        assert patch_replay.was_reviewed(change, found, is_number=True) is same, (found, old)
    assert not patch_replay.was_reviewed(Change("train", 1, "relabel", "3.0", "7"), "3", is_number=False)
