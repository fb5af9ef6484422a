"""Rows of tensors on their way into a study's Parquet files, some megabytes at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from influence_core.adapters.torch_targets import checked_targets
from influence_core.encoder import TensorEncoder, rows_at_once
from influence_core.errors import BadInput
from influence_core.examples import Batch, Examples, moved
from influence_core.model_reference import running_user_code
from influence_core.run import Run

TEXT = "text"


@dataclass(frozen=True)
class Split:
    """The rows of one split.

    Attributes:
        inputs: What the model is called with: a tensor or array ``[n, ...]``, a mapping of them (keywords), a tuple of
            them (positions); or ``Examples``, which hold the targets too.
        targets: Class indices ``[n]``, 0 or 1 with the loss ``bce``, or numbers; None with ``Examples``.
        ids: One id per row, int or str; None: 0..n-1.
        shown: What people see of a row beside the inputs, a line for each; its column ``text`` is shown as the text.
    """

    inputs: Any
    targets: Any = None
    ids: Sequence[Any] | np.ndarray | None = None
    shown: pa.Table | None = None

    def examples(self, name: str) -> Examples:
        """Return inputs and targets together.

        Raises:
            BadInput: They do not go together.
        """
        return self.inputs if isinstance(self.inputs, Examples) else Examples((self.inputs, self.targets), name)


def moved_inputs(inputs: Any, dtype: torch.dtype) -> Any:
    """Return a call's inputs on the CPU, real numbers in a precision."""
    return moved(inputs, torch.device("cpu"), dtype)


class WrittenSplits:
    """Parquet files of splits, written one after another.

    Args:
        place: A folder for the files.
        loss: The engine's word for the loss.
        names: Names of the classes; none for a regression.
        n_outputs: Numbers that the model gives for a row.
        run: Progress and cancel.

    Attributes:
        tables: Split -> its file.
        notes: What was done to the data, in sentences.
    """

    def __init__(self, place: Path, loss: str, names: Sequence[str], n_outputs: int, run: Run) -> None:
        """Start with no split."""
        self._place, self._loss, self._names, self._n_outputs, self._run = place, loss, list(names), n_outputs, run
        self.tables: dict[str, Path] = {}
        self.notes: list[str] = []
        self._encoder: TensorEncoder | None = None
        self._range = (np.inf, -np.inf)
        self._text = False

    @property
    def encoder(self) -> TensorEncoder:
        """Return how the written rows are read; train comes first and says what a picture's black and white are."""
        assert self._encoder is not None
        if not self._encoder.is_image:
            return self._encoder
        low, high = self._range
        if self._encoder.inputs[0].dtype == "uint8":
            low, high = 0.0, 255.0
        elif 0 <= low and 0.5 < high <= 1:
            low, high = 0.0, 1.0
        return replace(self._encoder, picture=(low, high)) if low < high else self._encoder

    @property
    def modality(self) -> str:
        """Return how people see a row."""
        if self._text:
            return "text"
        return "image" if self.encoder.picture is not None else "table"

    def add(self, name: str, rows: Examples, split: Split) -> None:
        """Write a split.

        Raises:
            BadInput: Its rows are not alike, its targets cannot be taken, or its ids are not unique.
        """
        ids, shown = _id_column(split.ids, len(rows), name), self._shown(split.shown, len(rows), name)
        self._text |= shown is not None and TEXT in shown.column_names
        if self._encoder is None:
            self._encoder = TensorEncoder.of(read_rows(rows, slice(0, 1), name).inputs)
        step, writer = rows_at_once(self._encoder), None
        starts = range(0, len(rows), step)
        self.tables[name] = self._place / f"{name}.parquet"
        try:
            for start in self._run.track(starts, f"writing the {name} rows", len(starts)):
                batch = read_rows(rows, slice(start, min(start + step, len(rows))), name)
                columns = {"id": ids[start : start + step], "label": self._labels(batch.targets, name)}
                if shown is not None:
                    part = shown.slice(start, step)
                    columns |= {title: part.column(title) for title in part.column_names}
                table = pa.table({**columns, **self._inputs(batch.inputs, ids[start : start + step], name)})
                writer = writer or pq.ParquetWriter(self.tables[name], table.schema)
                writer.write_table(table, row_group_size=step)
        finally:
            if writer is not None:
                writer.close()

    def _inputs(self, inputs: Any, ids: pa.Array, name: str) -> dict[str, pa.Array]:
        assert self._encoder is not None
        columns = self._encoder.columns(inputs)
        for one in self._encoder.inputs:
            values = columns[one.column].flatten().to_numpy(zero_copy_only=False).reshape(-1, one.size)
            fine = (np.abs(values) <= np.finfo(np.float32).max).all(1) if one.is_real else np.ones(len(values), bool)
            broken = np.flatnonzero(~fine)
            if len(broken):
                why = f"The {name} row {ids[int(broken[0])].as_py()} holds a NaN, an infinity or a number too large."
                raise BadInput("An input is no finite number", why, "Correct these rows, or leave them out.")
            if name == "train" and self._encoder.is_image:
                self._range = (min(self._range[0], float(values.min())), max(self._range[1], float(values.max())))
        return columns

    def _labels(self, targets: Tensor, name: str) -> pa.Array:
        found, note = checked_targets(targets, self._loss, self._n_outputs, name)
        if note and note not in self.notes:
            self.notes.append(note)
        if not self._names:
            return pa.array(found.numpy(), pa.float32())
        return pa.array(self._names).take(pa.array(found.numpy()))

    def _shown(self, shown: pa.Table | None, n_rows: int, name: str) -> pa.Table | None:
        """Return the columns that cards can show, under names that no other column has."""
        if shown is None:
            return None
        if len(shown) != n_rows:
            why = f"There are {len(shown)} lines for {n_rows} rows."
            raise BadInput(f"What is shown of the {name} rows does not match", why, "Give one line for each row.")
        columns: dict[str, Any] = {}
        for title, values in zip(shown.column_names, shown.columns, strict=True):
            kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
            if not is_shown(kind):
                note = f"The column '{title}' holds {kind} and is not shown."
                self.notes += [note] if note not in self.notes else []
                continue
            own = title in ("id", "label", "input") or title.startswith("input.")
            columns[f"{title} (given)" if own else title] = values.cast(kind)
        return pa.table(columns) if columns else None


def is_shown(kind: pa.DataType) -> bool:
    """Tell whether values of a type can be shown in a cell: words, numbers, truth values, dates."""
    types = pa.types
    words = types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind)
    return words or types.is_integer(kind) or types.is_floating(kind) or types.is_date(kind) or types.is_timestamp(kind)


def _id_column(ids: Any, n_rows: int, name: str) -> pa.Array:
    values = np.arange(n_rows) if ids is None else [i.item() if isinstance(i, (np.generic, Tensor)) else i for i in ids]
    if len(values) != n_rows:
        why = f"There are {len(values)} ids for {n_rows} rows."
        raise BadInput(f"The {name} row ids do not match", why, "Give one id per row.")
    if not isinstance(values, np.ndarray) and any(isinstance(i, bool) or not isinstance(i, (int, str)) for i in values):
        raise BadInput(f"The {name} row ids cannot be used", "One is no whole number and no text.", "Give int or str.")
    if len(set(values)) != n_rows:
        raise BadInput(f"The {name} row ids are not unique", "An id occurs twice.", "Give every row its own id.")
    whole = isinstance(values, np.ndarray) or all(isinstance(i, int) and abs(i) < 2**63 for i in values)
    return pa.array(values, pa.int64()) if whole else pa.array([str(i) for i in values])


def read_rows(rows: Examples, index: slice | Tensor, name: str) -> Batch:
    """Return some rows as the user's code gives them.

    Raises:
        BadInput: What goes wrong in it, named as theirs; or the rows are not of one size.
    """
    with running_user_code(f"The {name} rows cannot be read", f"the {name} data"):
        try:
            return rows.raw(index)
        except RuntimeError as error:
            if "stack expects each tensor to be equal size" not in str(error):
                raise
    raise BadInput(
        f"The {name} rows are not alike",
        "Some have another length or size than others.",
        "Pad texts to one length (with an attention mask), resize pictures to one size.",
    )
