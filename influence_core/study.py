"""A study: a task and its data as a folder that can be copied, opened elsewhere, and worked on for months."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from influence_core import architectures
from influence_core.config import digest
from influence_core.encoder import Encoder, load_encoder, named_column
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.measurement import Rows
from influence_core.store import Artifact, Store, Writer
from influence_core.study_files import ROWS_AT_ONCE, SPLITS, States, file_hash, read_header, write_study
from influence_core.tables import check_finite, reading
from influence_core.task import Task

CACHE_BYTES = 20 << 30


class Study:
    """An opened study folder.

    Args:
        path: The folder that holds ``study.toml``.

    Raises:
        BadInput: No study there, damaged, or written by a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the header; data and model are read when asked for."""
        self.path = Path(path)
        self.header = read_header(self.path)
        self.store = Store(self.path / "cache", CACHE_BYTES)

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """Open a study folder."""
        return cls(path)

    @classmethod
    def demo(cls, name: str, out: str | Path | None = None) -> Study:
        """Open a built-in study, building it first if it is not in ``out`` (default ``studies/<name>``)."""
        from influence_core import api

        return api.open_demo(name, Path(out) if out is not None else Path("studies") / name)

    # -- data -------------------------------------------------------------------------------------------------------

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

    def n_rows(self, split: str) -> int:
        """Return the number of rows of a split."""
        return self._parquet(split).metadata.num_rows

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
        file = self._parquet(split)
        with self._reading(split):
            return named_column(file.read([name]), name)

    def _batches(self, split: str) -> Iterator[pa.Table]:
        file = self._parquet(split)
        with self._reading(split):
            for batch in file.iter_batches(ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch])

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
        file = self._parquet(split)
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        wanted = np.asarray(positions, dtype=np.int64)
        groups = np.searchsorted(starts, wanted, side="right") - 1
        used = sorted(set(groups.tolist()))
        with self._reading(split):
            table = file.read_row_groups(used)
        offsets = dict(zip(used, np.concatenate([[0], np.cumsum([sizes[g] for g in used])]), strict=False))
        return table.take(
            pa.array(
                [offsets[g] + p - starts[g] for g, p in zip(groups.tolist(), wanted.tolist(), strict=True)], pa.int64()
            )
        )

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
        ids = self.column("train", self.header.id).tolist()
        what = "The planted truth cannot be read"
        fix = "Restore the file, or delete it: only badges and metrics use it."
        try:
            with reading(path, what, fix):
                truth = pq.read_table(path)
                known = dict(zip(truth["id"].to_pylist(), truth["label"].to_pylist(), strict=True))
            return np.asarray([str(known[row]) for row in ids])
        except KeyError as error:
            raise BadInput(what, f"{path}: {error}.", fix) from None

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

    def row_id(self, split: str, text: object) -> int | str:
        """Return a row id from its text, as typed or found in a URL.

        Raises:
            BadInput: No such row.
        """
        ids = self.task.ids(split)
        value: int | str = str(text)
        if ids.dtype.kind in "iu":
            try:
                value = int(str(text))
            except ValueError:
                raise BadInput(
                    "Unknown row id",
                    f"'{text}' is not a number, and the ids of the {split} split are.",
                    f"Use an id such as {ids[0]}.",
                ) from None
        self.task.positions(Rows(split, (value,)))
        return value

    def target(self, text: str) -> str | int:
        """Return a measurement's target from its text: ``true``, ``predicted`` or a class name.

        Raises:
            BadInput: No such class.
        """
        if text in ("true", "predicted"):
            return text
        if text not in self.header.classes:
            raise BadInput(
                "Unknown target label",
                f"'{text}' is no class of this study.",
                f"Use true, predicted, or one of: {', '.join(self.header.classes[:20])}.",
            )
        return self.header.classes.index(text)

    # -- the task ---------------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Return the hash of everything that numbers depend on: every byte of data, encoder and weights."""
        files = [self._file(split) for split in self.splits] + [self.path / "encoder.json"]
        files += [self._checkpoint_file(entry) for entry in self.header.checkpoints]
        header = self.header
        recipe = header.recipe.to_json() if header.recipe else None
        rates = [entry["learning_rate"] for entry in header.checkpoints]
        return digest(
            [
                [file_hash(path) for path in files], [header.label, header.id], dict(header.model), header.loss,
                header.classes, recipe, rates,
            ]
        )  # fmt: skip

    def _checkpoint_file(self, entry: Mapping[str, Any]) -> Path:
        path = (self.path / str(entry["file"])).resolve()
        if not path.is_relative_to(self.path.resolve()):
            raise BadInput(
                "A checkpoint lies outside the study",
                f"study.toml names '{entry['file']}'.",
                "Copy it into the study's checkpoints folder.",
            )
        if not path.exists():
            raise BadInput(
                "A checkpoint is gone",
                f"{path} does not exist.",
                "Put the file back, or take its entry out of study.toml.",
            )
        return path

    @cached_property
    def task(self) -> Task:
        """Return the task: encoded data memory-mapped, checkpoints read when used."""
        header = self.header
        splits = dict.fromkeys(("train", "test", *self.splits))  # the first two must be there
        data = {split: self._examples(split) for split in splits}
        ids = {split: self._ids(split) for split in splits}
        task = Task(
            architectures.model_factory(header.model["architecture"], header.model.get("options", {})),
            data["train"], data["test"], header.loss,
            checkpoints=[self._checkpoint_file(entry) for entry in header.checkpoints],
            learning_rates=[float(entry["learning_rate"]) for entry in header.checkpoints],
            recipe=header.recipe, class_names=header.classes or None, train_ids=ids["train"], test_ids=ids["test"],
            locked=data.get("locked"), locked_ids=ids.get("locked"), fingerprint=self.fingerprint,
        )  # fmt: skip
        return task

    def _examples(self, split: str) -> Examples:
        inputs, targets = self._encoded(split).tensor("inputs"), torch.from_numpy(self.targets(split))
        with self._reading(split):
            return Examples((inputs, targets), split)

    def _encoded(self, split: str) -> Artifact:
        """Return the encoded split, made once by streaming through the file, memory-mapped afterwards."""
        parts = [file_hash(self._file(split)), self.encoder.to_json()]
        inputs = {"kind": "encoded rows", "split": split, "parts": parts}
        path, fix = self._file(split), "Restore the file or encoder.json from a copy."

        def produce(writer: Writer) -> None:
            writer.create("inputs", (self.n_rows(split), *self.encoder.shape), np.float32)
            start = 0
            for table in self._batches(split):
                with reading(path, "The rows do not fit encoder.json", fix), np.errstate(all="ignore"):
                    values = self.encoder.encoded(table)
                check_finite(values, table, self.header.id, path)
                writer.write("inputs", start, values)
                start += len(values)

        return self.store.obtain(digest(inputs), inputs, produce, lambda: None)


def save_study(
    path: Path, header: Mapping[str, Any], tables: Mapping[str, pa.Table | Path], encoder: Encoder, states: States,
    truth: pa.Table | None = None,
) -> Study:  # fmt: skip
    """Write a study folder, all of it or nothing, and open it; the arguments are those of ``write_study``."""
    write_study(path, header, tables, encoder, states, truth)
    return Study(path)
