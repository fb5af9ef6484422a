"""Tables beside images that name them: which column holds the paths, and which image a path means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pyarrow as pa

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.image_files import ImageFiles, counted, named
from influence_core.readers.image_layout import Place
from influence_core.readers.sources import Source, open_source
from influence_core.run import Run
from influence_core.store import disk_errors

_MOST = 20  # tables that are looked at
_SAMPLE = 2_000  # rows that say which column holds paths
_SHARE = 0.5  # of them that must name an image


class Lookup:
    """Finds the image that a cell of a table means: by its path, from the table's folder or the top, or by its name."""

    def __init__(self, places: Sequence[Place]) -> None:
        """Know the images."""
        self._by_path: dict[str, Place] = {}
        self._by_name: dict[str, Place | None] = {}
        for place in places:
            self._by_path[place.file] = self._by_path[place.id] = place
            path = PurePosixPath(place.id)
            for name in (path.name, path.stem):
                known = self._by_name.get(name, place)
                self._by_name[name] = place if known is place else None  # of two places: of none

    def found(self, cell: object, folder: str) -> Place | None:
        """Return the image, or None; ``folder`` is the table's, with a ``/`` at the end."""
        path = str(cell).strip().replace("\\", "/").removeprefix("./")
        for name in (folder + path, path):
            if name in self._by_path:
                return self._by_path[name]
        return self._by_name.get(path.rsplit("/", 1)[-1])


class ImageTable:
    """A table that names images.

    Attributes:
        source: Its rows.
        column: The column of paths.
        name: Its name among the files.
    """

    def __init__(self, source: Source, column: str, name: str) -> None:
        """Keep them."""
        self.source, self.column, self.name = source, column, name
        self.folder = name[: name.rfind("/") + 1]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names of the other columns."""
        return tuple(name for name in self.source.names if name != self.column)


def image_tables(files: ImageFiles, lookup: Lookup, folder: Path, run: Run) -> tuple[list[ImageTable], list[str]]:
    """Return the tables that name images, opened, and what was left out, in sentences.

    Args:
        files: The images and the tables beside them.
        lookup: The images by their paths.
        folder: A temporary folder, which outlives the tables.
        run: Progress and cancel.

    Raises:
        BadInput: A table called metadata cannot be read.
    """
    found, left = [], []
    for number, name in enumerate(files.tables[:_MOST]):
        copy = folder / f"table-{number}{Path(name).suffix.lower()}"  # a name of ours
        content = files.read(name, limits.RATIO_FROM)
        if len(content) > limits.RATIO_FROM:
            left.append(name)
            continue
        with disk_errors(copy):
            copy.write_bytes(content)
        try:
            source = open_source(copy, run)
        except BadInput as error:
            if Path(name).stem.lower() == "metadata":
                why, fix = (part.replace(str(copy), name).replace(copy.name, name) for part in (error.why, error.fix))
                raise BadInput(error.what, why, fix) from None
            left.append(name)
            continue
        column = _path_column(source, lookup, name)
        if column is None:
            source.close()
            left.append(name)
        else:
            found.append(ImageTable(source, column, name))
    left += files.tables[_MOST:]
    notes = [f"{counted(len(left), 'table does', 'tables do')} not name the images: {named(left)}."] if left else []
    return found, notes


def _path_column(source: Source, lookup: Lookup, name: str) -> str | None:
    folder = name[: name.rfind("/") + 1]
    sample = source.head(_SAMPLE)
    best, most = None, _SHARE * len(sample)
    for info in source.columns:
        if info.kind in ("category", "text", "integer"):
            hits = sum(v is not None and lookup.found(v, folder) is not None for v in sample[info.name].to_pylist())
            if hits > most or (hits == most and best is None and hits):
                best, most = info.name, hits
    return best


class TableRows:
    """The rows of the tables, each with its image: batches for a scan, and what did not fit together."""

    def __init__(self, tables: Sequence[ImageTable], lookup: Lookup, n_images: int) -> None:
        """Agree on columns: those of all tables, as text where their types differ."""
        self._tables, self._lookup, self._n_images = tables, lookup, n_images
        self._seen: set[str] = set()
        self._unknown: list[str] = []
        self._again: list[str] = []
        types: dict[str, pa.DataType] = {}
        for table in tables:
            head = table.source.head(1)
            for name in table.columns:
                kind = head[name].type
                types[name] = kind if types.get(name, kind) == kind else pa.string()
        self.types = types

    def batches(self, size: int) -> Iterator[tuple[list[Place], list[pa.Array]]]:
        """Yield places and the other columns, batch after batch; rows without an image are left out."""
        for table in self._tables:
            for batch in table.source.batches(size):
                at, chosen = [], []
                for row, cell in enumerate(batch[table.column].to_pylist()):
                    place = None if cell is None else self._lookup.found(cell, table.folder)
                    if place is None:
                        self._unknown.append(str(cell)[:80])
                    elif place.file in self._seen:
                        self._again.append(place.id)
                    else:
                        self._seen.add(place.file)
                        at.append(row)
                        chosen.append(place)
                taken = batch.take(pa.array(at, pa.int64()))
                yield chosen, [_column(taken, name, kind) for name, kind in self.types.items()]

    def notes(self) -> list[str]:
        """Return what did not fit together, in sentences."""
        notes = [note for table in self._tables for note in table.source.notes]
        if self._unknown:
            n = counted(len(self._unknown), "row names", "rows name")
            notes.append(f"{n} no image that is here and was left out: {named(self._unknown)}.")
        if self._again:
            n = counted(len(self._again), "row names", "rows name")
            notes.append(f"{n} an image a second time; the first row counts: {named(self._again)}.")
        if rest := self._n_images - len(self._seen):
            notes.append(f"{counted(rest, 'image', 'images')} that no row names left out.")
        return notes

    def close(self) -> None:
        """Close the tables."""
        for table in self._tables:
            with suppress(OSError):
                table.source.close()


def _column(rows: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    if name not in rows.column_names:
        return pa.nulls(len(rows), kind)
    values = rows[name].combine_chunks()
    return values if values.type == kind else values.cast(kind)
