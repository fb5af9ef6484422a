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
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from influence_core.errors import StoreProblem

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}  # the last two: a file in the way
_RESERVE = 128 << 10  # given back when a computation fills the disk, so that the job list can say so
_BEHIND = 32  # steps that may wait to be written; bounds the memory they hold


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


def _boot_id() -> str:
    """Return an id of this boot: what a process wrote survives its death, but not a power cut before it was flushed."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return "unknown"


class Artifact:
    """A finished artifact, read only."""

    def __init__(self, key: str, path: Path) -> None:
        """Open the artifact in ``path``."""
        self.key, self.path = key, path
        try:
            self.meta: dict[str, Any] = json.loads((path / "meta.json").read_text())
            if not isinstance(self.meta, dict) or self.meta.get("key") != key:
                raise ValueError("it is the record of another result")
        except (OSError, ValueError) as error:
            why = f"{path / 'meta.json'} cannot be read ({error})."
            raise StoreProblem("A cached result is damaged", why, f"Delete the folder {path}.") from error
        self._arrays: dict[str, np.ndarray] = {}

    def array(self, name: str) -> np.ndarray:
        """Return an array, memory-mapped (copy on write: changes never reach the disk)."""
        if name not in self._arrays:
            path = self.path / f"{name}.npy"
            try:
                # A zero-length file cannot be mapped, so an empty array is read.
                form = _form(path)
                if form != self.meta.get("arrays", {}).get(name, form):
                    raise ValueError("its shape is not the recorded one")
                mode = "c" if 0 not in form[0] else None
                self._arrays[name] = np.load(path, mmap_mode=mode, allow_pickle=False)
            except (OSError, ValueError, EOFError) as error:
                why = f"{path} cannot be read ({error})."
                raise StoreProblem("A cached result is damaged", why, f"Delete the folder {self.path}.") from error
        return self._arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        """Return an array as a CPU tensor that shares the mapping."""
        return torch.from_numpy(self.array(name))

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return sorted(path.stem for path in self.path.glob("*.npy"))


def _form(path: Path) -> list[Any]:
    """Return shape and type of an array as its file states them: what ``meta.json`` records."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return [list(shape), dtype.str]


def _start_of_rows(handle: int, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Return where the rows start; write the header unless it is there and whole."""
    with os.fdopen(os.dup(handle), "r+b") as file:
        try:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
        except ValueError:  # a new file, or one whose header did not fit on the disk
            file.seek(0)
            header = np.lib.format.header_data_from_array_1_0(np.empty(0, dtype))
            np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        return file.tell()


@dataclass
class _Sheet:
    """An array being written: where its rows start in the file, and how long a row is."""

    file: int
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize


class Writer:
    """Fills an artifact. Rows may be written in any order; stages marked done survive the death of the process."""

    def __init__(self, path: Path) -> None:
        """Open, or reopen, the unfinished artifact in ``path``."""
        self.path = path
        boot = path / "boot"
        if path.exists() and (not boot.exists() or boot.read_text() != _boot_id()):
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        if not boot.exists():  # not again: a death, or a full disk, in the middle of it would forget what is done
            boot.write_text(_boot_id())
        self._reserve = path / "reserve"
        with open(self._reserve, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE)
        self._done_file = path / "done.txt"
        self._done = set(self._done_file.read_text().splitlines()) if self._done_file.exists() else set()
        self._sheets: dict[str, _Sheet] = {}
        self._behind: deque[Future[None]] = deque()
        self._marked: Future[None] | None = None
        self._writing = ThreadPoolExecutor(1, thread_name_prefix="write")  # of its own: none survives a fork
        self.meta: dict[str, Any] = {}

    def is_done(self, stage: str) -> bool:
        """Tell whether this stage was finished, by this process or one before it."""
        return stage in self._done

    def mark_done(self, stage: str) -> None:
        """Record a finished stage, after its rows: a crash loses this stage and the one before it, at most."""

        def record() -> None:
            with open(self._done_file, "a") as file:
                file.write(stage + "\n")

        if self._marked is not None:
            self._marked.result()
        self._marked = self._later(record)
        self._done.add(stage)

    def create(self, name: str, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        """Declare an array ``[rows, ...]``; an equal declaration on resume keeps what is there."""
        path = self.path / f"{name}.npy"
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
        dtype = np.dtype(dtype)
        try:
            offset = _start_of_rows(handle, shape, dtype)
        except BaseException:
            os.close(handle)
            raise
        self._sheets[name] = _Sheet(handle, offset, shape, dtype)

    def write(self, name: str, start: int, rows: torch.Tensor | np.ndarray) -> None:
        """Write consecutive rows of a declared array, from row ``start``; the caller leaves ``rows`` as they are."""
        sheet = self._sheets[name]
        values = rows.detach().cpu().numpy() if isinstance(rows, torch.Tensor) else rows
        data = np.ascontiguousarray(values, dtype=sheet.dtype).reshape(-1).view(np.uint8).data
        self._later(partial(_write_all, sheet.file, data, sheet.offset + start * sheet.row_bytes))

    def _later(self, step: Callable[[], None]) -> Future[None]:
        """Do a step after those before it, in the writing thread; the next rows are computed meanwhile.

        A failed step fails all that come after it, so that no stage counts as done whose rows are not there.
        """
        while len(self._behind) >= _BEHIND or (self._behind and self._behind[0].done()):
            self._behind.popleft().result()
        before = self._behind[-1] if self._behind else None

        def after() -> None:
            if before is not None:
                before.result()  # has ended: one thread does them in turn
            step()

        self._behind.append(self._writing.submit(after))
        return self._behind[-1]

    def save(self, name: str, values: torch.Tensor | np.ndarray) -> None:
        """Write a whole array at once."""
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        self.create(name, array.shape or (1,), array.dtype)
        self.write(name, 0, array.reshape(array.shape or (1,)))

    def close(self, *, flush: bool) -> None:
        """Close the files; ``flush`` waits until their content is on the disk, and raises what kept it from it."""
        self._writing.shutdown()
        self._reserve.unlink(missing_ok=True)
        while flush and self._behind:
            self._behind.popleft().result()
        while self._sheets:  # emptied one by one: after a failure the rest is closed by the next call, and none twice
            _, sheet = self._sheets.popitem()
            try:
                if flush:
                    os.truncate(sheet.file, sheet.offset + sheet.shape[0] * sheet.row_bytes)
                    os.fsync(sheet.file)
            finally:
                os.close(sheet.file)


def _write_all(file: int, data: memoryview, position: int) -> None:
    while data:
        written = os.pwrite(file, data, position)
        data, position = data[written:], position + written


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
        with suppress(OSError):
            os.utime(path)
        try:
            return Artifact(key, path)
        except StoreProblem:
            if not (path / "meta.json").exists():  # evicted by another process just now
                return None
            raise

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
            produce(writer)
            writer.close(flush=True)
        except BaseException:
            writer.close(flush=False)
            raise
        meta = {
            "key": key, "inputs": inputs, "torch": torch.__version__, "created": started,
            "seconds": round(time.time() - started, 3), **writer.meta,
            "arrays": {path.stem: _form(path) for path in writer.path.glob("*.npy")},
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
