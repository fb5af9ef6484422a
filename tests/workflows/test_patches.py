"""Patches written, read, replayed on the same and on newer data, and the cleaned data in the user's shape."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from influence_core.__main__ import main
from influence_core.changes import Change, resolved_changes
from influence_core.errors import BadInput
from influence_core.readers import Roles, import_table, open_source
from influence_core.reviews import Act, Decision, Reviews
from influence_core.run import Run
from influence_core.study import Study
from influence_core.workflows import patch_replay, patches


def relabelled(study: Study, row: int | str, label: str, split: str = "train") -> Change:
    ids = study.column(split, "id").tolist()
    old = str(study.column(split, "label")[ids.index(row)])
    return Change(split, row, "relabel", old, label, None, "ann", 1764100000.25, "")


def some_changes(study: Study) -> list[Change]:
    ids = study.column("train", "id").tolist()
    labels = dict(zip(ids, study.column("train", "label").tolist(), strict=True))
    other = {"ant": "bee", "bee": "cat", "cat": "ant"}
    return [
        relabelled(study, ids[0], other[labels[ids[0]]]),
        Change("train", ids[1], "drop", labels[ids[1]], None, None, "ann", 1764100001.0, "=SUM(A1)"),
        Change("train", ids[2], "downweight", labels[ids[2]], None, 0.5, "ann", 1764100002.0, "'quoted"),
        Change("train", ids[3], "keep", labels[ids[3]], None, None, "ann", 1764100003.0, ""),
        relabelled(study, study.column("test", "id").tolist()[4], "new <class>", "test"),
    ]


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
@pytest.mark.parametrize("name", ["table", "linear"])
def test_a_patch_read_back_says_the_same(studies: Path, tmp_path: Path, name: str, format: str) -> None:
    study = Study(studies / name)
    changes = some_changes(study)
    file = tmp_path / f"patch.{format}"
    file.write_bytes(patches.patch_bytes(changes, format))
    assert patches.read_patch(file, study) == changes
    file.write_bytes(patches.patch_bytes([], format))
    assert patches.read_patch(file, study) == []


def test_only_the_csv_is_made_safe(studies: Path) -> None:
    study = Study(studies / "linear")
    changes = some_changes(study)
    assert changes[0].row == "=1+1" or "=SUM(A1)" in [c.comment for c in changes]
    table = pd.read_csv(io.BytesIO(patches.patch_bytes(changes, "csv")), dtype=str, keep_default_na=False)
    cells = [cell for column in table for cell in table[column]]
    assert "'=SUM(A1)" in cells and not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)
    assert "=SUM(A1)" in [line["comment"] for line in json.loads(patches.patch_bytes(changes, "json"))]


def test_a_replay_changes_what_it_says_and_nothing_else(studies: Path) -> None:
    study = Study(studies / "table")
    changes = some_changes(study)
    done = patch_replay.replayed(study, changes)
    assert [o.result for o in done.outcomes] == ["applied", "applied", "applied", "already", "applied"]
    before = patches.whole_table(study).to_pandas().set_index("id")
    after = done.table.to_pandas().set_index("id")
    assert set(before.index) - set(after.index) == {changes[1].row}
    assert after["weight_"][changes[2].row] == 0.5 and (after["weight_"].drop(changes[2].row) == 1).all()
    before.loc[changes[0].row, "label"] = changes[0].new
    before.loc[changes[4].row, "label"] = "new <class>"
    expected = before.drop(index=changes[1].row)
    pd.testing.assert_frame_equal(after.drop(columns="weight_"), expected)
    assert set(after["split"]) == {"train", "test", "locked"}


def test_on_newer_data_conflicts_and_missing_rows_are_listed(studies: Path, tmp_path: Path) -> None:
    shutil.copytree(studies / "table", tmp_path / "newer", ignore=shutil.ignore_patterns("cache"))
    study = Study(studies / "table")
    changes = some_changes(study)
    file = tmp_path / "newer" / "train.parquet"
    table = pq.read_table(file)
    labels = table["label"].to_pylist()
    third = next(name for name in ("ant", "bee", "cat") if name not in (changes[0].old, changes[0].new))
    labels[0] = third  # neither what was reviewed nor what was wanted
    ids = table["id"].to_pylist()
    labels[4] = "bee" if labels[4] != "bee" else "cat"
    already = Change("train", ids[4], "relabel", study.column("train", "label")[4], labels[4])
    table = table.set_column(1, "label", pa.array(labels)).filter(pa.array([i != 2 for i in range(len(ids))]))
    pq.write_table(table, file)
    done = patch_replay.replayed(Study(tmp_path / "newer"), [*changes, already])
    assert [o.result for o in done.outcomes] == ["conflict", "applied", "missing", "already", "applied", "already"]
    words = done.in_words()
    assert words.startswith("2 applied, 2 so already, 1 in conflict, 1 missing.")
    assert f"train row {changes[0].row}: the label is '{third}', but '{changes[0].old}' was reviewed" in words
    assert f"train row {changes[2].row}: not there" in words
    after = done.table.to_pandas().set_index("id")
    assert after["label"][changes[0].row] == third


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", b"x", "no csv, json, parquet"),
        ("a.json", b"{", "cannot be read"),
        ("a.json", b'{"a": 1}', "no list of objects"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"a,b\n1,2\n", "no column row_id"),
        ("a.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_what_is_no_patch_is_refused(studies: Path, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as refused:
        patches.read_patch(tmp_path / name, Study(studies / "table"))
    assert words in str(refused.value)
    with pytest.raises(BadInput, match="no such patch"):
        patches.read_patch(tmp_path / "gone.csv", Study(studies / "table"))


def test_imported_data_come_out_under_the_users_names(tmp_path: Path) -> None:
    n = 60
    columns = {
        "size": [i + 0.5 for i in range(n)],
        "id": [f"=cell {i}" for i in range(n)],
        "kind of animal": ["ant" if i % 9 < 4 else "bee" for i in range(n)],
    }
    pyarrow.csv.write_csv(pa.table(columns), tmp_path / "mine.csv")
    roles = Roles.checked({"label": "kind of animal", "features": ("size",)})
    with open_source(tmp_path / "mine.csv") as source:
        study = import_table(source, roles, tmp_path / "study", Run())
    assert "original id" in study.column_names("train")
    row = int(study.column("train", "id")[0])
    change = Change("train", row, "relabel", columns["kind of animal"][row - 1], "cat")
    table = patches.users_shape(study, patch_replay.replayed(study, [change]).table)
    assert set(table.column_names) == {"size", "id", "kind of animal", "split"}
    assert table["id"].to_pylist() == columns["id"]  # in the order of the file
    expected = list(columns["kind of animal"])
    expected[row - 1] = "cat"
    assert table["kind of animal"].to_pylist() == expected
    csv = pd.read_csv(io.BytesIO(patches.data_bytes(table, "csv")))
    assert csv["id"].tolist() == [f"'{cell}" for cell in columns["id"]]
    assert json.loads(patches.data_bytes(table, "json"))[0]["id"] == "=cell 0"
    assert pq.read_table(io.BytesIO(patches.data_bytes(table, "parquet"))).equals(table)


def decide(study: Study, decision: Decision) -> None:
    number = len(Reviews(study.path).log()) + 1
    Reviews(study.path).record("ann", [Act("t", number, decisions=(decision,))])


def test_replaying_the_patch_on_the_original_gives_the_same_data(
    own_studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name, format in (("table", "csv"), ("linear", "csv"), ("table", "json"), ("image", "parquet")):
        folder = own_studies / name
        shutil.rmtree(tmp_path / "original", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "original")
        (tmp_path / "original" / "reviews.sqlite").unlink(missing_ok=True)
        study = Study(folder)
        ids = study.column("train", "id").tolist()
        decide(study, Decision("train", ids[0], "relabel", "bee", given=study.column("train", "label")[0]))
        decide(study, Decision("train", ids[5], "drop"))
        decide(study, Decision("train", ids[6], "downweight", weight=0.3))
        data, patch, again = (tmp_path / f"{part}.{format}" for part in ("data", "patch", "again"))
        assert main(["export", str(folder), "--out", str(data), "--patch", str(patch)]) == 0
        assert main(["replay", str(tmp_path / "original"), "--patch", str(patch), "--out", str(again)]) == 0
        assert data.read_bytes() == again.read_bytes()
        assert resolved_changes(tmp_path / "original") == ([], [])
    assert "1 in conflict" not in capsys.readouterr().out


def test_export_wants_something_to_write(own_studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", str(own_studies / "table")]) == 2
    assert main(["export", str(own_studies / "table"), "--out", "a.xlsx"]) == 2
    assert main(["export", str(own_studies / "image"), "--out", str(tmp_path / "no" / "a.csv")]) == 2
    errors = capsys.readouterr().err
    assert "nothing to write" in errors and "End its name in .csv" in errors and "cannot be written" in errors
