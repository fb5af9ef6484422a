"""A visitor's own input: the form it is typed into, keeping it, and the study with it as a split to ask about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from influence_core.errors import BadInput
from influence_core.measurement import TYPED, Rows
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.typed_views import TypedField, TypedForm
from influence_core.workflows import typed_rows
from influence_core.workflows.typed_values import MAX_TEXT, Field, checked_values, fields, notes_on, texts_of

_DRAWN = 60  # fields of a form


class OpenTyped(OpenStudy):
    """An opened study with typed rows; what depends on these is remembered under their ids, the rest is shared."""

    def __init__(self, held: OpenStudy, ids: tuple[str, ...]) -> None:
        """Read the rows."""
        self.study: typed_rows.TypedStudy = typed_rows.with_typed(held.study, ids)
        self.run = held.run
        self._shared, self._ids = held, ids

    def _own(self, key: Any) -> Any:
        return (self._ids, key) if TYPED in key else key

    def recalled(self, key: Any) -> Any:
        """Return what is remembered under a key, or None."""
        return self._shared.recalled(self._own(key))

    def remember(self, key: Any, value: Any) -> None:
        """Keep a value."""
        self._shared.remember(self._own(key), value)


def opened_for(study: str, split: str, ids: Sequence[Any]) -> OpenStudy:
    """Return a study as ``opened`` does, with the typed rows that are asked about if any are.

    Raises:
        BadInput: No such study, or a typed row is not kept any more.
    """
    held = opened(study)
    if split != TYPED:
        return held
    rows = tuple(str(row_id) for row_id in ids)
    for row_id in rows:
        typed_rows.touch(held.study, row_id)
    return held.remembered(("opened with", rows), lambda: OpenTyped(held, rows))


def notes(held: OpenStudy, query: Rows) -> tuple[str, ...]:
    """Return what a reader should know of a typed row; nothing of others."""
    if not isinstance(held, OpenTyped):
        return ()
    every = (notes_on(held.study, held.study.typed_values[row_id]) for row_id in query.ids)
    return tuple(note for found in every for note in found)


def typed_form(study: str, split: str = "", row_id: object = "") -> TypedForm:
    """Return the form for a row of one's own, filled in from a row of the study, or with usual values.

    Args:
        study: Name of the study.
        split: "train", "test", "locked" or "typed"; empty to start from usual values (an empty text).
        row_id: A row of that split.

    Raises:
        InfluenceError: No such row, or rows of this study cannot be typed.
    """
    known = fields(opened(study).study)
    start = _started(study, split, row_id)
    shown = tuple(_field(field, start.get(field.name, "")) for field in known[:_DRAWN])
    return TypedForm(shown, max(0, len(known) - _DRAWN), MAX_TEXT)


def _field(field: Field, value: str) -> TypedField:
    return TypedField(field.name, field.kind, value, field.typical, field.choices, field.optional, field.is_label)


def _started(study: str, split: str, row_id: object) -> dict[str, str]:
    """Return the text that every field starts with."""
    if not split:
        return {field.name: field.typical for field in fields(opened(study).study)}
    held = opened_for(study, split, (row_id,)).study
    value = held.row_id(split, row_id)
    return texts_of(held, held.rows(split, held.task.positions(Rows(split, (value,))).tolist()))


def keep_typed(study: str, values: Mapping[str, str | bytes], split: str = "", row_id: object = "") -> str:
    """Keep a row of one's own, and return its id.

    Args:
        study: Name of the study.
        values: Column -> what was typed (empty: missing), or the content of a picture file.
        split: With ``row_id``, the row that the form started from: columns that it did not draw keep its values.
        row_id: See there.

    Raises:
        BadInput: What cannot be used, and why.
    """
    held = opened(study)
    if not isinstance(values, Mapping) or not all(isinstance(value, (str, bytes)) for value in values.values()):
        raise BadInput("The row cannot be read", "It is no mapping of columns to texts.", "Fill in the form.")
    missing = [field for field in fields(held.study) if field.kind == "image" and not values.get(field.name)]
    if missing:
        raise BadInput("There is no picture yet", "No file was chosen.", "Choose a picture from your computer.")
    given = {**_started(study, split, row_id), **values}
    return typed_rows.keep(held.study, checked_values(held.study, given))
