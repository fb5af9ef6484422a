"""A user's file as rows: read once, checked, kept as a memory-mapped Arrow table for as long as it is needed."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as _compute

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.files import unpacked
from influence_core.readers.hub import is_dataset
from influence_core.readers.keeping import Kept, kept_rows
from influence_core.readers.kinds import Kind, kind_of, typed
from influence_core.run import Run
from influence_core.study_files import file_hash

pc: Any = _compute
_ENDS = 1 << 20  # bytes at either end of a file that tell it from others of its size and time
_LONG = 40  # mean characters from which words are a text
_EXAMPLE = 200


@dataclass(frozen=True)
class ColumnInfo:
    """What a column holds; counts are of the first 20,000 rows.

    Attributes:
        name: Its name.
        kind: What its values are.
        n_distinct: Number of different values.
        n_missing: Number of missing values, NaN among them.
        examples: Up to five different values.
    """

    name: str
    kind: Kind
    n_distinct: int
    n_missing: int
    examples: tuple[str, ...]


class Source:
    """The rows of a file. Use as a context manager: its temporary folder goes when it closes.

    Attributes:
        path: The user's file.
        n_rows: Number of rows.
        columns: What each column holds.
        notes: What was decided while reading, in sentences.
    """

    def __init__(self, path: Path, folder: tempfile.TemporaryDirectory[str], kept: Kept) -> None:
        """Map the kept file and look at the first rows."""
        self.path, self._folder, self._kept = path, folder, kept
        with pa.memory_map(str(kept.path)) as mapped:  # the table keeps the mapping
            rows = pa.ipc.open_stream(mapped).read_all()
        self._data: pa.Table | None = rows
        self.n_rows, self.notes = len(rows), tuple(kept.notes)
        if not self.n_rows:
            raise BadInput("The table has no rows", f"{path} has column names and nothing below.", "Give it rows.")
        self._long: set[str] = set()
        sample = self.head(limits.SAMPLE_ROWS)
        self._long = {n for n in kept.names if sample[n].type == pa.string() and _mean_length(sample[n]) >= _LONG}
        sample = self.head(limits.SAMPLE_ROWS)
        self.columns = tuple(
            _described(name, sample[name], name in self._long, nested)
            for name, nested in zip(kept.names, kept.nested, strict=True)
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(self._kept.names)

    def column(self, name: str) -> ColumnInfo:
        """Return what a column holds.

        Raises:
            BadInput: No such column.
        """
        for info in self.columns:
            if info.name == name:
                return info
        import difflib

        near = difflib.get_close_matches(name, self.names, n=1)
        why = f"{self.path} has no column '{name}'."
        fix = f"Did you mean '{near[0]}'?" if near else f"Its columns are: {', '.join(self.names[:30])}."
        raise BadInput("Unknown column", why, fix)

    @property
    def rows_at_once(self) -> int:
        """Return how many rows make a batch: as many as their cells allow, fewer where texts may be long."""
        most = limits.ROWS_AT_ONCE if self._long or any(self._kept.nested) else limits.MOST_ROWS_AT_ONCE
        return max(limits.ROWS_AT_ONCE, min(most, limits.CELLS_AT_ONCE // len(self.names)))

    def batches(self, size: int | None = None, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows in order as int64, float64, bool, timestamp or string.

        Args:
            size: How many at a time; None: ``rows_at_once``.
            names: Columns to read; None: all.
        """
        size = size or self.rows_at_once
        for start in range(0, self.n_rows, size):
            yield self._typed(self._rows.slice(start, size), names)

    def head(self, n: int) -> pa.Table:
        """Return the first rows."""
        return self._typed(self._rows.slice(0, max(0, n)))

    @property
    def _rows(self) -> pa.Table:
        if self._data is None:
            raise ValueError("the source is closed")
        return self._data

    def _typed(self, raw: pa.Table, names: Sequence[str] | None = None) -> pa.Table:
        kept = self._kept
        columns, wanted = [], set(kept.names if names is None else names)
        for name, place, reading in zip(kept.names, kept.places, kept.forms, strict=True):
            if name not in wanted:
                continue
            values = raw.column(place).combine_chunks()
            if isinstance(values, pa.ChunkedArray):
                values = pa.concat_arrays(values.chunks)
            columns.append(typed(values, reading.form, name in self._long) if reading else values)
        return pa.table(columns, names=[name for name in kept.names if name in wanted])

    @property
    def mark(self) -> str:
        """Return what tells this source from others: a file's size, time, and first and last bytes; else its rows."""
        if not self.path.is_file():
            return file_hash(self._kept.path)
        found = self.path.stat()
        digest = hashlib.blake2b(f"{found.st_size} {found.st_mtime_ns}".encode(), digest_size=16)
        with open(self.path, "rb") as file:
            digest.update(file.read(_ENDS))
            file.seek(max(0, found.st_size - _ENDS))
            digest.update(file.read(_ENDS))
        return digest.hexdigest()

    def close(self) -> None:
        """Forget the rows and remove the temporary folder."""
        self._data = None
        self._folder.cleanup()

    def __enter__(self) -> Source:
        """Return the source."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def open_source(path: Path | str, run: Run | None = None) -> Source:
    """Read a table: CSV, TSV, JSON, JSON lines, Parquet or Arrow, also packed as gz or zip.

    The file is read once, in bounded memory, into a temporary folder that goes with the Source; nothing in it is ever
    executed or unpickled. Kinds are decided over all rows: one word among numbers makes a column of words.

    Args:
        path: The file; or a data set of the ``datasets`` library: its folder, or ``hf:owner/name``.
        run: Progress and cancel.

    Raises:
        BadInput: What cannot be read: the message names the line or row and what to do.
    """
    run = run or Run()
    if is_dataset(path):
        from influence_core.readers.hub_rows import table_source

        return table_source(path, run)
    path = Path(path)
    folder = tempfile.TemporaryDirectory(prefix="influence-import-", ignore_cleanup_errors=True)
    try:
        file, format = unpacked(path, Path(folder.name))
        kept = kept_rows(file, format, path.name, Path(folder.name) / "rows.arrow", run)
        return Source(path, folder, kept)
    except BaseException:
        folder.cleanup()
        raise


def _mean_length(values: pa.ChunkedArray) -> float:
    return pc.mean(pc.utf8_length(values)).as_py() or 0.0


def _described(name: str, values: pa.ChunkedArray, long: bool, nested: bool) -> ColumnInfo:
    missing = values.null_count
    if pa.types.is_floating(values.type):
        missing += pc.sum(pc.is_nan(values)).as_py() or 0
    known = values.drop_null()
    different = pc.unique(known)
    examples = tuple(str(value)[:_EXAMPLE] for value in different[:5].to_pylist())
    kind: Kind = "other" if nested else kind_of(values.type) or ("text" if long else "category")
    return ColumnInfo(name, kind, len(different), missing, examples)
