"""Images as rows: listed, each looked at once, with what is known of it, before a study is made of them."""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as _compute
import pyarrow.parquet as pq

from influence_core.archive_members import opened_archive
from influence_core.encoder.pictures import opened_picture, picture_size, small_copy
from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.building import class_names, sorted_classes
from influence_core.readers.hub import is_dataset, open_dataset
from influence_core.readers.image_files import SUFFIXES, FolderFiles, ImageFiles, Problems, ZipFiles
from influence_core.readers.image_layout import Place, places
from influence_core.readers.image_tables import Lookup, TableRows, image_tables
from influence_core.run import Run
from influence_core.store import disk_errors
from influence_core.study_files import file_hash

pc: Any = _compute
FOLDER = "folder"  # the label of images in class folders
OWN = ("file", "id", FOLDER, "split", "width", "height")
_SIDE = 32  # of the model's images, unless all are of one smaller size
_LEAST = 4
_LABELS = ("label", "labels", "class", "target", "y", "category", "diagnosis", "species")
_FEW = 20  # different whole numbers up to which a label names classes
_THUMBNAIL = 128
_DIGEST = 16  # bytes that stand for the content of a file
Content = bytes | BadInput | None
_Scanned = tuple[list[Place], list[pa.Array], Iterable[Content]]


@dataclass(frozen=True)
class Rows:
    """Images to scan.

    Attributes:
        types: Further columns by name.
        batches: Yields places, further columns and contents.
        read: Returns the content of an image again; None: contents are kept with the rows.
        total: Number of images, about.
        notes: Called at the end: what was decided, in sentences.
    """

    types: dict[str, pa.DataType]
    batches: Callable[[], Iterator[_Scanned]]
    read: Callable[[str], bytes] | None
    total: int
    notes: Callable[[], list[str]]
    close: Callable[[], None]


class ImageSource:
    """The images of a folder, zip or table. Use as a context manager: its temporary folder goes when it closes.

    Attributes:
        path: What the user gave.
        n_rows: Images that can be used.
        columns: What a table says of them besides.
        label: What is learned unless another column is named: ``"folder"``, or one of the columns.
        task: What that label is.
        classes: Class name -> number of images, for ``label``; empty for a regression.
        sizes: (width, height) -> number of images, the most frequent first, at most 20.
        side: Width and height of the images that a model is given.
        notes: What was decided while reading, in sentences.
    """

    def __init__(self, path: Path, folder: tempfile.TemporaryDirectory[str], rows: Rows, run: Run) -> None:
        """Look at every image once."""
        self.path, self._folder, self._rows = path, folder, rows
        self._file = Path(folder.name) / "images.parquet"
        self.columns = tuple(rows.types)
        sizes: Counter[tuple[int, int]] = Counter()
        problems = self._scan(run, sizes)
        self.n_rows, self.notes = sum(sizes.values()), (*rows.notes(), *problems.notes())
        problems.check(self.n_rows)
        if not self.n_rows:
            raise BadInput("There are no images here", f"{path} holds none.", "Give a folder or zip of images.")
        self.sizes = dict(sizes.most_common(20))
        only = next(iter(sizes)) if len(sizes) == 1 else (_SIDE, _SIDE)
        self.side = max(_LEAST, max(only)) if max(only) <= _SIDE else _SIDE
        self.label = self._guessed_label()
        self.task, self.classes = "classification", {}
        if self.label:
            self.task = self.task_of(self.label)
            self.classes = self.classes_of(self.label) if self.task == "classification" else {}

    def _scan(self, run: Run, sizes: Counter[tuple[int, int]]) -> Problems:
        rows, problems = self._rows, Problems(self.path)
        kinds = [pa.string()] * 4 + [pa.int32()] * 2 + [pa.binary() if rows.read is None else pa.binary(_DIGEST)]
        names = (*OWN, "content" if rows.read is None else "digest")
        fields = [pa.field(name, kind) for name, kind in zip(names, kinds, strict=True)]
        schema = pa.schema(fields + [pa.field(f"c{i}", kind) for i, kind in enumerate(rows.types.values())])
        total = -(-rows.total // limits.IMAGES_AT_ONCE)
        with disk_errors(self._file), pq.ParquetWriter(self._file, schema, compression="none") as writer:
            for found, columns, contents in run.track(rows.batches(), "looking at the images", total):
                good, shapes, files = [], [], []
                for i, (place, content) in enumerate(zip(found, contents, strict=True)):
                    try:
                        file = usable(content)
                        shapes.append(picture_size(file))
                        files.append(file if rows.read is None else _digest(file))
                        good.append(i)
                    except BadInput as error:
                        problems.add(place.id, error)
                sizes.update(shapes)
                kept = [found[i] for i in good]
                own = [[p.file for p in kept], [p.id for p in kept], [p.folder for p in kept], [p.split for p in kept],
                       [w for w, _ in shapes], [h for _, h in shapes], files]  # fmt: skip
                at = pa.array(good, pa.int64())
                arrays = [pa.array(values, kind) for values, kind in zip(own, kinds, strict=True)]
                arrays += [column.take(at) for column in columns]
                writer.write_table(pa.table(arrays, schema=schema), row_group_size=limits.IMAGES_AT_ONCE)
        return problems

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows in order, a few hundred at a time: what is known of each image, or some columns of that."""
        places = {name: f"c{i}" for i, name in enumerate(self.columns)}
        wanted = None if columns is None else [places.get(name, name) for name in columns]
        with pq.ParquetFile(self._file) as file:
            for batch in file.iter_batches(limits.IMAGES_AT_ONCE, columns=wanted):
                yield pa.Table.from_batches([batch])

    def stored(self, name: str) -> str:
        """Return how a label or a column of the table is called in ``batches``."""
        if name == FOLDER and name not in self.columns:
            return FOLDER
        if name not in self.columns:
            known = ", ".join(self.columns[:30]) or "no table stands beside them"
            why = f"The images have no column '{name[:80]}' ({known})."
            raise BadInput("Unknown column", why, "Name another column, or none: the folders are the classes then.")
        return f"c{self.columns.index(name)}"

    def values(self, name: str) -> pa.ChunkedArray:
        """Return all values of a label or column."""
        place = self.stored(name)
        return pq.read_table(self._file, columns=[place])[place]

    def contents(self, batch: pa.Table) -> Iterator[Content]:
        """Yield the files of some rows, one after another, or what is wrong with them."""
        for reader in self.readers(batch):
            yield reader()

    def readers(self, batch: pa.Table) -> list[Callable[[], Content]]:
        """Return, for each of some rows, a function that reads its file, which several threads may call."""
        read = self._rows.read
        if read is None:
            return [partial(_itself, value) for value in batch["content"].to_pylist()]
        pairs = zip(batch["file"].to_pylist(), batch["digest"].to_pylist(), strict=True)
        return [partial(_unchanged, read, name, digest) for name, digest in pairs]

    def head(self, n: int, label: str | None = None) -> list[tuple[bytes, str]]:
        """Return small copies of a few images with their labels, of every class in turn.

        Args:
            n: How many, at most.
            label: The label or column that is shown; None: what the source chose.
        """
        label = label or self.label
        spread: list[tuple[bytes, str]] = []
        column = None if label is None else self.stored(label)
        wanted = set(self._spread(n, label))
        first = 0
        for batch in self.batches():
            at = [i - first for i in sorted(wanted) if first <= i < first + len(batch)]
            first += len(batch)
            rows = batch.take(pa.array(at, pa.int64()))
            labels = [""] * len(rows) if column is None else class_names(rows[column]).to_pylist()
            for content, label in zip(self.contents(rows), labels, strict=True):
                try:
                    spread.append((small_copy(opened_picture(usable(content)), _THUMBNAIL), label or ""))
                except BadInput:
                    continue
            if first > max(wanted, default=0):
                break
        return spread

    def _spread(self, n: int, label: str | None) -> list[int]:
        """Return positions that take from every class in turn."""
        if label is None or self.task_of(label) == "regression":
            return list(range(min(n, self.n_rows)))
        turns: list[tuple[int, int]] = []
        seen: Counter[object] = Counter()
        for i, value in enumerate(self.values(label).to_pylist()):
            if value is not None and seen[value] < n:
                turns.append((seen[value], i))
                seen[value] += 1
        return [i for _, i in sorted(turns)[:n]]

    def _guessed_label(self) -> str | None:
        named = next((name for name in self.columns if name.lower() in _LABELS and self._is_label(name)), None)
        if named:
            return named
        if FOLDER not in self.columns and len(pc.unique(self.values(FOLDER).drop_null())) > 1:
            return FOLDER
        return next((name for name in self.columns if self._is_label(name)), None)

    def _is_label(self, name: str) -> bool:
        values = self.values(name).drop_null()
        if pa.types.is_timestamp(values.type) or pa.types.is_binary(values.type):
            return False
        different = len(pc.unique(values))
        words = pa.types.is_string(values.type)
        return 1 < different <= (max(2, len(values) // 2) if words else max(2, len(values)))

    def task_of(self, label: str) -> Literal["classification", "regression"]:
        """Return whether a label names classes: words do, and a few whole numbers."""
        different = pc.unique(self.values(label).drop_null())
        if not (pa.types.is_integer(different.type) or pa.types.is_floating(different.type)):
            return "classification"
        whole = pa.types.is_integer(different.type) or all(float(v).is_integer() for v in different.to_pylist())
        return "classification" if whole and len(different) <= _FEW else "regression"

    def classes_of(self, label: str) -> dict[str, int]:
        """Return how many images each class has."""
        counts = pc.value_counts(class_names(self.values(label)).drop_null()).to_pylist()
        found = {entry["values"]: int(entry["counts"]) for entry in counts}
        return {name: found[name] for name in sorted_classes(set(found))}

    @property
    def mark(self) -> str:
        """Return what tells these images from others: their places, contents and further columns, in their order."""
        return f"{file_hash(self._file)} {json.dumps(self.columns)}"

    def close(self) -> None:
        """Let go of the files and remove the temporary folder."""
        self._rows.close()
        self._folder.cleanup()

    def __enter__(self) -> ImageSource:
        """Return the source."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()


def _itself(content: Content) -> Content:
    return content


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


def _unchanged(read: Callable[[str], bytes], name: str, digest: bytes) -> bytes | BadInput:
    """Return the content of a file if it is what it was when it was looked at, or what is wrong with it."""
    content = read_or_problem(read, name)
    if isinstance(content, BadInput) or _digest(content) == digest:
        return content
    why = f"{name}: it is not what it was when it was looked at."
    return BadInput("The image changed during the import", why, "Let it be, and import again.")


def usable(content: Content) -> bytes:
    """Return the content of a file that could be read.

    Raises:
        BadInput: It could not.
    """
    if isinstance(content, BadInput):
        raise content
    if content is None:
        raise BadInput("The picture is missing", "The row has no bytes of one.", "Give the picture's bytes.")
    return content


def read_or_problem(read: Callable[[str], bytes], name: str) -> bytes | BadInput:
    """Return the content of a file, or what is wrong with it."""
    try:
        return read(name)
    except BadInput as error:
        return error


def open_images(path: Path | str, run: Run | None = None) -> ImageSource:
    """Read images: a folder or zip of them, a data set of the ``datasets`` library, or its name on the hub.

    Every image is looked at once, none is unpacked to a name that an archive chose, and links are not followed.

    Args:
        path: A folder or zip, with a folder for each class or with a table that names the images; a Parquet or Arrow
            file or a folder of such with a column of images; or ``hf:owner/name``.
        run: Progress and cancel.

    Raises:
        BadInput: What cannot be read, or holds no images.
    """
    from influence_core.readers.hub_rows import image_rows

    run = run or Run()
    folder = tempfile.TemporaryDirectory(prefix="influence-images-", ignore_cleanup_errors=True)
    rows = None
    try:
        if is_dataset(path):
            rows = image_rows(path)
        else:
            rows = file_rows(opened_files(Path(path)), Path(folder.name), run)
        return ImageSource(Path(path), folder, rows, run)
    except BaseException:
        if rows is not None:
            rows.close()
        folder.cleanup()
        raise


def opened_files(path: Path) -> ImageFiles:
    """List a folder or a zip.

    Raises:
        BadInput: It is neither, or holds no image.
    """
    return FolderFiles(path) if path.is_dir() else ZipFiles(path)


def file_rows(files: ImageFiles, folder: Path, run: Run) -> Rows:
    """Return the images of a folder or zip as rows to scan."""
    try:
        found, notes = places(files.names, files.tables)
        lookup = Lookup(found)
        tables, more = image_tables(files, lookup, folder, run)
    except BaseException:
        files.close()
        raise
    size = limits.IMAGES_AT_ONCE
    listed = TableRows(tables, lookup, len(found)) if tables else None

    def batches() -> Iterator[_Scanned]:
        plain = ((found[i : i + size], []) for i in range(0, len(found), size))
        for some, columns in listed.batches(size) if listed else plain:
            yield some, columns, (read_or_problem(files.read, place.file) for place in some)

    def close() -> None:
        if listed:
            listed.close()
        files.close()

    total = sum(table.source.n_rows for table in tables) if tables else len(found)
    return Rows(
        listed.types if listed else {}, batches, files.read, total,
        lambda: [*files.notes, *notes, *more, *(listed.notes() if listed else [])], close,
    )  # fmt: skip


def holds_images(path: Path | str) -> bool:
    """Tell whether something to import is images rather than a table.

    Raises:
        BadInput: A data set that cannot be read.
    """
    if is_dataset(path):
        return open_dataset(path).image is not None
    path = Path(path)
    if path.is_dir():
        return True  # a folder without images is told so
    if not zipfile.is_zipfile(path):
        return False
    try:
        with opened_archive(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except BadInput:  # whoever opens it says why
        return False
    return any(Path(name).suffix.lower() in SUFFIXES for name in names)
