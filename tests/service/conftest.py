"""The further studies, as the service finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.more_studies import BUILDERS


@pytest.fixture(scope="session")
def more_studies_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with these studies, shared by all tests: results may be cached in it, nothing else may change."""
    folder = tmp_path_factory.mktemp("more-studies")
    for name, build in BUILDERS.items():
        build(folder / name)
    return folder


@pytest.fixture
def more_studies(more_studies_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared folder, as the one that the service looks into."""
    monkeypatch.setenv("INFLUENCE_STUDIES", str(more_studies_folder))
    return more_studies_folder
