"""The rows of a study as they stand in its files, read by column or by position; with the changes of a version applied.

What a version changes is laid over the files while they are read: dropped rows are passed over, and rows count from 0
without them; changed labels stand in place of those in the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from influence_core.config import digest
from influence_core.encoder import Encoder, load_encoder, named_column, rows_at_once
from influence_core.errors import BadInput
from influence_core.study_files import SPLITS, Header, read_truth, rows_at
from influence_core.tables import reading


@dataclass(frozen=True)
class SplitChanges:
    """What a version changes in one split.

    Attributes:
        labels: Position in the file -> the new label, as text or of a regression as a number.
        kept: Positions in the file of the rows that stay ``[n]``; None: all of them.
    """

    labels: Mapping[int, str | float] = field(default_factory=dict)
    kept: np.ndarray | None = None

    @property
    def key(self) -> list[str]:
        """Return what tells apart which rows stay; nothing where all do."""
        return [] if self.kept is None else [digest(self.kept.tolist())]

    def places(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return where rows of the version stand in the file."""
        wanted = np.asarray(positions, np.int64)
        return wanted if self.kept is None else self.kept[wanted]

    def labelled(self, values: pa.ChunkedArray, places: Sequence[int] | np.ndarray) -> pa.ChunkedArray:
        """Return a column of labels, of rows at these places in the file, with the new ones among them."""
        found = [(i, self.labels[place]) for i, place in enumerate(np.asarray(places).tolist()) if place in self.labels]
        if not found:
            return values
        is_number = isinstance(found[0][1], float)
        plain = (values if is_number else values.cast(pa.string())).to_pylist()
        for i, label in found:
            plain[i] = label
        return pa.chunked_array([pa.array(plain, pa.float64() if is_number else pa.string())])

    def table(self, rows: pa.Table, places: Sequence[int] | np.ndarray, label: str) -> pa.Table:
        """Return rows at these places in the file with their new labels, if the column of labels is among theirs."""
        place = rows.schema.get_field_index(label)
        return rows if place < 0 else rows.set_column(place, label, self.labelled(rows.column(place), places))


class StudyData:
    """The data of a study folder; ``path`` and ``header`` are set by whoever opens it."""

    path: Path
    header: Header
    _changed: Mapping[str, SplitChanges] = {}  # noqa: RUF012  (never written to; a version has its own)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that this study has."""
        return tuple(name for name in SPLITS if self._file(name).exists())

    def _file(self, split: str) -> Path:
        return self.path / f"{split}.parquet"

    @cached_property
    def encoder(self) -> Encoder:
        """Return how a row becomes numbers."""
        return load_encoder(self.path / "encoder.json")

    def _changes(self, split: str) -> SplitChanges:
        return self._changed.get(split, SplitChanges())

    def n_rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        kept = self._changes(split).kept
        return self._parquet(split).metadata.num_rows if kept is None else len(kept)

    def _parquet(self, split: str) -> pq.ParquetFile:
        try:
            with self._reading(split):
                return pq.ParquetFile(self._file(split))
        except FileNotFoundError:
            raise BadInput(
                f"There is no '{split}' split",
                f"{self._file(split)} does not exist.",
                "Restore the file or use another split.",
            ) from None

    def _reading(self, split: str) -> AbstractContextManager[None]:
        return reading(self._file(split), f"The '{split}' data cannot be read")

    def _values(self, split: str, name: str) -> pa.ChunkedArray:
        file, changes = self._parquet(split), self._changes(split)
        with self._reading(split):
            values = named_column(file.read([name]), name)
        if changes.kept is not None:
            values = values.take(pa.array(changes.kept))
        if name == self.header.label and changes.labels:
            values = changes.labelled(values, changes.places(np.arange(len(values))))
        return values

    def _batches(self, split: str) -> Iterator[pa.Table]:
        """Yield the rows in their order, for the encoder: with the labels of the file, which it does not look at."""
        file, kept, start = self._parquet(split), self._changes(split).kept, 0
        with self._reading(split):
            for batch in file.iter_batches(rows_at_once(self.encoder)):
                table, end = pa.Table.from_batches([batch]), start + len(batch)
                if kept is not None:
                    table = table.take(pa.array(kept[(kept >= start) & (kept < end)] - start))
                start = end
                if len(table):
                    yield table

    def column(self, split: str, name: str) -> np.ndarray:
        """Return one column of a split."""
        return self._values(split, name).to_numpy()

    def _ids(self, split: str) -> np.ndarray:
        values = self._values(split, self.header.id)
        if values.null_count:
            why = f"{self._file(split)} has {values.null_count} without '{self.header.id}'."
            raise BadInput(f"A row of the {split} split has no id", why, "Give every row its own id.")
        return values.to_numpy()

    def rows(self, split: str, positions: Sequence[int]) -> pa.Table:
        """Return raw rows by position, reading only the row groups that hold them."""
        return self.some_columns(split, positions, None)

    def some_columns(self, split: str, positions: Sequence[int], columns: Sequence[str] | None) -> pa.Table:
        """Return some columns (None: all) of raw rows by position."""
        file, changes = self._parquet(split), self._changes(split)
        places = changes.places(positions)
        with self._reading(split):
            return changes.table(rows_at(file, places.tolist(), columns), places, self.header.label)

    def column_names(self, split: str) -> list[str]:
        """Return the names of a split's columns, in their order."""
        return self._parquet(split).schema_arrow.names

    @cached_property
    def planted(self) -> np.ndarray | None:
        """Return which training labels were flipped on purpose ``[n_train]``, or None where that is not known."""
        truth = self.true_labels
        return None if truth is None else truth != self.column("train", self.header.label).astype(str)

    @cached_property
    def true_labels(self) -> np.ndarray | None:
        """Return the true training labels, kept aside for metrics and badges only, or None."""
        path = self.path / "truth.parquet"
        if not path.exists():
            return None
        return read_truth(path, self.column("train", self.header.id).tolist())

    def targets(self, split: str) -> np.ndarray:
        """Return what the model should say ``[n]``: class indices, or numbers (float32) for a regression.

        Raises:
            BadInput: A label is no class, or no number.
        """
        if self.header.task == "classification":
            return self.label_index(split)
        values = self.column(split, self.header.label)
        numbers = values.astype(np.float32) if values.dtype.kind in "iufb" else np.full(1, np.nan, np.float32)
        if not np.isfinite(numbers).all():
            raise BadInput(
                f"A label of the {split} split is no number",
                f"{self._file(split)}: column '{self.header.label}' holds a text, a missing value or an infinity.",
                "Correct the labels, or restore the file from a copy.",
            )
        return numbers

    def label_index(self, split: str) -> np.ndarray:
        """Return the labels of a split as class indices ``[n]``.

        Raises:
            BadInput: A label is no class.
        """
        labels = self._values(split, self.header.label)
        # pyarrow makes its functions at import time, which type checkers do not see.
        index = pc.index_in(labels.cast(pa.string()), value_set=pa.array(self.header.classes, pa.string()))  # pyright: ignore[reportAttributeAccessIssue]
        if index.null_count:
            unknown = labels.filter(index.is_null())[0].as_py()
            raise BadInput(
                f"A label of the {split} split is no class",
                f"{self._file(split)}: '{unknown}' is not among {', '.join(self.header.classes[:12])}.",
                "Correct the label, or the classes in study.toml.",
            )
        return index.to_numpy().astype(np.int64)
