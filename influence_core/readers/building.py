"""From divided rows to a study, whatever they are of: split files, classes, encoded rows, a trained model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import architectures
from influence_core.encoder import Encoder, rows_at_once
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.readers import limits
from influence_core.run import Run
from influence_core.scratch import scratch_folder
from influence_core.store import disk_errors
from influence_core.study_files import SPLITS, check_free
from influence_core.tables import check_finite
from influence_core.trajectory import trained_checkpoints

Tables = Mapping[str, Path]


@contextmanager
def building_folder(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside the study to be, which goes at the end.

    Raises:
        BadInput: A study stands there, or a file.
        StoreProblem: The disk refuses.
    """
    check_free(out)
    with scratch_folder(out, "import") as folder:
        yield folder


def class_names(labels: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return labels as texts; 1.0 among numbers is the class 1."""
    return pa.array([None if v is None or v != v else _class_name(v) for v in labels.to_pylist()], pa.string())


def _class_name(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def split_files(
    batches: Iterable[pa.Table], codes: np.ndarray, place: Path, rows_together: int = limits.ROWS_AT_ONCE
) -> dict[str, Path]:
    """Write each split that has rows as a Parquet file, in pieces of a few thousand rows.

    Args:
        batches: The rows as the study keeps them, in order.
        codes: Position of every row's split in ``SPLITS``; -1: left out.
        place: The folder to write into.
        rows_together: Rows of a piece: what is read at least when one of them is looked at.

    Returns:
        Split name -> file.
    """
    first = 0
    files: dict[str, Path] = {}
    writers: dict[int, pq.ParquetWriter] = {}
    waiting: dict[int, list[pa.Table]] = {code: [] for code in range(len(SPLITS))}

    def flush(code: int, at_least: int) -> None:
        if waiting[code] and sum(map(len, waiting[code])) >= at_least:
            table = pa.concat_tables(waiting[code])
            if code not in writers:
                file = place / f"{SPLITS[code]}.parquet"
                files[SPLITS[code]], writers[code] = file, pq.ParquetWriter(file, table.schema)
            writers[code].write_table(table, row_group_size=rows_together)
            waiting[code].clear()

    try:
        with disk_errors(place):
            for rows in batches:
                here = codes[first : first + len(rows)]
                first += len(rows)
                for code in waiting:
                    if (here == code).any():
                        waiting[code].append(rows.filter(pa.array(here == code)))
                        flush(code, rows_together)
            for code in waiting:
                flush(code, 1)
    finally:
        for writer in writers.values():
            writer.close()
    return files


def file_batches(file: Path, columns: list[str] | None = None, size: int = limits.ROWS_AT_ONCE) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file in order, ``size`` at a time."""
    with pq.ParquetFile(file) as opened:
        for batch in opened.iter_batches(size, columns=columns):
            yield pa.Table.from_batches([batch])


def labels_of(file: Path) -> Iterator[Any]:
    """Yield the label of every row of a split."""
    for batch in file_batches(file, ["label"]):
        yield from batch["label"].to_pylist()


def classes_of(tables: Tables) -> list[str]:
    """Return the class names of every split: numbers by size, words by the alphabet."""
    return sorted_classes({label for file in tables.values() for label in labels_of(file)})


def sorted_classes(names: set[str]) -> list[str]:
    """Return class names in the order that people expect: numbers by size, words by the alphabet."""
    numbers = all(name.lstrip("-").isdecimal() and name.isascii() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numbers else (lambda name: (0, name)))


def absent_notes(train: Path, classes: list[str]) -> list[str]:
    """Return a sentence on the classes that no train row has, if any."""
    missing = sorted(set(classes) - set(labels_of(train))) if classes else []
    return [f"No train row has the label {', '.join(missing[:10])}: the model cannot learn it."] if missing else []


def fitting_batches(train: Path, columns: list[str], run: Run, size: int = limits.ROWS_AT_ONCE) -> Iterator[pa.Table]:
    """Yield the columns of the train rows that an encoder is fitted on, with progress."""
    total = -(-pq.read_metadata(train).num_rows // size)
    return run.track(file_batches(train, columns, size), "fitting the encoder", total)


def _encoded(rows: pa.Table, encoder: Encoder, file: Path) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = encoder.encoded(rows)
    check_finite(values, rows, "id", file)
    return values


def check_rest(tables: Tables, encoder: Encoder, run: Run) -> None:
    """Refuse now what the study would refuse when it is opened: a value far outside the range of train.

    Raises:
        BadInput: Such a row.
    """
    size = rows_at_once(encoder)
    for split, file in tables.items():
        if split != "train":
            total = -(-pq.read_metadata(file).num_rows // size)
            for batch in run.track(file_batches(file, size=size), f"checking the {split} rows", total):
                _encoded(batch, encoder, file)


@dataclass(frozen=True)
class Learning:
    """What a model is to learn.

    Attributes:
        kind: What the rows are: the study's modality.
        task: What the labels are.
        classes: Class names; none for a regression.
        label: How the label is called, for messages.
    """

    kind: Literal["table", "text", "image"]
    task: Literal["classification", "regression"]
    classes: list[str]
    label: str


def trained_model(
    train: Path, encoder: Encoder, learning: Learning, place: Path, run: Run
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Encode the train rows into a mapped file, choose a model, train it; return header entries and weights.

    Raises:
        BadInput: There is nothing to learn, or nothing to learn from.
        NumericalProblem: The training diverged.
    """
    from influence_core.default_model import chosen_model

    if len(set(labels_of(train))) < 2:
        why = "Every row that fell into train has the same label."
        raise BadInput("The model has nothing to tell apart", why, "Give more rows of the other labels.")
    if not encoder.shape[0]:
        why = "Among the train rows, every column has one value only."
        raise BadInput("Nothing is left to learn from", why, "Name other features, or give more rows.")
    inputs = _mapped(train, encoder, place, run)
    classes = learning.classes
    index = {name: i for i, name in enumerate(classes)}
    values = (index[label] for label in labels_of(train)) if classes else labels_of(train)
    targets = np.fromiter(values, np.int64 if classes else np.float32, len(inputs))
    architecture, options, recipe = chosen_model(learning.kind, learning.task, encoder.shape, targets, len(classes))
    loss = "cross_entropy" if classes else "mse"
    rows = Examples((inputs, targets), "train")
    factory = architectures.model_factory(architecture, options)
    states, entries, losses = trained_checkpoints(factory, recipe, rows, LOSSES[loss], run, learning.label)
    return {
        "modality": learning.kind, "label": "label", "classes": classes, "loss": loss, "task": learning.task,
        "model": {"architecture": architecture, "options": options}, "recipe": recipe.to_json(),
        "checkpoints": entries, "feature_names": list(getattr(encoder, "feature_names", ())),
        "training": {"loss": losses},
    }, states  # fmt: skip


def _mapped(train: Path, encoder: Encoder, place: Path, run: Run) -> np.ndarray:
    n_rows = pq.read_metadata(train).num_rows
    inputs = np.lib.format.open_memmap(place / "inputs.npy", "w+", np.float32, (n_rows, *encoder.shape))
    size = rows_at_once(encoder)
    start, total = 0, -(-n_rows // size)
    with disk_errors(place):
        for batch in run.track(file_batches(train, size=size), "encoding the train rows", total):
            inputs[start : start + len(batch)] = _encoded(batch, encoder, train)
            start += len(batch)
    return inputs
