"""What is learned of some images, and what else of them is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as _compute

from influence_core.errors import BadInput
from influence_core.readers.images import FOLDER, ImageSource
from influence_core.readers.splits import SPLIT_WORDS

pc: Any = _compute
PIXELS, PICTURE = "image", "picture"  # columns of a study of images
SPLIT = "split"
_SPLIT_COLUMNS = ("split", "set", "fold", "partition", "subset", "dataset_split")


@dataclass(frozen=True)
class ImagePlan:
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
    def of(source: ImageSource, label: str | None) -> ImagePlan:
        """Return the plan for a label; None: what the source chose.

        Raises:
            BadInput: No label, or one that tells nothing apart.
        """
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
        return ImagePlan(label, stored, source.task_of(label), split, shown, tuple(notes))

    @property
    def told(self) -> str:
        """Return the label for a sentence."""
        return "the folder" if self.stored == FOLDER else f"'{self.label}'"


def _split_column(source: ImageSource) -> str | None:
    """Return where the source keeps split words, if every image has one."""
    columns = [name for name in source.columns if name.lower() in _SPLIT_COLUMNS]
    for name, stored in [(SPLIT, SPLIT), *((name, source.stored(name)) for name in columns)]:
        values = source.values(name) if stored != SPLIT else _own_splits(source)
        words = {SPLIT_WORDS.get(str(v).strip().lower()) for v in pc.unique(values).to_pylist()}
        if None not in words and len(words) > 1 and "train" in words:
            return stored
    return None


def _own_splits(source: ImageSource) -> pa.ChunkedArray:
    return pa.chunked_array([chunk for batch in source.batches([SPLIT]) for chunk in batch[SPLIT].chunks])
