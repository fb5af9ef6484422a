"""What an uploaded file holds: read once, kept open for a while, described and checked without importing it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from influence_core.errors import BadInput, InfluenceError
from influence_core.readers import ColumnInfo, Roles, Source, check_roles, guessed_roles, open_source, used_columns
from influence_core.service.opened import studies_folder
from influence_core.service.uploads import uploaded_file
from influence_core.service.views import ImportCheck, ImportColumn, ImportPreview

SINGLE = ("label", "id", "text", "split")  # roles that one column at most can have
ROLES = (*SINGLE, "feature", "shown", "ignored")
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


class _Opened:
    """One uploaded file: its rows or why they cannot be read, and what is known about it so far."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = threading.RLock()  # held while the rows are used, so that nobody closes them meanwhile
        self.known: OrderedDict[Any, Any] = OrderedDict()
        self._source: Source | None = None
        self._problem: InfluenceError | None = None

    @property
    def source(self) -> Source:
        """Return the rows; the first call reads the file. To be called with the lock held."""
        if self._problem is not None:
            raise self._problem
        if self._source is None:
            try:
                self._source = open_source(self.file)
            except BadInput as problem:  # reading it again would say the same
                self._problem = _without_path(problem, self.file)
                raise self._problem from None
        return self._source

    def recalled(self, key: Any, make: Any) -> Any:
        """Return ``make()``, computed once per key; to be called with the lock held."""
        if key not in self.known:
            self.known[key] = make()
            while len(self.known) > _CHECKS:
                self.known.popitem(last=False)
        return self.known[key]

    def close(self) -> None:
        """Close the rows; whoever still holds this object reads them anew."""
        with self.lock:
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


def preview(token: str) -> ImportPreview:
    """Return what an uploaded file holds and what each column seems to be for; the first call reads the whole file.

    Raises:
        BadInput: The upload is gone, or the file cannot be read: names the row or line.
    """
    held = _held(token)
    with held.lock:
        return held.recalled("preview", lambda: _preview(token, held.source))


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
    return "feature" if info.name in guess.features else "shown"


def check_import(token: str, chosen: Mapping[str, str], task: str = "") -> ImportCheck:
    """Say whether a study can be made of an uploaded file with these roles.

    Args:
        token: The upload.
        chosen: Column name -> one of ``ROLES``, for every column.
        task: "classification" or "regression"; empty: what the label's values suggest.

    Returns:
        The roles as the import takes them, or the problem and the column it is about.

    Raises:
        BadInput: The upload is gone or cannot be read.
    """
    held = _held(token)
    with held.lock:
        source = held.source
        key = (task, *((name, chosen.get(name, "shown")) for name in source.names))
        return held.recalled(key, lambda: _checked(held, source, chosen, task))


def _checked(held: _Opened, source: Source, chosen: Mapping[str, str], task: str) -> ImportCheck:
    found = ""
    try:
        with_role = {role: [name for name in source.names if chosen.get(name, "shown") == role] for role in ROLES}
        _check_choice(with_role)
        label = with_role["label"][0]
        found = task or held.recalled(("task", label), lambda: guessed_roles(source, label).task)
        single = {role: next(iter(with_role[role]), None) for role in SINGLE}
        features = () if single["text"] else with_role["feature"]
        roles = Roles.checked({**single, "task": found, "features": features, "ignored": with_role["ignored"]})
        check_roles(source, roles)
    except BadInput as problem:
        problem = _without_path(problem, source.path)
        about = next((name for name in source.names if f"'{name}'" in f"{problem.what} {problem.why}"), None)
        return ImportCheck(found, None, (problem.what, problem.why, problem.fix), about)
    return ImportCheck(found, roles.to_json(), None, None)


def _check_choice(with_role: Mapping[str, list[str]]) -> None:
    for role in SINGLE:
        if len(with_role[role]) > 1:
            why = ", ".join(f"'{name}'" for name in with_role[role][:5]) + f" all have the role {role}."
            raise BadInput("A role is given twice", why, "Only one column can have it.")
    if not with_role["label"]:
        raise BadInput("No column is the label", "The model must learn to say something.",
                       "Give the role Label to the column that it should predict.")  # fmt: skip
    if not with_role["feature"] and not with_role["text"]:
        raise BadInput("The model has nothing to read", "No column has the role Feature or Text.",
                       "Give one of them to the columns that the model should learn from.")  # fmt: skip
