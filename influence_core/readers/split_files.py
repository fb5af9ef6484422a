"""The files of the splits while a study is made: Parquet, written beside the work, and a plain copy to read again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.errors import InfluenceError
from influence_core.readers import limits
from influence_core.store import disk_errors
from influence_core.study_files import SPLITS

_PLAIN = ".arrow"
_WAITING_BYTES = 256 << 20  # of the pieces that may wait for the Parquet writer


class SplitFiles:
    """Writes each split that has rows as a Parquet file, in pieces of a few thousand rows, in a thread of its own.

    Writing Parquet takes as long as all else that is done with the rows. So the same rows are kept once more as they
    are, in a file that is mapped instead of read, and the work goes on with those. Use as a context manager.

    Args:
        place: The folder to write into.
        rows_together: Rows of a piece: what is read at least when one of them is looked at.
        plain: Whether to keep the plain copy.
    """

    def __init__(self, place: Path, rows_together: int = limits.ROWS_AT_ONCE, *, plain: bool = False) -> None:
        """Start with no files."""
        self._place, self._together, self._plain = place, rows_together, plain
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._copies: dict[str, pa.RecordBatchStreamWriter] = {}
        self._waiting: dict[str, list[pa.Table]] = {name: [] for name in SPLITS}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._pieces: deque[tuple[Future[None], int]] = deque()
        self._bytes, self._failed = 0, False
        self._open = ExitStack()

    def __enter__(self) -> SplitFiles:
        """Return the writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for the thread and close the files; after a refusal nobody needs what waits."""
        self._thread.shutdown(wait=True, cancel_futures=isinstance(error[1], InfluenceError))
        with suppress(OSError) if error[1] is not None else disk_errors(self._place):
            self._open.close()

    def divided(
        self, batches: Iterable[pa.Table], codes: np.ndarray, then: Callable[[list[Path]], None] | None = None
    ) -> dict[str, Path]:
        """Write all rows, and return the file of each split; only the plain copies are finished by then.

        Args:
            batches: The rows as the study keeps them, in order.
            codes: Position of every row's split in ``SPLITS``; -1: left out.
            then: Called with all files, in the thread, when they are whole.
        """
        first = 0
        with disk_errors(self._place):
            for rows in batches:
                here = codes[first : first + len(rows)]
                first += len(rows)
                for code, name in enumerate(SPLITS):
                    if (here == code).any():
                        self._waiting[name].append(rows.filter(pa.array(here == code)))
                        self._flush(name, self._together)
            for name in SPLITS:
                self._flush(name, 1)
            for copy in self._copies.values():
                copy.close()
        self._submit(0, self._ended, then)
        return {name: self._file(name) for name in SPLITS if name in self._writers}

    def _ended(self, then: Callable[[list[Path]], None] | None) -> None:
        for writer in self._writers.values():
            writer.close()
        if then is not None and not self._failed:  # who asks for the result of a piece learns why
            files = [self._file(name) for name in self._writers]
            then([*files, *(self._file(name).with_suffix(_PLAIN) for name in self._copies)])

    def finished(self) -> None:
        """Wait until every Parquet file is whole.

        Raises:
            StoreProblem: The disk is full or refuses.
        """
        with disk_errors(self._place):
            self._wait(0)

    def _file(self, name: str) -> Path:
        return self._place / f"{name}.parquet"

    def _flush(self, name: str, at_least: int) -> None:
        waiting = self._waiting[name]
        if not waiting or sum(map(len, waiting)) < at_least:
            return
        table = pa.concat_tables(waiting)
        whole = len(table) if at_least == 1 else len(table) // self._together * self._together
        waiting[:] = [table.slice(whole)] if whole < len(table) else []
        table = table.slice(0, whole)
        if name not in self._writers:
            self._started(name, table.schema)
        if self._plain:
            self._copies[name].write_table(table)
        self._submit(table.nbytes, self._written, self._writers[name], table)
        self._wait(_WAITING_BYTES)

    def _submit(self, size: int, work: Callable[..., None], *given: Any) -> None:
        self._pieces.append((self._thread.submit(work, *given), size))
        self._bytes += size

    def _wait(self, most: int) -> None:
        """Wait until pieces of at most so many bytes wait for the thread, or until there are none for 0."""
        while self._pieces and (self._bytes > most or not most):
            piece, size = self._pieces.popleft()
            piece.result()
            self._bytes -= size

    def _written(self, writer: pq.ParquetWriter, table: pa.Table) -> None:
        try:
            writer.write_table(table, row_group_size=self._together)
        except BaseException:
            self._failed = True
            raise

    def _started(self, name: str, schema: pa.Schema) -> None:
        # Fractions and row ids hardly repeat: to look for repetitions among them takes as long as all else.
        words: Any = [one.name for one in schema if not pa.types.is_floating(one.type) and one.name != "id"]
        self._writers[name] = pq.ParquetWriter(self._file(name), schema, use_dictionary=words)
        self._open.callback(self._writers[name].close)
        if self._plain:
            copy = self._open.enter_context(pa.OSFile(str(self._file(name).with_suffix(_PLAIN)), "wb"))
            self._copies[name] = pa.ipc.new_stream(copy, schema)


def rows_of(file: Path) -> int:
    """Return how many rows a split has, given its Parquet file or the place where that will stand."""
    plain = _mapped(file)
    return len(plain) if plain is not None else pq.read_metadata(file).num_rows


def file_batches(file: Path, columns: list[str] | None = None, size: int = limits.ROWS_AT_ONCE) -> Iterator[pa.Table]:
    """Yield the rows of a split in order, ``size`` at a time; from its plain copy where there is one."""
    plain = _mapped(file)
    if plain is not None:
        plain = plain if columns is None else plain.select(columns)
        for start in range(0, len(plain), size):
            yield plain.slice(start, size)
        return
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(size, columns=columns):
            yield pa.Table.from_batches([batch])


def _mapped(file: Path) -> pa.Table | None:
    copy = file.with_suffix(_PLAIN)
    if not copy.exists():
        return None
    with pa.memory_map(str(copy)) as mapped:  # the table keeps the mapping
        return pa.ipc.open_stream(mapped).read_all()
