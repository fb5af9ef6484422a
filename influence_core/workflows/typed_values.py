"""What can be typed for a row of a study, and a typed value as the study's own columns hold it."""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from influence_core.encoder import ColumnsEncoder, ImageEncoder, TableEncoder, TextEncoder
from influence_core.encoder.categories import CategoryColumn
from influence_core.encoder.numbers import NumberColumn
from influence_core.encoder.pictures import picture_pixels
from influence_core.errors import BadInput, Unavailable
from influence_core.study import Study

Kind = Literal["number", "date", "boolean", "category", "text", "image"]
MAX_TEXT = 20_000  # letters
MAX_WORD = 500  # letters of a category: as many as the encoder tells apart
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Field:
    """One thing that is typed.

    Attributes:
        typical: The median or most frequent value of train, as text; empty where there is none.
        choices: The most frequent words of a category.
        optional: Whether it may be missing.
        is_label: It is the number that a regression is measured against.
    """

    name: str
    kind: Kind
    typical: str = ""
    choices: tuple[str, ...] = ()
    optional: bool = False
    is_label: bool = False


def fields(study: Study) -> tuple[Field, ...]:
    """Return what a row of this study is typed as, in the order of its columns.

    Raises:
        Unavailable: Nothing here knows how a typed row becomes the model's input.
    """
    encoder, header = study.encoder, study.header
    if isinstance(encoder, ImageEncoder):
        found = [Field(encoder.column, "image")]
    elif isinstance(encoder, ColumnsEncoder):
        found = [_column_field(column) for column in encoder.columns]
    elif isinstance(encoder, TableEncoder):
        found = [Field(name, "number", _plain(mean)) for name, mean in zip(encoder.columns, encoder.mean, strict=True)]
    elif isinstance(encoder, TextEncoder) or header.modality == "text":
        found = [Field(str(getattr(encoder, "column")), "text")]  # noqa: B009  (every encoder of texts has one)
    else:
        raise Unavailable(
            "A row cannot be typed here",
            "The model takes tensors that were prepared outside, and nothing here knows how.",
            "Put the row into the test data and build the study again.",
        )
    if header.task != "classification":
        found.append(Field(header.label, "number", is_label=True))
    return tuple(found)


def _column_field(column: NumberColumn | CategoryColumn) -> Field:
    if isinstance(column, CategoryColumn):
        typical = column.values[0] if column.values else ""
        return Field(column.name, "category", typical, column.values, optional=True)
    if column.role == "date":
        since = min(max(round(column.median), -700_000), 2_900_000)  # in days, within what a date can be
        day = datetime.datetime(1970, 1, 1) + datetime.timedelta(since)
        return Field(column.name, "date", day.date().isoformat(), optional=True)
    if column.role == "boolean":
        return Field(column.name, "boolean", "true" if column.median > 0.5 else "false", ("true", "false"), True)
    return Field(column.name, "number", _plain(column.median), optional=True)


def _plain(value: float) -> str:
    """Return a number of about six digits, as people write it."""
    return f"{value:.6g}"


def checked_values(study: Study, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return typed values as JSON, in the order of ``fields``; None for a missing one.

    Args:
        study: Whose columns they are.
        given: A value for each: text, or a number, date, truth value or None; of an image its file's bytes or path.

    Raises:
        BadInput: A column is unknown or not given, or a value cannot be one of its column.
    """
    known = {field.name: field for field in fields(study)}
    strange = [name for name in given if name not in known]
    if strange:
        own = study.header.label in strange
        raise BadInput(
            "A typed row has no label of its own" if own else "Unknown column",
            f"'{strange[0]}' is " + ("the label." if own else "not among what the model looks at."),
            "Leave it out." if own else f"Give {_listed(list(known))}.",
        )
    absent = [name for name in known if name not in given]
    if absent:
        raise BadInput(
            "The row is not complete", f"There is no value for {_listed(absent)}.",
            "Give every column; an empty value stands for a missing one.",
        )  # fmt: skip
    return {name: _checked(study, field, given[name]) for name, field in known.items()}


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _checked(study: Study, field: Field, value: Any) -> Any:
    if field.kind == "image":
        return _picture(study, value)
    if isinstance(value, np.generic):
        value = value.item()
    gone = value is None or (isinstance(value, float) and math.isnan(value))
    text = "" if gone else (value if field.kind == "text" else _as_text(value))
    if not isinstance(text, str) or any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        raise _unusable(field, "It is no text.", "Type letters.")
    if not text.strip() and not (field.kind == "category" and text):
        if field.optional:
            return None
        what = "an empty text" if field.kind == "text" else "a missing value"
        why = f"The model cannot read {what}."
        if field.is_label:
            why = "A number is explained by its error, so the number that you would expect is needed."
        raise _unusable(field, why, "Type something." if field.kind == "text" else "Type a number.")
    return _PARSERS[field.kind](field, text)


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, decimal.Decimal)):
        return str(value)
    return value.isoformat() if isinstance(value, (datetime.date, datetime.datetime)) else value


def _unusable(field: Field, why: str, fix: str) -> BadInput:
    what = "The text cannot be used" if field.kind == "text" else f"The value of '{field.name}' cannot be used"
    return BadInput(what, why, fix)


def _quoted(text: str) -> str:
    return f"'{text if len(text) <= 40 else text[:40] + '…'}'"


def _number(field: Field, text: str) -> float:
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or abs(value) > float(np.finfo(np.float32).max):
        raise _unusable(field, f"{_quoted(text)} is no finite number.", "Type a number such as 3, -0.5 or 1e-3.")
    return value


def _boolean(field: Field, text: str) -> bool:
    found = _TRUTH.get(text.strip().lower())
    if found is None:
        raise _unusable(field, f"{_quoted(text)} is neither true nor false.", "Type true or false.")
    return found


def _date(field: Field, text: str) -> str:
    try:
        found = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise _unusable(field, f"{_quoted(text)} is no date.", "Type it as 2024-05-31 or 2024-05-31 14:30.") from None
    if found.tzinfo is not None:  # columns with a time zone hold times of UTC
        found = found.astimezone(datetime.UTC).replace(tzinfo=None)
    return found.isoformat()


def _short(field: Field, text: str) -> str:
    most = MAX_TEXT if field.kind == "text" else MAX_WORD
    if len(text) > most:
        raise _unusable(field, f"It has {len(text):,} letters.", f"Type at most {most:,}.")
    return text


_PARSERS = {"number": _number, "boolean": _boolean, "date": _date, "category": _short, "text": _short}


def _picture(study: Study, value: Any) -> str:
    """Return the pixels as base64: of a file, or of what this function returned before."""
    assert isinstance(study.encoder, ImageEncoder)
    size = study.encoder.size
    if isinstance(value, Path):
        try:
            value = value.read_bytes()
        except OSError as error:
            raise BadInput("The picture cannot be read", f"{value}: {error.strerror}.", "Give another file.") from None
    if isinstance(value, bytes):
        return base64.b64encode(picture_pixels(value, size).tobytes()).decode()
    try:
        pixels = base64.b64decode(value, validate=True)
    except (TypeError, ValueError):
        pixels = b""
    if len(pixels) != math.prod(size):
        raise BadInput("The picture cannot be read", "It is no picture.", "Give the bytes of a picture file.")
    return str(value)


def row_table(study: Study, row_id: str, values: Mapping[str, Any]) -> pa.Table:
    """Return checked values as a row of the study's kind."""
    columns: dict[str, pa.Array] = {study.header.id: pa.array([row_id])}
    for field in fields(study):
        value = values[field.name]
        if field.kind == "image":
            pixels = np.frombuffer(base64.b64decode(value), np.uint8)
            columns[field.name] = pa.FixedSizeListArray.from_arrays(pa.array(pixels), len(pixels))
        elif field.kind == "date":
            day = None if value is None else datetime.datetime.fromisoformat(value)
            columns[field.name] = pa.array([day], pa.timestamp("us"))
        else:
            kind = {"number": pa.float64(), "boolean": pa.bool_()}.get(field.kind, pa.string())
            columns[field.name] = pa.array([value], kind)
    return pa.table(columns)


def texts_of(study: Study, row: pa.Table) -> dict[str, str]:
    """Return the values of one row as they would be typed; nothing for a picture, which is no text."""
    texts = {}
    for field in fields(study):
        if field.kind == "image" or field.name not in row.column_names:
            continue
        value = row.column(field.name).to_pylist()[0]
        gone = value is None or (isinstance(value, float) and math.isnan(value))
        if field.kind == "date" and not gone:
            value = datetime.datetime.fromisoformat(str(value)).isoformat().removesuffix("T00:00:00")
        elif field.kind == "number" and isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
            value = int(value)
        texts[field.name] = "" if gone else str(_as_text(value))
    return texts


def notes_on(study: Study, values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a reader should know of checked values: words that train never had, numbers far outside."""
    encoder, found = study.encoder, []
    for column in encoder.columns if isinstance(encoder, ColumnsEncoder) else ():
        value = values[column.name]
        if value is None:
            continue
        if isinstance(column, CategoryColumn) and value not in column.values:
            how = "it counts as one of the rare values" if column.other else "it counts as none of the known values"
            found.append(f"{column.name}: {_quoted(value)} is not among the {len(column.values)} values known; {how}.")
        if isinstance(column, NumberColumn) and column.role == "number" and not column.low <= value <= column.high:
            span = f"{_plain(column.low)} to {_plain(column.high)}"
            found.append(f"{column.name}: {_plain(value)} lies outside the training rows ({span}).")
    return tuple(found)
