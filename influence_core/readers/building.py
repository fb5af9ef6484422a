"""From divided rows to a study, whatever they are of: split files, classes, encoded rows, a trained model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute

from influence_core import architectures
from influence_core.encoder import ColumnsEncoder, Encoder, load_encoder, rows_at_once
from influence_core.encoder.base import ROWS_AT_ONCE
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.readers import limits
from influence_core.readers.partial import PartialImport
from influence_core.readers.split_files import file_batches, rows_of
from influence_core.run import Run
from influence_core.store import disk_errors
from influence_core.tables import check_finite
from influence_core.trajectory import KeptTraining, trained_checkpoints

pc: Any = _compute
Tables = Mapping[str, Path]


def class_names(labels: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return labels as texts; 1.0 among numbers is the class 1."""
    whole = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
    if isinstance(whole, pa.ChunkedArray):
        whole = pa.concat_arrays(whole.chunks)
    if pa.types.is_string(whole.type):
        return whole
    found = whole.dictionary_encode()
    different = [None if v is None or v != v else _class_name(v) for v in found.dictionary.to_pylist()]
    return pa.array(different, pa.string()).take(found.indices)


def _class_name(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def labels_of(file: Path) -> Iterator[pa.ChunkedArray]:
    """Yield the labels of a split, some thousand rows at a time."""
    for batch in file_batches(file, ["label"], limits.MOST_ROWS_AT_ONCE):
        yield batch["label"]


def different_labels(file: Path) -> set[Any]:
    """Return the labels that a split has."""
    return {label for labels in labels_of(file) for label in labels.unique().to_pylist()}


def sorted_classes(names: set[str]) -> list[str]:
    """Return class names in the order that people expect: numbers by size, words by the alphabet."""
    numbers = all(name.lstrip("-").isdecimal() and name.isascii() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numbers else (lambda name: (0, name)))


def classes_of(tables: Tables) -> tuple[list[str], list[str]]:
    """Return the class names of every split, in order, and a sentence on those that no train row has, if any."""
    labels = {split: different_labels(file) for split, file in tables.items()}
    classes = sorted_classes(set().union(*labels.values()))
    missing = [name for name in classes if name not in labels["train"]]
    said = f"No train row has the label {', '.join(missing[:10])}: the model cannot learn it."
    return classes, [said] if missing else []


def fitting_batches(train: Path, columns: list[str], run: Run, size: int = limits.ROWS_AT_ONCE) -> Iterator[pa.Table]:
    """Yield the columns of the train rows that an encoder is fitted on, with progress."""
    total = -(-rows_of(train) // size)
    return run.track(file_batches(train, columns, size), "fitting the encoder", total)


def _encoded(rows: pa.Table, encoder: Encoder, file: Path) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = encoder.encoded(rows)
    check_finite(values, rows, "id", file)
    return values


def _rows_at_once(encoder: Encoder) -> int:
    """Return how many rows to encode together: more of a table's, whose columns are encoded one after another."""
    size = rows_at_once(encoder)
    return 4 * size if isinstance(encoder, ColumnsEncoder) and size == ROWS_AT_ONCE else size


def check_rest(tables: Tables, encoder: Encoder, run: Run) -> None:
    """Refuse now what the study would refuse when it is opened: a value far outside the range of train.

    Raises:
        BadInput: Such a row.
    """
    size = _rows_at_once(encoder)
    for split, file in tables.items():
        if split != "train":
            total = -(-rows_of(file) // size)
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
    train: Path, encoder: Encoder, learning: Learning, inputs: np.ndarray, run: Run, kept: KeptTraining | None = None
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Choose a model, train it on encoded rows; return header entries and weights.

    Raises:
        NumericalProblem: The training diverged.
    """
    from influence_core.default_model import chosen_model

    classes = learning.classes
    targets = _targets(train, classes)
    architecture, options, recipe = chosen_model(learning.kind, learning.task, encoder.shape, targets, len(classes))
    loss = "cross_entropy" if classes else "mse"
    rows = Examples((inputs, targets), "train")
    factory = architectures.model_factory(architecture, options)
    states, entries, losses = trained_checkpoints(factory, recipe, rows, LOSSES[loss], run, learning.label, kept=kept)
    return {
        "modality": learning.kind, "label": "label", "classes": classes, "loss": loss, "task": learning.task,
        "model": {"architecture": architecture, "options": options}, "recipe": recipe.to_json(),
        "checkpoints": entries, "feature_names": list(getattr(encoder, "feature_names", ())),
        "training": {"loss": losses},
    }, states  # fmt: skip


def _targets(train: Path, classes: list[str]) -> np.ndarray:
    """Return what the model should say: the places of the labels among the classes, or the numbers ``[n]``."""
    known = pa.array(classes, pa.string())
    parts = [pc.index_in(labels, value_set=known) if classes else labels for labels in labels_of(train)]
    return np.concatenate([part.to_numpy() for part in parts]).astype(np.int64 if classes else np.float32)


def _all_alike(file: Path) -> bool:
    """Return whether a split has less than two labels; most have two among their first rows."""
    seen: set[Any] = set()
    return not any(len(seen := seen.union(labels.unique().to_pylist())) > 1 for labels in labels_of(file))


def kept_encoding(
    train: Path, fitted: Callable[[], Encoder], work: PartialImport, run: Run
) -> tuple[Encoder, np.ndarray]:
    """Fit the encoder and encode the train rows, or find that done by an earlier try.

    Args:
        train: The train rows.
        fitted: Fits the encoder on them.
        work: The import in progress.
        run: Progress and cancel.

    Returns:
        The encoder, and the encoded train rows ``[n, ...]``, mapped from a file of the import.

    Raises:
        BadInput: There is nothing to learn, or nothing to learn from.
        StoreProblem: The disk is full or refuses.
    """
    made = [work.folder / name for name in ("encoder.json", "inputs.npy")]
    if work.done("encoded") is not None:
        return load_encoder(made[0]), np.load(made[1], mmap_mode="r+")
    encoder = fitted()
    inputs = _encoded_rows(train, encoder, made[1], run)
    with disk_errors(made[0]):
        made[0].write_text(json.dumps(encoder.to_json()), encoding="utf-8")
    work.record("encoded", {}, made)
    return encoder, inputs


def _encoded_rows(train: Path, encoder: Encoder, file: Path, run: Run) -> np.ndarray:
    if _all_alike(train):
        why = "Every row that fell into train has the same label."
        raise BadInput("The model has nothing to tell apart", why, "Give more rows of the other labels.")
    if not encoder.shape[0]:
        why = "Among the train rows, every column has one value only."
        raise BadInput("Nothing is left to learn from", why, "Name other features, or give more rows.")
    n_rows = rows_of(train)
    inputs = np.lib.format.open_memmap(file, "w+", np.float32, (n_rows, *encoder.shape))
    size = _rows_at_once(encoder)
    start, total = 0, -(-n_rows // size)
    with disk_errors(file):
        for batch in run.track(file_batches(train, size=size), "encoding the train rows", total):
            inputs[start : start + len(batch)] = _encoded(batch, encoder, train)
            start += len(batch)
    return inputs
