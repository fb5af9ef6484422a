"""Uploaded images and packed studies: described without being imported, and imported by the same job as tables."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomli_w

from influence_core import Run, Study, service
from influence_core.__main__ import main
from influence_core.errors import BadInput
from influence_core.service import imports, previews
from influence_core.service.jobs import Jobs
from influence_core.study_archive import write_archive
from tests.readers.image_cases import contents, encoded, picture, zip_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "here"
    monkeypatch.setenv("INFLUENCE_STUDIES", str(folder))
    monkeypatch.setattr(imports, "ensure_worker", lambda folder: False)
    monkeypatch.setattr(previews, "_opened", previews.OrderedDict())
    yield folder
    for held in list(previews._opened.values()):
        held.close()


def uploaded(path: Path) -> str:
    with path.open("rb") as file:
        return service.save_upload(path.name, file)


def finished(folder: Path, item: service.PendingImport) -> Study:
    """Run the job's command, as the worker does."""
    job = Jobs(folder / item.name).list()[0]
    assert main([job.argv[0], str(folder / item.name), *job.argv[1:]]) == 0
    return Study(folder / item.name)


def images(token: str) -> service.ImagesPreview:
    found = service.preview(token)
    assert isinstance(found, service.ImagesPreview)
    return found


def packed(token: str) -> service.StudyPreview:
    found = service.preview(token)
    assert isinstance(found, service.StudyPreview)
    return found


def test_a_zip_of_images_is_described_and_imported(tmp_path: Path, here: Path) -> None:
    files = contents(60) | {"dark/notes.txt": b"x", "dark/broken.png": b"no picture"}
    token = uploaded(zip_of(files, tmp_path / "pets.zip"))
    preview = images(token)
    assert (preview.title, preview.n_rows, preview.sizes) == ("pets", 60, "12 × 12 pixels")
    assert (preview.labels, preview.label) == (("folder",), "folder")
    assert any("notes.txt" in note for note in preview.notes) and any("broken.png" in note for note in preview.notes)
    check = service.check_images(token, "")
    assert check.classes == (("bright", 30), ("dark", 30)) and check.problem is None and check.cost.startswith("About")
    assert len(check.thumbnails) == 24 and {label for _, label in check.thumbnails} == {"bright", "dark"}
    assert all(uri.startswith("data:image/png;base64,") for uri, _ in check.thumbnails)
    assert check.roles == {"label": "folder"}
    study = finished(here, service.start_import(token, check.roles, ""))
    assert study.header.modality == "image" and study.header.classes == ("bright", "dark")
    assert not list((here / ".uploads").iterdir()) and not list(here.glob(".*-import-*"))


def test_a_column_beside_images_can_be_learned(tmp_path: Path) -> None:
    lines = ["file,age,kind", *(f"{name},{i * 0.25},{'ab'[i % 2]}" for i, name in enumerate(contents(40)))]
    token = uploaded(zip_of(contents(40) | {"labels.csv": "\n".join(lines).encode()}, tmp_path / "pets.zip"))
    preview = images(token)
    assert set(preview.labels) == {"folder", "age", "kind"}
    age, kind = service.check_images(token, "age"), service.check_images(token, "kind")
    assert (age.task, age.classes, age.roles) == ("regression", (), {"label": "age"})
    assert (kind.task, kind.classes) == ("classification", (("a", 20), ("b", 20)))
    assert {label for _, label in kind.thumbnails} == {"a", "b"}


def test_images_without_a_label_are_shown_with_what_to_do(tmp_path: Path) -> None:
    files = {f"all/{i}.png": encoded(picture(0, i)) for i in range(20)}
    token = uploaded(zip_of(files, tmp_path / "pets.zip"))
    assert images(token).label == ""
    check = service.check_images(token, "")
    assert check.roles is None and check.problem is not None and str(tmp_path) not in " ".join(check.problem)
    assert len(check.thumbnails) == 20
    assert service.check_images(token, "<b>").problem is not None  # an address may say anything


def test_a_table_is_not_asked_about_as_images_nor_the_other_way_round(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n" + "\n".join(f"{i},{i % 2}" for i in range(50)))
    with pytest.raises(BadInput, match="no images"):
        service.check_images(uploaded(tmp_path / "a.csv"), "")
    with pytest.raises(BadInput, match="no table"):
        service.check_import(uploaded(zip_of(contents(20), tmp_path / "pets.zip")), {})


@pytest.mark.parametrize("reviews", [True, False])
def test_a_packed_study_is_described_and_put_into_place(
    own_studies: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reviews: bool
) -> None:
    import sqlite3
    from contextlib import closing

    from influence_core.reviews import SCHEMA

    monkeypatch.setenv("INFLUENCE_STUDIES", str(here))
    source = Study(own_studies / "table")
    with closing(sqlite3.connect(source.path / "reviews.sqlite")) as database:
        database.executescript(SCHEMA)
    token = uploaded(write_archive(source.path, tmp_path / "old.zip", Run(), reviews=True))
    preview = packed(token)
    assert preview.title == source.header.title and preview.reviews > 0 and preview.cache == 0
    assert preview.rows == {split: source.n_rows(split) for split in source.splits} and preview.reference == ""
    study = finished(here, service.start_import(token, {"reviews": reviews, "cache": False}, preview.title))
    assert study.fingerprint == source.fingerprint and (study.path / "reviews.sqlite").exists() is reviews
    assert not list((here / ".uploads").iterdir())  # the file is not kept twice


def changed(archive: Path, out: Path, header: bytes) -> Path:
    """Copy an archive with another study.toml."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            new.writestr(entry, header if entry.filename.endswith("study.toml") else old.read(entry))
    return out


def test_what_a_stranger_wrote_into_a_packed_study_is_only_words(
    own_studies: Path, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUENCE_STUDIES", str(here))
    plain = write_archive(own_studies / "table", tmp_path / "plain.zip", Run())
    header = {"format": 1, "title": "a\u202e\n" + "x" * 400, "model": {"reference": "mine:net"}, "notes": 7,
              "description": 3, "modality": "table"}  # fmt: skip
    preview = packed(uploaded(changed(plain, tmp_path / "a.zip", tomli_w.dumps(header).encode())))
    assert preview.title.isprintable() and len(preview.title) <= 100 and preview.notes == ()
    assert preview.reference == "mine:net"
    for content, said in ((b"\xff", "cannot be read"), (b"a = [", "cannot be read"), (b"format = 99", "newer version")):
        with pytest.raises(BadInput, match=said):
            service.preview(uploaded(changed(plain, tmp_path / "b.zip", content)))
    with zipfile.ZipFile(plain) as old:
        rows = zip_of({n: b"PAR1" if n.endswith("train.parquet") else old.read(n) for n in old.namelist()},
                      tmp_path / "c.zip")  # fmt: skip
    with pytest.raises(BadInput, match="table in the archive"):
        service.preview(uploaded(rows))


def test_only_known_choices_are_taken_with_a_packed_study(
    own_studies: Path, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    archive = write_archive(own_studies / "table", tmp_path / "plain.zip", Run())
    for roles in ('{"label": "x"}', '{"cache": "yes"}'):
        assert main(["import", str(archive), "--out", str(here / "a"), "--roles", roles]) == 2
        assert "no such role" in capfd.readouterr().err and not (here / "a").exists()
