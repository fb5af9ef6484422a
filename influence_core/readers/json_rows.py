"""Tables as JSON: one object for each row, in a list or line by line, read without holding the file in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.files import reading_file
from influence_core.readers.rows import Cells

_CHUNK = 1 << 20
_MAX_ROW = 16 << 20
_SPACE = " \t\r\n"
_FIX = 'Give one object for each row, such as {"text": "hello", "label": 1}, in a list or line by line.'


class JsonFile:
    """A JSON file of rows, read twice: once for the names, once for the cells.

    Args:
        path: The file.
        encoding: Its encoding.
        shown: How messages name it.

    Attributes:
        names: Every key, in the order of first appearance.
        chars: Characters read so far.

    Raises:
        BadInput: It is not made of one object for each row.
    """

    def __init__(self, path: Path, encoding: str, shown: str) -> None:
        """Collect the names of the columns."""
        self._path, self._encoding, self._shown, self.chars = path, encoding, shown, 0
        names: dict[str, None] = {}
        for row in self._objects():
            names.update(dict.fromkeys(row))
            if len(names) > limits.MAX_COLUMNS:
                why = f"{shown} has more than {limits.MAX_COLUMNS:,} different keys."
                raise BadInput("The table has too many columns", why, "Use the same keys in every row.")
        self._keys = list(names)
        # A lone surrogate is no character, in a name as in a cell.
        self.names = [_text(name) or "" for name in names]
        if not names:
            raise BadInput("The file has no rows", f"{shown} holds no object with keys.", _FIX)

    def close(self) -> None:
        """Release nothing: each pass closes its file."""

    def rows(self) -> Iterator[Cells]:
        """Yield the cells of every row; a missing key and null are missing, lists and objects are their JSON.

        Raises:
            BadInput: A row that is no object, a huge cell or broken JSON, with the number of the row.
        """
        self.chars = 0
        for number, row in enumerate(self._objects(), 1):
            cells = [_text(row.get(key)) for key in self._keys]
            for name, cell in zip(self.names, cells, strict=True):
                if cell is not None and len(cell) > limits.MAX_CELL:
                    why = f"{self._shown}, row {number}: '{name}' has {len(cell):,} characters."
                    raise BadInput("A cell is too large", why, f"Shorten it to {limits.MAX_CELL:,} characters.")
            yield cells

    def _objects(self) -> Iterator[dict[str, Any]]:
        number = 0
        for value in self._values():
            number += 1
            if not isinstance(value, dict):
                why = f"{self._shown}, row {number}: it is a {_kind(value)}."
                raise BadInput("A row is no object", why, _FIX)
            if number == 1 and value and all(isinstance(item, (dict, list)) for item in value.values()):
                why = f"{self._shown} holds one list or object for each column."
                raise BadInput("The table lies on its side", why, f"{_FIX} In pandas: to_json(orient='records').")
            yield value

    def _values(self) -> Iterator[Any]:
        """Yield the values of a list, or values one after another, decoding from a window of the text."""
        # Numbers stay text, so that no digit is lost before the kind of their column is known.
        decoder = json.JSONDecoder(parse_int=str, parse_float=str)
        with reading_file(self._path), self._path.open(encoding=self._encoding) as file:
            text, place, number, ended = file.read(_CHUNK), 0, 1, False
            place = _skipped(text, 0)
            listed = text[place : place + 1] == "["
            place += listed
            while True:
                place = _skipped(text, place, "," if listed and number > 1 else "")
                if listed and text[place : place + 1] == "]":
                    return
                try:
                    value, end = decoder.raw_decode(text, place) if place < len(text) else (None, -1)
                except (ValueError, RecursionError) as error:
                    value, end = error, -1
                # What ends at the edge of the window may go on behind it.
                if end < 0 or (end >= len(text) and not ended):
                    chunk = "" if ended or len(text) - place > _MAX_ROW else file.read(_CHUNK)
                    if chunk:
                        self.chars += len(chunk)
                        text, place = text[place:] + chunk, 0
                        continue
                    if not ended and end >= 0:
                        ended = True
                        continue
                    if place >= len(text) and not listed:
                        return
                    raise self._broken(number, value)
                yield value
                number, place = number + 1, end

    def _broken(self, number: int, error: Any) -> BadInput:
        reason = "objects within objects go too deep" if isinstance(error, RecursionError) else error or "the file ends"
        return BadInput("The JSON is broken", f"{self._shown}, row {number}: {str(reason)[:200]}.", _FIX)


def _skipped(text: str, place: int, once: str = "") -> int:
    """Return the place behind white space, and behind one comma where there may be one."""
    while place < len(text) and text[place] in _SPACE:
        place += 1
    if once and text[place : place + 1] == once:
        return _skipped(text, place + 1)
    return place


def _kind(value: Any) -> str:
    # Numbers were kept as text, so a bare word and a number look the same here.
    return {list: "list", str: "text or number", bool: "boolean"}.get(type(value), "null")


def _text(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    # Of numbers, only NaN and the infinities were parsed as such.
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    # A lone surrogate such as "\ud800" is no character and has no bytes.
    return text.encode("utf-8", "replace").decode("utf-8")
