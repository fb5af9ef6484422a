"""The hash of a row's content: what changes it, and what does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.row_content import content_hashes
from influence_core.study import Study


def hashes(folder: Path, table: pa.Table) -> list[str]:
    pq.write_table(table, folder / "train.parquet")
    return content_hashes(Study(folder), "train", range(len(table)))


def test_only_what_a_row_says_counts(studies: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(studies / "table", folder, ignore=shutil.ignore_patterns("cache"))
    table = pq.read_table(folder / "train.parquet")
    table = table.set_column(2, "height", pa.array([float(i // 2) for i in range(len(table))]))
    before = hashes(folder, table)
    assert len(set(before)) == len(before) == 60 and all(len(said) == 16 for said in before)
    whole = table.set_column(2, "height", pa.array([i // 2 for i in range(len(table))]))  # 3 is 3.0
    other = whole.set_column(1, "label", pa.array(["bee"] * 60)).set_column(0, "id", pa.array(range(100, 160)))
    shuffled = other.select(["weight", "id", "label", "height", "depth", "width"])
    empty = shuffled.append_column("note", pa.nulls(60, pa.string()))
    assert hashes(folder, empty) == before
    texts = ["", *["seen"] * 59]
    noted = hashes(folder, shuffled.append_column("note", pa.array(texts)))
    assert noted[0] == before[0] and not set(noted[1:]) & set(before)
    renamed = hashes(folder, table.rename_columns(["id", "label", "width", "height", "depth", "weight"]))
    assert not set(renamed) & set(before)  # the same numbers in other columns say something else
    assert content_hashes(Study(studies / "table"), "train", []) == []


def test_the_copy_that_people_see_of_a_picture_is_left_out(studies: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(studies / "image", folder, ignore=shutil.ignore_patterns("cache"))
    study = Study(folder)
    before = content_hashes(study, "train", [3, 1])
    assert len(set(before)) == 2 and content_hashes(study, "train", [1, 3]) == before[::-1]
    pixels = pq.read_table(folder / "train.parquet")[study.encoder.column].to_pylist()
    assert pixels[1] != pixels[3]
