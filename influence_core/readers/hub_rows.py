"""The rows of a data set of the ``datasets`` library as images to scan, or as a table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from influence_core.encoder.pictures import MAX_BYTES
from influence_core.errors import BadInput
from influence_core.readers.hub import DataSet, decoded, open_dataset
from influence_core.readers.image_layout import Place
from influence_core.readers.images import Content, Rows
from influence_core.readers.keeping import kept_rows
from influence_core.readers.sources import Source
from influence_core.run import Run
from influence_core.store import disk_errors

_SPLIT = "split"


def image_rows(source: Path | str) -> Rows:
    """Return the images of a data set as rows to scan.

    Raises:
        BadInput: It cannot be read, or has no column of images.
    """
    data = open_dataset(source)
    image = data.image
    if image is None:
        names = ", ".join(name for name, _ in data.schema[:30])
        raise BadInput("There are no images here", f"The columns of {source} are {names}.", "Import it as a table.")
    types = {name: _kept_type(data, name) for name, _ in data.schema if name != image}

    def batches() -> Iterator[tuple[list[Place], list[pa.Array], list[Content]]]:
        for part in data.parts:
            first = 1
            for batch in part.batches():
                ids = [f"{part.split}/{i}" if part.split else str(i) for i in range(first, first + len(batch))]
                first += len(batch)
                cells = decoded(batch[image], None).to_pylist()
                columns = [_cast(decoded(batch[name], part.features.get(name)), kind) for name, kind in types.items()]
                places = [Place(row, row, None, part.split or None) for row in ids]
                yield places, columns, [_picture(cell, data.pictures) for cell in cells]

    notes = [*data.notes, *_split_notes(data)]
    return Rows(types, batches, None, sum(part.n_rows for part in data.parts), lambda: notes, lambda: None)


def _split_notes(data: DataSet) -> list[str]:
    names = [part.split for part in data.parts if part.split]
    return [f"Splits are those of the data set: {', '.join(names)}."] if names else []


def _picture(cell: Any, root: Path | None) -> Content:
    """Return a picture's bytes; a path is followed only into the library's own downloads."""
    if not isinstance(cell, dict):
        return cell if isinstance(cell, bytes) else None
    if cell.get("bytes") is not None:
        return cell["bytes"]
    path = cell.get("path")
    if root is None or not isinstance(path, str) or "\x00" in path:
        return None
    file = Path(path).resolve()
    if not file.is_relative_to(root) or not file.is_file():
        return None
    with file.open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def _kept_type(data: DataSet, name: str) -> pa.DataType:
    found = data.type_of(name)
    nested = pa.types.is_nested(found) or pa.types.is_binary(found) or pa.types.is_large_binary(found)
    return pa.string() if nested else found


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if values.type == kind:
        return values
    if pa.types.is_nested(values.type) or pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return pa.array([None if v is None else _words(v) for v in values.to_pylist()], pa.string())
    try:
        return values.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        why = f"A column is {kind} in one file and {values.type} in another ({str(error).splitlines()[0][:200]})."
        raise BadInput("The files of the data set differ", why, "Give every file the same columns.") from None


def _words(value: object) -> str:
    return f"{len(value):,} bytes" if isinstance(value, bytes) else str(value)[:10_000]


def table_source(source: Path | str, run: Run) -> Source:
    """Return the rows of a data set as a table, with a column of its splits if it has several.

    Raises:
        BadInput: It cannot be read.
    """
    data = open_dataset(source)
    names = [name for name, _ in data.schema]
    splits = len(data.parts) > 1
    column = _SPLIT
    while column in names:
        column += "_"
    folder = tempfile.TemporaryDirectory(prefix="influence-import-", ignore_cleanup_errors=True)
    try:
        file = Path(folder.name) / "dataset.arrow"
        types = {name: data.type_of(name) for name in names}
        fields = [*types.items(), *([(column, pa.string())] if splits else [])]
        with disk_errors(file), pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, pa.schema(fields)) as writer:
            for batch in run.track(_batches(data, types, column if splits else None), "reading the data set", 0):
                writer.write_table(batch)
        kept = kept_rows(file, "arrow", Path(str(source)).name, Path(folder.name) / "rows.arrow", run)
        file.unlink()
        kept.notes[:0] = [*data.notes, *_split_notes(data)]
        return Source(Path(str(source)), folder, kept)
    except BaseException:
        folder.cleanup()
        raise


def _batches(data: DataSet, types: dict[str, pa.DataType], column: str | None) -> Iterator[pa.Table]:
    for part in data.parts:
        for batch in part.batches():
            missing = set(types) - set(batch.column_names)
            if missing:
                why = f"A file of the split '{part.split}' has no column '{sorted(missing)[0]}'."
                raise BadInput("The files of the data set differ", why, "Give every file the same columns.")
            arrays = [decoded(batch[name], part.features.get(name)) for name in types]
            arrays = [a if a.type == kind else _cast(a, kind) for a, kind in zip(arrays, types.values(), strict=True)]
            if column is not None:
                arrays.append(pa.array([part.split] * len(batch), pa.string()))
            yield pa.table(arrays, names=[*types, *([column] if column is not None else [])])
