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

from influence_core.store import disk_errors

_HELD = ".held"
_NAME = re.compile(r"\..*-(import|backup)-[a-z0-9_]{8}")
_YOUNG_SECONDS = 5.0  # between making a folder and locking it
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


def swept(folder: Path) -> list[str]:
    """Delete what killed processes left in a folder, and return its names; what a live one holds stays."""
    gone = []
    for path in _left_behind(folder):
        if _is_abandoned(path):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone


def _left_behind(folder: Path) -> list[Path]:
    with suppress(OSError):
        names = sorted(os.listdir(folder))
        paths = [folder / name for name in names if _NAME.fullmatch(name) or _is_half_study(folder / name)]
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


def is_old(path: Path) -> bool:
    """Tell whether nothing in a folder, or in a file, has changed for a day: nobody is at work there any more."""
    return time.time() - _last_change(path) > _UNLOCKED_SECONDS


def _last_change(path: Path) -> float:
    times = [path.lstat().st_mtime if path.is_file() else 0.0]
    for root, folders, files in os.walk(path):
        for name in (".", *folders, *files):
            with suppress(OSError):
                times.append((Path(root) / name).lstat().st_mtime)
    return max(times)
