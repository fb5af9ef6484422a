"""Where the studies of this process are."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def studies_folder() -> Path:
    """Return the folder of studies: ``INFLUENCE_STUDIES``, or ``studies`` beside the program."""
    return Path(os.environ.get("INFLUENCE_STUDIES", "studies"))


def parts_of(study: str) -> tuple[str, str]:
    """Return the folder's name and the version's id of ``name`` or ``name@id``; "" is the original."""
    name, at, version = study.rpartition("@")
    with suppress(OSError, ValueError):  # longer than a name can be, or with a zero byte
        if at and not (studies_folder() / study).is_dir():
            return name, version
    return study, ""


def base_name(study: str) -> str:
    """Return the study that a version is of: reviews belong to the original data."""
    return study.partition("@")[0]


def study_folder(study: str) -> Path:
    """Return the folder of a study, after its access was checked."""
    return studies_folder() / base_name(study)
