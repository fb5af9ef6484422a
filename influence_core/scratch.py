"""Folders for work in progress, beside what they become: locked while their process lives, swept when it has died."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from influence_core.errors import BadInput
from influence_core.store import disk_errors

_HELD = ".held"
_NAME = re.compile(r"\..*-(import|backup)-[a-z0-9_]{8}")
_KEPT = re.compile(r"\..*-importing-[0-9a-f]{16}")  # goes on where it stopped when it is started again
_YOUNG_SECONDS = 5.0  # between making a folder and locking it
_KEPT_SECONDS = 7 * 24 * 3600.0
_UNLOCKED_SECONDS = 24 * 3600.0  # a folder without a lock counts as left behind when nothing in it changed for so long


@contextmanager
def scratch_folder(beside: Path, kind: str) -> Iterator[Path]:
    """Yield an empty hidden folder beside a path, and delete it at the end; a lock says that its process lives.

    Args:
        beside: What the work will become; its folder is made if needed.
        kind: ``"import"`` or ``"backup"``.
    """
    with disk_errors(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{beside.name}-{kind}-", dir=beside.parent))
    try:
        with open(folder / _HELD, "wb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def kept_folder(beside: Path, key: str) -> Iterator[Path]:
    """Yield the hidden folder of one piece of work beside what it becomes, with what an earlier try left there.

    The folder stays until ``forgotten`` deletes it. Folders of other keys for the same result are deleted: only the
    latest work goes on.

    Args:
        beside: What the work will become.
        key: What the work depends on, 16 hexadecimal digits.

    Raises:
        BadInput: Somebody is at the same work.
        StoreProblem: The disk refuses.
    """
    for other in _kept(beside):
        if other.name != _kept_name(beside, key) and _is_unlocked(other):
            forgotten(other)
    folder = beside.with_name(_kept_name(beside, key))
    with disk_errors(beside):
        folder.mkdir(parents=True, exist_ok=True)
        held = open(folder / _HELD, "ab")  # noqa: SIM115 (closed below)
    with held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(folder / _HELD)  # gone if the one who was at it has just ended and deleted the folder
        except OSError:
            why = f"Another program is making {beside.name} of the same data."
            raise BadInput("This import is running already", why, "Wait for it, or choose another name.") from None
        yield folder


def forgotten(folder: Path) -> None:
    """Delete the folder of work in progress."""
    shutil.rmtree(folder, ignore_errors=True)


def forget_kept(beside: Path) -> None:
    """Delete what unfinished work on this result has left, unless somebody is at it."""
    for folder in _kept(beside):
        if _is_unlocked(folder):
            forgotten(folder)


def _kept_name(beside: Path, key: str) -> str:
    return f".{beside.name}-importing-{key}"


def _kept(beside: Path) -> list[Path]:
    start, found = _kept_name(beside, ""), []
    with suppress(OSError):
        found = [name for name in os.listdir(beside.parent) if name.startswith(start) and _KEPT.fullmatch(name)]
    return [beside.parent / name for name in found]


def _is_unlocked(folder: Path) -> bool:
    try:
        with open(folder / _HELD, "rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def swept(folder: Path) -> list[str]:
    """Delete what killed processes left in a folder, and return its names; what a live one holds stays."""
    gone = []
    for path in _left_behind(folder):
        if _is_left(path) if _KEPT.fullmatch(path.name) else _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone


def _is_left(path: Path) -> bool:
    """Tell whether kept work will not be taken up: its study is there by now, or a week has gone by."""
    became = path.with_name(path.name[1:].rpartition("-importing-")[0]) / "study.toml"
    return _is_unlocked(path) and (became.is_file() or is_old(path, _KEPT_SECONDS))


def _left_behind(folder: Path) -> list[Path]:
    with suppress(OSError):
        names = sorted(os.listdir(folder))
        paths = [
            folder / name
            for name in names
            if _NAME.fullmatch(name) or _KEPT.fullmatch(name) or _is_half_study(folder / name)
        ]
        return [path for path in paths if path.is_dir() and not path.is_symlink()]
    return []


def _is_half_study(path: Path) -> bool:
    """Tell whether this is what writing a study leaves when it is killed, rather than a folder of the user's."""
    if path.suffix != ".part":
        return False
    with suppress(OSError):
        return set(os.listdir(path)) <= {"study"}
    return False


def _is_abandoned(path: Path) -> bool:
    try:
        held = os.open(path / _HELD, os.O_RDWR)
    except OSError:
        return is_old(path)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - os.fstat(held).st_mtime > _YOUNG_SECONDS
    except OSError:
        return False
    finally:
        os.close(held)


def is_old(path: Path, seconds: float = _UNLOCKED_SECONDS) -> bool:
    """Tell whether nothing in a folder, or in a file, has changed for a day: nobody is at work there any more."""
    return time.time() - _last_change(path) > seconds


def _last_change(path: Path) -> float:
    times = [path.lstat().st_mtime if path.is_file() else 0.0]
    for root, folders, files in os.walk(path):
        for name in (".", *folders, *files):
            with suppress(OSError):
                times.append((Path(root) / name).lstat().st_mtime)
    return max(times)
