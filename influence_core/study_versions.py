"""Formats of a study folder, and how an older one is brought forward: never silently, never without a copy.

A migration changes the files it names in a *copy* of them. Only when it has ended well are the originals kept under
``before-format-N/`` and the new files moved in, ``study.toml`` last: its format number says whether it happened.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from influence_core.errors import BadInput
from influence_core.store import disk_errors

_HEADER = "study.toml"


@dataclass(frozen=True)
class Migration:
    """One step from a format to the next.

    Attributes:
        change: Called with a folder that holds copies of ``study.toml`` and ``files``, and the content of
            ``study.toml``; changes the files in place and returns the new content, without a format number.
        says: What it does, in one sentence that the user reads.
        files: Glob patterns of the files besides ``study.toml`` that it changes.
    """

    change: Callable[[Path, dict[str, Any]], Mapping[str, Any]]
    says: str
    files: tuple[str, ...] = ()


MIGRATIONS: dict[int, Migration] = {}  # format n -> how it becomes n + 1; format 1 is the first that was released


def check_format(file: Path, version: object, current: int) -> None:
    """Refuse a format that is not the present one.

    Args:
        file: The ``study.toml``.
        version: The format number in it.
        current: The format that this program writes.

    Raises:
        BadInput: It is newer, or older, or no number.
    """
    if not _is_number(version) or version > current:
        why = f"{file} has format {version}; this version reads up to {current}."
        raise BadInput("The study is from a newer version", why, "Update the program, then open the study again.")
    if version != current:
        raise BadInput(
            "The study is from an older version",
            f"{file} has format {version}; this version reads {current}.",
            f"Bring it forward; a copy of what changes is kept: python -m influence_core migrate {file.parent}",
        )


def migrated(study: Path, current: int) -> list[str]:
    """Bring a study folder forward to the present format, keeping the originals of what changes.

    Interrupted at any moment, it can be called again: until the last file is in place, it starts from the originals.

    Returns:
        What was done, a sentence per step; empty if the study has the present format.

    Raises:
        BadInput: No study there, one from a newer version, or one too old for this program.
        StoreProblem: The disk is full or refuses.
    """
    file, said = study / _HEADER, []
    while True:
        version = _content(file).get("format")
        if not _is_number(version) or version >= current:
            check_format(file, version, current)
            return said
        if version not in MIGRATIONS:
            why = f"{file} has format {version}, and this program has no way from there to {current}."
            fix = "Bring it forward with the version of the program in between."
            raise BadInput("The study is too old", why, fix)
        kept = study / f"before-format-{version + 1}"
        with disk_errors(study):
            _step(study, MIGRATIONS[version], version, kept)
        said.append(f"Format {version} to {version + 1}: {MIGRATIONS[version].says} The originals are in {kept.name}/.")


def _is_number(version: object) -> TypeGuard[int]:
    return isinstance(version, int) and not isinstance(version, bool)  # True is an int, and 1.0 equals 1


def _content(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput("There is no study here", f"{file} does not exist.", "Give a study folder.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput("The study cannot be read", f"{file}: {error}.", "Restore study.toml from a copy.") from None


def _step(study: Path, migration: Migration, version: int, kept: Path) -> None:
    import tomli_w

    work = study / f".format-{version + 1}.part"
    shutil.rmtree(work, ignore_errors=True)
    if kept.exists():  # a former try died while it moved files in: begin again from the originals
        _copied(kept, study, _names(kept, ("**/*",)))
    try:
        names = [Path(_HEADER), *_names(study, migration.files)]
        new, originals = work / "new", work / "originals"
        for folder in (new, originals):
            _copied(study, folder, names)
        content = dict(migration.change(new, {k: v for k, v in _content(new / _HEADER).items() if k != "format"}))
        (new / _HEADER).write_text(tomli_w.dumps({"format": version + 1, **content}), encoding="utf-8")
        shutil.rmtree(kept, ignore_errors=True)
        originals.rename(kept)
        for name in [*names[1:], names[0]]:
            os.replace(new / name, study / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _names(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    """Return the files that match, relative to the folder, each once."""
    found = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    return sorted(found - {Path(_HEADER)})


def _copied(source: Path, target: Path, names: list[Path]) -> None:
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, target / name)
