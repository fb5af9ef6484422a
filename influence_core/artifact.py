"""One artifact: written row by row, resumable, and read back memory-mapped. The store keeps many of them."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from influence_core.errors import StoreProblem

_RESERVE = 128 << 10  # given back when a computation fills the disk, so that the job list can say so
_BEHIND = 32  # steps that may wait to be written; bounds the memory they hold


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
                form = array_form(path)
                if form != (self.meta.get("arrays") or {}).get(name, form):
                    raise ValueError("its shape is not the recorded one")
                self._arrays[name] = np.load(path, mmap_mode=None if 0 in form[0] else "c", allow_pickle=False)
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


def array_form(path: Path) -> list[Any]:
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
        self._reserve.write_bytes(bytes(_RESERVE))
        self._done_file = path / "done.txt"
        notes = self._done_file.read_bytes() if self._done_file.exists() else b""
        whole = notes[: notes.rfind(b"\n") + 1]
        if whole != notes:  # a full disk cut the last one short: it may read as another stage, and would join the next
            os.truncate(self._done_file, len(whole))
        self._done = set(whole.decode().splitlines())
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

    def read(self, name: str) -> torch.Tensor:
        """Return a whole array as written so far, by this process or one before it; waits until it is on file."""
        while self._behind:
            self._behind.popleft().result()
        return torch.from_numpy(np.load(self.path / f"{name}.npy", allow_pickle=False))

    def read_row(self, name: str, row: int) -> torch.Tensor:
        """Return one row that was written, by this process or one before it; the others need not be there."""
        while self._behind:
            self._behind.popleft().result()
        sheet = self._sheets[name]
        data = os.pread(sheet.file, sheet.row_bytes, sheet.offset + row * sheet.row_bytes)
        return torch.from_numpy(np.frombuffer(bytearray(data), sheet.dtype).reshape(sheet.shape[1:]))

    def save(self, name: str, values: torch.Tensor | np.ndarray) -> None:
        """Write a whole array at once."""
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        self.create(name, array.shape or (1,), array.dtype)
        self.write(name, 0, array.reshape(array.shape or (1,)))

    def drop(self, name: str) -> None:
        """Delete an array that was of use on the way only."""
        while self._behind:
            self._behind.popleft().result()
        os.close(self._sheets.pop(name).file)
        (self.path / f"{name}.npy").unlink(missing_ok=True)

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
