"""The kind of a column of texts: what every one of its values can be read as, and the values read so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as _compute

# pyarrow makes its functions at import time, which type checkers do not see.
pc: Any = _compute

Kind = Literal["number", "integer", "boolean", "date", "category", "text", "other"]
MISSING = ("", "NA", "N/A", "n/a", "NaN", "nan", "-nan", "-NaN", "<NA>", "#N/A", "#NA", "NULL", "null", "None")
# Among numbers, dates and truth values these mean missing too; among words they may be words.
_UNKNOWN = (*MISSING, "?", "-", ".")
_INTEGER = r"^[+-]?(0|[1-9][0-9]{0,17})$"
# No leading zero and at most 18 digits: postal codes and long numbers are names, not amounts.
_NUMBER = r"^[+-]?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$|^[+-]?(?i:inf|infinity)$"
_COMMA = r"^[+-]?(0|[1-9][0-9]{0,17})(,[0-9]+)?$"
_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}"
_SLASHED = {"%m/%d/%Y": r"^(0?[1-9]|1[0-2])/(0?[1-9]|[12][0-9]|3[01])/[0-9]{4}$",
            "%d/%m/%Y": r"^(0?[1-9]|[12][0-9]|3[01])/(0?[1-9]|1[0-2])/[0-9]{4}$",
            "%d.%m.%Y": r"^(0?[1-9]|[12][0-9]|3[01])\.(0?[1-9]|1[0-2])\.[0-9]{4}$"}  # fmt: skip
_FORMS = ("boolean", "integer", "number", "comma", "date", "zoned", *_SLASHED)
STAMP = pa.timestamp("us")


@dataclass
class Reading:
    """What the values of a column of texts, seen batch by batch, can all be read as.

    Args:
        commas: Whether a comma may be the decimal mark: not where it separates the cells.
    """

    commas: bool = False
    forms: list[str] = field(default_factory=list)
    numbers: int = 0
    values: int = 0
    odd: tuple[int, str] | None = None

    def __post_init__(self) -> None:
        """Start with every form possible."""
        self.forms = [form for form in _FORMS if form != "comma" or self.commas]

    def see(self, texts: pa.Array, first_row: int) -> None:
        """Drop the forms that a batch of values cannot be read as.

        Args:
            texts: Values of the column.
            first_row: Number of the first of them, from 1.
        """
        trimmed = pc.utf8_trim_whitespace(texts)
        given = _given(trimmed, _UNKNOWN)
        values = trimmed.filter(given)
        if not len(values):
            return
        numbers = pc.match_substring_regex(values, _NUMBER)
        found = pc.sum(numbers).as_py()
        self.values, self.numbers = self.values + len(values), self.numbers + found
        if self.odd is None and found < len(values):
            place = pc.index(numbers, False).as_py()
            rows = pc.indices_nonzero(given)
            self.odd = (first_row + rows[place].as_py(), values[place].as_py())
        self.forms = [form for form in self.forms if _readable(values, form)]

    @property
    def form(self) -> str | None:
        """Return the form of the column: None for words."""
        return self.forms[0] if self.forms and self.values else None

    def note(self, name: str) -> str | None:
        """Return a sentence where the column was not read as it may have been meant, or None."""
        if self.form == "%m/%d/%Y" and "%d/%m/%Y" in self.forms:
            return f"The dates of '{name}' were read as month/day/year; no date tells whether that is right."
        if self.form is None and self.odd and 0 < self.numbers and self.numbers >= 0.5 * self.values:
            row, text = self.odd
            share = f"{self.numbers:,} of {self.values:,}"
            return (
                f"'{name}' mixes numbers ({share} values) and words (first in row {row:,}: '{text[:40]}') "
                "and was read as words."
            )
        return None


def _given(trimmed: pa.Array, missing: tuple[str, ...]) -> pa.Array:
    return pc.fill_null(pc.invert(pc.is_in(trimmed, pa.array(missing, pa.string()))), False)


def _readable(values: pa.Array, form: str) -> bool:
    if form == "boolean":
        patterns = r"^(?i:true|false)$"
    else:
        patterns = {"integer": _INTEGER, "number": _NUMBER, "comma": _COMMA, **_SLASHED}.get(form, _DATE)
    if not pc.all(pc.match_substring_regex(values, patterns)).as_py():
        return False
    try:
        read(values, form)
    except pa.ArrowInvalid:
        return False
    return True


def read(values: pa.Array, form: str) -> pa.Array:
    """Return trimmed texts, none of them missing, as values of a form.

    Raises:
        pa.ArrowInvalid: One of them is no such value.
    """
    if form == "boolean":
        return pc.equal(pc.utf8_lower(values), "true")
    if form == "date":
        return pc.cast(values, STAMP)
    if form == "zoned":
        return pc.cast(pc.cast(values, pa.timestamp("us", "UTC")), STAMP)
    if form in _SLASHED:
        return pc.strptime(values, format=form, unit="us")
    digits = pc.replace_substring(values, ",", ".") if form == "comma" else values
    digits = pc.utf8_ltrim(digits, characters="+")
    return pc.cast(digits, pa.int64() if form == "integer" else pa.float64())


def typed(texts: pa.Array, form: str | None, long: bool) -> pa.Array:
    """Return a column of texts as values of its form.

    Args:
        texts: Values as they stand in the file.
        form: As found by ``Reading``; None for words.
        long: Whether the words are texts, kept to the letter, and not names of categories.
    """
    if form is None and long:
        return pc.if_else(pc.equal(texts, ""), None, texts)
    trimmed = pc.utf8_trim_whitespace(texts)
    given = _given(trimmed, MISSING if form is None else _UNKNOWN)
    kept = pc.if_else(given, trimmed, None)
    return kept if form is None else read(kept, form)


def kind_of(kind: pa.DataType) -> Kind | None:
    """Return the kind that an Arrow type is, None for words."""
    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "number"
    return "date" if pa.types.is_timestamp(kind) else None
