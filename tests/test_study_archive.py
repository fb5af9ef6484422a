"""A study as one file: it comes back as it was, and nothing of a stranger's archive gets further than a message."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from influence_core import Run, Study, archive_members, attribute, scratch, service, study_archive, study_versions
from influence_core.errors import BadInput, Cancelled, StoreProblem
from influence_core.reviews import SCHEMA
from influence_core.study_archive import import_archive, is_study_archive, write_archive
from influence_core.study_versions import Migration

ROOT = Path(__file__).resolve().parents[1]
ACT = "INSERT INTO acts(reviewer, tab, number, kind, at, target) VALUES ('r', 't', ?, 'decide', 0, ?)"


@pytest.fixture
def table(own_studies: Path) -> Path:
    return own_studies / "table"


@pytest.fixture
def packed(table: Path, tmp_path: Path) -> Path:
    return write_archive(table, tmp_path / "table.zip", Run())


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def rebuilt(archive: Path, change: Callable[[zipfile.ZipFile], None], leave_out: str = "?") -> Path:
    """A copy of an archive with more in it, or less."""
    out = archive.with_name("changed.zip")
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if not entry.filename.endswith(leave_out):
                new.writestr(entry, old.read(entry))
        change(new)
    return out


def refused(archive: Path, out: Path, match: str) -> BadInput:
    """The message for an archive, of which nothing may be left anywhere."""
    around = content(out.parent)
    with pytest.raises(BadInput, match=match) as caught:
        import_archive(archive, out, Run())
    assert content(out.parent) == around and not out.exists()
    assert not list(out.parent.glob(".*-import-*"))
    assert len(caught.value.why) < 400 and caught.value.fix and "\n" not in str(caught.value)
    return caught.value


# -- out and in again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table", "linear", "image"])
def test_a_study_comes_back_as_it_was(own_studies: Path, name: str, tmp_path: Path) -> None:
    here = Study(own_studies / name)
    service.save_guidelines(name, "Doubtful rows stay.")
    service.save_class_definition(name, here.header.classes[0], "Round, and closed.")
    before = content(here.path)
    assert {"guidelines.md", "class_definitions.json"} <= set(before)
    archive = write_archive(here.path, tmp_path / "away" / "any name.zip", Run())
    assert content(here.path) == before and [p.name for p in archive.parent.iterdir()] == ["any name.zip"]
    there = import_archive(archive, tmp_path / "other" / "place", Run())
    assert content(there.path) == before and there.header.notes == ()
    assert there.fingerprint == here.fingerprint and there.task.n_train == here.task.n_train
    assert [p.name for p in there.path.parent.iterdir()] == ["place"]


def test_a_copied_folder_has_the_same_fingerprint_and_cached_results(table: Path, tmp_path: Path) -> None:
    here = Study(table)
    ids = here.task.ids("test")[:2].tolist()
    scores = attribute(here, "tracin_cp", ids).scores
    there = Study(shutil.copytree(table, tmp_path / "elsewhere" / "copy"))
    keys = set(there.store.keys())
    assert there.fingerprint == here.fingerprint and keys == set(here.store.keys()) != set()
    assert torch.equal(attribute(there, "tracin_cp", ids).scores, scores)
    assert set(there.store.keys()) == keys


def test_reviews_and_cache_go_along_only_if_asked(table: Path, tmp_path: Path) -> None:
    here = Study(table)
    ids = here.task.ids("test")[:1].tolist()
    scores = attribute(here, "grad_dot", ids).scores
    make_reviews(table / "reviews.sqlite").close()
    (table / "jobs.sqlite").write_bytes(b"argv of a stranger")
    plain = write_archive(table, tmp_path / "plain.zip", Run())
    full = write_archive(table, tmp_path / "full.zip", Run(), reviews=True, cache=True)
    names = zipfile.ZipFile(plain).namelist()
    assert not any("cache" in name or "sqlite" in name for name in names) and "table/study.toml" in names
    more = set(zipfile.ZipFile(full).namelist()) - set(names)
    assert {name for name in more if "/cache/" not in name} == {"table/reviews.sqlite"} and len(more) > 3
    whole = import_archive(full, tmp_path / "a", Run(), cache=True)
    keys = set(whole.store.keys())
    assert keys == set(here.store.keys()) and (whole.path / "reviews.sqlite").exists()
    assert torch.equal(attribute(whole, "grad_dot", ids).scores, scores) and set(whole.store.keys()) == keys
    part = import_archive(full, tmp_path / "b", Run(), reviews=False)
    assert not (part.path / "cache").exists() and not (part.path / "reviews.sqlite").exists()
    assert part.header.notes == ("The results in the archive were left out; they are computed again when asked for.",)


def test_large_parts_are_stored_and_small_texts_packed(packed: Path) -> None:
    for entry in zipfile.ZipFile(packed).infolist():
        stored = entry.filename.endswith((".parquet", ".safetensors"))
        assert entry.compress_type == (zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)


def make_reviews(file: Path) -> sqlite3.Connection:
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(SCHEMA)
    db.execute("PRAGMA user_version = 1")
    return db


def test_reviews_are_packed_as_of_one_moment_while_somebody_writes(table: Path, tmp_path: Path) -> None:
    db, stop = make_reviews(table / "reviews.sqlite"), threading.Event()

    def write() -> None:
        pair = 0
        while not stop.is_set():
            db.execute("BEGIN")
            db.executemany(ACT, [(2 * pair, pair), (2 * pair + 1, pair)])
            db.execute("COMMIT")
            pair += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        # Another connection: the writer's own sees the rows of a transaction that is not yet committed.
        with closing(sqlite3.connect(table / "reviews.sqlite")) as seen:
            while not seen.execute("SELECT 1 FROM acts").fetchone():
                time.sleep(0.001)
        archives = [write_archive(table, tmp_path / f"{i}.zip", Run(), reviews=True) for i in range(5)]
    finally:
        stop.set()
        thread.join()
        db.close()
    counts = []
    for i, archive in enumerate(archives):
        study = import_archive(archive, tmp_path / f"study {i}", Run())
        copy = sqlite3.connect(study.path / "reviews.sqlite")
        counts.append(copy.execute("SELECT count(*) FROM acts").fetchone()[0])
        assert copy.execute("SELECT target FROM acts GROUP BY target HAVING count(*) <> 2").fetchall() == []
        copy.close()
    assert counts[0] > 0 and counts == sorted(counts)


def test_a_cached_result_evicted_meanwhile_is_left_out(table: Path, tmp_path: Path) -> None:
    attribute(Study(table), "grad_dot", [Study(table).task.ids("test")[0]])
    seen: list[float] = []

    def evicting(stage: str, done: float, total: float) -> None:
        seen.append(done)
        if done == 1:
            shutil.rmtree(next(path for path in (table / "cache").iterdir()))

    archive = write_archive(table, tmp_path / "t.zip", Run(progress=evicting), cache=True)
    assert len(seen) > 3 and import_archive(archive, tmp_path / "back", Run(), cache=True).task.n_train == 60


def test_packing_is_cancelled_without_a_trace_and_an_older_archive_stays(table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "t.zip").write_bytes(b"older")
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        write_archive(table, out / "t.zip", Run(cancel=lambda: next(calls) > 3))
    assert content(out) == {"t.zip": b"older"}


def test_what_no_archive_could_open_is_not_packed(table: Path, tmp_path: Path) -> None:
    (table / "encoder.json").unlink()
    with pytest.raises(BadInput, match="A file of the study is gone"):
        write_archive(table, tmp_path / "t.zip", Run())
    with pytest.raises(BadInput, match="no study here"):
        write_archive(tmp_path, tmp_path / "t.zip", Run())
    assert not (tmp_path / "t.zip").exists()


def test_a_link_out_of_the_study_is_not_followed(table: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    (table / "media").mkdir()
    (table / "media" / "x.png").symlink_to(tmp_path / "secret.png")
    assert "table/media/x.png" not in zipfile.ZipFile(write_archive(table, tmp_path / "t.zip", Run())).namelist()


def test_archives_of_studies_are_recognised(packed: Path, tmp_path: Path, table: Path) -> None:
    assert is_study_archive(packed)
    flat = tmp_path / "flat.zip"
    with zipfile.ZipFile(flat, "w") as archive:
        for path in table.rglob("*"):
            archive.write(path, path.relative_to(table))
    assert is_study_archive(flat) and import_archive(flat, tmp_path / "flat", Run()).task.n_train == 60
    deep = rebuilt(packed, lambda new: new.writestr("a/b/study.toml", ""), leave_out="study.toml")
    (tmp_path / "text.zip").write_text("no zip")
    for other in (deep, tmp_path / "text.zip", tmp_path / "absent.zip", tmp_path):
        assert not is_study_archive(other)


# -- taking in: cancel, full disk, places taken ------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 2, 5, 9, 12])
def test_taking_in_is_cancelled_without_a_trace(packed: Path, tmp_path: Path, step: int) -> None:
    calls, place = iter(range(10_000)), tmp_path / "place"
    with pytest.raises(Cancelled):
        import_archive(packed, place / "study", Run(cancel=lambda: next(calls) >= step))
    assert not place.exists() or list(place.iterdir()) == []


def test_progress_reaches_the_end_of_each_stage(packed: Path, tmp_path: Path) -> None:
    last: dict[str, float] = {}

    def note(stage: str, done: float, total: float) -> None:
        last[stage] = done / total

    import_archive(packed, tmp_path / "study", Run(progress=note))
    assert last == {"unpacking the study": 1.0, "checking the study": 1.0}


def test_a_place_that_is_taken_stays(packed: Path, table: Path, tmp_path: Path) -> None:
    before = content(table)
    (tmp_path / "file").write_text("mine")
    for place in (table, tmp_path / "file"):
        with pytest.raises(BadInput, match="The folder is taken"):
            import_archive(packed, place, Run())
    assert content(table) == before and (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_only_its_job_keeps_it(packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "checkpoints").mkdir(parents=True)  # of a process that was killed while it moved files in
    (place / "checkpoints" / "old.safetensors").write_bytes(b"half")
    (place / "jobs.sqlite").write_bytes(b"job")
    study = import_archive(packed, place, Run())
    assert (place / "jobs.sqlite").read_bytes() == b"job" and study.task.n_checkpoints == 2
    assert not (place / "checkpoints" / "old.safetensors").exists()


def test_a_disk_that_refuses_is_named(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device", str(tmp_path / "study"))

    monkeypatch.setattr(study_archive.members, "unpacked", full)
    with pytest.raises(StoreProblem, match="disk is full"):
        import_archive(packed, tmp_path / "place" / "study", Run())
    assert list((tmp_path / "place").iterdir()) == []


# -- hostile archives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../evil.parquet", "reaches outside"),
        ("table/../../evil.parquet", "reaches outside"),
        ("table/./train.parquet", "reaches outside"),
        ("table//train.parquet", "reaches outside"),
        ("/etc/evil", "place of its own"),
        ("C:/evil", "place of its own"),
        ("c:evil", "place of its own"),
        ("table\\..\\evil", "place of its own"),
        ("table/media/a\x1b[2J.png", "invisible characters"),
        ("table/media/a\u202egnp.exe", "invisible characters"),
        ("table/media/" + "x" * 300 + ".png", "too long"),
        ("table/Train.parquet", "same name"),
        ("table/STUDY.TOML", "same name"),
        ("table/extra.csv", "something else"),
        ("other/train.parquet", "something else"),
        ("table/.hidden", "something else"),
        ("table/checkpoints/-rf.safetensors", "something else"),
        ("table/model.py", "holds a program"),
        ("table/media/x.so", "holds a program"),
        ("table/cache/ab/abcdabcd/sitecustomize.py/x", "no error"),
        ("table/weights.pkl", "can hide a program"),
        ("table/checkpoints/last.pt", "can hide a program"),
        ("table/checkpoints/last.bin", "can hide a program"),
        ("table/training_args.bin", "can hide a program"),
    ],
)
def test_names_that_no_study_has_are_refused(packed: Path, tmp_path: Path, name: str, match: str) -> None:
    changed = rebuilt(packed, lambda new: new.writestr(zipfile.ZipInfo(name), b"x"))
    place = tmp_path / "place" / "study"
    place.parent.mkdir()
    if match == "no error":  # below the cache, which is not taken
        assert not (import_archive(changed, place, Run()).path / "cache").exists()
    else:
        refused(changed, place, match)


def test_a_name_with_a_zero_byte_is_refused(packed: Path, tmp_path: Path) -> None:
    def add(new: zipfile.ZipFile) -> None:
        new.writestr("table/media/a0b.png", b"x")

    changed = rebuilt(packed, add)
    changed.write_bytes(changed.read_bytes().replace(b"a0b.png", b"a\0b.png"))
    refused(changed, tmp_path / "study", "invisible characters")


def test_a_name_twice_is_refused(packed: Path, tmp_path: Path) -> None:
    def add(new: zipfile.ZipFile) -> None:
        with pytest.warns(UserWarning, match="Duplicate name"):
            new.writestr("table/train.parquet", b"x")

    refused(rebuilt(packed, add), tmp_path / "study", "same name")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(packed: Path, tmp_path: Path, kind: int) -> None:
    entry = zipfile.ZipInfo("table/media/x.png")
    entry.external_attr = (kind | 0o777) << 16
    changed = rebuilt(packed, lambda new: new.writestr(entry, b"/etc/passwd"))
    refused(changed, tmp_path / "study", "a link" if kind == stat.S_IFLNK else "no plain file")


def test_passwords_and_rare_packings_are_refused(packed: Path, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("table/media/x.png")
    entry.compress_type = zipfile.ZIP_LZMA
    refused(rebuilt(packed, lambda new: new.writestr(entry, b"x")), tmp_path / "study", "packed in a way")
    data = bytearray(packed.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    packed.write_bytes(data)
    refused(packed, tmp_path / "study", "encrypted")


def test_too_many_files_are_refused(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "MAX_MEMBERS", 20)

    def add(new: zipfile.ZipFile) -> None:
        for i in range(20):
            new.writestr(f"table/media/{i}.png", b"x")

    refused(rebuilt(packed, add), tmp_path / "study", "too many files")


def test_a_list_of_files_larger_than_memory_is_refused_unread(packed: Path, tmp_path: Path) -> None:
    data = bytearray(packed.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 12 : end + 16] = (archive_members.MAX_DIRECTORY + 1).to_bytes(4, "little")
    packed.write_bytes(data)
    refused(packed, tmp_path / "study", "too many files")


def test_a_bomb_is_refused_by_what_it_says(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "RATIO_FROM", 1 << 20)
    bomb = rebuilt(packed, lambda new: new.writestr("table/media/x.png", bytes(30 << 20)))
    refused(bomb, tmp_path / "study", "far more than a study would")
    monkeypatch.setattr(archive_members, "MAX_BYTES", 1 << 20)
    refused(bomb, tmp_path / "study", "too large")


def test_a_bomb_is_refused_by_what_it_does(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_members, "RATIO_FROM", 1 << 20)
    monkeypatch.setattr(archive_members, "_check_sizes", lambda *_: None)  # as if its entries lied
    written: list[int] = []
    real = archive_members._check_amount
    monkeypatch.setattr(archive_members, "_check_amount", lambda n, path: (written.append(n), real(n, path)))
    bomb = rebuilt(packed, lambda new: new.writestr("table/media/x.png", bytes(60 << 20)))
    refused(bomb, tmp_path / "study", "far more than a study would")
    assert max(written) < 40 << 20


def test_an_entry_that_lies_about_its_size_is_damaged(packed: Path, tmp_path: Path) -> None:
    changed = rebuilt(packed, lambda new: new.writestr("table/media/x.png", bytes(5000)))
    data = bytearray(changed.read_bytes())
    place = data.rindex(b"table/media/x.png")
    data[place - 46 + 24 : place - 46 + 28] = (10).to_bytes(4, "little")
    changed.write_bytes(data)
    refused(changed, tmp_path / "study", "archive is damaged")


def test_a_text_too_large_to_be_read_whole_is_refused(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_members, "MAX_TEXT", 100)
    refused(packed, tmp_path / "study", "A file in the archive is too large")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_cut_archive_is_damaged(packed: Path, tmp_path: Path, keep: float) -> None:
    data = packed.read_bytes()
    packed.write_bytes(data[: int(len(data) * keep)])
    refused(packed, tmp_path / "study", "archive is damaged")


@pytest.mark.parametrize("file", ["train.parquet", "6.safetensors", "study.toml"])
def test_a_changed_byte_is_noticed(packed: Path, tmp_path: Path, file: str) -> None:
    entry = next(e for e in zipfile.ZipFile(packed).infolist() if e.filename.endswith(file))
    data = bytearray(packed.read_bytes())
    data[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 0xFF
    packed.write_bytes(data)
    refused(packed, tmp_path / "study", "archive is damaged")


@pytest.mark.parametrize(
    ("file", "data", "match"),
    [
        ("checkpoints/6.safetensors", b"\x80\x04\x95pickle", "checkpoint in the archive cannot be read"),
        ("checkpoints/6.safetensors", b"", "checkpoint in the archive cannot be read"),
        ("checkpoints/6.safetensors", b"\xff" * 64, "checkpoint in the archive cannot be read"),
        ("train.parquet", b"PAR1 and no more PAR1", "table in the archive cannot be read"),
        ("locked.parquet", b"", "table in the archive cannot be read"),
        ("encoder.json", b"[]", "encoder cannot be read"),
        ("encoder.json", b"[" * 100_000, "archive is damaged"),
        ("study.toml", b"format = 1", "incomplete"),
        ("study.toml", b"\xff\xfe", "cannot be read"),
        ("study.toml", b"format = 99", "newer version"),
    ],
)
def test_parts_that_do_not_open_are_refused(packed: Path, tmp_path: Path, file: str, data: bytes, match: str) -> None:
    changed = rebuilt(packed, lambda new: new.writestr(f"table/{file}", data), leave_out=file)
    refused(changed, tmp_path / "study", match)


@pytest.mark.parametrize("file", ["train.parquet", "encoder.json", "2.safetensors"])
def test_a_part_that_is_not_there_is_named(packed: Path, tmp_path: Path, file: str) -> None:
    refused(rebuilt(packed, lambda new: None, leave_out=file), tmp_path / "study", "A file of the study is gone")


def test_a_checkpoint_outside_of_the_study_is_refused(table: Path, packed: Path, tmp_path: Path) -> None:
    text = (table / "study.toml").read_text().replace("checkpoints/6.safetensors", "../../other/6.safetensors")
    changed = rebuilt(packed, lambda new: new.writestr("table/study.toml", text), leave_out="study.toml")
    refused(changed, tmp_path / "study", "cannot be packed|outside")


def test_a_job_list_is_never_taken(packed: Path, tmp_path: Path) -> None:
    changed = rebuilt(packed, lambda new: new.writestr("table/jobs.sqlite", b"argv"))
    study = import_archive(changed, tmp_path / "study", Run())
    assert not (study.path / "jobs.sqlite").exists()


def test_what_an_operating_system_adds_is_left_out(packed: Path, tmp_path: Path) -> None:
    def add(new: zipfile.ZipFile) -> None:
        for name in ("__MACOSX/table/._study.toml", "table/.DS_Store", "table/media/Thumbs.db"):
            new.writestr(name, b"x")

    study = import_archive(rebuilt(packed, add), tmp_path / "study", Run())
    assert study.task.n_train == 60 and not list(study.path.rglob("*.db")) and not list(study.path.glob(".*"))


def test_a_model_that_is_code_stays_off_and_is_named(table: Path, packed: Path, tmp_path: Path) -> None:
    import tomllib

    import tomli_w

    header = tomllib.loads((table / "study.toml").read_text())
    header["model"] = {"reference": "os:getcwd"}
    changed = rebuilt(
        packed, lambda new: new.writestr("table/study.toml", tomli_w.dumps(header)), leave_out="study.toml"
    )
    study = import_archive(changed, tmp_path / "study", Run())
    assert "'os:getcwd'" in study.header.notes[-1] and "--model os:getcwd" in study.header.notes[-1]
    with pytest.raises(BadInput, match="switched off"):
        _ = study.task


def test_an_older_archive_is_brought_forward_and_says_so(
    packed: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Migration(lambda folder, content: content, "Nothing but the number.")
    monkeypatch.setattr(study_versions, "MIGRATIONS", {0: step})
    text = (table / "study.toml").read_text().replace("format = 1\n", "format = 0\n")
    changed = rebuilt(packed, lambda new: new.writestr("table/study.toml", text), leave_out="study.toml")
    study = import_archive(changed, tmp_path / "study", Run())
    assert "Format 0 to 1: Nothing but the number." in study.header.notes[0] and study.task.n_train == 60
    assert str(tmp_path) not in study.header.notes[0]


# -- databases of strangers --------------------------------------------------------------------------------------------


def with_database(packed: Path, tmp_path: Path, *statements: str) -> Path:
    file = tmp_path / "hostile.sqlite"
    db = make_reviews(file)
    db.execute("PRAGMA journal_mode = DELETE")
    for statement in statements:
        db.execute(statement)
    db.close()
    return rebuilt(packed, lambda new: new.writestr("table/reviews.sqlite", file.read_bytes()))


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON decisions BEGIN DELETE FROM decisions; END",
        "CREATE VIEW v AS SELECT load_extension('x')",
        "CREATE VIRTUAL TABLE v USING fts5(a)",
        "CREATE TABLE g(a, b GENERATED ALWAYS AS (hex(a)))",
        "CREATE TABLE g(a, b AS (hex(a)))",
        'CREATE TABLE "x; drop"(a)',
        "DROP INDEX decisions_by_row",
        "ALTER TABLE acts ADD COLUMN more",
    ],
)
def test_a_database_that_acts_by_itself_is_refused(packed: Path, tmp_path: Path, statement: str) -> None:
    refused(with_database(packed, tmp_path, statement), tmp_path / "study", "database in the archive cannot be used")


def test_a_plain_database_is_taken_and_a_damaged_one_is_not(packed: Path, tmp_path: Path) -> None:
    many = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n LIMIT 2000) "
    many += "INSERT INTO acts(reviewer, tab, number, kind, at) SELECT 'r', 't', i, 'decide', 0 FROM n"
    archive = with_database(packed, tmp_path, many)
    assert (import_archive(archive, tmp_path / "good", Run()).path / "reviews.sqlite").exists()
    data = bytearray((tmp_path / "hostile.sqlite").read_bytes())
    for bad in (b"no database at all", bytes(data[:5000]), bytes(data[:4096]) + b"\xff" * 200 + bytes(data[4296:])):
        changed = rebuilt(packed, lambda new, bad=bad: new.writestr("table/reviews.sqlite", bad))
        refused(changed, tmp_path / "study", "database in the archive is damaged")


# -- kill -9 -----------------------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
from pathlib import Path
from influence_core import Run
from influence_core.study_archive import import_archive
step = int(sys.argv[3])
def cancel(calls=iter(range(10**6))):
    if next(calls) == step:
        os.kill(os.getpid(), signal.SIGKILL)
    return False
import_archive(Path(sys.argv[1]), Path(sys.argv[2]), Run(cancel=cancel))
"""


@pytest.mark.parametrize("step", [0, 3, 8, 13, 16])
def test_kill_nine_leaves_no_half_study_and_its_rest_is_swept(
    packed: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place" / "study"
    words = [sys.executable, "-c", PROGRAM, str(packed), str(place), str(step)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not place.exists() and not list(place.parent.glob("*/study.toml"))
    left = [path.name for path in place.parent.iterdir()]
    assert len(left) == 1 and left[0].startswith(".study-import-")
    assert scratch.swept(place.parent) == []  # a moment old: it may not have its lock yet
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    assert scratch.swept(place.parent) == left and list(place.parent.iterdir()) == []
    assert import_archive(packed, place, Run()).task.n_train == 60


def test_what_a_live_process_holds_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    with scratch.scratch_folder(tmp_path / "s", "import") as folder:
        assert scratch.swept(tmp_path) == [] and folder.is_dir()
    assert not folder.exists()


def test_folders_without_a_lock_are_swept_after_a_day_and_the_users_own_never(tmp_path: Path) -> None:
    for name in (".s-import-abcd1234", "s.part/study", "mine.part/data", ".mine", ".s-import-x", ".s-export-abcd1234"):
        (tmp_path / name).mkdir(parents=True)
    assert scratch.swept(tmp_path) == []
    for path in [*tmp_path.rglob("*"), tmp_path]:
        os.utime(path, (1e9, 1e9))
    assert scratch.swept(tmp_path) == [".s-import-abcd1234", "s.part"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".mine", ".s-export-abcd1234", ".s-import-x", "mine.part"]
