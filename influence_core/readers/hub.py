"""Data sets of the ``datasets`` library: folders that it saved, files with its features, and names on the hub.

Nothing of a data set is ever executed: the library is only asked for names on the hub, and its folders are read here,
file by file, so that a file list cannot lead out of the folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as _compute
import pyarrow.parquet as pq

from influence_core.errors import BadInput
from influence_core.readers import limits
from influence_core.readers.files import reading_file
from influence_core.readers.image_files import SUFFIXES, counted
from influence_core.readers.splits import SPLIT_WORDS
from influence_core.readers.typed_rows import TypedFile

pc: Any = _compute
PREFIX = "hf:"
_TYPED = {".parquet": "parquet", ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow"}
_PLAIN = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", re.ASCII)
_MOST_TEXT = 16 << 20  # bytes of a JSON file about a data set
_FIX = "Save the data set again with save_to_disk, or as Parquet."
Batches = Callable[[], Iterator[pa.Table]]


@dataclass(frozen=True)
class Part:
    """The rows of one split.

    Attributes:
        split: Its name; empty where the data set has only one.
        batches: Yields the rows from the start at each call.
        n_rows: How many there are, where that is known beforehand.
        features: Column name -> what the library says of it, as JSON.
    """

    split: str
    batches: Batches
    n_rows: int
    features: Mapping[str, Any]


@dataclass(frozen=True)
class DataSet:
    """A data set: its splits, the notes, and where pictures that it only names may lie."""

    parts: tuple[Part, ...]
    notes: tuple[str, ...]
    pictures: Path | None = None

    @property
    def image(self) -> str | None:
        """Return the first column of images, if any."""
        for name, feature in self.parts[0].features.items():
            if isinstance(feature, dict) and feature.get("_type") == "Image":
                return name
        kinds = dict(self.schema)
        return next((name for name, kind in kinds.items() if _is_picture(kind)), None)

    @cached_property
    def first(self) -> pa.Table:
        """Return the first rows.

        Raises:
            BadInput: There are none.
        """
        first = next(self.parts[0].batches(), None)
        if first is None:
            raise BadInput("The data set has no rows", f"Its split '{self.parts[0].split}' is empty.", "Give it rows.")
        return first

    @property
    def schema(self) -> list[tuple[str, pa.DataType]]:
        """Return the columns with their types, from the first rows."""
        return [(field.name, field.type) for field in self.first.schema]

    def type_of(self, name: str) -> pa.DataType:
        """Return the type of a column once class numbers are names and repeated words are written out."""
        found = decoded(self.first[name], self.parts[0].features.get(name)).type
        return found.value_type if pa.types.is_dictionary(found) else found


def _is_picture(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.ExtensionType):
        kind = kind.storage_type
    names = {kind.field(i).name for i in range(kind.num_fields)} if pa.types.is_struct(kind) else set()
    return {"bytes", "path"} <= names and pa.types.is_binary(kind.field("bytes").type)


def is_hub_name(source: Path | str) -> bool:
    """Tell whether a data set on the hub is named."""
    return str(source).startswith(PREFIX)


def is_dataset(source: Path | str) -> bool:
    """Tell whether this is a data set of the library: its name, its folder, or a file with its features."""
    if is_hub_name(source):
        return True
    path = Path(source)
    if path.is_dir():
        return (path / _SAVED).is_file() or (path / _SAVED_SPLITS).is_file() or bool(_data_files(path))
    if path.suffix.lower() not in _TYPED or not path.is_file():
        return False
    return _has_features(path)


def _has_features(path: Path) -> bool:
    try:
        with _typed(path) as file:
            return bool(_features(file.schema)) or any(_is_picture(kind) for kind in file.schema.types)
    except BadInput:
        return False  # a damaged one is no data set; whoever reads it as a table says why


def open_dataset(source: Path | str) -> DataSet:
    """Open a data set.

    Args:
        source: ``hf:owner/name`` or ``hf:owner/name:config``; a folder of ``save_to_disk``; a folder of data files
            whose names say their splits; a Parquet or Arrow file.

    Raises:
        BadInput: It cannot be read, or the hub cannot be reached.
    """
    if is_hub_name(source):
        return _from_hub(str(source))
    path = Path(source)
    if not path.is_dir():
        return DataSet((_file_part("", [path]),), ())
    if (path / _SAVED_SPLITS).is_file():
        return _chosen({name: _saved_part(path / name, name) for name in _saved_splits(path)})
    if (path / _SAVED).is_file():
        return DataSet((_saved_part(path, ""),), ())
    return _chosen({split: _file_part(split, files) for split, files in _data_files(path).items()})


# -- folders and files ----------------------------------------------------------------------------------------------


def _saved_splits(path: Path) -> list[str]:
    names = _json(path / _SAVED_SPLITS).get("splits")
    if not isinstance(names, list) or not names or not all(_is_plain(name) for name in names):
        raise BadInput("The data set is damaged", f"{path / _SAVED_SPLITS} names no splits.", _FIX)
    return names


def _saved_part(folder: Path, split: str) -> Part:
    entries = _json(folder / _SAVED).get("_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries or []]
    if not names or not all(_is_plain(name) for name in names):
        why = f"{folder / _SAVED} names no files, or files elsewhere."
        raise BadInput("The data set is damaged", why, _FIX)
    part = _file_part(split, [folder / str(name) for name in names])
    info = _json(folder / "dataset_info.json") if (folder / "dataset_info.json").is_file() else {}
    features = info.get("features")
    return part if not isinstance(features, dict) else Part(split, part.batches, part.n_rows, features)


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not re.search(r"[/\\\x00]", name)


def _json(path: Path) -> dict[str, Any]:
    with reading_file(path):
        if path.is_symlink() or path.stat().st_size > _MOST_TEXT:
            raise BadInput("The data set is damaged", f"{path} is a link or far too long.", _FIX)
        text = path.read_bytes()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput("The data set is damaged", f"{path}: {error}.", _FIX) from None
    return found if isinstance(found, dict) else {}


def _data_files(path: Path) -> dict[str, list[Path]]:
    """Return split -> data files of a folder: what their names or folders say; nothing where images lie beside them."""
    found: dict[str, list[Path]] = {}
    for root, folders, names in os.walk(path):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and not (Path(root) / n).is_symlink())
        for name in sorted(names):
            file = Path(root) / name
            suffix = file.suffix.lower()
            if suffix in SUFFIXES:
                return {}
            if suffix in (*_TYPED, *_PLAIN) and not name.startswith((".", "dataset_info", "state.json")):
                if file.is_file() and not file.is_symlink():
                    found.setdefault(_split_of(file.relative_to(path)), []).append(file)
    return found


def _split_of(file: Path) -> str:
    for part in (file.stem, *reversed(PurePosixPath(file.as_posix()).parts[:-1])):
        for word in re.split(r"[^a-zA-Z]+", part):
            if word.lower() in SPLIT_WORDS:
                return word.lower()
    return ""


def _typed(path: Path) -> TypedFile:
    if path.is_symlink():
        raise BadInput("The data set leads elsewhere", f"{path} is a link.", "Copy the file itself.")
    with reading_file(path):
        path.stat()
    return TypedFile(path, _TYPED[path.suffix.lower()], path.name)


def _features(schema: pa.Schema) -> Mapping[str, Any]:
    """Return what the library wrote into a file about its columns."""
    try:
        info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = info["info"]["features"]
        return features if isinstance(features, dict) else {}
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}


def _file_part(split: str, files: Sequence[Path]) -> Part:
    features: Mapping[str, Any] = {}
    if files[0].suffix.lower() in _TYPED:
        with _typed(files[0]) as file:
            features = _features(file.schema)

    def batches() -> Iterator[pa.Table]:
        for path in files:
            if path.suffix.lower() in _TYPED:
                with _typed(path) as file:
                    yield from file.tables(limits.IMAGES_AT_ONCE)
            else:
                from influence_core.readers.sources import open_source

                with open_source(path) as source:
                    yield from source.batches()

    rows = [pq.read_metadata(path).num_rows for path in files if path.suffix.lower() in (".parquet", ".pq")]
    return Part(split, batches, sum(rows), features)


# -- the hub --------------------------------------------------------------------------------------------------------


def load(name: str, config: str | None) -> Mapping[str, Any]:
    """Return the splits of a data set on the hub; its own code is never run. The one place that asks the network."""
    from datasets import load_dataset

    return load_dataset(name, config)  # type: ignore[return-value]


def _from_hub(source: str) -> DataSet:
    wanted = source.removeprefix(PREFIX)
    if not _NAME.fullmatch(wanted) or ".." in wanted:
        raise BadInput("This is no name on the hub", f"'{source[:80]}' was given.", "Write it as hf:owner/name.")
    name, _, config = wanted.partition(":")
    try:
        found = load(name, config or None)
    # Each layer between here and the hub has errors of its own; what matters is that it could not be read, and why.
    except Exception as error:
        why = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        fix = ("Check the name and the connection (HF_HUB_OFFLINE must not be set), or download it elsewhere, "
               "dataset.save_to_disk('folder'), and import the folder.")  # fmt: skip
        what = "The hub cannot be reached" if _is_connection(error) else "The data set cannot be loaded from the hub"
        raise BadInput(what, f"{wanted}: {why}.", fix) from None
    from datasets import config as settings

    parts = {split: _loaded_part(split, data) for split, data in found.items()}
    whole = _chosen(parts)
    return DataSet(whole.parts, whole.notes, Path(settings.HF_CACHE_HOME).resolve())


def _is_connection(error: BaseException | None) -> bool:
    """Tell whether the network is to blame, at any depth."""
    while error is not None:
        if isinstance(error, (ConnectionError, TimeoutError)) or re.search(
            r"offline|connect|timed? ?out|resolve|unreachable|proxy", f"{type(error).__name__} {error}", re.IGNORECASE
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _loaded_part(split: str, data: Any) -> Part:
    def batches() -> Iterator[pa.Table]:
        for batch in data.with_format("arrow").iter(limits.IMAGES_AT_ONCE):
            yield batch if isinstance(batch, pa.Table) else pa.Table.from_batches([batch])

    return Part(split, batches, len(data), data.features.to_dict())


def _chosen(parts: dict[str, Part]) -> DataSet:
    """Keep the splits whose names are known; one alone is divided like any file."""
    known = {split: part for split, part in parts.items() if SPLIT_WORDS.get(split.lower())}
    if len(parts) == 1 or not known:
        return DataSet(tuple(Part("", part.batches, part.n_rows, part.features) for part in parts.values()), ())
    rest = sorted(set(parts) - set(known))
    n = counted(len(rest), "split", "splits")
    notes = (f"{n} of another name left out: {', '.join(rest)[:200]}.",) if rest else ()
    return DataSet(tuple(known.values()), notes)


# -- as rows --------------------------------------------------------------------------------------------------------


def decoded(values: pa.ChunkedArray, feature: Any) -> pa.Array:
    """Return a column with class names in the place of class numbers, and without types of the library's own."""
    column = values.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    names = feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
    if isinstance(names, list) and names and pa.types.is_integer(column.type):
        inside = pc.and_(pc.greater_equal(column, 0), pc.less(column, len(names)))  # -1 stands for a hidden label
        return pc.take(pa.array([str(name) for name in names]), pc.if_else(inside, column, None))
    return column
