"""An import in progress: which stages are done and on the disk, so that the next try begins where this one ended."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from influence_core.errors import InfluenceError
from influence_core.scratch import forgotten, kept_folder
from influence_core.store import disk_errors
from influence_core.study_files import check_free
from influence_core.trajectory import KeptTraining

_SETTLE_SECONDS = 1.0  # an import that is over by then is not worth the wait for the disk
FORMAT = 1  # of what is kept; another one, and nothing of an earlier version is taken up


class PartialImport:
    """The folder of an import in progress, with a record of every finished stage.

    A record is written only when the files that it names are safely on the disk, by a thread of its own, so that the
    work does not wait for the disk.

    Args:
        folder: Where the work is.
    """

    def __init__(self, folder: Path) -> None:
        """Look at a folder."""
        self.folder = folder
        self.training = KeptTraining(folder / "training.safetensors")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="import-record")
        self._ending, self._dropped = threading.Event(), False

    def done(self, stage: str) -> dict[str, Any] | None:
        """Return what was recorded of a stage; None if it is not done, or its files are not what they were.

        A record that does not hold is deleted, as its files are about to be written anew.
        """
        path = self.folder / f"{stage}.json"
        with suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if all((self.folder / name).stat().st_size == size for name, size in record["files"].items()):
                return record["said"]
        with disk_errors(path):
            path.unlink(missing_ok=True)
        return None

    def record(self, stage: str, said: Mapping[str, Any], files: Sequence[Path], replaced: Sequence[str] = ()) -> None:
        """Remember that a stage is done.

        Args:
            stage: Which.
            said: What the next stages need to know of it, as JSON values.
            files: What it wrote into the folder.
            replaced: Earlier stages that nobody needs once this one is recorded: they go, with their files.
        """
        due = time.monotonic() + _SETTLE_SECONDS
        self._thread.submit(self._recorded, stage, dict(said), [file.name for file in files], replaced, due)

    def _recorded(
        self, stage: str, said: dict[str, Any], names: list[str], replaced: Sequence[str], due: float
    ) -> None:
        self._ending.wait(max(0.0, due - time.monotonic()))
        if self._dropped:
            return
        with suppress(OSError):  # a record that cannot be written is work done again, no more
            for name in names:
                _synced(self.folder / name)
            sizes = {name: (self.folder / name).stat().st_size for name in names}
            part = self.folder / f"{stage}.part"
            part.write_text(json.dumps({"said": said, "files": sizes}), encoding="utf-8")
            _synced(part)
            part.replace(self.folder / f"{stage}.json")
            for other in replaced:
                with suppress(OSError):
                    self._deleted(other)

    def _deleted(self, stage: str) -> None:
        path = self.folder / f"{stage}.json"
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
        path.unlink()
        for name in names:
            (self.folder / name).unlink()

    def close(self, drop: bool) -> None:
        """Wait for the records, or drop those that are not begun."""
        self._dropped = drop
        self._ending.set()
        self._thread.shutdown(wait=True, cancel_futures=drop)

    @property
    def is_empty(self) -> bool:
        """Return whether no stage is done."""
        return not any(self.folder.glob("*.json"))


@contextmanager
def partial_import(out: Path, depends_on: Sequence[str]) -> Iterator[PartialImport]:
    """Yield the work in progress towards a study, and forget it when it has ended, well or with a refusal.

    What is killed, cancelled or ended by an unforeseen fault stays for the next try.

    Args:
        out: The study's folder.
        depends_on: All that the result follows from.

    Raises:
        BadInput: A study stands there, or another program is at the same work.
        StoreProblem: The disk refuses.
    """
    check_free(out)
    key = hashlib.blake2b(json.dumps([FORMAT, torch.__version__, *depends_on]).encode(), digest_size=8).hexdigest()
    with kept_folder(out, key) as folder:
        work, keep = PartialImport(folder), False
        try:
            yield work
        except InfluenceError:
            raise
        except BaseException:
            keep = True
            raise
        finally:
            work.close(drop=not keep)
            if not keep or work.is_empty:
                forgotten(folder)


def _synced(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
