"""What is true of a whole column, over all rows: missing values, extremes, repetitions; found in one pass, kept."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute

from influence_core.readers import limits
from influence_core.readers.sources import Source
from influence_core.readers.splits import content_hashes
from influence_core.run import Run

pc = _compute
LARGEST = 1e15  # of a number to learn: its square must be far from what float32 holds
HUGE = 1e30  # of a feature; infinite ones are clipped to the range of train
_FIRST = 3  # rows without a value that are named
_HASHED_BYTES = 256 << 20  # of all columns that are asked for repetitions in the same pass
_ABLE = ("integer", "category", "text")  # kinds that can be an id

_known: WeakKeyDictionary[Source, dict[str, ColumnFacts]] = WeakKeyDictionary()


@dataclass
class ColumnFacts:
    """What is true of a column; rows are counted from 1.

    Attributes:
        missing: Number of missing values, NaN among them.
        missing_rows: The first rows without a value.
        huge: Row and value of the first finite number beyond ``HUGE``.
        large: Row and value of the first number beyond ``LARGEST``, infinite ones among them.
        values: Different values, up to one more than a label may have.
        hashes: 64 bits of every row, equal where values are, while it is asked whether values repeat.
        repeated: What is wrong with the column as an id; "" for nothing, None while nobody has asked.
    """

    missing: int = 0
    missing_rows: list[int] = field(default_factory=list)
    huge: tuple[int, float] | None = None
    large: tuple[int, float] | None = None
    values: set[object] = field(default_factory=set)
    hashes: list[np.ndarray] | None = None
    repeated: str | None = None

    def see(self, batch: pa.Table, name: str, first_row: int) -> None:
        """Take the rows of a batch into account; ``first_row`` is the number of its first one."""
        values = batch[name]
        absent = values.is_null(nan_is_null=True)
        n_absent = pc.sum(absent).as_py() or 0  # pyright: ignore[reportAttributeAccessIssue]
        if n_absent and len(self.missing_rows) < _FIRST:
            rows = np.flatnonzero(absent.to_numpy())[: _FIRST - len(self.missing_rows)]
            self.missing_rows += (rows + first_row).tolist()
        self.missing += n_absent
        if pa.types.is_floating(values.type) or pa.types.is_integer(values.type):
            self._see_size(values, first_row)
        if len(self.values) <= limits.MAX_CLASSES and not pa.types.is_nested(values.type):
            known = values.filter(pc.invert(absent)) if n_absent else values  # pyright: ignore[reportAttributeAccessIssue]
            self.values.update(known.unique().to_pylist()[: limits.MAX_CLASSES + 1])
        if self.hashes is not None:
            self.hashes.append(_keys(batch, name))

    def _see_size(self, values: pa.ChunkedArray, first_row: int) -> None:
        if self.huge is not None and self.large is not None:
            return
        ends = pc.min_max(values)  # pyright: ignore[reportAttributeAccessIssue]
        if not any(abs(float(end or 0)) > LARGEST for end in (ends["min"].as_py(), ends["max"].as_py())):
            return
        size = np.abs(values.to_numpy().astype(np.float64))
        for found, wrong in (("huge", (size > HUGE) & np.isfinite(size)), ("large", size > LARGEST)):
            if getattr(self, found) is None and wrong.any():
                place = int(np.flatnonzero(wrong)[0])
                setattr(self, found, (first_row + place, values[place].as_py()))


def column_facts(source: Source, names: Iterable[str], run: Run | None = None) -> dict[str, ColumnFacts]:
    """Return what is true of these columns; one pass over all rows for those that nobody has asked for yet.

    Args:
        source: The table.
        names: Columns of it.
        run: Progress and cancel.
    """
    known = _known.setdefault(source, {})
    names = list(names)
    new = {name: ColumnFacts() for name in names if name not in known}
    if new:
        most = _HASHED_BYTES // (8 * source.n_rows)
        for name in [name for name in new if _may_be_id(source, name)][:most]:
            new[name].hashes = []
        row, size = 1, source.rows_at_once
        total = -(-source.n_rows // size)
        batches = source.batches(size, [name for name in source.names if name in new])
        for batch in (run or Run(device="cpu")).track(batches, "looking at the columns", total):
            for name, facts in new.items():
                facts.see(batch, name, row)
            row += len(batch)
        for name, facts in new.items():
            if facts.hashes is not None:
                facts.repeated, facts.hashes = _repetition(source, name, np.concatenate(facts.hashes), facts), None
        known |= new
    return {name: known[name] for name in names}


def repeated(source: Source, name: str) -> str:
    """Return what is wrong with a column as an id: a missing or repeated value, with its rows; "" for nothing."""
    facts = column_facts(source, [name])[name]
    if facts.repeated is None:
        rows = source.head(limits.SAMPLE_ROWS)
        facts.repeated = _repetition(source, name, _keys(rows, name), facts)
    if not facts.repeated and source.n_rows > limits.SAMPLE_ROWS and not _may_be_id(source, name):
        facts.repeated = _repeated_anywhere(source, name, facts)
    return facts.repeated


def _keys(rows: pa.Table, name: str) -> np.ndarray:
    """Return 64 bits of every value ``[n]``: a whole number itself, as row numbers often rise, else its hash."""
    values = rows[name]
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64()).fill_null(0).to_numpy()
    return content_hashes(rows, [name])


def _repeated_anywhere(source: Source, name: str, facts: ColumnFacts) -> str:
    hashes = np.concatenate([_keys(batch, name) for batch in source.batches(names=[name])])
    return _repetition(source, name, hashes, facts)


def _may_be_id(source: Source, name: str) -> bool:
    """Return whether all values of the first rows differ, so that only all rows can tell whether they repeat."""
    info, seen = source.column(name), min(source.n_rows, limits.SAMPLE_ROWS)
    return info.kind in _ABLE and not info.n_missing and info.n_distinct == seen


def _repetition(source: Source, name: str, hashes: np.ndarray, facts: ColumnFacts) -> str:
    """Say which two rows have the same value; of a million different values, two share a hash in 3e7 tables."""
    if facts.missing:
        return f"row {facts.missing_rows[0]:,} has none"
    if (hashes[1:] > hashes[:-1]).all():
        return ""
    ranked = np.sort(hashes)
    if not (ranked[1:] == ranked[:-1]).any():
        return ""
    order = np.argsort(hashes, kind="stable")
    again = order[1:][ranked[1:] == ranked[:-1]]
    second = int(again.min())
    first = int(np.flatnonzero(hashes == hashes[second])[0])
    return f"rows {first + 1:,} and {second + 1:,} both have '{_cell(source, name, second)[:80]}'"


def _cell(source: Source, name: str, row: int) -> str:
    if row < limits.SAMPLE_ROWS:
        return str(source.head(row + 1)[name][row].as_py())
    for batch in source.batches():
        if row < len(batch):
            return str(batch[name][row].as_py())
        row -= len(batch)
    return ""
