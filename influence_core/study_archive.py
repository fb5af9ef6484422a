"""A study as one zip file: written while others read the study, and taken in from a stranger.

Taking in: every member is checked before anything is unpacked, bytes are counted while it is, and the study is opened
where it was unpacked before it is moved into place. A job list is never taken: its rows are command lines.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sqlite3
import tempfile
import tomllib
import zipfile
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from influence_core import archive_members as members
from influence_core.archive_members import HEADER
from influence_core.errors import BadInput
from influence_core.reviews import FILE_NAME as REVIEWS
from influence_core.reviews import SCHEMA
from influence_core.run import Run
from influence_core.scratch import scratch_folder
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.study_files import FORMAT, check_free
from influence_core.study_versions import migrated

_PACKED = {".parquet", ".safetensors", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".tiff"}
_CHUNK = 1 << 20
_CACHED = {".npy"}


def archive_files(study: Path, *, reviews: bool = False, cache: bool = False) -> list[Path]:
    """Return the files of a study folder that an archive holds, in the order of their names; links are left out."""
    found = []
    for root, folders, names in os.walk(study):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and (cache or name != "cache"))
        for name in sorted(names):
            path = Path(root) / name
            relative = path.relative_to(study).as_posix()
            if members.is_taken(relative, reviews=reviews, cache=cache) and not path.is_symlink():
                found.append(path)
    return found


def write_archive(study_path: Path, out: Path, run: Run, *, reviews: bool = False, cache: bool = False) -> Path:
    """Write a study as a zip file, all of it or nothing, while others may read and compute.

    Args:
        study_path: The study's folder.
        out: The zip file; one that is there is replaced when the new one is whole.
        run: Progress and cancel.
        reviews: Whether decisions about labels go along.
        cache: Whether computed results go along.

    Raises:
        BadInput: No study there, one of its files has a name that no archive can hold, or one went away.
        StoreProblem: The disk is full or refuses.
    """
    study = Study(study_path)
    _check_complete(study)
    files = archive_files(study.path, reviews=reviews, cache=cache)
    top = re.sub(r"[^\w.-]+", "_", study.path.resolve().name).strip("._-") or "study"
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.part")
    total = sum(-(-path.stat().st_size // _CHUNK) + 1 for path in files if path.exists())
    try:
        with disk_errors(out.parent):
            out.parent.mkdir(parents=True, exist_ok=True)
            # Closed before the archive, which cannot end in the middle of a file.
            with (
                zipfile.ZipFile(part, "x", allowZip64=True) as archive,
                closing(_written(archive, study.path, files, top)) as steps,
            ):
                for _ in run.track(steps, "packing the study", total):
                    pass
            os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
    return out


def _check_complete(study: Study) -> None:
    """Refuse a study whose archive would not open."""
    named = [str(entry["file"]) for entry in study.header.checkpoints]
    for name in ("encoder.json", "train.parquet", "test.parquet", *named):
        if not members.is_taken(name, reviews=False, cache=False):
            why = f"{ascii(name[:80])} is no name that an archive of a study can have."
            raise BadInput("The study cannot be packed", why, "Keep weights as checkpoints/NAME.safetensors.")
        if not (study.path / name).is_file():
            why = f"{study.path / name} does not exist."
            raise BadInput("A file of the study is gone", why, "Restore it from a copy of the study.")


def _written(archive: zipfile.ZipFile, study: Path, files: list[Path], top: str) -> Generator[None, None, None]:
    for path in files:
        name = path.relative_to(study).as_posix()
        if name == REVIEWS:
            with tempfile.TemporaryDirectory(prefix="influence-") as folder:
                copy = _database_copy(path, Path(folder) / REVIEWS)
                yield from _added(archive, copy, f"{top}/{name}")
        elif name.startswith("cache/"):
            with suppress(FileNotFoundError):  # evicted while others were packed; it is computed again
                yield from _added(archive, path, f"{top}/{name}")
        else:
            yield from _added(archive, path, f"{top}/{name}")


def _added(archive: zipfile.ZipFile, path: Path, name: str) -> Generator[None, None, None]:
    with path.open("rb") as source:
        entry = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
        stored = path.suffix.lower() in _PACKED | _CACHED
        entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        with archive.open(entry, "w", force_zip64=entry.file_size > (1 << 31) - 1) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                yield
    yield


def _database_copy(path: Path, target: Path) -> Path:
    """Copy a database as of one moment, with what is still in its write-ahead log."""
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10.0)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")  # one file, readable without its companions
    except sqlite3.Error as error:
        raise BadInput("The reviews cannot be read", f"{path}: {error}.", "Pack the study without them.") from None
    return target


def is_study_archive(path: Path) -> bool:
    """Tell whether a file is a zip that holds a ``study.toml`` at its top or in its one folder; never raises."""
    try:
        with members.opened_archive(path) as archive:
            return members.header_root(archive.namelist()) is not None
    except (BadInput, OSError, ValueError):
        return False


def import_archive(path: Path, out: Path, run: Run, *, reviews: bool = True, cache: bool = False) -> Study:
    """Make a study folder of an archive: all of it, or nothing.

    Args:
        path: The zip file, which may come from anybody.
        out: Where the study will stand; a folder may be there already if it holds no study.
        run: Progress and cancel.
        reviews: Whether to take the decisions about labels, if the archive has them.
        cache: Whether to take computed results, if the archive has them: to be asked for only where whoever made it
            is trusted, since results are believed as they stand.

    Raises:
        BadInput: A study stands there; or the archive holds anything that no study has, or more than fits the limits.
        StoreProblem: The disk is full or refuses.
        Cancelled: The user asked to stop; nothing is left behind.
    """
    path, out = Path(path), Path(out)
    check_free(out)
    with members.opened_archive(path) as archive:
        found = members.study_members(archive, path, reviews=reviews, cache=cache)
        total = sum(-(-member.entry.file_size // _CHUNK) + 1 for member in found)
        with scratch_folder(out, "import") as scratch, disk_errors(out.parent):
            folder = scratch / "study"  # one level down, where no list of studies looks
            folder.mkdir()
            with closing(members.unpacked(archive, found, path, folder)) as steps:
                for _ in run.track(steps, "unpacking the study", total):
                    pass
            notes = _checked(folder, [member.name for member in found], archive, run)
            _add_notes(folder / HEADER, notes)
            run.check_cancelled()
            _moved(folder, out)
    return Study(out)


def _checked(folder: Path, names: list[str], archive: zipfile.ZipFile, run: Run) -> list[str]:
    """Open every part of an unpacked study once; return what its reader should know."""
    notes = migrated(folder, FORMAT)
    study = Study(folder)
    _check_complete(study)
    for name in run.track(names, "checking the study", len(names)):
        file = folder / name
        if name.endswith(".safetensors"):
            _check_weights(file, name)
        elif name.endswith(".parquet"):
            _check_table(file, name)
        elif name == REVIEWS:
            members.check_database(file, name, SCHEMA)
    _ = study.encoder
    reference = study.header.model.get("reference")
    if reference:
        notes.append(
            f"Its model is code of its own, '{reference}', and stays off until you name it: --model {reference}"
        )
    if any("cache/" in name for name in archive.namelist()) and not any(name.startswith("cache/") for name in names):
        notes.append("The results in the archive were left out; they are computed again when asked for.")
    return notes


def _check_weights(file: Path, name: str) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as weights:
            weights.keys()
    except (SafetensorError, OSError, ValueError) as error:
        why = f"{name} is no safetensors file ({str(error)[:120]})."
        raise BadInput("A checkpoint in the archive cannot be read", why, "Save the weights as .safetensors.") from None


def _check_table(file: Path, name: str) -> None:
    try:
        pq.ParquetFile(file).close()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        why = f"{name}: {str(error).splitlines()[0][:160]}."
        raise BadInput("A table in the archive cannot be read", why, "Make the archive again.") from None


def _add_notes(file: Path, notes: list[str]) -> None:
    import tomli_w

    if notes:
        content: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        file.write_text(tomli_w.dumps({**content, "notes": [*content.get("notes", []), *notes]}), encoding="utf-8")


def _moved(folder: Path, out: Path) -> None:
    """Put a whole study into its place; in a folder that is there, ``study.toml`` comes last and makes it a study."""
    if not out.exists():
        folder.rename(out)
        return
    for item in sorted(folder.iterdir(), key=lambda item: item.name == HEADER):
        target = out / item.name
        if target.is_dir():  # of a process that was killed here: without study.toml it is no study's
            shutil.rmtree(target)
        item.replace(target)
