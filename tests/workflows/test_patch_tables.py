"""Patch files that a stranger made: whatever is in them, there is one clear message, and nothing runs."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from influence_core import Study
from influence_core.changes import COLUMNS, Change, patch_table
from influence_core.errors import BadInput
from influence_core.workflows import patches
from influence_core.workflows.patch_tables import MAX_TEXT, patch_rows

NAMES = ",".join(COLUMNS[:5])
LINE = {"row_id": 1, "split": "train", "action": "relabel", "old_label": "ant", "new_label": "bee"}


class Bomb:
    """Would leave a file behind if it were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def parquet(**columns: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def records(**changed: Any) -> bytes:
    return json.dumps([LINE | changed]).encode()


HOSTILE = {
    "binary.csv": (bytes(range(256)), "cannot be read"),
    "nul.json": (records(comment="a\0b"), "no text has"),
    "half.json": (b'[{"row_id": 1, "split": "train", "action": "relabel", "old_label": "ant", '
                  b'"new_label": "\\ud83d"}]', "no text has"),
    "deep.json": (b"[" * 200_000, "nested too deeply"),
    "number.json": (b"[" + b"9" * 5000 + b"]", "cannot be read"),
    "list.json": (records(new_label=["bee"]), "is no text and no number"),
    "object.json": (records(row_id={"a": 1}), "is no text and no number"),
    "huge-id.json": (records(row_id="9" * 400 + ".0"), "must be numbers"),
    "endless-id.json": (records(row_id="inf"), "must be numbers"),
    "long.json": (records(comment="x" * (MAX_TEXT + 1)), "is the most"),
    "calendar.json": (records(at="0001-01-01T00:00:00+14:00"), "Write times as"),
    "weight.json": (records(action="downweight", new_label="", weight="nan"), "goes from 0 to 1"),
    "locked.json": (records(split="locked"), "Locked rows are not cleaned"),
    "locked.csv": (f"{NAMES}\n1,locked,drop,ant,\n".encode(), "a reviewed judge"),
    "twice.csv": (f"{NAMES}\n1,train,drop,ant,\n1,train,keep,ant,\n".encode(), "stands in it twice"),
    "ragged.csv": (f"{NAMES}\n1,train,drop,ant\n1,2,3,4,5,6,7,8\n".encode(), "cannot be read"),
    "cleaned.csv": (b"id,label,size\n1,ant,3\n", "no column row_id, split, action, old_label, new_label; its columns"),
    "cleaned.json": (b'[{"id": 1, "label": "ant"}]', "its columns are id, label"),
    "cleaned.parquet": (parquet(id=[1], label=["ant"]), "its columns are id, label"),
    "lists.parquet": (parquet(**{name: [[1]] for name in COLUMNS}), "holds lists"),
    "bytes.parquet": (parquet(**(dict.fromkeys(COLUMNS, ["1"]) | {"comment": [b"\x80"]})), "is no text"),
    "many.csv": (f"{NAMES}\n".encode() + b"1,train,drop,ant,\n" * 101, "more than 100 lines"),
    "many.json": (json.dumps([LINE] * 101).encode(), "more than 100 lines"),
    # One byte stands for all rows: a megabyte of it would be millions.
    "many.parquet": (parquet(**{name: pa.repeat("1", 3_000_000) for name in COLUMNS}), "more than 100 lines"),
    "wide.parquet": (parquet(**{name: pa.repeat("x" * 10**6, 90) for name in COLUMNS}), "is the most"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_get_one_message_that_names_the_file(studies: Path, tmp_path: Path, name: str) -> None:
    content, words = HOSTILE[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as refused:
        patches.read_patch(tmp_path / name, Study(studies / "image"), title=name, most=100)
    said = str(refused.value)
    assert words in said and len(said) < 800 and str(tmp_path) not in said


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle", "a.pt", "a.npy", "a", "a.csv", "a.json", "a.parquet"])
def test_a_pickle_is_never_run(studies: Path, tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(BadInput):
        patches.read_patch(tmp_path / name, Study(studies / "image"))
    assert not mark.exists()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda t: f"{NAMES}\n{t}".encode("utf-8",
       "surrogatepass")), st.text(max_size=100).map(lambda t: f"[{t}]".encode("utf-8", "surrogatepass"))),
       format=st.sampled_from(["csv", "json", "parquet"]))  # fmt: skip
def test_any_bytes_are_a_patch_or_a_message(studies: Path, tmp_path: Path, data: bytes, format: str) -> None:
    file = tmp_path / f"any.{format}"
    file.write_bytes(data)
    try:
        assert isinstance(patches.read_patch(file, Study(studies / "image"), most=100), list)
    except BadInput as refused:
        assert refused.what and refused.why and refused.fix


def test_a_patch_of_many_pieces_comes_back_whole_and_in_order(tmp_path: Path) -> None:
    n = 20_000
    said = [Change("train", i, "relabel", "ant", f"class {i % 7}", comment="=1+1" if i % 3 else "") for i in range(n)]
    expected = patch_table(said)
    for format in ("csv", "json", "parquet"):
        file = tmp_path / f"p.{format}"
        file.write_bytes(patches.patch_bytes(said, format))
        found = patch_rows(file, format, most=n)
        for name in ("row_id", "new_label", "comment"):
            assert list(map(str, found[name])) == list(map(str, expected[name]))
