"""Studies as the app holds them: opened once, opened again when a file of theirs changes."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from influence_core.errors import BadInput
from influence_core.run import Run
from influence_core.study import Study

_KEPT = 4
_ENTRIES = 4096
_lock = threading.Lock()
_opened: OrderedDict[Path, tuple[tuple[Any, ...], OpenStudy]] = OrderedDict()


class OpenStudy:
    """A study with what the app remembers about it: drawn thumbnails, scores of recent queries."""

    def __init__(self, path: Path) -> None:
        """Open the folder."""
        self.study = Study(path)
        self.run = Run(store=self.study.store)
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._lock = threading.Lock()

    def recalled(self, key: Any) -> Any:
        """Return what is remembered under a key, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def remember(self, key: Any, value: Any) -> None:
        """Keep a value; the least recently used is forgotten above the limit."""
        with self._lock:
            self._kept[key] = value
            while len(self._kept) > _ENTRIES:
                self._kept.popitem(last=False)

    def remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return ``make()``, computed once per key; it never returns None."""
        value = self.recalled(key)
        if value is None:
            value = make()
            self.remember(key, value)
        return value


def studies_folder() -> Path:
    """Return the folder of studies: ``INFLUENCE_STUDIES``, or ``studies`` beside the program."""
    return Path(os.environ.get("INFLUENCE_STUDIES", "studies"))


def opened(name: str) -> OpenStudy:
    """Return a study by folder name.

    Raises:
        BadInput: No such study; a name is never a path.
    """
    folder = studies_folder()
    path = folder / name
    if not name or name != Path(name).name or not (path / "study.toml").is_file():
        known = ", ".join(item.parent.name for item in sorted(folder.glob("*/study.toml"))[:10])
        raise BadInput(
            "Unknown study",
            f"'{name}' is not in {folder}.",
            f"Open one of: {known}."
            if known
            else "Build one: python -m influence_core demo digits --out studies/digits",
        )
    signature = _signature(path)
    with _lock:
        held = _opened.get(path)
        if held is None or held[0] != signature:
            held = (signature, OpenStudy(path))
        _opened[path] = held
        _opened.move_to_end(path)
        while len(_opened) > _KEPT:
            _opened.popitem(last=False)
        return held[1]


def _signature(path: Path) -> tuple[Any, ...]:
    """Return what changes when a file of the study does; its content is hashed on opening."""
    files = [
        path / "study.toml",
        path / "encoder.json",
        *sorted(path.glob("*.parquet")),
        *sorted((path / "checkpoints").glob("*")),
    ]
    stats = [
        (file.name, file.stat().st_mtime_ns, file.stat().st_size, file.stat().st_ino) for file in files if file.exists()
    ]
    return tuple(stats)
