"""Versions as the screens see them: what retraining would do, the job, and two versions side by side."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from influence_core.changes import resolved_changes
from influence_core.config import digest
from influence_core.costs import seconds_in_words
from influence_core.errors import BadInput, InfluenceError
from influence_core.primitives.paired import Paired as Paired
from influence_core.service import access, tasks
from influence_core.service import data as rows
from influence_core.service.catalog import default_method
from influence_core.service.folder import parts_of
from influence_core.service.opened import OpenStudy, forget, opened
from influence_core.service.quality import group_names
from influence_core.service.requests import explain
from influence_core.service.views import Datum, ExplainRequest, Explanation, FitNeeded, JobView, RowId
from influence_core.store import disk_errors
from influence_core.study import Study
from influence_core.study_changes import effective
from influence_core.versions import Version, checked_name
from influence_core.versions import delete_version as _delete
from influence_core.versions import rename_version as _rename
from influence_core.versions import versions as _versions
from influence_core.workflows import comparison as comparing
from influence_core.workflows.comparison import Comparison
from influence_core.workflows.patches import patch_bytes
from influence_core.workflows.retraining import REQUESTS, SEEDS, plan

_OTHERS = 12
_ABANDONED = 60.0  # seconds: a request so old whose job is not active (it was cancelled, say) is thrown away


@dataclass(frozen=True)
class RetrainOffer:
    """What retraining on the reviewers' decisions would do.

    Attributes:
        counts: Rows relabelled, dropped and downweighted in train, and changed in test.
        undecided: Rows on which the reviewers disagree; they stay as they are.
        in_words: What it costs; empty where it cannot be done.
        problem: Why it cannot be done; empty if it can.
        known: Id of a version that was made of just these decisions; empty if there is none.
        job: The one that is at it or has failed.
        owned: Whether whoever asks may start it.
    """

    counts: dict[str, int]
    undecided: int
    in_words: str
    problem: str
    known: str
    job: JobView | None
    owned: bool


@dataclass(frozen=True)
class Seen:
    """A prediction as one version makes it: the row, its chances, how good its models are on it, its evidence."""

    version: str
    name: str
    datum: Datum
    chances: tuple[tuple[str, float], ...]
    in_words: str
    evidence: Explanation | FitNeeded


@dataclass(frozen=True)
class SamePrediction:
    """One test row under two versions.

    Attributes:
        row_id: The row.
        chosen: How it was chosen, as a sentence.
        before, after: What the versions say of it.
        others: Rows to look at instead, ``(id, words)``: those that were wrong before, then those that changed most.
    """

    row_id: RowId
    chosen: str
    before: Seen
    after: Seen
    others: tuple[tuple[RowId, str], ...]


@dataclass(frozen=True)
class _Shared:
    """The test rows that both versions have, how close the models of each are to their labels, the worst first."""

    ids: list[RowId]
    names: list[str]
    models: int
    close: list[np.ndarray]
    wrong: list[int]
    classifies: bool

    def in_words(self, place: int) -> list[str]:
        """Return how good the models of both versions are on a row."""
        values = [float(close[place]) for close in self.close]
        if not self.classifies:
            return [f"mean loss of {_models(self.models)}: {-value:.4g}" for value in values]
        return [f"{round(value * self.models)} of {_models(self.models)} of this version right" for value in values]

    def line(self, place: int) -> str:
        """Return both in one line."""
        before, after = (float(close[place]) for close in self.close)
        if not self.classifies:
            return f"mean loss {-before:.4g}, then {-after:.4g}"
        return f"right in {round(before * self.models)}, then in {round(after * self.models)} of {_models(self.models)}"


def _models(count: int) -> str:
    return f"{count} model" if count == 1 else f"{count} models"


def _base(study: str) -> tuple[str, Study]:
    name = parts_of(study)[0]
    return name, opened(name).study


def versions(study: str) -> list[Version]:
    """Return the versions of a study, the oldest first."""
    return _versions(_base(study)[1].path)


def retrain_offer(study: str, seeds: int = SEEDS) -> RetrainOffer:
    """Return what retraining on the standing decisions would do, and what it costs."""
    name, held = _base(study)
    changes, conflicts = resolved_changes(held.path, held.header.classes)
    owned = access.role(name) == "owner"
    nothing = {"relabelled": 0, "dropped": 0, "downweighted": 0, "test": 0}
    if not effective(changes):
        return RetrainOffer(nothing, len(conflicts), "", "", "", None, owned)
    try:
        planned = plan(held, changes, opened(name).run, seeds)
    except InfluenceError as error:
        return RetrainOffer(nothing, len(conflicts), "", f"{error.what}. {error.why} {error.fix}", "", None, owned)
    known = next((version.id for version in _versions(held.path) if version.key == planned.key), "")
    cost = f"{planned.models} models to train, {seconds_in_words(planned.seconds)}"
    job = tasks.found(name, _job_key(planned.key, seeds))
    return RetrainOffer(planned.counts, len(conflicts), cost, "", known, job, owned)


def _job_key(key: str, seeds: int) -> str:
    return digest(["retrain", key, seeds])


def start_retrain(study: str, title: str, client: str, seeds: int = SEEDS) -> JobView:
    """Queue retraining on the decisions as they stand now: later ones do not change a job that waits.

    Raises:
        InfluenceError: Not whoever asks's to do, nothing to change, or it cannot be trained.
    """
    name, _ = parts_of(study)
    access.check(name, "owner")
    held, title = opened(name), checked_name(title)
    changes, _ = resolved_changes(held.study.path, held.study.header.classes)
    if not effective(changes):
        raise BadInput("There is nothing to retrain on", "No decision changes a row.", "Review some rows first.")
    planned = plan(held.study, changes, held.run, seeds)
    key = _job_key(planned.key, seeds)
    patch = held.study.path / REQUESTS / f"{key}.parquet"
    _tidy(name, patch.parent)
    with disk_errors(held.study.path):
        patch.parent.mkdir(exist_ok=True)
        patch.write_bytes(patch_bytes(changes, "parquet"))
    argv = ["retrain", "--patch", str(patch.absolute()), "--name", title, "--seeds", str(seeds)]
    return tasks.submitted(name, key, f"Retraining: {title}", argv, client, planned.seconds)


def _tidy(name: str, folder: Path) -> None:
    """Remove the requests of jobs that ended before they ran; a job that runs removes its own when it ends."""
    for path in folder.glob("*.parquet"):
        job = tasks.found(name, path.stem)
        with suppress(FileNotFoundError):
            if (job is None or not job.is_active) and time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()


def rename_version(study: str, version: str, title: str) -> None:
    """Give a version another name.

    Raises:
        InfluenceError: Not whoever asks's to rename, no such version, or the name cannot be used.
    """
    access.check(study, "owner")
    _rename(_base(study)[1].path, version, title)


def delete_version(study: str, version: str) -> None:
    """Delete a version.

    Raises:
        InfluenceError: Not whoever asks's to delete, or no such version.
    """
    access.check(study, "owner")
    name, held = _base(study)
    _delete(held.path, version)
    forget(name)


def comparison(study: str, before: str, after: str) -> Comparison:
    """Return two versions of a study side by side; "" is the original.

    Raises:
        InfluenceError: No such version, or the two cannot be compared.
    """
    held = opened(parts_of(study)[0])
    known = tuple((version.id, version.created) for version in _versions(held.study.path))
    return held.remembered(
        ("comparison", before, after, known), lambda: comparing.compare(held.study, before, after, group_names)
    )


def same_prediction(study: str, before: str, after: str, row_id: object = "") -> SamePrediction:
    """Return a test row as two versions predict it, with the training rows behind.

    By default it is the first row that was wrong before, the most confident mistake: a choice that does not look at
    what retraining did to it, as choosing the row that gained most would.

    Raises:
        InfluenceError: No such version or row.
    """
    name = parts_of(study)[0]
    shared = _shared(name, before, after)
    place = _place(shared.ids, row_id) if row_id != "" else shared.wrong[0] if shared.wrong else 0
    moved = np.abs(shared.close[1] - shared.close[0])
    changed = [p for p in np.argsort(-moved, kind="stable")[:_OTHERS].tolist() if moved[p] > 0]
    others = dict.fromkeys([*shared.wrong[:_OTHERS], *changed])
    seen = [
        _seen(name, version, title, shared.ids[place], words)
        for version, title, words in zip((before, after), shared.names, shared.in_words(place), strict=True)
    ]
    return SamePrediction(
        shared.ids[place], _chosen(shared, row_id), seen[0], seen[1],
        tuple((shared.ids[p], shared.line(p)) for p in others),
    )  # fmt: skip


def _chosen(shared: _Shared, row_id: object) -> str:
    if row_id != "":
        return "You chose this row."
    if not shared.wrong:
        return f"'{shared.names[0]}' made no mistake on these test rows: this is the first of them."
    what = "most confident mistake" if shared.classifies else "largest error"
    return f"The {what} of '{shared.names[0]}', chosen without regard to what retraining did to it."


def _shared(name: str, before: str, after: str) -> _Shared:
    held = opened(name)
    sides, _ = comparing.sides_of(held.study, before, after)
    both = comparing.Rows(held.study, "test", sides)
    ids = held.study.task.ids("test")[both.kept.numpy()].tolist()
    close = [values.mean(0) for values in comparing.closeness(both)]
    first = opened(f"{name}@{before}" if before else name)
    known = {row: place for place, row in enumerate(first.study.task.ids("test").tolist())}
    wrong = _worst(first, np.asarray([known[row] for row in ids], np.int64), both.targets.numpy())
    models, classifies = len(both.said[0]), held.study.task.loss.classifies
    return _Shared(ids, [side.name for side in sides], models, close, wrong, classifies)


def _worst(held: OpenStudy, places: np.ndarray, right: np.ndarray) -> list[int]:
    """Return the rows that the version's own model gets wrong, the most confident or the largest error first."""
    if rows.is_regression(held):
        error = np.abs(rows.predicted_numbers(held, "test")[places] - right.reshape(-1))
        return [p for p in np.argsort(-error, kind="stable").tolist() if error[p] > 0]
    chances = rows.probabilities(held, "test")[places]
    wrong = np.flatnonzero(chances.argmax(1) != right)
    return wrong[np.argsort(-chances[wrong].max(1), kind="stable")].tolist()


def _place(ids: list[RowId], row_id: object) -> int:
    for place, known in enumerate(ids):
        if str(known) == str(row_id):
            return place
    raise BadInput("Unknown row id", f"{row_id!r} is no test row that both versions have.", "Choose one of the list.")


def _seen(name: str, version: str, title: str, row: RowId, in_words: str) -> Seen:
    study = f"{name}@{version}" if version else name
    held = opened(study)
    position = [held.study.task.ids("test").tolist().index(row)]
    request = ExplainRequest(ids=(str(row),), method=default_method(study)[0], target="true", k=3)
    datum, chances = rows.data(held, "test", position)[0], rows.chances_in_words(held, "test", position)
    return Seen(study, title, datum, chances, in_words, explain(study, request))
