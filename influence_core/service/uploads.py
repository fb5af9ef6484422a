"""Files that a browser brought, until they are imported: ``<studies>/.uploads/<token>/<name>``."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from influence_core.errors import BadInput
from influence_core.service import access
from influence_core.service.folder import studies_folder
from influence_core.store import disk_errors

FOLDER = ".uploads"
# The same as server.maxUploadSize in .streamlit/config.toml. Streamlit holds an upload in memory until the screen lets
# go of it, so one must fit into a small server beside an import. The command line has no such limit.
MAX_BYTES = 500 << 20
KEEP_SECONDS = 24 * 3600.0  # of an upload that nobody looked at and no import needs
_CHUNK = 1 << 20
_MAX_NAME = 120  # characters
_TOKEN = re.compile(r"[0-9a-f]{32}")


def save_upload(name: str, content: BinaryIO) -> str:
    """Keep a file that a browser sent; return the token that names it from now on.

    Args:
        name: What the browser calls it; only its last part is used, made safe.
        content: Its bytes, read in pieces.

    Raises:
        BadInput: It is empty or has more than ``MAX_BYTES``, or whoever asks may not import.
        StoreProblem: The disk is full or refuses.
    """
    access.check_create()
    token = secrets.token_hex(16)
    folder = studies_folder() / FOLDER / token
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True)
            fix = "Import it on the server: python -m influence_core import FILE --out studies/NAME"
            written = copied(content, folder / ".part", MAX_BYTES, fix)
            if not written:
                raise BadInput("The file is empty", f"'{name[:80]}' has no bytes.", "Choose a file with rows.")
            access.claim_upload(folder)
            (folder / ".part").rename(folder / safe_name(name))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return token


def copied(content: BinaryIO, target: Path, most: int, fix: str) -> int:
    """Write what a browser sends into a file, in pieces, and return how many bytes it has.

    Raises:
        BadInput: They are more than ``most``; ``fix`` says what to do instead.
    """
    written = 0
    with target.open("wb") as out:
        while chunk := content.read(_CHUNK):
            written += len(chunk)
            if written > most:
                raise BadInput("The file is too large to be sent", f"It has more than {most:,} bytes.", fix)
            out.write(chunk)
    return written


def safe_name(name: str) -> str:
    """Return the last part of a file's name with letters, digits and ``. - _`` only; its ending stays."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    kept = re.sub(r"[^\w.-]+", "_", last).lstrip(".")
    if len(kept) > _MAX_NAME:
        stem, dot, ending = kept.rpartition(".")
        kept = stem[: _MAX_NAME - 12] + dot + ending[:11] if dot else kept[:_MAX_NAME]
    while len(kept.encode()) > 240:  # a file system counts bytes
        kept = kept[1:]
    return kept if kept.strip("._-") else "table"


def uploaded_file(studies: Path, token: str) -> Path:
    """Return the file of a token; looking at it keeps it for another day.

    Raises:
        BadInput: No such upload, or no longer, or somebody else's.
    """
    folder = studies / FOLDER / token
    if _TOKEN.fullmatch(token) and folder.is_dir() and access.is_own_upload(folder):
        for file in folder.iterdir():
            if not file.name.startswith("."):
                with suppress(OSError):
                    os.utime(folder)
                return file
    raise BadInput(
        "The uploaded file is gone",
        "It was imported or discarded, or a day has passed.",
        "Choose the file again.",
    )


def remove_upload(token: str) -> None:
    """Delete an uploaded file; nothing happens if there is none, or it is somebody else's."""
    folder = studies_folder() / FOLDER / token
    if _TOKEN.fullmatch(token) and access.is_own_upload(folder):
        shutil.rmtree(folder, ignore_errors=True)


def forget_old(needed: Iterable[str]) -> None:
    """Delete uploads that nobody has looked at for a day, except those that a pending import needs."""
    needed, before = set(needed), time.time() - KEEP_SECONDS
    for folder in (studies_folder() / FOLDER).glob("*"):
        with suppress(OSError):
            if folder.name not in needed and folder.stat().st_mtime < before:
                shutil.rmtree(folder, ignore_errors=True)
