"""Content-addressed artifacts on disk: computed once, resumable after a crash, memory-mapped when read.

An artifact is a folder ``ab/<key>/`` of ``.npy`` files and a readable ``meta.json``. It is written as ``ab/<key>.part``
and renamed when whole, so that a reader sees all of it or none. A process that dies leaves the ``.part`` folder with
its list of finished stages; the next one to ask continues there. An advisory lock, freed by the kernel on any death,
makes two processes that ask for one key compute it once. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch

from influence_core.artifact import Artifact, Writer, array_form
from influence_core.errors import StoreProblem

__all__ = ["Artifact", "Store", "Writer", "disk_errors", "noted_keys"]

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_noted: ContextVar[dict[str, None] | None] = ContextVar("noted", default=None)
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}  # the last two: a file in the way


@contextmanager
def noted_keys() -> Iterator[dict[str, None]]:
    """Collect the keys of the artifacts that the body asks for, in order; not those that only make another one."""
    keys: dict[str, None] = {}
    token = _noted.set(keys)
    try:
        yield keys
    finally:
        _noted.reset(token)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals under ``path`` into one clear message."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreProblem(
                "The disk is full",
                f"Writing below {path} failed ({error.strerror}).",
                "Free some space and start again: finished parts are kept.",
            ) from error
        # A file of the user's, read while an artifact is made, is none of the store's.
        ours = error.filename is None or path in Path(str(error.filename)).parents or path == Path(str(error.filename))
        if ours and error.errno in _REFUSED:
            raise StoreProblem(
                "The folder cannot be written",
                f"{path}: {error.strerror}.",
                "Make it a folder with write permission, or use another studies folder.",
            ) from error
        raise


class Store:
    """A folder of artifacts with a size cap.

    Args:
        root: The folder; made when first written.
        cap_bytes: Least recently used artifacts are deleted above this size; ``None``: no cap.
    """

    def __init__(self, root: Path, cap_bytes: int | None = None) -> None:
        """Name the folder; nothing is touched yet."""
        self.root, self.cap_bytes = Path(root), cap_bytes

    def path(self, key: str) -> Path:
        """Return the folder of an artifact."""
        return self.root / key[:2] / key

    def find(self, key: str) -> Artifact | None:
        """Return a finished artifact, or None."""
        path = self.path(key)
        if not (path / "meta.json").exists():
            return None
        self.use(key)
        try:
            return Artifact(key, path)
        except StoreProblem:
            if not (path / "meta.json").exists():  # evicted by another process just now
                return None
            raise

    def has(self, key: str) -> bool:
        """Tell whether an artifact is finished and there; counts as a use of it."""
        there = (self.path(key) / "meta.json").exists()
        if there:
            self.use(key)
        return there

    def use(self, key: str) -> None:
        """Say that an artifact is in use, which is known from memory: it is then not the first to be evicted."""
        with suppress(OSError):
            os.utime(self.path(key))
        noted = _noted.get()
        if noted is not None:
            noted[key] = None

    def keys(self) -> list[str]:
        """Return the keys of all finished artifacts."""
        return sorted(path.name for path in self._folders() if not path.suffix and (path / "meta.json").exists())

    def _folders(self) -> list[Path]:
        return [path for shelf in _inside(self.root) if len(shelf.name) == 2 for path in _inside(shelf)]

    def obtain(
        self, key: str, inputs: dict[str, Any], produce: Callable[[Writer], None], waiting: Callable[[], None]
    ) -> Artifact:
        """Return the artifact of this key, computing it unless it is there.

        Args:
            key: Hash of everything the numbers depend on.
            inputs: The same in readable form, kept in ``meta.json``.
            produce: Fills the writer; skips the stages already done.
            waiting: Called again and again while another process computes this key; may raise ``Cancelled``.

        Raises:
            StoreProblem: The disk is full or refuses; what was finished is kept.
        """
        while True:
            found = self.find(key)
            if found is not None:
                return found
            with disk_errors(self.root), self._lock(key) as mine:
                if mine and self.find(key) is None:
                    self._produce(key, inputs, produce)
            if not mine:
                waiting()

    def _produce(self, key: str, inputs: dict[str, Any], produce: Callable[[Writer], None]) -> None:
        final = self.path(key)
        started = time.time()
        writer = Writer(final.with_name(key + ".part"))
        try:
            with noted_keys():  # what goes into it need not be there when it is read
                produce(writer)
            writer.close(flush=True)
        except BaseException:
            writer.close(flush=False)
            raise
        meta = {
            "key": key, "inputs": inputs, "torch": torch.__version__, "created": started,
            "seconds": round(time.time() - started, 3), **writer.meta,
            "arrays": {path.stem: array_form(path) for path in writer.path.glob("*.npy")},
        }  # fmt: skip
        with open(writer.path / "meta.json", "w") as file:
            json.dump(meta, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(final, ignore_errors=True)  # what is left of an artifact whose meta.json somebody deleted
        os.rename(writer.path, final)
        for name in ("boot", "done.txt"):  # after the rename: a death before it must not lose what is done
            (final / name).unlink(missing_ok=True)
        self._evict(keep=key)

    @contextmanager
    def _lock(self, key: str) -> Iterator[bool]:
        """Yield whether this process holds the key; the kernel frees it on any death."""
        path = self.path(key).with_name(key + ".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before us may have removed the file between our open and our lock.
                mine = _is_open_as(handle, path)
            except BlockingIOError:
                mine = False
            yield mine
            if mine:
                path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def bytes_used(self) -> int:
        """Return the disk use of all artifacts, unfinished ones included."""
        return sum(_size(path) for folder in self._folders() for path in _inside(folder))

    def _evict(self, keep: str) -> None:
        if self.cap_bytes is None:
            return
        for left in self._folders():
            if left.suffix == ".gone":  # by a process that died while it deleted
                shutil.rmtree(left, ignore_errors=True)
        used = self.bytes_used()
        folders = [self.path(key) for key in self.keys() if key != keep]
        for folder in sorted(folders, key=_last_used):
            if used <= self.cap_bytes:
                return
            freed = sum(_size(path) for path in _inside(folder))
            # Renamed first: a reader must never see half an artifact. Open mappings stay valid.
            doomed = folder.with_name(folder.name + ".gone")
            with suppress(OSError):  # another process may be deleting it too
                os.rename(folder, doomed)
                shutil.rmtree(doomed, ignore_errors=True)
                used -= freed


def _is_open_as(handle: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), path.stat())
    return False


def _inside(folder: Path) -> list[Path]:
    """Return what a folder holds; nothing if it is none, or another process has just deleted it."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return [folder / name for name in os.listdir(folder)]
    return []


def _size(path: Path) -> int:
    """Return the bytes of a file, 0 for one that another process has just deleted."""
    with suppress(FileNotFoundError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _last_used(folder: Path) -> float:
    with suppress(FileNotFoundError):
        return folder.stat().st_mtime
    return 0.0
