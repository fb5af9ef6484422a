"""Studies as the app holds them: opened once, opened again when a file of theirs changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from influence_core.errors import InfluenceError
from influence_core.run import Run
from influence_core.service import access
from influence_core.service.folder import parts_of, studies_folder
from influence_core.study import Study

P = ParamSpec("P")
T = TypeVar("T")
_KEPT = 4
_ENTRIES = 4096
_BYTES = 512 << 20
_lock = threading.Lock()
_opened: OrderedDict[tuple[Path, str], tuple[tuple[Any, ...], OpenStudy]] = OrderedDict()


class OpenStudy:
    """A study with what the app remembers about it: drawn thumbnails, scores of recent queries."""

    def __init__(self, path: Path, version: str = "") -> None:
        """Open the folder, or a version in it."""
        self.study = Study(path).version(version) if version else Study(path)
        self.run = Run(store=self.study.store)
        self._kept: OrderedDict[Any, Any] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def recalled(self, key: Any) -> Any:
        """Return what is remembered under a key, or None."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def remember(self, key: Any, value: Any) -> None:
        """Keep a value; the least recently used is forgotten above the limits of number and bytes."""
        with self._lock:
            self._bytes += _size(value) - _size(self._kept.pop(key, None))
            self._kept[key] = value
            while len(self._kept) > _ENTRIES or (self._bytes > _BYTES and len(self._kept) > 1):
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def remembered(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return ``make()``, computed once per key; it never returns None."""
        value = self.recalled(key)
        if value is None:
            value = make()
            self.remember(key, value)
        return value


def _size(value: Any) -> int:
    """Return the bytes of the arrays in a value; cards and numbers are bounded by their count."""
    if isinstance(value, tuple):
        return sum(_size(item) for item in value)
    return int(getattr(value, "nbytes", 0))


def opened(name: str) -> OpenStudy:
    """Return a study by folder name, or as ``name@id`` one of its versions.

    Raises:
        BadInput: No such study or version, or not for whoever asks; a name is never a path.
    """
    access.check(name)
    folder = studies_folder()
    base, version = parts_of(name)
    if not _is_study(folder, base):
        raise access.unknown_study(name)
    place = folder / base, version
    signature = _signature(*place)
    with _lock:
        held = _opened.get(place)
        if held is None or held[0] != signature:
            held = (signature, OpenStudy(*place))
        _opened[place] = held
        _opened.move_to_end(place)
        while len(_opened) > _KEPT:
            _opened.popitem(last=False)
        return held[1]


def forget(name: str) -> None:
    """Give up what is held of a study: it is gone, or its cache is."""
    with _lock:
        for place in [place for place in _opened if place[0] == studies_folder() / name]:
            del _opened[place]


def told_if_gone(function: Callable[Concatenate[str, P], T]) -> Callable[Concatenate[str, P], T]:
    """Wrap a question about a study: if it was deleted while it was answered, say so, not which file was missed."""

    @wraps(function)
    def answer(study: str, *args: P.args, **options: P.kwargs) -> T:
        try:
            return function(study, *args, **options)
        except (InfluenceError, OSError):
            if not _is_study(studies_folder(), parts_of(study)[0]):
                raise access.unknown_study(study) from None
            raise

    return answer


def _is_study(folder: Path, name: str) -> bool:
    """Tell whether a name, as it may stand in a URL, is that of a folder right here with a study in it."""
    try:
        return name not in ("", "..") and name == Path(name).name and (folder / name / "study.toml").is_file()
    except OSError:  # longer than any file name can be, or not ours to look at
        return False


def _signature(path: Path, version: str) -> tuple[Any, ...]:
    """Return what changes when a file of the study does; its content is hashed on opening."""
    files = [
        path / "study.toml",
        path / "encoder.json",
        *sorted(path.glob("*.parquet")),
        *sorted((path / "checkpoints").glob("*")),
        *(sorted((path / "versions").glob(f"{version}/*")) if version.isalnum() else ()),
    ]
    stats: list[tuple[Any, ...]] = []
    for file in files:
        with suppress(FileNotFoundError):  # gone, perhaps just now
            state = file.stat()
            stats.append((file.name, state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(stats)
