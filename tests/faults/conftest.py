"""A folder of studies whose workers are watched, and ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import real_fits as fits


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "studies"
    folder.mkdir()
    with fits.watched(folder, monkeypatch):
        yield folder
