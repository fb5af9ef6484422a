"""Versions through the service: the offer, the job and its request, the same prediction, rights."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from influence_core import service
from influence_core.commands.work import execute
from influence_core.errors import BadInput, InfluenceError
from influence_core.reviews import Act, Decision, Reviews
from influence_core.service import access, data, tasks
from influence_core.service.opened import opened
from influence_core.service.worker import run_worker
from tests.more_studies import BUILDERS
from tests.service.test_access import BOB


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Instead of starting a worker, note that one was asked for."""
    folders: list[Path] = []
    monkeypatch.setattr(tasks, "ensure_worker", lambda folder: bool(folders.append(folder)))
    yield folders


def decided(count: int = 6, first: int = 1) -> list[int]:
    """Ann relabels the first rows that are wrong on purpose; returns their ids."""
    study = opened("table").study
    truth, given, ids = study.true_labels, study.column("train", "label"), study.column("train", "id").tolist()
    assert truth is not None and study.planted is not None
    wrong = np.flatnonzero(study.planted)[:count].tolist()
    decisions = [Decision("train", ids[i], "relabel", str(truth[i]), given=str(given[i])) for i in wrong]
    Reviews(study.path).record("ann", [Act("tab", first, "decide", tuple(decisions))])
    return [ids[i] for i in wrong]


def requests(studies: Path) -> list[Path]:
    return sorted((studies / "table" / ".retrain").glob("*"))


def retrained(studies: Path, title: str = "after review") -> str:
    service.start_retrain("table", title, "ann", 2)
    assert run_worker(studies, execute, idle_seconds=0.0) == 1
    return service.versions("table")[-1].id


def test_nothing_decided_offers_nothing(own_studies: Path) -> None:
    offer = service.retrain_offer("table")
    assert not any(offer.counts.values()) and offer.problem == "" and offer.job is None and offer.owned
    with pytest.raises(BadInput, match="nothing to retrain on"):
        service.start_retrain("table", "x", "ann")


def test_decisions_are_offered_trained_by_the_worker_and_then_known(own_studies: Path) -> None:
    decided()
    offer = service.retrain_offer("table", 2)
    assert offer.counts == {"relabelled": 6, "dropped": 0, "downweighted": 0, "test": 0}
    assert offer.in_words.startswith("5 models to train, ") and offer.known == ""
    job = service.start_retrain("table", "after review", "ann", 2)
    assert len(requests(own_studies)) == 1
    waiting = service.retrain_offer("table", 2).job
    assert waiting is not None and waiting.id == job.id and waiting.is_active
    assert service.start_retrain("table", "after review", "bob", 2).id == job.id
    assert run_worker(own_studies, execute, idle_seconds=0.0) == 1
    (version,) = service.versions("table")
    assert version.name == "after review" and service.retrain_offer("table", 2).known == version.id
    assert requests(own_studies) == [], "the request went with its job"
    assert service.overview(f"table@{version.id}").n_params == service.overview("table").n_params


def test_later_decisions_do_not_change_a_job_that_waits(own_studies: Path) -> None:
    decided(2)
    service.start_retrain("table", "two", "ann", 1)
    decided(6, 2)
    assert run_worker(own_studies, execute, idle_seconds=0.0) == 1
    assert service.versions("table")[0].counts["relabelled"] == 2
    assert service.retrain_offer("table", 1).known == "" and service.retrain_offer("table", 1).counts["relabelled"] == 6


def test_a_job_that_fails_takes_its_request_along_and_says_why(own_studies: Path) -> None:
    decided(2)
    service.start_retrain("table", "two", "ann", 1)
    path = requests(own_studies)[0]
    path.write_bytes(b"no table")
    assert run_worker(own_studies, execute, idle_seconds=0.0) == 1
    job = service.retrain_offer("table", 1).job
    assert job is not None and job.state == "failed" and job.message != "" and requests(own_studies) == []
    assert retrained(own_studies) == "v1"


def test_the_request_of_a_cancelled_job_goes_at_the_next_start(own_studies: Path) -> None:
    decided(2)
    job = service.start_retrain("table", "two", "ann", 1)
    assert service.cancel_job("table", job.id, "ann") == "cancelled"
    (left,) = requests(own_studies)
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    decided(6, 2)
    service.start_retrain("table", "six", "ann", 1)
    assert len(requests(own_studies)) == 1 and left not in requests(own_studies)


def test_the_same_prediction_begins_with_the_most_confident_mistake(own_studies: Path) -> None:
    decided()
    version = retrained(own_studies)
    shown = service.same_prediction("table", "", version)
    held = opened("table")
    chances, given = data.probabilities(held, "test"), data.given_labels(held, "test")
    wrong = np.flatnonzero(chances.argmax(1) != given)
    assert len(wrong) > 1
    worst = wrong[chances[wrong].max(1).argmax()]
    assert shown.row_id == held.study.column("test", "id")[worst]
    assert "most confident mistake of 'original'" in shown.chosen and "gained" not in shown.chosen
    assert shown.others[0][0] == shown.row_id
    assert [row for row, _ in shown.others][: len(wrong)] == [
        held.study.column("test", "id")[i] for i in wrong[np.argsort(-chances[wrong].max(1), kind="stable")]
    ][:12]
    assert shown.before.datum.predicted != shown.before.datum.given
    assert "of 2 models of this version right" in shown.after.in_words
    other = held.study.column("test", "id")[0]
    picked = service.same_prediction("table", "", version, str(other))
    assert picked.row_id == other and picked.chosen == "You chose this row."
    assert picked.after.version == f"table@{version}" and picked.after.datum.row_id == other
    with pytest.raises(BadInput, match="Unknown row id"):
        service.same_prediction("table", "", version, "no such")


def test_of_a_regression_it_begins_with_the_largest_error_and_speaks_of_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUILDERS["diabetes"](tmp_path / "numbers")
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path))
    study = opened("numbers").study
    row = study.column("train", "id").tolist()[0]
    Reviews(study.path).record("ann", [Act("tab", 1, "decide", (Decision("train", row, "drop"),))])
    service.start_retrain("numbers", "one less", "ann", 2)
    assert run_worker(tmp_path, execute, idle_seconds=0.0) == 1
    shown, errors = service.same_prediction("numbers", "", "v1"), data.errors(opened("numbers"), "test")
    assert shown.row_id == study.column("test", "id")[np.abs(errors).argmax()]
    assert shown.chosen.startswith("The largest error of 'original'")
    assert shown.before.in_words.startswith("mean loss of 2 models: ") and "right" not in str(shown.others)
    found = service.comparison("numbers", "", "v1")
    assert found.confusion is None and found.agreement is None and found.alarm == "" and "mean loss" in found.headline


def test_only_an_owner_retrains_renames_and_deletes(own_studies: Path) -> None:
    decided(2)
    version = retrained(own_studies)
    rights = f'[studies.table]\nviewer = ["{BOB}"]\n'
    (own_studies / "access.toml").write_text(rights, encoding="utf-8")
    access._registered.clear()
    access.set_identity(lambda: BOB, "on", None)
    try:
        decided_rows = service.retrain_offer("table", 1)
        assert not decided_rows.owned
        for attempt in (
            lambda: service.start_retrain("table", "x", "bob", 1), lambda: service.delete_version("table", version),
            lambda: service.rename_version("table", version, "x"),
        ):  # fmt: skip
            with pytest.raises(InfluenceError):
                attempt()
        assert service.comparison("table", "", version).names == ("original", "after review")
    finally:
        access._registered.clear()
    assert [made.name for made in service.versions("table")] == ["after review"]


def test_renamed_and_deleted_versions(own_studies: Path) -> None:
    decided(2)
    version = retrained(own_studies)
    service.rename_version("table", version, " the   first ")
    assert service.comparison("table", "", version).names[1] == "the first"
    service.delete_version("table", version)
    assert service.versions("table") == [] and service.retrain_offer("table", 2).known == ""
    with pytest.raises(BadInput, match="Unknown version"):
        service.overview(f"table@{version}")
    assert retrained(own_studies) == "v1"
    shutil.rmtree(own_studies / "table" / "cache")  # a version stands without the cache
    assert service.comparison("table", "", "v1").seeds == (0, 1)
