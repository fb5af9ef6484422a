"""Tables with types of their own, Parquet and Arrow: read in batches, checked, and brought to a few plain types."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as _compute
import pyarrow.parquet as pq

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.kinds import STAMP

pc: Any = _compute
_SMALL_ROW = 256  # bytes; of such rows more are read at a time


@contextmanager
def _reading(shown: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, NotImplementedError) as error:
        why = f"{shown}: {str(error).splitlines()[0][:300] if str(error) else type(error).__name__}."
        raise BadInput("The file is damaged", why, "Export the table again.") from None


class TypedFile:
    """A Parquet or Arrow file, opened for one pass.

    Args:
        path: The file.
        format: ``"parquet"`` or ``"arrow"``.
        shown: How messages name it.

    Attributes:
        names: Column names as they stand in the file.
        schema: As it stands in the file.
        nested: Whether each column holds lists, structures or bytes, kept as text to look at.

    Raises:
        BadInput: Damaged, or too large.
    """

    def __init__(self, path: Path, format: str, shown: str) -> None:
        """Open the file and read its schema."""
        self._shown, self._format = shown, format
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        with _reading(shown):
            # Not memory-mapped: a file that changes or shrinks meanwhile must give an error, not end the process.
            self._file = pa.OSFile(str(path))
            try:
                self._source = self._opened()
            except BaseException:
                self.close()
                raise
            source = self._source
            self.schema: pa.Schema = source.schema_arrow if isinstance(source, pq.ParquetFile) else source.schema
        schema = self.schema
        self.names = list(schema.names)
        self.types = [_plain_type(kind) for kind in schema.types]
        self.nested = [_is_nested(kind) for kind in schema.types]

    def _opened(self) -> Any:
        if self._format == "parquet":
            file = pq.ParquetFile(self._file)
            groups = range(file.metadata.num_row_groups)
            size = sum(file.metadata.row_group(g).total_byte_size for g in groups)
            if size > limits.MAX_BYTES:
                why = f"{self._shown}: {size:,} bytes unpacked; {limits.MAX_BYTES:,} can be read."
                raise BadInput("The file is too large", why, "Import a part of the rows.")
            return file
        start = self._file.read(6)
        self._file.seek(0)
        return pa.ipc.open_file(self._file) if start == b"ARROW1" else pa.ipc.open_stream(self._file)

    def close(self) -> None:
        """Close the file, once nobody reads it."""
        self._ahead.shutdown(wait=True, cancel_futures=True)
        self._file.close()

    def __enter__(self) -> TypedFile:
        """Return the file."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def _checked(self) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the file, validated."""
        batches = self._raw()
        # One batch ahead in a thread: unpacking takes about as long as what is done with the rows.
        coming = self._ahead.submit(next, batches, None)
        while True:
            with _reading(self._shown):
                batch = coming.result()
                if batch is None:
                    return
                coming = self._ahead.submit(next, batches, None)
                batch.validate(full=True)
            yield batch

    def tables(self, size: int) -> Iterator[pa.Table]:
        """Yield the rows in order as they are in the file, checked, at most ``size`` at a time.

        Raises:
            BadInput: Damaged data.
        """
        for batch in self._checked():
            for start in range(0, len(batch), size):
                yield pa.Table.from_batches([batch.slice(start, size)])

    def batches(self) -> Iterator[list[pa.Array]]:
        """Yield the columns of batch after batch, in plain types.

        Raises:
            BadInput: Damaged data, or a huge cell, with its row.
        """
        first = 1
        for batch in self._checked():
            with _reading(self._shown):
                columns = [plain(column) for column in batch.columns]
            for name, column in zip(self.names, columns, strict=True):
                self._check_cells(name, column, first)
            yield columns
            first += len(batch)

    def _raw(self) -> Iterator[pa.RecordBatch]:
        rows = max(1, min(limits.ROWS_AT_ONCE, limits.CELLS_AT_ONCE // max(1, len(self.names))))
        if isinstance(self._source, pq.ParquetFile):
            rows = max(rows, min(self._many(self._source, rows), limits.CELLS_AT_ONCE // max(1, len(self.names))))
            yield from self._source.iter_batches(rows, use_threads=False)  # this is a thread of its own
            return
        source = self._source
        file = isinstance(source, pa.RecordBatchFileReader)
        batches = (source.get_batch(i) for i in range(source.num_record_batches)) if file else iter(source)
        for batch in batches:
            # Checked whole before it is cut: offsets of a damaged batch may point anywhere.
            batch.validate(full=True)
            for start in range(0, len(batch), rows):
                yield batch.slice(start, rows)

    def _many(self, file: pq.ParquetFile, rows: int) -> int:
        """Return how many rows to read at a time where the first ones are small: fewer batches take a third less."""
        first = next(file.iter_batches(rows, use_threads=False), None)
        return 4 * rows if first is not None and first.nbytes <= _SMALL_ROW * len(first) else rows

    def _check_cells(self, name: str, column: pa.Array, first: int) -> None:
        if not pa.types.is_string(column.type):
            return
        sizes = pc.binary_length(column)
        largest = pc.max(sizes).as_py()
        if largest is not None and largest > 4 * limits.MAX_CELL:
            row = first + pc.index(sizes, largest).as_py()
            why = f"{self._shown}, row {row:,}: '{name}' has {largest:,} bytes."
            raise BadInput("A cell is too large", why, f"Shorten it to {limits.MAX_CELL:,} characters.")


def _is_nested(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return _plain_type(kind) == pa.string() and not (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
        or pa.types.is_string_view(kind) or pa.types.is_time(kind)
    )  # fmt: skip


def _plain_type(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if types.is_boolean(kind):
        return pa.bool_()
    if types.is_integer(kind) and kind != pa.uint64():
        return pa.int64()
    if types.is_floating(kind) or types.is_decimal(kind) or types.is_duration(kind) or kind == pa.uint64():
        return pa.float64()
    return STAMP if types.is_timestamp(kind) or types.is_date(kind) else pa.string()


def plain(column: pa.Array) -> pa.Array:
    """Return a column in one of the plain types: boolean, int64, float64, timestamp in microseconds, string.

    Durations become seconds; what has no plain form (lists, structures, bytes) becomes JSON to look at.
    """
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode())
    target = _plain_type(kind)
    if kind == target:
        return column
    if pa.types.is_duration(kind):
        return pc.divide(pc.cast(pc.cast(column, pa.duration("us"), safe=False), pa.int64()).cast(pa.float64()), 1e6)
    if target == pa.string() and not (
        pa.types.is_large_string(kind) or pa.types.is_null(kind) or pa.types.is_string_view(kind)
    ):
        return pa.array([None if value is None else _shown_value(value) for value in column.to_pylist()], pa.string())
    # Integers must not wrap; a time may lose what is below a microsecond, a long number its last digits.
    return pc.cast(column, target, safe=pa.types.is_integer(kind) and target == pa.int64())


def _shown_value(value: Any) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes"
    if isinstance(value, (dict, list, tuple)):
        text = json.dumps(value, default=lambda item: _shown_value(item), ensure_ascii=False)
    else:
        text = str(value)
    return text.encode("utf-8", "replace").decode("utf-8")
