"""A user's file as rows: read once, checked, kept as a memory-mapped Arrow table for as long as it is needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
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

pc: Any = _compute
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
        from datasets import Dataset

        self.path, self._folder, self._kept = path, folder, kept
        self._data: Any = Dataset.from_file(str(kept.path)).with_format("arrow")
        self.n_rows, self.notes = len(self._data), tuple(kept.notes)
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

    def batches(self, size: int = limits.ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """Yield the rows in order, ``size`` at a time, as int64, float64, bool, timestamp or string."""
        for raw in self._data.iter(size):
            yield self._typed(raw)

    def head(self, n: int) -> pa.Table:
        """Return the first rows."""
        return self._typed(self._data[: max(0, n)])

    def _typed(self, raw: Any) -> pa.Table:
        kept = self._kept
        columns = []
        for name, place, reading in zip(kept.names, kept.places, kept.forms, strict=True):
            values = raw.column(place).combine_chunks()
            if isinstance(values, pa.ChunkedArray):
                values = pa.concat_arrays(values.chunks)
            columns.append(typed(values, reading.form, name in self._long) if reading else values)
        return pa.table(columns, names=kept.names)

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
    os.environ.setdefault(
        "HF_HUB_OFFLINE", "1"
    )  # read when `datasets` is first imported: a local file needs no network
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
