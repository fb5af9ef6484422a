"""What an uploaded file holds: read once, kept open for a while, described and checked without importing it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from influence_core.errors import BadInput, Cancelled, InfluenceError
from influence_core.readers import (
    ColumnInfo,
    ImageSource,
    Roles,
    Source,
    check_roles,
    column_facts,
    cost_in_words,
    found_leaks,
    guessed_roles,
    holds_images,
    import_cost,
    open_images,
    open_source,
    used_columns,
)
from influence_core.run import Run
from influence_core.service.image_previews import images_check, images_preview
from influence_core.service.opened import studies_folder
from influence_core.service.study_previews import study_preview
from influence_core.service.uploads import uploaded_file
from influence_core.service.views import (
    ImagesCheck,
    ImagesPreview,
    ImportCheck,
    ImportColumn,
    ImportPreview,
    Reading,
    StudyPreview,
)
from influence_core.study_archive import is_study_archive

SINGLE = ("label", "id", "text", "split", "weight")  # roles that one column at most can have
ROLES = (*SINGLE, "feature", "sensitive-feature", "sensitive", "shown", "ignored")
LARGE_BYTES = 50 << 20  # from which a file is read in the background
LARGE_IMAGES_BYTES = 4 << 20  # the same of images, each of which is looked at
_KEPT = 3  # files held open
_CHECKS = 64
_SHOWN_ROWS = 8
_CELL = 80  # characters
_KINDS = {
    "number": "numbers", "integer": "whole numbers", "boolean": "yes or no", "date": "dates", "category": "words",
    "text": "texts", "other": "lists or bytes",
}  # fmt: skip

_opened: OrderedDict[Path, _Opened] = OrderedDict()
_lock = threading.Lock()


Preview = ImportPreview | ImagesPreview | StudyPreview


class _Opened:
    """One uploaded file: its rows or images or why they cannot be read, and what is known about it so far."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = threading.RLock()  # held while the rows are used, so that nobody closes them meanwhile
        self.known: OrderedDict[Any, Any] = OrderedDict()
        self.read_seconds = 0.0
        self._kind = ""
        self._source: Source | ImageSource | None = None
        self._problem: InfluenceError | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._told = Reading("reading the file", 0.0)

    @property
    def kind(self) -> str:
        """Return "study", "images" or "table"."""
        if not self._kind:
            study = is_study_archive(self.file)
            self._kind = "study" if study else "images" if holds_images(self.file) else "table"
        return self._kind

    def reading(self) -> Reading | None:
        """Return how far the reading of a large file is, and begin it where nobody has; None: nobody need wait.

        A thread of this process reads it, so that every browser finds the same reading, and closing it ends it.
        """
        if self._source is not None or self._problem is not None or not self._is_large():
            return None
        with _lock:
            if self._thread is None or not self._thread.is_alive():
                if self._stop.is_set():
                    return None
                self._thread = threading.Thread(target=self._read, name=f"reading {self.file.name}", daemon=True)
                self._thread.start()
        return self._told

    def _is_large(self) -> bool:
        size = self.file.stat().st_size
        if size <= min(LARGE_BYTES, LARGE_IMAGES_BYTES):
            return False
        try:
            return size > {"images": LARGE_IMAGES_BYTES, "table": LARGE_BYTES}.get(self.kind, size)
        except BadInput:  # asked for again, and said, where it is described
            return False

    def _read(self) -> None:
        with suppress(InfluenceError, Cancelled), self.lock:  # what is wrong is kept and raised where it is asked for
            self.recalled("preview", lambda: _described(self))

    def _tell(self, stage: str, done: float, total: float) -> None:
        self._told = Reading(stage, min(1.0, done / max(total, 1.0)))

    @property
    def source(self) -> Source:
        """Return the rows of a table; the first call reads the file. To be called with the lock held."""
        source = self._read_source()
        if not isinstance(source, Source):
            raise BadInput("This file is no table", f"{self.file.name} holds images.", "Reload the page.")
        return source

    @property
    def images(self) -> ImageSource:
        """Return the images; the first call looks at all of them. To be called with the lock held."""
        source = self._read_source()
        if not isinstance(source, ImageSource):
            raise BadInput("There are no images here", f"{self.file.name} is a table.", "Reload the page.")
        return source

    def _read_source(self) -> Source | ImageSource:
        if self._problem is not None:
            raise self._problem
        if self._source is None:
            run, start = Run(device="cpu", progress=self._tell, cancel=self._stop.is_set), time.monotonic()
            try:
                self._source = self._open(run)
                self.read_seconds = time.monotonic() - start
            except BadInput as problem:  # reading it again would say the same
                self._problem = _without_path(problem, self.file)
                raise self._problem from None
        return self._source

    def _open(self, run: Run) -> Source | ImageSource:
        if self.kind == "images":
            return open_images(self.file, run)
        opened = open_source(self.file, run)
        try:
            column_facts(opened, opened.names, run)  # now, so that every check after it is quick
        except BaseException:
            opened.close()
            raise
        return opened

    def recalled(self, key: Any, make: Any) -> Any:
        """Return ``make()``, computed once per key; to be called with the lock held."""
        if key not in self.known:
            self.known[key] = make()
            while len(self.known) > _CHECKS:
                self.known.popitem(last=False)
        return self.known[key]

    def close(self) -> None:
        """Close the rows, and stop reading them; whoever still holds this object reads them anew."""
        self._stop.set()
        with self.lock:
            self._stop = threading.Event()
            if self._source is not None:
                self._source.close()
            self._source = None


def _without_path(problem: InfluenceError, file: Path) -> BadInput:
    """Return a problem that calls the file by its name: where the server keeps it says nothing to a visitor."""
    return BadInput(*(part.replace(str(file), file.name) for part in (problem.what, problem.why, problem.fix)))


def _held(token: str) -> _Opened:
    file = uploaded_file(studies_folder(), token)
    with _lock:
        held = _opened.setdefault(file, _Opened(file))
        _opened.move_to_end(file)
        old = [_opened.popitem(last=False)[1] for _ in range(len(_opened) - _KEPT)]
    for other in old:
        other.close()
    return held


def close_upload(token: str) -> None:
    """Forget an uploaded file's rows."""
    with _lock:
        old = [_opened.pop(file) for file in list(_opened) if file.parent.name == token]
    for held in old:
        held.close()


def reading(token: str) -> Reading | None:
    """Return how far the reading of an uploaded file is, or None: it is read, small, or cannot be read.

    The first call for a large file begins to read it, in the background: dropping the upload stops that.

    Raises:
        BadInput: The upload is gone.
    """
    return _held(token).reading()


def preview(token: str) -> Preview:
    """Return what an uploaded file holds: a table and what each column seems to be for, images, or a packed study.

    The first call reads the whole file.

    Raises:
        BadInput: The upload is gone, or the file cannot be read: names the row, line or image.
    """
    held = _held(token)
    with held.lock:
        return held.recalled("preview", lambda: _described(held))


def _described(held: _Opened) -> Preview:
    token = held.file.parent.name
    if held.kind == "study":
        return study_preview(token, held.file)
    if held.kind == "images":
        return images_preview(token, held.images)
    return _preview(token, held.source)


def check_images(token: str, label: str) -> ImagesCheck:
    """Say whether a study can be made of uploaded images with this label, and show what it says of some of them.

    Args:
        token: The upload.
        label: One of the preview's labels; empty for what it seems to be.

    Raises:
        BadInput: The upload is gone or cannot be read.
    """
    held = _held(token)
    with held.lock:
        source = held.images
        return held.recalled(("images", label), lambda: images_check(source, label, held.read_seconds))


def _preview(token: str, source: Source) -> ImportPreview:
    try:
        guess = guessed_roles(source)
    except BadInput:  # no column looks like a label; the user may know better
        guess = None
    plain = _plain(source)
    columns = tuple(
        ImportColumn(info.name, _KINDS[info.kind], info.n_distinct, info.n_missing, info.examples,
                     _guessed(info, guess, plain), plain[info.name])
        for info in source.columns
    )  # fmt: skip
    head = source.head(_SHOWN_ROWS)
    rows = tuple(tuple(_cell(value) for value in row.values()) for row in head.to_pylist())
    name = source.path.name
    return ImportPreview(token, name, name.split(".")[0] or name, source.n_rows, columns, rows, source.notes)


def _cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    words = str(value)
    return words if len(words) <= _CELL else words[: _CELL - 1] + "…"


def _plain(source: Source) -> dict[str, str]:
    """Return the role of every column if it has no special one: read by the model where it can be, else only shown."""
    # Two views, because the column that stands for the label is left out of what is used.
    ends = (Roles.checked({"label": name}) for name in (source.names[0], source.names[-1]))
    used = {name for roles in ends for name in used_columns(source, roles)}
    return {name: "feature" if name in used else "shown" for name in source.names}


def _guessed(info: ColumnInfo, guess: Roles | None, plain: Mapping[str, str]) -> str:
    if guess is None:
        return plain[info.name]
    for role in SINGLE:
        if getattr(guess, role) == info.name:
            return role
    if info.name in guess.ignored:
        return "ignored"
    if info.name in guess.sensitive:
        return "sensitive-feature" if info.name in guess.features else "sensitive"
    return "feature" if info.name in guess.features else "shown"


def check_import(token: str, chosen: Mapping[str, str], task: str = "", reading: str = "") -> ImportCheck:
    """Say whether a study can be made of an uploaded file with these roles.

    Args:
        token: The upload.
        chosen: Column name -> one of ``ROLES``, for every column.
        task: "classification" or "regression"; empty: what the label's values suggest.
        reading: How a text is read: "words" (also if empty) or "meaning".

    Returns:
        The roles as the import takes them, or the problem and the column it is about.

    Raises:
        BadInput: The upload is gone or cannot be read.
    """
    held = _held(token)
    with held.lock:
        source = held.source
        key = (task, reading, *((name, chosen.get(name, "shown")) for name in source.names))
        return held.recalled(key, lambda: _checked(held, source, chosen, task, reading))


def _checked(held: _Opened, source: Source, chosen: Mapping[str, str], task: str, reading: str) -> ImportCheck:
    found = ""
    try:
        with_role = {role: [name for name in source.names if chosen.get(name, "shown") == role] for role in ROLES}
        _check_choice(with_role)
        label = with_role["label"][0]
        found = task or held.recalled(("task", label), lambda: guessed_roles(source, label).task)
        single = {role: next(iter(with_role[role]), None) for role in SINGLE}
        read = ("feature", "sensitive-feature")
        features = () if single["text"] else [name for name in source.names if chosen.get(name) in read]
        roles = Roles.checked(
            {
                **single, "task": found, "features": features, "ignored": with_role["ignored"],
                "sensitive": [*with_role["sensitive-feature"], *with_role["sensitive"]],
                "reading": reading if reading and single["text"] else "words",
            }
        )  # fmt: skip
        check_roles(source, roles)
    except BadInput as problem:
        problem = _without_path(problem, source.path)
        about = next((name for name in source.names if f"'{name}'" in f"{problem.what} {problem.why}"), None)
        return ImportCheck(found, None, (problem.what, problem.why, problem.fix), about)
    found_out = tuple((leak.column, leak.why) for leak in found_leaks(source, roles))
    cost = cost_in_words(import_cost(source, roles, held.read_seconds))
    return ImportCheck(found, roles.to_json(), None, None, found_out, cost)


def _check_choice(with_role: Mapping[str, list[str]]) -> None:
    for role in SINGLE:
        if len(with_role[role]) > 1:
            why = ", ".join(f"'{name}'" for name in with_role[role][:5]) + f" all have the role {role}."
            raise BadInput("A role is given twice", why, "Only one column can have it.")
    if not with_role["label"]:
        raise BadInput("No column is the label", "The model must learn to say something.",
                       "Give the role Label to the column that it should predict.")  # fmt: skip
    if not any(with_role[role] for role in ("feature", "sensitive-feature", "text")):
        raise BadInput("The model has nothing to read", "No column has the role Feature or Text.",
                       "Give one of them to the columns that the model should learn from.")  # fmt: skip
