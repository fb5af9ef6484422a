"""Jobs as the screens see them: shared, cancelled, dismissed, and silent once done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from influence_core import service
from influence_core.service import BadInput, ExplainRequest, Explanation, FitNeeded, InfluenceError, jobs, tasks
from influence_core.service.jobs import Jobs
from influence_core.service.worker import run_worker
from tests.service.test_catalog import frame_of


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Instead of starting a worker, note that one was asked for."""
    folders: list[Path] = []
    monkeypatch.setattr(tasks, "ensure_worker", lambda folder: bool(folders.append(folder)))
    yield folders


@pytest.fixture
def request_(own_studies: Path) -> ExplainRequest:
    return ExplainRequest((int(frame_of(own_studies / "table", "test")["id"][0]),), "gas")


def waited_for(request: ExplainRequest) -> service.JobView | None:
    """The job that Explain shows in place of an answer."""
    needed = service.explain("table", request)
    assert isinstance(needed, FitNeeded)
    return needed.job


def test_the_worker_does_what_was_asked_and_a_done_job_says_nothing(
    own_studies: Path, request_: ExplainRequest
) -> None:
    from influence_core.commands.work import execute

    job = service.start_fit("table", request_, "ann")
    assert waited_for(request_) == service.job("table", job.id) == job
    assert run_worker(own_studies, execute, idle_seconds=0.0) == 1
    done = service.job("table", job.id)
    assert done is not None and (done.state, done.fraction, done.is_active, done.message) == ("done", 1.0, False, "")
    assert tasks.found("table", job.key) is None
    assert isinstance(service.explain("table", request_), Explanation)
    import shutil

    shutil.rmtree(own_studies / "table" / "cache")  # evicted: the old job must not look as if it were under way
    assert waited_for(request_) is None


def test_a_failed_job_says_why_and_can_be_started_again(own_studies: Path, request_: ExplainRequest) -> None:
    def failing(*_: object) -> None:
        raise InfluenceError("The disk is full", "No space is left.", "Free some.")

    job = service.start_fit("table", request_, "ann")
    assert run_worker(own_studies, failing, idle_seconds=0.0) == 1
    failed = waited_for(request_)
    assert failed is not None and (failed.id, failed.state, failed.is_active) == (job.id, "failed", False)
    assert failed.message == "The disk is full: No space is left. Free some."
    again = service.start_fit("table", request_, "ann")
    assert again.id != job.id and again.state == "queued"
    assert [item.id for item in service.listed_jobs("table")] == [again.id]


def test_cancelling_leaves_the_job_to_those_who_still_wait(own_studies: Path, request_: ExplainRequest) -> None:
    job = service.start_fit("table", request_, "ann")
    assert service.start_fit("table", request_, "bob").id == job.id
    assert service.cancel_job("table", job.id, "ann") == "detached"
    assert service.job("table", job.id) == job
    assert service.cancel_job("table", job.id, "bob") == "cancelled"
    cancelled = waited_for(request_)
    assert cancelled is not None and (cancelled.state, cancelled.is_active) == ("cancelled", False)
    assert service.cancel_job("table", job.id, "bob") == "cancelled"
    assert run_worker(own_studies, lambda *_: pytest.fail("it was cancelled"), idle_seconds=0.0) == 0


def test_a_browser_counts_as_long_as_it_says_so(
    own_studies: Path, request_: ExplainRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(jobs.time, "time", lambda: clock[0])
    job = service.start_fit("table", request_, "ann")
    service.start_fit("table", request_, "bob")
    clock[0] += jobs.WAITER_SECONDS - 1
    service.touch_job("table", job.id, "bob")
    clock[0] += 2  # ann has not been heard of for too long, bob has
    assert service.cancel_job("table", job.id, "carl") == "detached"
    clock[0] += jobs.WAITER_SECONDS
    assert service.cancel_job("table", job.id, "carl") == "cancelled"
    service.touch_job("table", job.id, "nobody")
    service.touch_job("table", 999, "ann")
    assert service.job("table", 999) is None


def test_finished_jobs_leave_the_list_when_dismissed(own_studies: Path, request_: ExplainRequest) -> None:
    table = Jobs(own_studies / "table")
    finished = []
    for number in range(5):
        job = table.submit(f"key {number}", f"Job {number}", ["fit"], "ann")
        assert table.claim(job.id, os.getpid()) and table.finish(job.id, os.getpid(), "done")
        finished.append(job.id)
    active = [service.start_fit("table", request_, "ann").id, table.submit("more", "More", ["fit"], "ann").id]
    assert [job.id for job in service.listed_jobs("table")] == [*active[::-1], *finished[:1:-1]]  # the last three
    service.dismiss_job("table", finished[-1])
    assert [job.id for job in service.listed_jobs("table")] == [*active[::-1], *finished[3:0:-1]]
    service.dismiss_job("table", active[0])  # still active: it stays
    assert active[0] in [job.id for job in service.listed_jobs("table")]
    assert service.listed_jobs("linear") == [] and not (own_studies / "linear" / "jobs.sqlite").exists()


def test_looking_revives_a_worker_only_where_there_is_work(
    own_studies: Path, request_: ExplainRequest, asked: list[Path]
) -> None:
    assert service.listed_jobs("table") == [] and asked == []
    job = service.start_fit("table", request_, "ann")
    assert asked == [own_studies]
    service.listed_jobs("table")
    assert asked == [own_studies] * 2
    service.job("table", job.id)
    assert asked == [own_studies] * 3


def test_a_job_that_is_none_is_explained(own_studies: Path) -> None:
    with pytest.raises(BadInput, match="There is no such job"):
        service.cancel_job("table", 7, "ann")
    service.dismiss_job("table", 7)
    assert service.listed_jobs("table") == []


def test_a_damaged_list_is_one_message(own_studies: Path, request_: ExplainRequest) -> None:
    (own_studies / "table" / "jobs.sqlite").write_bytes(b"no database at all" * 100)
    for call in (
        lambda: service.listed_jobs("table"), lambda: service.start_fit("table", request_, "ann"),
        lambda: service.explain("table", request_),
    ):  # fmt: skip
        with pytest.raises(InfluenceError, match="The job list cannot be read") as caught:
            call()
        assert "jobs.sqlite" in caught.value.why
