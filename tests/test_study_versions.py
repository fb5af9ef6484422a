"""Formats of a study: refused while older or newer, brought forward with a copy, and again after any interruption."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from influence_core import Study, study_versions
from influence_core.errors import BadInput
from influence_core.study_files import FORMAT
from influence_core.study_versions import Migration, migrated

KEPT = f"before-format-{FORMAT}"


def renamed_label(folder: Path, content: dict[str, Any]) -> Mapping[str, Any]:
    """A format in which the header said ``labels`` and the column was called ``y``."""
    for file in folder.glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.rename_columns(["label" if name == "y" else name for name in table.column_names]), file)
    return {**{k: v for k, v in content.items() if k != "labels"}, "classes": content["labels"]}


def set_format(study: Path, change: tuple[str, str] = ("", ""), number: object = FORMAT - 1) -> None:
    file = study / "study.toml"
    text = file.read_text().replace(f"format = {FORMAT}\n", f"format = {number}\n", 1)
    file.write_text(text.replace(*change, 1) if change[0] else text)


@pytest.fixture
def old(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of the hypothetical format before the present one, and the migration that knows it."""
    study = own_studies / "table"
    for split in ("train", "test", "locked"):
        table = pq.read_table(study / f"{split}.parquet")
        names = ["y" if name == "label" else name for name in table.column_names]
        pq.write_table(table.rename_columns(names), study / f"{split}.parquet")
    set_format(study, ("classes =", "labels ="))
    step = Migration(renamed_label, "The label's column is called 'label'.", ("t*.parquet", "locked.parquet"))
    monkeypatch.setattr(study_versions, "MIGRATIONS", {FORMAT - 1: step})
    return study


def content(study: Path) -> dict[str, bytes]:
    return {p.relative_to(study).as_posix(): p.read_bytes() for p in study.rglob("*") if p.is_file()}


def test_an_older_study_is_refused_with_the_command(old: Path) -> None:
    with pytest.raises(BadInput, match="is from an older version") as caught:
        Study(old)
    assert caught.value.fix.endswith(f"python -m influence_core migrate {old}")


@pytest.mark.parametrize("number", [FORMAT + 1, '"1"', "true", "1.0"])
def test_what_is_no_older_format_is_called_newer(own_studies: Path, number: object) -> None:
    set_format(own_studies / "table", number=number)
    for opening in (Study, lambda path: migrated(path, FORMAT)):
        with pytest.raises(BadInput, match="is from a newer version"):
            opening(own_studies / "table")


def test_it_is_brought_forward_and_the_originals_are_kept(old: Path) -> None:
    before = content(old)
    said = migrated(old, FORMAT)
    assert len(said) == 1 and "The label's column is called 'label'." in said[0] and KEPT in said[0]
    study = Study(old)
    assert study.header.classes == ("ant", "bee", "cat") and study.task.n_train == 60
    kept = content(old / KEPT)
    assert set(kept) == {"study.toml", "train.parquet", "test.parquet", "truth.parquet", "locked.parquet"}
    assert all(kept[name] == before[name] for name in kept)
    untouched = set(before) - set(kept)
    assert {name: content(old)[name] for name in untouched} == {name: before[name] for name in untouched}
    assert migrated(old, FORMAT) == [] and not list(old.glob(".format-*"))


def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(folder: Path, content: dict[str, Any]) -> Mapping[str, Any]:
        renamed_label(folder, content)
        raise BadInput("This label cannot be moved", "x", "y")

    monkeypatch.setitem(study_versions.MIGRATIONS, FORMAT - 1, Migration(failing, "", ("*.parquet",)))
    before = content(old)
    with pytest.raises(BadInput, match="cannot be moved"):
        migrated(old, FORMAT)
    assert content(old) == before


@pytest.mark.parametrize("moves", range(6))
def test_killed_while_files_move_in_it_begins_again(old: Path, moves: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    left, real, before = [moves], os.replace, content(old)

    def replace(source: Any, target: Any) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(study_versions.os, "replace", replace)
        if moves < 5:
            with pytest.raises(Killed):
                migrated(old, FORMAT)
            with pytest.raises(BadInput, match="older version"):
                Study(old)
        else:
            migrated(old, FORMAT)
    assert len(migrated(old, FORMAT)) == (1 if moves < 5 else 0)
    assert Study(old).task.n_train == 60
    assert all(data == before[name] for name, data in content(old / KEPT).items())


def test_a_way_that_is_not_known_is_said(own_studies: Path) -> None:
    set_format(own_studies / "table", number=-3)
    with pytest.raises(BadInput, match="The study is too old"):
        migrated(own_studies / "table", FORMAT)


def test_several_steps_follow_one_another(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def titled(folder: Path, content: dict[str, Any]) -> Mapping[str, Any]:
        return {**content, "title": content["title"] + " (old)"}

    monkeypatch.setitem(study_versions.MIGRATIONS, FORMAT - 2, Migration(titled, "The title says so."))
    text = (old / "study.toml").read_text()
    (old / "study.toml").write_text(text.replace(f"format = {FORMAT - 1}\n", f"format = {FORMAT - 2}\n"))
    assert [sentence.split(":")[0] for sentence in migrated(old, FORMAT)] == [
        f"Format {FORMAT - 2} to {FORMAT - 1}", f"Format {FORMAT - 1} to {FORMAT}",
    ]  # fmt: skip
    assert Study(old).header.title == "Small <table> (old)"
    first = tomllib.loads((old / f"before-format-{FORMAT - 1}" / "study.toml").read_text())
    assert first["format"] == FORMAT - 2 and first["title"] == "Small <table>"


@pytest.mark.parametrize("text", [None, "not = = toml", "\x00"])
def test_a_folder_that_is_no_study_is_named(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "study.toml").write_text(text)
    with pytest.raises(BadInput, match="no study here" if text is None else "cannot be read"):
        migrated(tmp_path, FORMAT)
