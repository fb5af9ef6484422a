"""A study: a task and its data as a folder that can be copied, opened elsewhere, and worked on for months."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
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
from influence_core.recipe import Recipe
from influence_core.store import Artifact, Store, Writer, disk_errors
from influence_core.tables import check_finite, reading
from influence_core.task import Task

FORMAT = 1
SPLITS = ("train", "test", "locked")
CACHE_BYTES = 20 << 30
_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Header:
    """What ``study.toml`` says."""

    name: str
    title: str
    description: str
    modality: str
    label: str
    classes: tuple[str, ...]
    loss: str
    model: Mapping[str, Any]
    recipe: Recipe | None
    checkpoints: tuple[Mapping[str, Any], ...]
    id: str = "id"
    feature_names: tuple[str, ...] = field(default_factory=tuple)


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
        self.header = _read_header(self.path)
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
            for batch in file.iter_batches(_ROWS_AT_ONCE):
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
                [_file_hash(path) for path in files], [header.label, header.id], dict(header.model), header.loss,
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
            recipe=header.recipe, class_names=header.classes, train_ids=ids["train"], test_ids=ids["test"],
            locked=data.get("locked"), locked_ids=ids.get("locked"), fingerprint=self.fingerprint,
        )  # fmt: skip
        return task

    def _examples(self, split: str) -> Examples:
        inputs, targets = self._encoded(split).tensor("inputs"), torch.from_numpy(self.label_index(split))
        with self._reading(split):
            return Examples((inputs, targets), split)

    def _encoded(self, split: str) -> Artifact:
        """Return the encoded split, made once by streaming through the file, memory-mapped afterwards."""
        parts = [_file_hash(self._file(split)), self.encoder.to_json()]
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
    path: Path, header: Mapping[str, Any], tables: Mapping[str, pa.Table], encoder: Encoder,
    states: Mapping[str, Mapping[str, torch.Tensor]], truth: pa.Table | None = None,
) -> Study:  # fmt: skip
    """Write a study folder: all of it, or nothing.

    Args:
        path: Where it will stand; must not exist.
        header: Content of ``study.toml``; the format number is added.
        tables: Split name -> rows.
        encoder: How rows become numbers.
        states: Checkpoint file name -> weights.
        truth: Planted truth: columns ``id`` and ``label``.
    """
    import json

    import tomli_w
    from safetensors.torch import save

    if path.exists():
        raise BadInput("The folder is taken", f"{path} exists already.", "Choose another place, or delete it first.")
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with disk_errors(path):
            (part / "checkpoints").mkdir(parents=True)
            for split, table in tables.items():
                pq.write_table(table, part / f"{split}.parquet", row_group_size=_ROWS_AT_ONCE)
            if truth is not None:
                pq.write_table(truth, part / "truth.parquet")
            (part / "encoder.json").write_text(json.dumps(encoder.to_json(), indent=1))
            for name, state in states.items():
                (part / name).write_bytes(save({key: value.contiguous() for key, value in state.items()}))
            (part / "study.toml").write_text(tomli_w.dumps({"format": FORMAT, **header}), encoding="utf-8")
            part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return Study(path)


def _read_header(path: Path) -> Header:
    file = path / "study.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            "There is no study here",
            f"{file} does not exist.",
            "Give a study folder, or build one: python -m influence_core demo digits --out studies/digits",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput("The study cannot be read", f"{file}: {error}.", "Restore study.toml from a copy.") from None
    version = content.pop("format", None)
    if not isinstance(version, int) or version > FORMAT:
        raise BadInput(
            "The study is from a newer version",
            f"{file} has format {version}; this version reads up to {FORMAT}.",
            "Update the program, then open the study again.",
        )
    recipe = content.pop("recipe", None)
    try:
        return Header(
            **{
                **content, "classes": tuple(str(name) for name in content["classes"]),
                "model": {"architecture": content["model"]["architecture"], **content["model"]},
                "checkpoints": tuple(
                    {**entry, "file": str(entry["file"]), "learning_rate": float(entry["learning_rate"])}
                    for entry in content.get("checkpoints", ())
                ),
                "feature_names": tuple(content.get("feature_names", ())),
                "recipe": Recipe.checked(recipe) if recipe else None,
            }
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput("The study is incomplete", f"{file}: {error}.", "Restore study.toml from a copy.") from None


def _file_hash(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except FileNotFoundError:
        raise BadInput(
            "A file of the study is gone", f"{path} does not exist.", "Restore it from a copy of the study."
        ) from None
    except OSError as error:
        why = f"{path}: {error.strerror}."
        raise BadInput("A file of the study cannot be read", why, "Restore it from a copy of the study.") from None
