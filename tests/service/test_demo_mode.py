"""The demo for visitors: a scratch copy, nothing written to the folder given, and a way back."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence_core import service
from influence_core.errors import BadInput, StoreProblem
from influence_core.service import access, demo
from influence_core.service.folder import studies_folder
from tests.service.test_access import tree


@pytest.fixture
def given(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder given, with the demo running on a copy."""
    (own_studies / "access.toml").write_text('admins = ["ada@example.org"]', encoding="utf-8")
    (own_studies / ".uploads" / "x").mkdir(parents=True)
    (own_studies / "table" / "jobs.sqlite").write_bytes(b"somebody's jobs")
    monkeypatch.setenv("INFLUENCE_DEMO", "1")
    access._registered.clear()
    service.set_identity(lambda: None, "off", "0.0.0.0")
    service.start_demo()
    yield own_studies
    demo._remove()
    demo._scratch.clear()
    access._registered.clear()


def test_visitors_get_a_copy_of_the_studies_and_nothing_else(given: Path) -> None:
    copy = studies_folder()
    assert copy != given
    assert sorted(path.name for path in copy.iterdir()) == ["image", "linear", "table"]
    assert not (copy / "table" / "jobs.sqlite").exists()
    assert [card.name for card in service.studies()] == ["image", "linear", "table"]
    assert service.role("table") == "reviewer"
    assert service.visitor() == service.Visitor("", False, True)
    service.start_demo()  # of the next visitor
    assert studies_folder() == copy


def test_nothing_is_written_to_the_folder_given(given: Path) -> None:
    before = tree(given)
    shown = service.predictions("table", service.PredictionFilter()).rows[0]
    request = service.ExplainRequest(ids=(str(shown.row_id),), method="tracin_cp")
    job = service.start_fit("table", request, "visitor")
    service.cancel_job("table", job.id, "visitor")
    assert (studies_folder() / "table" / "jobs.sqlite").is_file()
    assert tree(given) == before


def test_nothing_is_imported_renamed_or_deleted(given: Path) -> None:
    before = tree(given), tree(studies_folder())
    with pytest.raises(BadInput, match="Nothing can be imported in the demo"):
        service.save_upload("a.csv", io.BytesIO(b"a,b\n1,2\n"))
    for act in (service.delete_study, service.clear_cache, service.backup):
        with pytest.raises(BadInput, match="This cannot be done in the demo"):
            act("table")
    with pytest.raises(BadInput, match="This cannot be done in the demo"):
        service.rename_study("table", "Mine")
    assert (tree(given), tree(studies_folder())) == before


def test_reset_puts_everything_back(given: Path) -> None:
    first = studies_folder()
    (first / "table" / "study.toml").write_text("broken", encoding="utf-8")
    (first / "linear" / "left.txt").write_text("behind", encoding="utf-8")
    assert service.studies()[2].title == "table (cannot be opened)"
    service.reset_demo()
    second = studies_folder()
    assert second != first and not first.exists()
    assert service.studies()[2].title == "Small <table>"
    assert not (second / "linear" / "left.txt").exists()


def test_a_copy_that_fails_opens_nothing(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCE_DEMO", "1")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(own_studies))

    monkeypatch.setattr("influence_core.service.demo.shutil.copytree", full)
    access._registered.clear()
    service.set_identity(lambda: None, "off", "127.0.0.1")
    with pytest.raises(StoreProblem, match="The disk is full"):
        service.start_demo()
    with pytest.raises(BadInput, match="The demo has not started"):
        service.overview("table")
    assert service.role("table") is None
    access._registered.clear()


def test_outside_a_demo_there_is_nothing_to_reset(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFLUENCE_DEMO", "0")
    service.start_demo()
    assert studies_folder() == own_studies
    with pytest.raises(BadInput, match="There is nothing to reset"):
        service.reset_demo()
