"""Every image decoded once, in parts of a few seconds' work: an import that was stopped goes on with the next part."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from joblib import Parallel, delayed

from influence_core.encoder.pictures import has_colour, opened_picture, pixels_of, small_copy
from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.building import class_names
from influence_core.readers.image_files import Problems
from influence_core.readers.image_plan import PICTURE, PIXELS, SPLIT, ImagePlan
from influence_core.readers.images import Content, ImageSource, usable
from influence_core.readers.partial import PartialImport
from influence_core.run import Run
from influence_core.store import disk_errors

SHOWN = 256  # pixels on the long side of the copy that people see
_GREY, _COLOUR = "grey", "colour"
_THREADS = 4
_PART_SECONDS = 2.0  # what is lost at most when the import is stopped, but for one batch

_Made = tuple[bytes, bytes | None, bytes | None, bool]


@dataclass
class _Part:
    """The decoded images of some batches that follow one another, in a file of their own.

    Attributes:
        file: The file.
        batches: How many batches it holds.
        rows: How many images of them could be decoded.
        colour: Whether any has colour.
        pictures: Whether any has a larger copy.
        problems: Id, and what is wrong, in three parts, of every image that could not be decoded.
    """

    file: Path
    batches: int = 0
    rows: int = 0
    colour: bool = False
    pictures: bool = False
    problems: list[tuple[str, str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin to count the time."""
        self._writer: pq.ParquetWriter | None = None
        self._start = time.monotonic()

    @property
    def is_full(self) -> bool:
        """Return whether it holds the work of some seconds."""
        return time.monotonic() - self._start >= _PART_SECONDS

    def add(self, table: pa.Table) -> None:
        """Write a batch, as one row group."""
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.file, table.schema, compression="none")
        self._writer.write_table(table)
        self.batches += 1
        self.rows += len(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()

    def said(self) -> dict[str, Any]:
        """Return all but the file, as JSON values."""
        return {
            "batches": self.batches, "rows": self.rows, "colour": self.colour, "pictures": self.pictures,
            "problems": self.problems,
        }  # fmt: skip


class DecodedImages:
    """Every image decoded once into files: grey and coloured pixels, and the copy that people see.

    Attributes:
        problems: Images that could not be decoded, or that are not what they were when they were looked at.
        n_rows: Images that could be.
        stages: What was recorded of the import for them.
    """

    def __init__(self, source: ImageSource, plan: ImagePlan, work: PartialImport, run: Run) -> None:
        """Decode the images that no earlier try has decoded.

        Raises:
            BadInput: Most of them cannot be decoded.
            StoreProblem: The disk is full or refuses.
        """
        self._plan, self._source, self._work = plan, source, work
        self.problems, self.stages = Problems(source.path), list[str]()
        self.n_rows, self._n_batches, self._colour, self._pictures = 0, 0, False, False
        self._decode(run)
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
        """Return what was left out, and what the model sees, in sentences."""
        side, colour = self._source.side, "colour" if self._colour else "grey"
        return [*self.problems.notes(), f"The model sees {colour} images of {side} × {side} pixels."]

    def _decode(self, run: Run) -> None:
        source, side, known = self._source, self._source.side, 0
        total = -(-source.n_rows // limits.IMAGES_AT_ONCE)
        workers = Parallel(n_jobs=min(_THREADS, os.cpu_count() or 1), prefer="threads")
        part: _Part | None = None
        try:
            with disk_errors(self._work.folder), workers:
                for number, batch in enumerate(run.track(source.batches(), "reading the images", total)):
                    if number < known:
                        continue
                    if (said := self._work.done(_stage(number))) is not None:
                        part = self._recorded(part)
                        self._take(_Part(self._file(number), **said))
                        known = number + said["batches"]
                        continue
                    part = part or _Part(self._file(number))
                    made: Any = workers(delayed(_decoded)(read, side) for read in source.readers(batch))
                    part.add(self._kept(batch, made, part))
                    if part.is_full:
                        part = self._recorded(part)
                part = self._recorded(part)
        finally:
            if part is not None:
                with suppress(OSError):  # what ended the work is what is told
                    part.close()

    def _file(self, number: int) -> Path:
        return self._work.folder / f"{_stage(number)}.parquet"

    def _recorded(self, part: _Part | None) -> None:
        """Finish a part and have it recorded."""
        if part is not None:
            part.close()
            self._work.record(part.file.stem, part.said(), [part.file])
            self._take(part)

    def _take(self, part: _Part) -> None:
        """Take a finished part into account."""
        self.stages.append(part.file.stem)
        self.n_rows += part.rows
        self._n_batches += part.batches
        self._colour = self._colour or part.colour
        self._pictures = self._pictures or part.pictures
        for name, *words in part.problems:
            self.problems.add(name, BadInput(*words))

    def _kept(self, batch: pa.Table, made: list[_Made | BadInput], part: _Part) -> pa.Table:
        """Return the decoded images of a batch with what is known of each, and tell the part of them."""
        good = []
        for i, one in enumerate(made):
            if isinstance(one, BadInput):
                part.problems.append((batch["id"][i].as_py(), one.what, one.why, one.fix))
            else:
                good.append(i)
        rows, plan = batch.take(pa.array(good, pa.int64())), self._plan
        grey, colour, picture, coloured = zip(*(made[i] for i in good), strict=True) if good else ((), (), (), ())
        part.colour = part.colour or any(coloured)
        part.pictures = part.pictures or any(copy is not None for copy in picture)
        labels = rows[plan.stored]
        labels = labels.cast(pa.float64()) if plan.task == "regression" else class_names(labels)
        splits = pa.nulls(len(rows), pa.string()) if plan.split is None else class_names(rows[plan.split])
        named = {"id": rows["id"], "label": labels, SPLIT: splits, _GREY: pa.array(grey, pa.binary()),
                 _COLOUR: pa.array(colour, pa.binary()), PICTURE: pa.array(picture, pa.binary())}  # fmt: skip
        further = [rows[self._source.stored(name)] for name in plan.shown]
        names = [*named, *(f"c{i}" for i in range(len(further)))]
        return pa.table([*named.values(), *further], names=names)

    def _batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Yield the batches as they were decoded, whichever parts they lie in."""
        for name in self.stages:
            with pq.ParquetFile(self._work.folder / f"{name}.parquet") as file:
                for group in range(file.num_row_groups):
                    yield file.read_row_group(group, columns)

    def _pixels(self, batch: pa.Table) -> list[bytes]:
        """Return the pixels of each row as the model is given them."""
        greys = batch[_GREY].to_pylist()
        if not self._colour:
            return greys
        return [grey * 3 if colour is None else colour for grey, colour in
                zip(greys, batch[_COLOUR].to_pylist(), strict=True)]  # fmt: skip

    def hashed(self, run: Run) -> Iterator[pa.Table]:
        """Yield labels, splits and 64 bits of the pixels."""
        batches = self._batches(["label", SPLIT, _GREY, _COLOUR])
        for batch in run.track(batches, "dividing the images", self._n_batches):
            codes = [hashlib.blake2b(pixels, digest_size=8).digest() for pixels in self._pixels(batch)]
            bits = np.frombuffer(b"".join(codes), np.int64)
            yield pa.table({"pixels": bits, "label": batch["label"], SPLIT: batch[SPLIT]})

    def rows(self, run: Run) -> Iterator[pa.Table]:
        """Yield the rows as the study keeps them."""
        for batch in run.track(self._batches(), "writing the images", self._n_batches):
            flat = pa.array(np.frombuffer(b"".join(self._pixels(batch)), np.uint8))
            columns = {"id": batch["id"], "label": batch["label"]}
            columns |= {name: batch[f"c{i}"] for i, name in enumerate(self._plan.shown.values())}
            columns[PIXELS] = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(self.size)))
            if self._pictures:
                columns[PICTURE] = batch[PICTURE]
            yield pa.table(columns)


def _stage(number: int) -> str:
    """Return the name of the part that begins with a batch."""
    return f"decoded-{number}"


def _decoded(read: Callable[[], Content], side: int) -> _Made | BadInput:
    """Return grey pixels, coloured ones where they differ, the copy to look at where it is larger, and if coloured."""
    try:
        image = opened_picture(usable(read()))
        grey = pixels_of(image, (1, side, side)).tobytes()
        colour = pixels_of(image, (3, side, side)) if image.mode != "L" else None
        copy = small_copy(image, SHOWN) if max(image.size) > side else None
        return grey, None if colour is None else colour.tobytes(), copy, colour is not None and has_colour(colour)
    except BadInput as error:
        return error
