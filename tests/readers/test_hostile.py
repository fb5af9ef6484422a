from __future__ import annotations

import gzip
import io
import json
import pickle
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core.errors import BadInput
from influence_core.readers import limits, open_source


def refused(tmp_path: Path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadInput) as caught:
        open_source(path)
    error = caught.value
    assert error.what and error.why and error.fix
    return str(error)


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, "a,b\n1,2\n")
    return out.getvalue()


BIG = limits.MAX_CELL + 5
CASES = {
    "empty": ("a.csv", b"", "empty"),
    "blank": ("a.csv", b"\n\n  \n"[:2], "empty"),
    "mark only": ("a.csv", b"\xef\xbb\xbf", "empty"),
    "header only": ("a.csv", b"a,b\n", "no rows"),
    "short row": ("a.csv", b"a,b\n1,2\n\n3\n", "line 4: 1 cells"),
    "long row": ("a.csv", b'a,b\n"1\n1",2\n3,4,5\n', "line 4: 3 cells"),
    "duplicate names": ("a.csv", b"a,b,a\n1,2,1\n1,2,3\n", "both called 'a' and differ in row 2"),
    "NUL": ("a.csv", b"a,b\n1,\x002\n", "line 2: it holds a NUL"),
    "huge cell": ("a.csv", b"a,b\n1,2\n1," + b"x" * BIG + b"\n", "line 3: a cell has more than"),
    "open quote": ("a.csv", b'a,b\n1,2\n1,"two\nthree\n', "line 3: a quotation opens"),
    "open quote, long": ("a.csv", b'a,b\n1,"2\n' + b"3,4\n" * 300_000, "line 2: a cell has more than"),
    "many columns": ("a.csv", b",".join(b"c%d" % i for i in range(1_000_000)) + b"\n", "1,000,000 columns"),
    "long name": ("a.csv", b"n" * 600 + b",b\n1,2\n", "name is too long"),
    "binary": ("a.csv", bytes(range(1, 32)) * 40, "no table of text"),
    "bad utf-8 behind its mark": ("a.csv", b"\xef\xbb\xbfa,b\n\xff,1\n", "cannot be decoded"),
    "odd utf-16": ("a.csv", b"\xff\xfea\x00,\x00b\x00\n\x001", "cannot be decoded"),
    "picture": ("a.csv", b"\x89PNG\r\n\x1a\n1234", "not read"),
    "pickle": ("a.pkl", pickle.dumps({"a": 1}), "never opened"),
    "json number": ("a.json", b"5", "no object"),
    "json list of lists": ("a.json", b"[[1,2]]", "row 1: it is a list"),
    "json by column": ("a.json", b'{"a": {"0": 1}}', "lies on its side"),
    "json broken": ("a.json", b'[{"a": 1}, {"a": ]', "row 2"),
    "json cut": ("a.json", b'[{"a": 1}, {"a": 2}', "broken"),
    "json cut line": ("a.jsonl", b'{"a": 1}\n{"a"', "row 2"),
    "json deep": ("a.json", b'[{"a": ' + b"[" * 200_000, "too deep"),
    "json without keys": ("a.json", b"[{}, {}]", "no rows"),
    "json empty list": ("a.json", b"[]", "no rows"),
    "json huge cell": ("a.json", json.dumps([{"a": "x" * BIG}]).encode(), "row 1: 'a' has"),
    "json many keys": ("a.json", json.dumps([{str(i): 1 for i in range(10_001)}]).encode(), "too many columns"),
    "no parquet": ("a.parquet", b"a,b\n1,2\n", "no Parquet"),
    "cut parquet": ("a.parquet", b"PAR1\x00\x00\x00", "damaged"),
    "cut arrow": ("a.arrow", b"ARROW1\x00\x00junk", "damaged"),
    "two files": ("a.zip", zipped("a.csv", "b.csv"), "holds 2 files: a.csv, b.csv"),
    "no file": ("a.zip", zipped(), "holds 0 files"),
    "workbook": ("a.xlsx", zipped("[Content_Types].xml", "xl/a.xml"), "workbook"),
    "cut gz": ("a.csv.gz", gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "damaged or locked"),
    "cut zip": ("a.zip", zipped("a.csv")[:-10], "damaged or locked"),
    "twice packed": ("a.csv.gz", gzip.compress(gzip.compress(b"a,b\n1,2\n")), "packed twice"),
    "packed nothing": ("a.csv.gz", gzip.compress(b""), "empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_with_the_place_and_the_fix(tmp_path: Path, case: str) -> None:
    name, content, expected = CASES[case]
    assert expected in refused(tmp_path, name, content)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(BadInput, match="no file here"):
            open_source(path)


def test_a_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATIO_FROM", 1 << 20)
    assert "too large" in refused(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 2_000_000))


def test_a_file_over_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BYTES", 1000)
    assert "too large" in refused(tmp_path, "a.csv", b"a,b\n" + b"1,2\n" * 300)
    assert "too large" in refused(tmp_path, "a.csv.gz", gzip.compress(b"a,b\n" + b"1,2\n" * 300))


def test_huge_cell_in_parquet(tmp_path: Path) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"a": ["x", "y" * 5 * limits.MAX_CELL]}), out)
    assert "row 2: 'a' has" in refused(tmp_path, "a.parquet", out.getvalue())


def test_damaged_bytes_within_typed_files(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(200)), "s": [f"text {i}" for i in range(200)]})
    pq_bytes, ipc = io.BytesIO(), io.BytesIO()
    pq.write_table(table, pq_bytes, compression="none")
    with pa.ipc.new_stream(ipc, table.schema) as writer:
        writer.write_table(table)
    outcomes = set()
    for name, content in (("a.parquet", pq_bytes.getvalue()), ("a.arrow", ipc.getvalue())):
        for place in range(4, len(content), 37):
            path = tmp_path / name
            path.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
            try:
                with open_source(path) as source:
                    list(source.batches())
                outcomes.add("read")
            except BadInput as error:
                assert error.what and error.why and error.fix
                outcomes.add("refused")
    assert outcomes == {"read", "refused"}


def test_names_are_plain_text_and_glob_characters_are_letters(tmp_path: Path) -> None:
    path = tmp_path / "a[1]*?.csv"
    path.write_bytes("<script>,b\x07ell,\u202eabc\n1,2,3\n".encode())
    with open_source(path) as source:
        assert source.names == ("<script>", "b ell", "abc")


def test_lone_surrogates_in_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a\\ud800": "x\\udfff", "b": ["\\ud800"]}]')
    with open_source(path) as source:
        assert source.names == ("a?", "b") and source.head(1).to_pydict()["a?"] == ["x?"]
