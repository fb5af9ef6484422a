"""From a user's images to a study: decoded once, divided, a small network trained."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as _compute
import pyarrow.parquet as pq
from joblib import Parallel, delayed

from influence_core.encoder import ImageEncoder
from influence_core.encoder.pictures import has_colour, opened_picture, pixels_of, small_copy
from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.building import (
    Learning,
    absent_notes,
    building_folder,
    class_names,
    classes_of,
    encoded_rows,
    fitting_batches,
    trained_model,
)
from influence_core.readers.image_files import Problems
from influence_core.readers.images import FOLDER, Content, ImageSource, usable
from influence_core.readers.split_files import SplitFiles, file_batches
from influence_core.readers.splits import SPLIT_WORDS, Assignment, split_names
from influence_core.run import Run
from influence_core.store import disk_errors
from influence_core.study import Study, save_study

pc: Any = _compute
PIXELS, PICTURE = "image", "picture"
SHOWN = 256  # pixels on the long side of the copy that people see
_GREY, _COLOUR, _SPLIT = "grey", "colour", "split"
_SPLIT_COLUMNS = ("split", "set", "fold", "partition", "subset", "dataset_split")
_THREADS = 4


def import_images(
    source: ImageSource, out: Path, run: Run, *, label: str | None = None, name: str | None = None,
    title: str | None = None,
) -> Study:  # fmt: skip
    """Make a study of images: each decoded once, divided, a small network trained.

    Images that are identical in the size that the model is given share a split. Memory is bounded by a few hundred
    images, 17 bytes for each, and the encoded train images, which are mapped from the disk.

    Args:
        source: The images.
        out: The study's folder; it may be there already if it holds no study.
        run: Progress and cancel.
        label: A column of the table beside them, or ``"folder"``; None: what the source chose.
        name: The study's name; by default the folder's.
        title: What the study is called on screen; by default the source's name.

    Raises:
        BadInput: These images make no study; the message says why.
        NumericalProblem: The training diverged.
        StoreProblem: The disk is full or refuses.
        Cancelled: The user asked to stop; nothing is left behind.
    """
    out = Path(out)
    plan = _Plan.of(source, label)
    with building_folder(out) as place, SplitFiles(place, limits.IMAGES_AT_ONCE) as files:
        decoded = _Decoded(source, plan, place / "decoded.parquet", run)
        assignment = _assignment(decoded, plan, run)
        tables = files.divided(decoded.rows(run), assignment.codes)
        files.finished()
        (place / "decoded.parquet").unlink()
        classes = classes_of(tables) if plan.task == "classification" else []
        _check_classes(len(classes), plan)
        train = tables["train"]
        encoder = ImageEncoder.fitted(
            lambda: fitting_batches(train, [PIXELS], run, limits.IMAGES_AT_ONCE), PIXELS, decoded.size, decoded.picture
        )
        learning = Learning("image", plan.task, classes, plan.label)
        inputs = encoded_rows(train, encoder, place / "inputs.npy", run)
        header, states = trained_model(train, encoder, learning, inputs, run)
        notes = [*source.notes, *plan.notes, *decoded.problems.notes(), *decoded.notes(), *assignment.notes]
        header |= {
            "name": name or out.name, "title": title or source.path.name,
            "notes": [*notes, *absent_notes(train, classes)],
            "description": f"{source.n_rows:,} images of {source.path.name}; the label is {plan.told}.",
        }  # fmt: skip
        return save_study(out, header, tables, encoder, states)


def check_images(source: ImageSource, label: str | None = None) -> None:
    """Refuse what ``import_images`` would refuse for its label, without looking at the images again.

    Raises:
        BadInput: No label, one that tells nothing apart, or one of too many classes.
    """
    plan = _Plan.of(source, label)
    if plan.task == "classification":
        _check_classes(len(source.classes_of(plan.label)), plan)


def _check_classes(n_classes: int, plan: _Plan) -> None:
    if n_classes > limits.MAX_CLASSES:
        why = f"'{plan.label}' has {n_classes:,} different values; {limits.MAX_CLASSES:,} classes can be told."
        raise BadInput("The label has too many classes", why, "Choose another label.")


@dataclass(frozen=True)
class _Plan:
    """What is learned, and what else is kept.

    Attributes:
        label: The label as the user calls it.
        stored: How the source keeps it.
        split: How the source keeps the column of splits, if there is one.
        shown: Name in the source -> name in the study, of every further column.
    """

    label: str
    stored: str
    task: Literal["classification", "regression"]
    split: str | None
    shown: dict[str, str]
    notes: tuple[str, ...]

    @staticmethod
    def of(source: ImageSource, label: str | None) -> _Plan:
        label = label or source.label
        if label is None:
            why = f"{source.path}: no two images lie in folders of different names, and no table says what they are."
            fix = "Put the images of each class into a folder of their own, or name the label's column."
            raise BadInput("The images have no label", why, fix)
        stored, split = source.stored(label), _split_column(source)
        different = pc.unique(source.values(label).drop_null())
        if len(different) < 2:
            why = f"'{label}' has {len(different)} different value{'s' * (len(different) != 1)} over all images."
            raise BadInput("The label tells nothing apart", why, "Give images of at least two classes.")
        taken, shown, notes = {"id", "label", PIXELS, PICTURE}, {}, []
        for column in source.columns:
            if column == label or source.stored(column) == split:
                continue
            shown[column] = column
            while shown[column] in taken:
                shown[column] = f"original {shown[column]}"
            taken.add(shown[column])
            if shown[column] != column:
                notes.append(f"The column '{column}' is called '{shown[column]}' here.")
        if shown:
            notes.append(f"Kept to look at, not read by the model: {', '.join(list(shown.values())[:20])}.")
        return _Plan(label, stored, source.task_of(label), split, shown, tuple(notes))

    @property
    def told(self) -> str:
        """Return the label for a sentence."""
        return "the folder" if self.stored == FOLDER else f"'{self.label}'"


def _split_column(source: ImageSource) -> str | None:
    """Return where the source keeps split words, if every image has one."""
    columns = [name for name in source.columns if name.lower() in _SPLIT_COLUMNS]
    for name, stored in [(_SPLIT, _SPLIT), *((name, source.stored(name)) for name in columns)]:
        values = source.values(name) if stored != _SPLIT else _own_splits(source)
        words = {SPLIT_WORDS.get(str(v).strip().lower()) for v in pc.unique(values).to_pylist()}
        if None not in words and len(words) > 1 and "train" in words:
            return stored
    return None


def _own_splits(source: ImageSource) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for batch in source.batches([_SPLIT]) for chunk in batch[_SPLIT].chunks])


_Made = tuple[bytes, bytes | None, bytes | None, bool]


class _Decoded:
    """Every image decoded once into a file: grey and coloured pixels, and the copy that people see."""

    def __init__(self, source: ImageSource, plan: _Plan, file: Path, run: Run) -> None:
        self._file, self._plan, self._source = file, plan, source
        self.problems = Problems(source.path)
        self.n_rows, self._colour, self._pictures = 0, False, False
        self._write(run)
        self.problems.check(self.n_rows)

    @property
    def size(self) -> tuple[int, int, int]:
        """Return channels, height, width of what the model is given."""
        return (3 if self._colour else 1, self._source.side, self._source.side)

    @property
    def picture(self) -> str | None:
        """Return the column of larger copies, if any image has one."""
        return PICTURE if self._pictures else None

    def notes(self) -> list[str]:
        """Return what the model sees, in a sentence."""
        side, colour = self._source.side, "colour" if self._colour else "grey"
        return [f"The model sees {colour} images of {side} × {side} pixels."]

    def _write(self, run: Run) -> None:
        source, side, writer = self._source, self._source.side, None
        total = -(-source.n_rows // limits.IMAGES_AT_ONCE)
        workers = Parallel(n_jobs=min(_THREADS, os.cpu_count() or 1), prefer="threads")
        try:
            with disk_errors(self._file), workers:
                for batch in run.track(source.batches(), "reading the images", total):
                    made = cast(list, workers(delayed(_decoded)(read, side) for read in source.readers(batch)))
                    table = self._kept(batch, made)
                    if writer is None:
                        writer = pq.ParquetWriter(self._file, table.schema, compression="none")
                    writer.write_table(table)
        finally:
            if writer is not None:
                writer.close()

    def _kept(self, batch: pa.Table, made: list[_Made | BadInput]) -> pa.Table:
        good = []
        for i, one in enumerate(made):
            if isinstance(one, BadInput):
                self.problems.add(batch["id"][i].as_py(), one)
            else:
                good.append(i)
        rows, plan = batch.take(pa.array(good, pa.int64())), self._plan
        grey, colour, picture, coloured = zip(*(made[i] for i in good), strict=True) if good else ((), (), (), ())
        self.n_rows += len(good)
        self._colour = self._colour or any(coloured)
        self._pictures = self._pictures or any(copy is not None for copy in picture)
        labels = rows[plan.stored]
        labels = labels.cast(pa.float64()) if plan.task == "regression" else class_names(labels)
        splits = pa.nulls(len(rows), pa.string()) if plan.split is None else class_names(rows[plan.split])
        named = {"id": rows["id"], "label": labels, _SPLIT: splits, _GREY: pa.array(grey, pa.binary()),
                 _COLOUR: pa.array(colour, pa.binary()), PICTURE: pa.array(picture, pa.binary())}  # fmt: skip
        further = [rows[self._source.stored(name)] for name in plan.shown]
        names = [*named, *(f"c{i}" for i in range(len(further)))]
        return pa.table([*named.values(), *further], names=names)

    def _pixels(self, batch: pa.Table) -> list[bytes]:
        """Return the pixels of each row as the model is given them."""
        greys = batch[_GREY].to_pylist()
        if not self._colour:
            return greys
        return [grey * 3 if colour is None else colour for grey, colour in
                zip(greys, batch[_COLOUR].to_pylist(), strict=True)]  # fmt: skip

    def hashed(self) -> Iterator[pa.Table]:
        """Yield labels, splits and 64 bits of the pixels."""
        for batch in file_batches(self._file, ["label", _SPLIT, _GREY, _COLOUR], limits.IMAGES_AT_ONCE):
            codes = [hashlib.blake2b(pixels, digest_size=8).digest() for pixels in self._pixels(batch)]
            bits = np.frombuffer(b"".join(codes), np.int64)
            yield pa.table({"pixels": bits, "label": batch["label"], _SPLIT: batch[_SPLIT]})

    @property
    def n_batches(self) -> int:
        """Return how many steps a pass has."""
        return -(-self.n_rows // limits.IMAGES_AT_ONCE)

    def rows(self, run: Run) -> Iterator[pa.Table]:
        """Yield the rows as the study keeps them."""
        batches = file_batches(self._file, size=limits.IMAGES_AT_ONCE)
        for batch in run.track(batches, "writing the images", self.n_batches):
            flat = pa.array(np.frombuffer(b"".join(self._pixels(batch)), np.uint8))
            columns = {"id": batch["id"], "label": batch["label"]}
            columns |= {name: batch[f"c{i}"] for i, name in enumerate(self._plan.shown.values())}
            columns[PIXELS] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(self.size)))
            if self._pictures:
                columns[PICTURE] = batch[PICTURE]
            yield pa.table(columns)


def _decoded(read: Any, side: int) -> _Made | BadInput:
    """Return grey pixels, coloured ones where they differ, the copy to look at where it is larger, and if coloured."""
    try:
        content: Content = read()
        image = opened_picture(usable(content))
        grey = pixels_of(image, (1, side, side)).tobytes()
        colour = pixels_of(image, (3, side, side)) if image.mode != "L" else None
        copy = small_copy(image, SHOWN) if max(image.size) > side else None
        return grey, None if colour is None else colour.tobytes(), copy, colour is not None and has_colour(colour)
    except BadInput as error:
        return error


def _assignment(decoded: _Decoded, plan: _Plan, run: Run) -> Assignment:
    def batches() -> Iterator[pa.Table]:
        return run.track(decoded.hashed(), "dividing the images", decoded.n_batches)

    split = None if plan.split is None else _SPLIT
    return split_names(batches, ["pixels"], "label", split=split, stratified=plan.task == "classification")
