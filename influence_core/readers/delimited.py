"""Tables as separated text: comma, semicolon, tab or bar, quoted as people really save them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.files import reading_file
from influence_core.readers.rows import Cells

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_QUOTE_FIX = "Check the quotation marks around that line: one may never be closed."


class DelimitedFile:
    """A separated text file, opened for one pass.

    Args:
        path: The file.
        encoding: Its encoding, which decodes all of it.
        shown: How messages name it.

    Attributes:
        names: The first line's cells.
        separator: The separator found.
        chars: Characters read so far.

    Raises:
        BadInput: No header.
    """

    def __init__(self, path: Path, encoding: str, shown: str) -> None:
        """Find the separator and read the header."""
        csv.field_size_limit(max(csv.field_size_limit(), limits.MAX_CELL))
        self._shown, self.chars, self._quotes = shown, 0, 0
        with reading_file(path):
            self._file: TextIO = path.open(encoding=encoding, newline="")
        try:
            self.names = self._begun(path.suffix.lower() == ".tsv")
        except BaseException:
            self.close()
            raise

    def _begun(self, tab: bool) -> list[str]:
        """Find the separator and return the header's cells."""
        self.separator = _separator(self._file.read(1 << 16), tab)
        self._file.seek(0)
        self._reader = csv.reader(self._lines(), delimiter=self.separator)
        header = next(self._records(), None)
        if header is None:
            raise BadInput(
                "The file is empty", f"{self._shown} has no line of text.", "Give a file with a header and rows."
            )
        return header[1]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _lines(self) -> Iterator[str]:
        number = 0
        while line := self._file.readline(limits.MAX_LINE):
            number += 1
            if "\0" in line:
                why = f"{self._shown}, line {number}: it holds a NUL byte, which no text has."
                raise BadInput("The file is damaged, or no text", why, "Export the table again as CSV.")
            if len(line) >= limits.MAX_LINE:
                why = f"{self._shown}, line {number}: longer than {limits.MAX_LINE:,} characters."
                raise BadInput("A line is too long", why, "Check the line ends and the separator.")
            self.chars += len(line)
            self._quotes += line.count('"')
            yield line

    def _records(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the first line's number and the cells of every row that is not blank."""
        start, last, record = self._reader.line_num + 1, 0, []
        try:
            for record in self._reader:
                if record:
                    yield start, record
                last, start = start, self._reader.line_num + 1
        except csv.Error as error:
            if "field limit" in str(error):
                why = f"{self._shown}, line {start}: a cell has more than {limits.MAX_CELL:,} characters."
                raise BadInput("A cell is too large", why, f"Shorten it. {_QUOTE_FIX}") from None
            why = f"{self._shown}, line {start}: {error}."
            raise BadInput("A line cannot be read", why, _QUOTE_FIX) from None
        if self._quotes % 2 and record and self._reader.line_num > last:
            why = f"{self._shown}, line {last}: a quotation opens there and the file ends within it."
            raise BadInput("A quotation is never closed", why, "Close it with a quotation mark, or double the mark.")

    def rows(self) -> Iterator[Cells]:
        """Yield the cells of every row below the header, as many as there are column names.

        Raises:
            BadInput: A row of another length, a huge cell, or a damaged line, with its number.
        """
        expected = len(self.names)
        for line, cells in self._records():
            if len(cells) != expected:
                if len(cells) > expected and not any(cells[expected:]):
                    cells = cells[:expected]  # a separator at the end of the line
                else:
                    name = _SEPARATORS[self.separator]
                    why = f"{self._shown}, line {line}: {len(cells)} cells, and the header has {expected}."
                    fix = f"Correct the line: a cell that holds a {name} or a line break must stand in quotes."
                    raise BadInput("A row has another length than the header", why, fix)
            yield cells


def _separator(sample: str, tab: bool) -> str:
    """Return the separator under which most of the first lines are as long as the header, the more the better."""
    lines = sample.splitlines(keepends=True)
    lines = lines[:-1] if len(lines) > 2 and not lines[-1].endswith(("\n", "\r")) else lines
    best, found = (0.0, 0), "\t" if tab else ","
    for separator in _SEPARATORS:
        try:
            records = [row for row in csv.reader(lines[:200], delimiter=separator) if row]
        except csv.Error:
            continue
        width = len(records[0]) if records else 0
        if width > 1:
            agreeing = sum(len(row) == width for row in records) / len(records)
            if (round(agreeing, 1), width) > best:
                best, found = (round(agreeing, 1), width), separator
    return found
