from __future__ import annotations

import gzip
import json
import zipfile
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core.errors import BadInput, Cancelled
from influence_core.readers import open_source
from influence_core.run import Run

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside this checkout")


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(path: Path) -> dict[str, list]:
    with open_source(path) as source:
        return pa.concat_tables(list(source.batches(3))).to_pydict()


ROWS = "name;größe;n\nZoë;1,5;1\nJürgen;2,25;2\nÉva;;3\nOle;4;4\n"
READ = {"name": ["Zoë", "Jürgen", "Éva", "Ole"], "größe": [1.5, 2.25, None, 4.0], "n": [1, 2, 3, 4]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_encoding_and_line_end_gives_the_same_rows(tmp_path: Path, encoding: str, end: str) -> None:
    path = written(tmp_path / "a.csv", ROWS.replace("\n", end).encode(encoding))
    assert values(path) == READ


def test_a_guessed_encoding_is_said(tmp_path: Path) -> None:
    with open_source(written(tmp_path / "a.csv", ROWS.encode("cp1252"))) as source:
        assert any("Windows-1252" in note for note in source.notes)
    with open_source(written(tmp_path / "b.csv", b"a,b\n\x81\xe9,1\nx,2\n")) as source:
        assert any("Latin-1" in note for note in source.notes)


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_every_separator_is_found(tmp_path: Path, mark: str) -> None:
    lines = [["a", "b", "c"], ["1", '"x, y; z|w\tv"', "true"], ["2", '"two\nlines ""quoted"""', "false"]]
    path = written(tmp_path / "a.txt", "\n".join(mark.join(line) for line in lines) + "\n")
    assert values(path) == {"a": [1, 2], "b": ["x, y; z|w\tv", 'two\nlines "quoted"'], "c": [True, False]}


def test_one_column_needs_no_separator(tmp_path: Path) -> None:
    assert values(written(tmp_path / "a.csv", "n\n1\n\n2\n")) == {"n": [1, 2]}


def test_unnamed_columns_are_named_by_their_place(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", ",a,,column 3\n0,x,1,u\n1,y,2,v\n")
    assert values(path) == {"column 1": [0, 1], "a": ["x", "y"], "column 3_": [1, 2], "column 3": ["u", "v"]}


def test_kinds_and_counts(tmp_path: Path) -> None:
    text = "a sentence that goes on for much longer than forty characters, number"
    rows = [f"{i},{i / 2},{i % 2 == 0},2024-01-0{i},c{i % 2},{text} {i},{'NA' if i < 4 else 7}" for i in range(1, 7)]
    path = written(tmp_path / "a.csv", "i,f,b,d,c,t,m\n" + "\n".join(rows) + "\n")
    path.write_text(path.read_text().replace("t,m", "t,m").replace("characters, number", "characters number"))
    with open_source(path) as source:
        assert [info.kind for info in source.columns] == [
            "integer", "number", "boolean", "date", "category", "text", "integer",
        ]  # fmt: skip
        assert source.n_rows == 6
        assert [info.n_distinct for info in source.columns] == [6, 6, 2, 6, 2, 6, 1]
        assert [info.n_missing for info in source.columns] == [0, 0, 0, 0, 0, 0, 3]
        assert source.column("c").examples == ("c1", "c0")
        assert source.head(2)["d"].to_pylist() == [datetime(2024, 1, 1), datetime(2024, 1, 2)]


def test_mixed_types_become_words_and_that_is_said(tmp_path: Path) -> None:
    # The word stands far behind the rows that a reader which guesses from the beginning looks at.
    lines = [str(i) for i in range(30_000)] + ["many"] + ["5"] * 10
    with open_source(written(tmp_path / "a.csv", "x,y\n" + "".join(f"{line},1\n" for line in lines))) as source:
        assert source.column("x").kind == "category"
        assert any("'x' mixes numbers" in n and "row 30,001: 'many'" in n for n in source.notes)
        assert sum(len(batch) for batch in source.batches()) == 30_011


def test_numbers_that_are_names_stay_words(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "zip,long\n01234,123456789012345678901\n90210,123456789012345678902\n")
    assert values(path) == {"zip": ["01234", "90210"], "long": ["123456789012345678901", "123456789012345678902"]}


def test_missing_and_infinite_numbers(tmp_path: Path) -> None:
    assert values(written(tmp_path / "a.csv", "x,y\n1.5,1\nNaN,1\n,1\n?,1\n-inf,1\n+2e3,1\n .5 ,1\n3.,1\n"))["x"] == [
        1.5, None, None, None, float("-inf"), 2000.0, 0.5, 3.0,
    ]  # fmt: skip


def test_dates_in_several_hands(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "us,eu,de,z\n12/31/2024,31/12/2024,31.12.2024,2024-12-31T10:00:00Z\n"
                                       "1/2/2024,2/1/2024,2.1.2024,2024-01-02T00:00:00+02:00\n")  # fmt: skip
    found = values(path)
    assert found["us"] == found["eu"] == found["de"] == [datetime(2024, 12, 31), datetime(2024, 1, 2)]
    assert found["z"] == [datetime(2024, 12, 31, 10), datetime(2024, 1, 1, 22)]


def test_ambiguous_dates_are_said(tmp_path: Path) -> None:
    with open_source(written(tmp_path / "a.csv", "d,y\n1/2/2024,1\n3/4/2024,2\n")) as source:
        assert source.head(1)["d"].to_pylist() == [datetime(2024, 1, 2)]
        assert any("month/day/year" in note for note in source.notes)


def test_copies_of_a_column_are_left_out(tmp_path: Path) -> None:
    with open_source(written(tmp_path / "a.csv", "a,b,a\n1,2,1\n3,4,3\n")) as source:
        assert source.names == ("a", "b")
        assert source.notes == ("A second column 'a' holds the same values and was left out.",)


@pytest.mark.parametrize("lines", [True, False])
def test_json(tmp_path: Path, lines: bool) -> None:
    rows = [{"a": 1, "t": "x\ny", "b": True}, {"a": None, "t": "ü", "new": [1, {"k": 2}]}, {"a": 2.5, "b": False}]
    text = "\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows, indent=2)
    assert values(written(tmp_path / "a.json", text)) == {
        "a": [1.0, None, 2.5], "t": ["x\ny", "ü", None], "b": [True, None, False],
        "new": [None, '["1", {"k": "2"}]', None],
    }  # fmt: skip


def test_json_is_known_by_its_beginning(tmp_path: Path) -> None:
    assert values(written(tmp_path / "a.txt", '{"a": 1, "b": "x"}\n')) == {"a": [1], "b": ["x"]}


def test_json_larger_than_the_window(tmp_path: Path) -> None:
    rows = [{"i": i, "t": "x" * (i * 37 % 900)} for i in range(6000)]
    path = written(tmp_path / "a.json", json.dumps(rows))
    assert path.stat().st_size > 2 << 20
    found = values(path)
    assert found["i"] == list(range(6000)) and [len(t or "") for t in found["t"]] == [len(r["t"]) for r in rows]


def typed_table() -> pa.Table:
    return pa.table(
        {
            "i": pa.array([1, None, 3], pa.int16()), "f": pa.array([0.5, float("nan"), None], pa.float32()),
            "s": pa.array(["a", "b", "a"]).dictionary_encode(), "d": pa.array([date(2024, 1, 2)] * 3),
            "l": pa.array([[1, 2], None, []]), "x": pa.array([b"abc", None, b""]), "b": [True, False, None],
            "t": pa.array([datetime(2024, 1, 1)] * 3, pa.timestamp("ns", "Europe/Berlin")),
            "u": pa.array(["p", "q", None], pa.large_string()),
        }
    )  # fmt: skip


@pytest.mark.parametrize("format", ["parquet", "file", "stream"])
def test_typed_files(tmp_path: Path, format: str) -> None:
    path, table = tmp_path / ("a.parquet" if format == "parquet" else "a.arrow"), typed_table()
    if format == "parquet":
        pq.write_table(table, path)
    else:
        new = pa.ipc.new_file if format == "file" else pa.ipc.new_stream
        with pa.OSFile(str(path), "wb") as out, new(out, table.schema) as writer:
            writer.write_table(table)
    found = values(path)
    assert found["i"] == [1, None, 3] and found["f"][0] == 0.5 and np.isnan(found["f"][1]) and found["f"][2] is None
    assert found["s"] == ["a", "b", "a"] and found["d"] == [datetime(2024, 1, 2)] * 3
    assert found["l"] == ["[1, 2]", None, "[]"] and found["x"] == ["3 bytes", None, "0 bytes"]
    assert found["b"] == [True, False, None] and found["t"] == [datetime(2024, 1, 1)] * 3
    assert found["u"] == ["p", "q", None]
    with open_source(path) as source:
        assert source.column("l").kind == source.column("x").kind == "other"
        assert source.column("f").n_missing == 2


def test_packed_files(tmp_path: Path) -> None:
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(ROWS.encode()))
    assert values(packed) == READ
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/../../evil.csv", ROWS)
        archive.writestr("__MACOSX/._evil.csv", "x")
    assert values(tmp_path / "a.zip") == READ
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv.gz", "a.zip"]


def test_the_temporary_folder_goes_with_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = written(tmp_path / "a.csv", "a,b\n1,2\n")
    with open_source(path):
        assert list((tmp_path / "tmp").iterdir())
    with pytest.raises(BadInput):
        open_source(written(tmp_path / "b.csv", "a,b\n1\n"))
    assert not list((tmp_path / "tmp").iterdir())


def test_reading_can_be_cancelled(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "a,b\n" + "1,2\n" * 10_000)
    with pytest.raises(Cancelled):
        open_source(path, Run(device="cpu", cancel=lambda: True))


def test_an_unknown_column_names_the_nearest(tmp_path: Path) -> None:
    with open_source(written(tmp_path / "a.csv", "label,b\n1,2\n")) as source:
        with pytest.raises(BadInput, match="Did you mean 'label'"):
            source.column("lable")


@shared
def test_the_shared_files_are_read_whole() -> None:
    with open_source(SHARED / "sms-spam.csv") as source:
        assert (source.n_rows, source.names) == (4837, ("column 1", "spam", "text"))
        assert source.column("text").kind == "text"
    with open_source(SHARED / "compas-scores-two-years.csv") as source:
        assert source.n_rows == 7214 and len(source.names) == 51
        assert source.column("dob").kind == "date" and source.column("violent_recid").n_missing == 7214
