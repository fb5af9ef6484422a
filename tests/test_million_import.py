"""A million rows are imported within the memory of a small machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.million_import import MOST_BYTES, imported, write_rows
from influence_core import Study


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_million_rows_in_two_gigabytes(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet")
    took = imported(tmp_path / "rows.parquet", tmp_path / "study")
    study = Study(tmp_path / "study")
    assert sum(study.n_rows(split) for split in study.splits) == 1_000_000
    assert 0 < took.training < took.seconds
    assert took.most < MOST_BYTES, f"{took.most / 2**20:.0f} MiB"


def test_the_measured_import_is_one_of_the_product(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.parquet", 3_000)
    took = imported(tmp_path / "rows.parquet", tmp_path / "study")
    assert Study(tmp_path / "study").task.n_train > 2_000 and 50 << 20 < took.most < MOST_BYTES
