"""From a user's images to a study: decoded once, divided, a small network trained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL
import pyarrow as pa

from influence_core.encoder import ImageEncoder
from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.building import (
    Learning,
    Tables,
    classes_of,
    fitting_batches,
    kept_encoding,
    trained_model,
)
from influence_core.readers.image_decoding import DecodedImages
from influence_core.readers.image_plan import PIXELS, SPLIT, ImagePlan
from influence_core.readers.images import ImageSource
from influence_core.readers.partial import PartialImport, partial_import
from influence_core.readers.split_files import SplitFiles
from influence_core.readers.splits import Assignment, split_names
from influence_core.run import Run
from influence_core.study import Study, save_study


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
        Cancelled: The user asked to stop. The images that are decoded and the stages that are done stay in a hidden
            folder beside the study; the same import of the same images goes on from there, and so it does when it
            was killed.
    """
    out = Path(out)
    plan = ImagePlan.of(source, label)
    # Another Pillow may decode to other pixels.
    with (
        partial_import(out, [source.mark, plan.label, PIL.__version__]) as work,
        SplitFiles(work.folder, limits.IMAGES_AT_ONCE) as files,
    ):
        tables, said = _divided(source, plan, files, work, run)
        classes, absent = classes_of(tables) if plan.task == "classification" else ([], [])
        _check_classes(len(classes), plan)
        train = tables["train"]

        def batches() -> Iterator[pa.Table]:
            return fitting_batches(train, [PIXELS], run, limits.IMAGES_AT_ONCE)

        def fitted() -> ImageEncoder:
            return ImageEncoder.fitted(batches, PIXELS, tuple(said["size"]), said["picture"])

        encoder, inputs = kept_encoding(train, fitted, work, run)
        learning = Learning("image", plan.task, classes, plan.label)
        header, states = trained_model(train, encoder, learning, inputs, run, work.training)
        header |= {
            "name": name or out.name, "title": title or source.path.name,
            "notes": [*source.notes, *plan.notes, *said["notes"], *absent],
            "description": f"{source.n_rows:,} images of {source.path.name}; the label is {plan.told}.",
        }  # fmt: skip
        return save_study(out, header, tables, encoder, states)


def check_images(source: ImageSource, label: str | None = None) -> None:
    """Refuse what ``import_images`` would refuse for its label, without looking at the images again.

    Raises:
        BadInput: No label, one that tells nothing apart, or one of too many classes.
    """
    plan = ImagePlan.of(source, label)
    if plan.task == "classification":
        _check_classes(len(source.classes_of(plan.label)), plan)


def _check_classes(n_classes: int, plan: ImagePlan) -> None:
    if n_classes > limits.MAX_CLASSES:
        why = f"'{plan.label}' has {n_classes:,} different values; {limits.MAX_CLASSES:,} classes can be told."
        raise BadInput("The label has too many classes", why, "Choose another label.")


def _divided(
    source: ImageSource, plan: ImagePlan, files: SplitFiles, work: PartialImport, run: Run
) -> tuple[Tables, dict[str, Any]]:
    """Decode the images, divide them and write them, or find that done.

    Returns:
        The file of each split; and the ``size`` of the model's images, the column of their larger ``picture``, if
        any, and the ``notes``.
    """
    if (said := work.done("rows")) is not None:
        return {name: work.folder / f"{name}.parquet" for name in said["splits"]}, said
    decoded = DecodedImages(source, plan, work, run)
    assignment = _assignment(decoded, plan, run)
    notes = [*decoded.notes(), *assignment.notes]
    said = {"size": decoded.size, "picture": decoded.picture, "notes": notes}

    def record(written: list[Path]) -> None:
        work.record("rows", {**said, "splits": [file.stem for file in written]}, written, decoded.stages)

    tables = files.divided(decoded.rows(run), assignment.codes, record)
    files.finished()
    return tables, said


def _assignment(decoded: DecodedImages, plan: ImagePlan, run: Run) -> Assignment:
    def batches() -> Iterator[pa.Table]:
        return decoded.hashed(run)

    split = None if plan.split is None else SPLIT
    return split_names(batches, ["pixels"], "label", split=split, stratified=plan.task == "classification")
