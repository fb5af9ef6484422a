"""Who brought an upload or imported a study, where people sign in.

It is written beside the studies and not into them: a study that is copied from another machine, or unpacked from an
archive that somebody sent, must not be able to say whose it is.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from influence_core.store import disk_errors

_FOLDER = ".owners"
_IN_UPLOAD = ".owner"  # nobody but the server writes into the folder of an upload


def _record(studies: Path, study: str) -> Path:
    return studies / _FOLDER / study


def claim_study(studies: Path, study: str, person: str) -> None:
    """Write down who imported a study; for a new study only."""
    file = _record(studies, study)
    with disk_errors(file):
        file.parent.mkdir(exist_ok=True)
        file.write_text(person, encoding="utf-8")


def claim_upload(folder: Path, person: str) -> None:
    """Write down who brought an upload."""
    with disk_errors(folder):
        (folder / _IN_UPLOAD).write_text(person, encoding="utf-8")


def maker_of_study(studies: Path, study: str) -> str | None:
    """Return who imported a study in the app; None if nobody did."""
    return _said(_record(studies, study))


def maker_of_upload(folder: Path) -> str | None:
    """Return who brought an upload; None if nobody signed in did."""
    return _said(folder / _IN_UPLOAD)


def forget_study(studies: Path, study: str) -> None:
    """Forget who imported a study that is gone: another one may get its name."""
    with suppress(OSError):
        _record(studies, study).unlink()


def _said(file: Path) -> str | None:
    """Return what a record says. One that cannot be read names nobody, and so does not open anything."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return ""
