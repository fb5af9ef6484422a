"""Study folders as things that people keep: measured, renamed, emptied of their cache, deleted, swept.

Deleting moves the folder away by one rename, to ``.trash/`` beside it, and empties it there: whatever happens in
between leaves either a whole study or trash, which the next start removes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from influence_core import scratch
from influence_core.errors import BadInput, InfluenceError
from influence_core.service.jobs import Job, Jobs
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.study_files import checked_title

TRASH = ".trash"
_changing = threading.Lock()


@dataclass(frozen=True)
class Sizes:
    """Bytes on disk: all of a study, and the parts of it that are its cache and its reviews."""

    total: int
    cache: int
    reviews: int


def sizes(study: Path) -> Sizes:
    """Return what a study uses of the disk; a file that goes away meanwhile counts as nothing."""
    total = cache = reviews = 0
    for root, _, names in os.walk(study):
        parts = Path(root).relative_to(study).parts
        for name in names:
            with suppress(OSError):
                size = os.lstat(os.path.join(root, name)).st_size
                total += size
                cache += size if parts[:1] == ("cache",) else 0
                reviews += size if not parts and name.startswith("reviews.sqlite") else 0
    return Sizes(total, cache, reviews)


def active_jobs(study: Path) -> list[Job]:
    """Return the jobs of a study that wait or run; none if the list cannot be read, as no worker can either."""
    with suppress(InfluenceError):
        return Jobs(study).list(active_only=True)
    return []


def check_idle(study: Path, doing: str) -> None:
    """Refuse while a job of the study waits or runs.

    Raises:
        BadInput: One does.
    """
    active = active_jobs(study)
    if active:
        why = f"'{active[0].title}' of {study.name} is {active[0].state}."
        raise BadInput(f"The study cannot be {doing} now", why, "Cancel it under Jobs, or wait until it has ended.")


def check_study(study: Path) -> None:
    """Refuse a folder without a study: nothing else is ever deleted or changed here.

    Raises:
        BadInput: It is none.
    """
    if study.is_symlink() or not (study / "study.toml").is_file():
        why = f"{study} is a link." if study.is_symlink() else f"{study / 'study.toml'} does not exist."
        raise BadInput("There is no study here", why, "Give the study's own folder.")


def rename(study: Path, title: str) -> None:
    """Give a study another title; its folder, its ids and all results stay.

    Raises:
        BadInput: The title cannot be used, or there is no study that opens.
        StoreProblem: The disk is full or refuses.
    """
    import tomli_w

    title = checked_title(title)
    with _changing:
        Study(study)  # a study that cannot be read is not written either
        file = study / "study.toml"
        content = tomllib.loads(file.read_text(encoding="utf-8"))
        part = study / f".study.toml.{secrets.token_hex(4)}"
        try:
            with disk_errors(study):
                part.write_text(tomli_w.dumps({**content, "title": title}), encoding="utf-8")
                os.replace(part, file)
        finally:
            part.unlink(missing_ok=True)


def delete(study: Path) -> int:
    """Delete a study and return the bytes that this frees.

    Raises:
        BadInput: There is none, or a job of it waits or runs.
        StoreProblem: The disk refuses.
    """
    check_study(study)
    check_idle(study, "deleted")
    freed = sizes(study).total
    _empty(_moved_away(study, study.parent))
    return freed


def clear_cache(study: Path) -> int:
    """Delete a study's computed results and return the bytes that this frees; they are computed again when asked for.

    Raises:
        BadInput: There is no study, or a job of it waits or runs.
        StoreProblem: The disk refuses.
    """
    check_study(study)
    check_idle(study, "emptied of its cache")
    cache, freed = study / "cache", sizes(study).cache
    if cache.is_dir() and not cache.is_symlink():
        _empty(_moved_away(cache, study.parent))
    return freed


def _moved_away(folder: Path, beside: Path) -> Path:
    trash = beside / TRASH / f"{folder.name}-{secrets.token_hex(4)}"
    with disk_errors(beside):
        trash.parent.mkdir(exist_ok=True)
        os.rename(folder, trash)
    return trash


def _empty(trash: Path) -> None:
    shutil.rmtree(trash, ignore_errors=True)
    with suppress(OSError):  # unless another deletion is under way
        trash.parent.rmdir()


def tidy(folder: Path) -> list[str]:
    """Remove what killed processes left in the folder of studies, and return its names."""
    gone = []
    trash = folder / TRASH
    if trash.is_dir() and not trash.is_symlink():
        for path in sorted(trash.iterdir()):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
        with suppress(OSError):
            trash.rmdir()
    gone += scratch.swept(folder)
    with suppress(OSError):
        for study in sorted(folder.iterdir()):
            gone += _half_written(study)
    return gone


def _half_written(study: Path) -> list[str]:
    """Remove what a killed migration or renaming left inside of a study; both begin again from what is whole."""
    gone = []
    if (study / "study.toml").is_file() and not study.is_symlink():
        for part in [*study.glob(".format-*.part"), *study.glob(".study.toml.*")]:
            if scratch.is_old(part):
                shutil.rmtree(part) if part.is_dir() else part.unlink(missing_ok=True)
                gone.append(part.name)
    return gone
