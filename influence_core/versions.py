"""Versions of a study: corrected labels, rows left out or made lighter, and a model that was trained on that.

A version is a folder ``versions/<id>/`` with ``version.toml``, ``changes.parquet`` (every change against the original
data, so that no chain of versions has to be followed), its checkpoints, and what the models of the comparison said. It
is written beside and renamed when whole. The study's own files, fingerprint and cached results stay as they are.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from influence_core.changes import Change, changes_of_table, patch_table
from influence_core.errors import BadInput
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.study_changes import grown_model, split_changes
from influence_core.study_files import States, checked_title
from influence_core.tables import reading

FOLDER = "versions"
FORMAT = 1
MAX_NAME = 60
_ID = re.compile(r"v[1-9]\d{0,5}")
_RESTORE = "Restore it, or delete the version."
_FILE, _CHANGES, _OUTCOMES = "version.toml", "changes.parquet", "outcomes.safetensors"


@dataclass(frozen=True)
class Version:
    """What ``version.toml`` says.

    Attributes:
        id: ``v1``, ``v2``, ...
        parent: The version whose changes these began with; empty for the original.
        created: Seconds since 1970.
        key: Hash of the original study and of all changes.
        seeds: Of the paired models that the comparison is about; the first one's checkpoints are the version's.
        classes: All class names, new ones last.
        counts: How many rows were relabelled, dropped and downweighted in train, and changed in test.
        checkpoints, losses: As in ``study.toml``: recorded weights, and the mean training loss of every epoch.
        predicted: What influence expected of the changes; see ``workflows.retraining``.
        notes: What the reader should know, in sentences.
    """

    id: str
    name: str
    parent: str
    created: float
    key: str
    seeds: tuple[int, ...]
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    losses: tuple[float, ...] = ()
    predicted: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def versions(study: Path) -> list[Version]:
    """Return the versions of a study folder that can be read, the oldest first."""
    found = []
    folder = study / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if _ID.fullmatch(path.name) and (path / _FILE).is_file():
            try:
                found.append(read_version(study, path.name))
            except BadInput:  # it says what is wrong when it is opened
                continue
    return sorted(found, key=lambda version: int(version.id[1:]))


def read_version(study: Path, version_id: str) -> Version:
    """Read what a version says of itself.

    Raises:
        BadInput: There is none, it is damaged, or from a newer program.
    """
    file = study / FOLDER / version_id / _FILE
    try:
        if not _ID.fullmatch(version_id):
            raise FileNotFoundError
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        known = ", ".join(f"{version.id} ({version.name})" for version in versions(study)) or "none yet"
        why = f"'{version_id[:40]}' is none of this study."
        raise BadInput("Unknown version", why, f"There is: {known}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput("The version cannot be read", f"{file}: {error}.", _RESTORE) from None
    if content.pop("format", None) != FORMAT:
        raise BadInput("The version has an unknown format", f"{file}.", "Update the program.")
    try:
        return Version(
            version_id, str(content["name"]), str(content["parent"]), float(content["created"]), str(content["key"]),
            tuple(int(seed) for seed in content["seeds"]), tuple(str(name) for name in content["classes"]),
            {str(name): int(count) for name, count in content["counts"].items()},
            tuple({**entry, "file": str(entry["file"])} for entry in content["checkpoints"]),
            tuple(float(loss) for loss in content["losses"]), dict(content.get("predicted", {})),
            tuple(str(note) for note in content["notes"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput("The version is incomplete", f"{file}: {error}.", _RESTORE) from None


def version_changes(study: Study, version_id: str) -> list[Change]:
    """Return every change of a version against the original data; none for the original, ``""``.

    Raises:
        BadInput: They cannot be read.
    """
    if version_id == "":
        return []
    read_version(study.path, version_id)
    path = study.path / FOLDER / version_id / _CHANGES
    with reading(path, "The changes of the version cannot be read"):
        table = pq.read_table(path).to_pandas()
    numbers = study.column("train", study.header.id).dtype.kind in "iu"
    return changes_of_table(table, ids_are_numbers=numbers)


def version_outcomes(study: Path, version_id: str) -> dict[str, Tensor]:
    """Return what the models of a version's comparison said, by name.

    Raises:
        BadInput: They cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = study / FOLDER / version_id / _OUTCOMES
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput("The version cannot be compared", f"{path}: {error}.", "Retrain it.") from None


def opened_version(study: Study, version_id: str) -> Study:
    """Return a study as a version of it; ``""`` is the original."""
    original = Study(study.path)
    if version_id == "":
        return original
    version, result, header = read_version(study.path, version_id), Study(study.path), original.header
    model = grown_model(header.model, header.loss, len(header.classes), len(version.classes or header.classes))
    result._changed = split_changes(original, version_changes(original, version_id))
    result.header = replace(
        header, title=f"{header.title} · {version.name}", classes=version.classes or header.classes, model=model,
        checkpoints=version.checkpoints, notes=(*header.notes, *version.notes), parity={},
        training={"loss": list(version.losses)},
    )  # fmt: skip
    result.made = version
    return result


def write_version(
    study: Path, version: Version, changes: Sequence[Change], states: States, outcomes: Mapping[str, Tensor]
) -> Version:
    """Write a version, all of it or nothing, and return it with its id and the places of its checkpoints.

    Args:
        study: The study's folder.
        version: Its id is given here; checkpoint files are named relative to its own folder.
        changes: Against the original data.
        states: Checkpoint file, as ``checkpoints/NAME.safetensors`` -> weights.
        outcomes: What the models of the comparison said, by name.

    Raises:
        StoreProblem: The disk is full or refuses.
    """
    from safetensors.torch import save_file

    folder = study / FOLDER
    part = folder / f".part-{secrets.token_hex(6)}"
    try:
        with disk_errors(study):
            (part / "checkpoints").mkdir(parents=True)
            table = pa.Table.from_pandas(patch_table(changes), preserve_index=False)
            pq.write_table(table, part / _CHANGES)
            save_file({name: values.contiguous() for name, values in outcomes.items()}, part / _OUTCOMES)
            for name, state in states.items():
                save_file({key: value.contiguous() for key, value in state.items()}, part / name)
            while True:
                named = _named(version, _next_id(folder))
                _write_toml(part / _FILE, named)
                try:
                    part.rename(folder / named.id)
                except OSError:  # another process was faster
                    if not (folder / named.id).exists():
                        raise
                else:
                    return named
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _next_id(folder: Path) -> str:
    used = [int(path.name[1:]) for path in folder.iterdir() if _ID.fullmatch(path.name)]
    return f"v{max(used, default=0) + 1}"


def _named(version: Version, version_id: str) -> Version:
    entries = tuple({**e, "file": f"{FOLDER}/{version_id}/{e['file']}"} for e in version.checkpoints)
    return replace(version, id=version_id, checkpoints=entries)


def _write_toml(file: Path, version: Version) -> None:
    import tomli_w

    content = {name: value for name, value in vars(version).items() if name != "id"}
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in content.items()}
    file.write_text(tomli_w.dumps({"format": FORMAT, **plain}), encoding="utf-8")


def rename_version(study: Path, version_id: str, name: str) -> Version:
    """Give a version another name.

    Raises:
        BadInput: There is no such version, or the name cannot be used.
        StoreProblem: The disk is full or refuses.
    """
    version = replace(read_version(study, version_id), name=checked_name(name))
    part = study / FOLDER / version_id / f".{_FILE}.{secrets.token_hex(4)}"
    with disk_errors(study):
        _write_toml(part, version)
        part.replace(study / FOLDER / version_id / _FILE)
    return version


def delete_version(study: Path, version_id: str) -> None:
    """Delete a version with its weights; results that were computed with it go with the cache.

    Raises:
        BadInput: There is no such version.
        StoreProblem: The disk refuses.
    """
    read_version(study, version_id)
    gone = study / FOLDER / f".gone-{secrets.token_hex(6)}"
    with disk_errors(study):
        (study / FOLDER / version_id).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def checked_name(name: str) -> str:
    """Return a version's name with single spaces.

    Raises:
        BadInput: It is empty, too long, or has invisible characters.
    """
    return checked_title(name, MAX_NAME)
