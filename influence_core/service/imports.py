"""Imports started in the app: an upload becomes a folder with nothing but a job, which makes it a study.

Until the job has written ``study.toml`` the folder is *pending*: no study yet, but found again by any browser and after
a restart. An import belongs to the studies folder and not to the browser that began it, so all browsers are one waiter:
whoever cancels it, cancels it.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
import threading
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from influence_core.errors import BadInput, InfluenceError
from influence_core.scratch import forget_kept
from influence_core.service import access, previews, uploads
from influence_core.service.jobs import FILE_NAME, Job, Jobs
from influence_core.service.opened import studies_folder
from influence_core.service.previews import check_images, check_import, preview, reading
from influence_core.service.tasks import job_view
from influence_core.service.uploads import uploaded_file
from influence_core.service.views import PendingImport
from influence_core.service.worker import ensure_worker
from influence_core.store import disk_errors
from influence_core.study_files import checked_title

__all__ = [
    "cancel_import", "check_images", "check_import", "discard_import", "drop_upload", "pending_import",
    "pending_imports", "preview", "reading", "retry_import", "save_upload", "start_import", "uploaded_file",
]  # fmt: skip

COMMAND = "finish-import"
_KEY = "import"
_EVERYBODY = "import"  # the one waiter
_starting = threading.Lock()


def save_upload(name: str, content: BinaryIO) -> str:
    """Keep a file that a browser sent and return its token; see :func:`influence_core.service.uploads.save_upload`."""
    access.check_create()
    uploads.forget_old(_token(job) for _, job in _imports())
    return uploads.save_upload(name, content)


def drop_upload(token: str) -> None:
    """Delete an uploaded file; nothing happens if there is none, or it is somebody else's."""
    if access.is_own_upload(studies_folder() / uploads.FOLDER / token):
        previews.close_upload(token)
        uploads.remove_upload(token)


def start_import(token: str, roles: Mapping[str, Any], title: str) -> PendingImport:
    """Begin to make a study of an uploaded file, or go on with the import of this upload that there is already.

    Args:
        token: The upload.
        roles: As :func:`check_import` returned them.
        title: What the study is called; empty: like the file.

    Raises:
        BadInput: The upload is gone, or the title has control characters or is too long.
        StoreProblem: The disk is full or refuses.
    """
    access.check_create()
    file = uploaded_file(studies_folder(), token)
    title = checked_title(title.strip() or file.name.split(".")[0])
    words = [COMMAND, "--", token, json.dumps(dict(roles)), title]  # "--": a title may begin with a hyphen
    with _starting:
        folder = next((path for path, job in _imports() if _token(job) == token), None) or _new_folder(title)
        _submit(folder, words, title)
    return _known(folder.name)


def _submit(folder: Path, words: list[str], title: str) -> None:
    try:
        Jobs(folder).submit(_KEY, f"Import {title}", words, _EVERYBODY)
    except BaseException:
        if not (folder / FILE_NAME).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    ensure_worker(studies_folder())


def _new_folder(title: str) -> Path:
    """Make the folder of a study: its title in plain letters, with a number where that is taken."""
    letters = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    name = re.sub(r"[^a-z0-9]+", "-", letters).strip("-")[:60].strip("-") or "study"
    if access.is_shared():  # whether a name is taken would say what others have
        name = f"{name}-{secrets.token_hex(3)}"
    number = 1
    with disk_errors(studies_folder()):
        while True:
            folder = studies_folder() / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir(parents=True)
                access.claim_study(folder.name)
                return folder
            except FileExistsError:
                number += 1


def _imports() -> Iterator[tuple[Path, Job]]:
    """Yield the folders whose latest import is not done, with its job."""
    for path in sorted(studies_folder().glob(f"*/{FILE_NAME}")):
        job = None
        with suppress(InfluenceError):  # the list of one study that cannot be read must not hide the others' imports
            job = Jobs(path.parent).find(_KEY)
        finished = (path.parent / "study.toml").is_file()
        if job is not None and (job.is_active or not finished):
            yield path.parent, job


def pending_imports() -> list[PendingImport]:
    """Return the imports that run, wait, failed or were cancelled, by name; looking revives a dead worker."""
    found = [_view(folder, job) for folder, job in _imports() if access.owns_study(folder.name)]
    if any(item.job.is_active for item in found):
        ensure_worker(studies_folder())
    return found


def pending_import(name: str) -> PendingImport | None:
    """Return one pending import; None if it is a study by now, or gone."""
    return next((item for item in pending_imports() if item.name == name), None)


def _view(folder: Path, job: Job) -> PendingImport:
    token, roles, title = job.argv[-3:]
    try:
        file = uploaded_file(studies_folder(), token).name
    except BadInput:
        file = ""
    return PendingImport(folder.name, title, token, json.loads(roles), file, job_view(job), job.cancel)


def _token(job: Job) -> str:
    return job.argv[-3]


def _known(name: str) -> PendingImport:
    item = pending_import(name)
    if item is None:
        why = f"'{name[:80]}' is not among the imports that are under way, failed or cancelled."
        raise BadInput("There is no such import", why, "Reload the page: it may be a study by now.")
    return item


def cancel_import(name: str) -> None:
    """Stop an import; its upload stays for another try.

    Raises:
        BadInput: There is no such import.
    """
    item = _known(name)
    Jobs(studies_folder() / item.name).cancel(item.job.id, _EVERYBODY)


def retry_import(name: str) -> PendingImport:
    """Begin a failed or cancelled import again, as it was.

    Raises:
        BadInput: There is no such import, or its upload is gone.
    """
    item = _known(name)
    return start_import(item.token, item.roles, item.title)


def discard_import(name: str) -> None:
    """Delete a failed or cancelled import with its upload.

    Raises:
        BadInput: There is no such import, or it is still running.
    """
    with _starting:
        item = _known(name)
        folder = studies_folder() / item.name
        if item.job.is_active or (folder / "study.toml").exists():
            raise BadInput("The import is still running", f"'{item.title}' is at work.", "Cancel it first.")
        with disk_errors(folder):
            shutil.rmtree(folder)
        access.forget_study(item.name)
        for rest in studies_folder().glob(f".{item.name}-import-*"):  # of a worker that was killed
            shutil.rmtree(rest, ignore_errors=True)
        forget_kept(folder)
    drop_upload(item.token)
