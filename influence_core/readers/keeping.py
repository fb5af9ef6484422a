"""One pass over a user's file, whatever its format: every row checked, and kept as an Arrow file that can be mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from influence_core.errors import BadInput
from influence_core.readers.delimited import DelimitedFile
from influence_core.readers.files import Format, text_encoding
from influence_core.readers.json_rows import JsonFile
from influence_core.readers.kinds import Reading
from influence_core.readers.rows import cleaned_names, string_batches
from influence_core.readers.typed_rows import TypedFile
from influence_core.run import Run
from influence_core.store import disk_errors

_STEP = 1 << 20  # characters of a text between two reports: how many batches it makes is known afterwards


@dataclass(frozen=True)
class Kept:
    """The Arrow file that a user's file was brought into, and how its columns are read.

    Attributes:
        path: The Arrow file.
        names: Column names.
        places: Where each column stands in the Arrow file; copies of another are left out.
        forms: How a column of texts is read; None: it has a type of its own.
        nested: Whether a column holds lists, structures or bytes.
        notes: What was decided, in sentences.
    """

    path: Path
    names: list[str]
    places: list[int]
    forms: list[Reading | None]
    nested: list[bool]
    notes: list[str]


def kept_rows(file: Path, format: Format, shown: str, target: Path, run: Run) -> Kept:
    """Read a file once, in bounded memory, into an Arrow file of columns ``c0``, ``c1``, ...

    Args:
        file: The file, unpacked.
        format: Its format.
        shown: How messages name it.
        target: The Arrow file to write.
        run: Progress and cancel.

    Raises:
        BadInput: What cannot be read: the message names the line or row.
    """
    table, notes = _opened(file, format, shown)
    try:
        names = cleaned_names(table.names, shown)
        if not names:
            raise BadInput("The table has no columns", f"{shown} names none.", "Give it columns with names.")
        copies = _Copies(names, shown)
        types = table.types if isinstance(table, TypedFile) else [pa.string()] * len(names)
        forms = [_reading(table) for _ in names]
        schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(types)])
        total = 0 if isinstance(table, TypedFile) else file.stat().st_size // _STEP + 1
        with disk_errors(target), pa.OSFile(str(target), "wb") as out, pa.ipc.new_stream(out, schema) as writer:
            for _ in run.track(_steps(table, copies, forms, writer), f"reading {shown}", total):
                pass
    finally:
        table.close()
    nested = table.nested if isinstance(table, TypedFile) else [False] * len(names)
    places = [i for i in range(len(names)) if i not in copies.of]
    notes += copies.notes()
    notes += [note for i in places if (reading := forms[i]) and (note := reading.note(names[i]))]
    return Kept(
        target, [names[i] for i in places], places, [forms[i] for i in places], [nested[i] for i in places], notes
    )


def _opened(file: Path, format: Format, shown: str) -> tuple[TypedFile | DelimitedFile | JsonFile, list[str]]:
    if format in ("parquet", "arrow"):
        return TypedFile(file, format, shown), []
    encoding, guessed = text_encoding(file)
    return (DelimitedFile if format == "csv" else JsonFile)(file, encoding, shown), [guessed] if guessed else []


def _reading(table: TypedFile | DelimitedFile | JsonFile) -> Reading | None:
    # A comma can be the decimal mark where it does not separate the cells.
    commas = isinstance(table, DelimitedFile) and table.separator != ","
    return None if isinstance(table, TypedFile) else Reading(commas)


def _steps(
    table: TypedFile | DelimitedFile | JsonFile, copies: _Copies, forms: list[Reading | None],
    writer: pa.ipc.RecordBatchStreamWriter,
) -> Iterator[None]:  # fmt: skip
    """Write the batches; yield after each of a typed file, each million characters of a text, and at the end."""
    n_columns, first, reported = len(table.names), 1, 0
    chars = (lambda: 0) if isinstance(table, TypedFile) else (lambda: table.chars)
    batches = table.batches() if isinstance(table, TypedFile) else string_batches(table.rows(), n_columns, chars)
    for columns in batches:
        copies.check(columns, first)
        for reading, values in zip(forms, columns, strict=True):
            if reading is not None:
                reading.see(values, first)
        writer.write_batch(pa.record_batch(columns, names=[f"c{i}" for i in range(n_columns)]))
        first += len(columns[0])
        if isinstance(table, TypedFile):
            yield
        while chars() >= (reported + 1) * _STEP:
            reported += 1
            yield
    yield


class _Copies:
    """Columns of the same name: let be if they hold the same, refused if they do not."""

    def __init__(self, names: Sequence[str], shown: str) -> None:
        first: dict[str, int] = {}
        self._names, self._shown = names, shown
        self.of: Mapping[int, int] = {i: first[n] for i, n in enumerate(names) if first.setdefault(n, i) != i}

    def check(self, columns: Sequence[pa.Array], first_row: int) -> None:
        for copy, original in self.of.items():
            if columns[copy].equals(columns[original]):
                continue
            name, pair = self._names[copy], (columns[original].to_pylist(), columns[copy].to_pylist())
            offset = next((i for i, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), 0)
            why = f"{self._shown}: columns {original + 1} and {copy + 1} are both called '{name}' and differ"
            raise BadInput("Two columns have the same name", f"{why} in row {first_row + offset:,}.", "Rename one.")

    def notes(self) -> list[str]:
        return [f"A second column '{self._names[i]}' holds the same values and was left out." for i in self.of]
