"""An uploaded study before it is put into place: what its archive says, every word of it from a stranger."""

from __future__ import annotations

import tomllib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from influence_core import archive_members as members
from influence_core.archive_members import HEADER, Member
from influence_core.errors import BadInput
from influence_core.reviews import FILE_NAME as REVIEWS
from influence_core.service.import_views import StudyPreview
from influence_core.study_files import FORMAT, SPLITS

MODELS = {"cnn": "small convolutional network", "mlp": "multi-layer perceptron", "logistic": "linear model",
          "transformers": "Hugging Face model"}  # fmt: skip
_KINDS = {"table": "table", "text": "texts", "image": "images", "tensors": "arrays"}
_TITLE, _WORDS, _NOTES = 100, 500, 12  # letters, letters, sentences
_COUNTED_BYTES = 512 << 20  # of a packed table that is unpacked in order to count its rows


def study_preview(token: str, file: Path) -> StudyPreview:
    """Return what the archive of a study holds; nothing of it is unpacked to the disk.

    Args:
        token: Its upload.
        file: The archive.

    Raises:
        BadInput: It holds anything that no study has, or is damaged.
    """
    with members.opened_archive(file) as archive:
        found = members.study_members(archive, file, reviews=True, cache=True)
        header = _header(archive, found, file)
        rows = {split: n for split in SPLITS if (n := _rows(archive, found, f"{split}.parquet")) is not None}
    model = header.get("model")
    model = model if isinstance(model, Mapping) else {}
    reference = _words(model.get("reference", ""))
    architecture = _words(model.get("architecture", ""))
    label = "regression" if header.get("task") == "regression" else "classification"
    kind = _words(header.get("modality", ""))
    notes = header.get("notes")
    notes = notes if isinstance(notes, Sequence) and not isinstance(notes, str) else ()
    return StudyPreview(
        token, file.name, _title(header.get("title"), file), _words(header.get("description", "")),
        f"{label}, {_KINDS.get(kind, kind)}", rows, MODELS.get(architecture, architecture), reference,
        sum(member.entry.file_size for member in found if member.name == REVIEWS),
        sum(member.entry.file_size for member in found if member.name.startswith("cache/")),
        tuple(_words(note) for note in notes[:_NOTES]),
    )  # fmt: skip


def _header(archive: zipfile.ZipFile, found: Sequence[Member], file: Path) -> Mapping[str, Any]:
    entry = next(member.entry for member in found if member.name == HEADER)
    with archive.open(entry) as packed:
        content = packed.read(members.MAX_TEXT + 1)
    try:
        header = tomllib.loads(content.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        why = f"{file.name}: {HEADER}: {str(error)[:160].rstrip('.')}."
        raise BadInput("The study's description cannot be read", why, "Make the archive again.") from None
    version = header.get("format")
    if isinstance(version, int) and version > FORMAT:
        why = f"{file.name} has format {version}; this version reads up to {FORMAT}."
        raise BadInput("The study is from a newer version", why, "Update the program, then import the study again.")
    return header


def _rows(archive: zipfile.ZipFile, found: Sequence[Member], name: str) -> int | None:
    """Return what the end of a packed table says; None: there is none, or only unpacking all of it would tell."""
    entry = next((member.entry for member in found if member.name == name), None)
    if entry is None or (entry.compress_type != zipfile.ZIP_STORED and entry.file_size > _COUNTED_BYTES):
        return None
    try:
        with archive.open(entry) as packed, pq.ParquetFile(packed) as table:
            return int(table.metadata.num_rows)
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these two kinds
        why = f"{name}: {str(error).splitlines()[0][:160]}."
        raise BadInput("A table in the archive cannot be read", why, "Make the archive again.") from None


def _words(value: object) -> str:
    return " ".join(str(value)[: 2 * _WORDS].split())[:_WORDS]


def _title(value: object, file: Path) -> str:
    """Return a title that can be the name of an import."""
    kept = "".join(letter for letter in _words(value if isinstance(value, str) else "") if letter.isprintable())
    return kept[:_TITLE].strip() or file.name.split(".")[0]
