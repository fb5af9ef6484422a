"""Studies as a person keeps them in the app: what there is, how large it is, and renaming, deleting, taking along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from influence_core.errors import BadInput, InfluenceError
from influence_core.run import Run
from influence_core.scratch import scratch_folder
from influence_core.service import access, study_folders
from influence_core.service.folder import studies_folder
from influence_core.service.opened import forget
from influence_core.study import Study
from influence_core.study_archive import archive_files, write_archive
from influence_core.study_files import FORMAT, SPLITS, Header

DOWNLOAD_BYTES = 500_000_000  # a download is held in the server's memory
_MODELS = {
    "cnn": "small convolutional network", "mlp": "multi-layer perceptron", "logistic": "linear model",
    "transformers": "transformer",
}  # fmt: skip


@dataclass(frozen=True)
class StudyLine:
    """One study in the list of all.

    Attributes:
        kind: What it is, in words: modality, task, model.
        rows: Split -> number of rows.
        total, cache, reviews: Bytes on disk; the last two are part of the first.
        facts: Short sentences: its format, the check of its predictions, a model that is switched off.
        problem: Why it cannot be opened; empty if it can.
        busy: Title of the job that waits or runs; empty if none does.
        owned: Whether whoever asks may rename, delete and take it along.
    """

    name: str
    title: str
    kind: str
    rows: Mapping[str, int]
    total: int
    cache: int
    reviews: int
    facts: tuple[str, ...]
    problem: str
    busy: str
    owned: bool


def study_lines() -> list[StudyLine]:
    """Return the studies that whoever asks may see, in the order of their names, with what they use of the disk."""
    paths = sorted(studies_folder().glob("*/study.toml"))
    return [study_line(studies_folder() / name) for name in access.may_see(path.parent.name for path in paths)]


def study_line(path: Path) -> StudyLine:
    """Return a study as a line of a list; one that cannot be opened says why."""
    name, size = path.name, study_folders.sizes(path)
    busy = next((job.title for job in study_folders.active_jobs(path)), "")
    owned = access.owns_study(name)
    try:
        study = Study(path)
        rows = {split: study.n_rows(split) for split in SPLITS if split in study.splits}
        title, kind, facts, problem = study.header.title, _kind(study.header), _facts(study.header), ""
    except InfluenceError as error:
        title, kind, facts, problem, rows = name, "", (), str(error), {}
    return StudyLine(name, title, kind, rows, size.total, size.cache, size.reviews, facts, problem, busy, owned)


def _kind(header: Header) -> str:
    what = "regression" if header.task == "regression" else f"{len(header.classes)} classes"
    architecture = str(header.model.get("architecture", ""))
    model = _MODELS.get(architecture, architecture or "a model of its own")
    return f"{header.modality} · {what} · {model}"


def _facts(header: Header) -> tuple[str, ...]:
    facts = [f"format {FORMAT}"]
    parity: Mapping[str, Any] = header.parity
    if parity:
        agree = "equal to" if parity.get("agree") else "different from"
        facts.append(f"predictions {agree} its own model's on {parity.get('rows')} rows")
    if "reference" in header.model:
        facts.append(f"model {header.model['reference']}")
    return tuple(facts)


def rename_study(study: str, title: str) -> None:
    """Give a study another title.

    Raises:
        InfluenceError: No such study, not whoever asks's to rename, or the title cannot be used.
    """
    study_folders.rename(_owned(study), title)


def delete_study(study: str) -> int:
    """Delete a study and return the bytes that this frees.

    Raises:
        InfluenceError: No such study, not whoever asks's to delete, or a job of it waits or runs.
    """
    path = _owned(study)
    freed = study_folders.delete(path)
    forget(study)
    access.forget_study(study)
    return freed


def clear_cache(study: str) -> int:
    """Delete a study's computed results and return the bytes that this frees.

    Raises:
        InfluenceError: No such study, not whoever asks's to change, or a job of it waits or runs.
    """
    freed = study_folders.clear_cache(_owned(study))
    forget(study)
    return freed


def backup_size(study: str, *, reviews: bool = False, cache: bool = False) -> int:
    """Return about how large the archive of a study is: little in it can be packed.

    Raises:
        InfluenceError: No such study, or not whoever asks's to take along.
    """
    files = archive_files(_owned(study), reviews=reviews, cache=cache)
    return sum(path.stat().st_size for path in files if path.exists())


def backup_problem(study: str, *, reviews: bool = False, cache: bool = False) -> str:
    """Return why an archive cannot be downloaded, with the command that makes it; empty if it can.

    Raises:
        InfluenceError: No such study, or not whoever asks's to take along.
    """
    size = backup_size(study, reviews=reviews, cache=cache)
    if size <= DOWNLOAD_BYTES:
        return ""
    options = f"{' --reviews' if reviews else ''}{' --cache' if cache else ''}"
    limit = f"Above {DOWNLOAD_BYTES / 1e6:.0f} MB it is made on the server"
    return f"{limit}: python -m influence_core backup {studies_folder() / study} --out {study}.zip{options}"


def backup(study: str, *, reviews: bool = False, cache: bool = False) -> Callable[[], bytes]:
    """Return what makes the archive of a study: a download asks for it when it is clicked, in a thread of its own.

    Whether whoever asks may have it is decided now; that thread no longer knows who they are.

    Raises:
        InfluenceError: No such study, not whoever asks's to take along, or too large to be downloaded.
    """
    path = _owned(study)
    problem = backup_problem(study, reviews=reviews, cache=cache)
    if problem:
        raise BadInput("The archive is too large to be downloaded", problem + ".", "Run this command on the server.")

    def packed() -> bytes:
        with scratch_folder(path, "backup") as folder:
            return write_archive(path, folder / "study.zip", Run(), reviews=reviews, cache=cache).read_bytes()

    return packed


def _owned(study: str) -> Path:
    """Return the folder of a study that whoever asks owns; it need not open."""
    access.check(study, "owner")
    path = studies_folder() / study
    if not (path / "study.toml").is_file():
        raise access.unknown_study(study)
    return path


def tidy_studies() -> None:
    """Remove what killed processes left behind, once in the life of this process."""
    _tidied(studies_folder().absolute())


@cache
def _tidied(folder: Path) -> None:
    study_folders.tidy(folder)
