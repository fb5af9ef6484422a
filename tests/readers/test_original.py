"""The user's own file with corrected labels: whatever was not corrected stays as it was, to the byte in text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core.errors import BadInput
from influence_core.readers.original import Correction, corrected_file

TEXT = 'name;kind;note\r\nann;a;"two\r\nlines; and ""quotes"""\r\nben;b;=1+1\r\n\r\ncem;a;  spaces \r\ndan;b;-1.5'
LABELS = {1: "a", 2: "b", 3: "a", 4: "b"}


def written(folder: Path, content: bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def fixed(path: Path, corrections: dict[Any, Correction], labels: Any = None, **more: Any) -> bytes:
    return corrected_file(path, "kind", labels or LABELS, corrections, **{"numbers": False, **more})[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_an_untouched_file_is_the_same_to_the_byte(encoding: str, tmp_path: Path) -> None:
    content = TEXT.replace("ann", "añn").encode(encoding)
    assert fixed(written(tmp_path, content), {}) == content


def test_only_corrected_rows_change(tmp_path: Path) -> None:
    corrections = {2: Correction("a"), 3: Correction(dropped=True)}
    found = fixed(written(tmp_path, TEXT.encode()), corrections).decode()
    assert found == TEXT.replace("ben;b;=1+1", "ben;a;=1+1").replace("cem;a;  spaces \r\n", "")
    assert found.endswith("dan;b;-1.5")


def test_weights_are_a_column_where_there_are_any(tmp_path: Path) -> None:
    found = fixed(written(tmp_path, TEXT.encode()), {4: Correction(weight=0.25)}).decode()
    lines = found.split("\r\n")
    assert lines[0].endswith("note;weight") and lines[-1] == "dan;b;-1.5;0.25" and found.count(";1\r\n") == 3


def test_raw_labels_are_the_files_own_and_a_new_one_is_harmless(tmp_path: Path) -> None:
    path = written(tmp_path, b"x,kind\n1,1.0\n2,0.0\n3,1.0\n")
    labels = {1: "1", 2: "0", 3: "1"}
    found = fixed(path, {1: Correction("0"), 3: Correction("=cmd()")}, labels).decode()
    assert found == "x,kind\n1,0.0\n2,0.0\n3,'=cmd()\n"


def test_rows_are_found_by_the_column_that_holds_the_ids(tmp_path: Path) -> None:
    path = written(tmp_path, b"code,kind,twin\nr1,a,r1\nr2,b,r9\n")
    assert fixed(path, {"r2": Correction("a")}, {"r1": "a", "r2": "b"}) == b"code,kind,twin\nr1,a,r1\nr2,a,r9\n"
    numbers = written(tmp_path, b"kind,id\na,70\nb,80\n")
    assert fixed(numbers, {80: Correction("a")}, {70: "a", 80: "b"}) == b"kind,id\na,70\na,80\n"


@pytest.mark.parametrize("change", [("ben;b", "ben;a"), ("dan;b;-1.5", ""), ("kind", "sort")])
def test_another_file_is_refused(change: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="not the file that was imported"):
        fixed(written(tmp_path, TEXT.replace(*change).encode()), {1: Correction("b")})


def test_rows_that_the_import_left_out_stay(tmp_path: Path) -> None:
    path = written(tmp_path, b"x,kind\n1,a\n2,\n3,b\n")
    assert fixed(path, {3: Correction("a")}, {1: "a", 3: "b"}) == b"x,kind\n1,a\n2,\n3,a\n"


def test_numbers_as_labels(tmp_path: Path) -> None:
    path = written(tmp_path, b"x,kind\n1,2.50\n2,-1\n")
    assert fixed(path, {2: Correction("3.5")}, {1: "2.5", 2: "-1.0"}, numbers=True) == b"x,kind\n1,2.50\n2,3.5\n"


@pytest.mark.parametrize("kind", [pa.int64(), pa.string(), pa.bool_(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_keeps_its_kinds(kind: pa.DataType, tmp_path: Path) -> None:
    raw = {pa.int64(): [0, 1, 1], pa.bool_(): [False, True, True]}.get(kind, ["0", "1", "1"])
    names = ["false", "true", "true"] if kind == pa.bool_() else ["0", "1", "1"]
    table = pa.table(
        {
            "when": pa.array([1, None, 3], pa.date32()),
            "kind": pa.array(raw, kind),
            "n": pa.array([None, 2, 3], pa.int8()),
        }
    )
    path = tmp_path / "t.parquet"
    pq.write_table(table, path)
    labels = dict(enumerate(names, 1))
    same = pq.read_table(pa.BufferReader(fixed(path, {}, labels)))
    assert same.equals(table) and same.schema == table.schema
    found = pq.read_table(pa.BufferReader(fixed(path, {2: Correction(names[0]), 3: Correction(dropped=True)}, labels)))
    assert found.schema == table.schema and found["kind"].to_pylist() == [raw[0], raw[0]]
    assert found.drop(["kind"]).equals(table.drop(["kind"]).slice(0, 2))


def test_json_lines_and_arrays(tmp_path: Path) -> None:
    lines = '{"kind": "a",  "x": 1}\n{"kind": "b", "x": null}\n'
    path = written(tmp_path, lines.encode(), "t.jsonl")
    labels = {1: "a", 2: "b"}
    assert fixed(path, {}, labels).decode() == lines
    assert fixed(path, {2: Correction("a")}, labels).decode().splitlines() == [
        '{"kind": "a",  "x": 1}', '{"kind": "a", "x": null}'
    ]  # fmt: skip
    whole = written(tmp_path, b'[{"kind": "a", "x": 1}, {"kind": "b", "x": 2}]', "t.json")
    assert json.loads(fixed(whole, {1: Correction("b")}, labels)) == [{"kind": "b", "x": 1}, {"kind": "b", "x": 2}]
