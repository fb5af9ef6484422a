"""``kill -9`` of the worker, as a real process: the next start resumes, ends with the same result, never loops."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from influence_core.service.jobs import DEATH_LIMIT, Job, Jobs
from influence_core.service.worker import ensure_worker

COMMAND = [sys.executable, str(Path(__file__).with_name("worker_program.py"))]


def started(studies: Path) -> list[int]:
    log = studies / "started.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def kill(pid: int) -> None:
    """Kill and wait until the process is gone (its parent, this process, collects it in a thread)."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "killed")


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TEST_IDLE_SECONDS", "20")
    folder = tmp_path / "studies"
    (folder / "digits").mkdir(parents=True)
    yield folder
    for pid in started(folder):
        if Path(f"/proc/{pid}").exists():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def jobs(studies: Path) -> Jobs:
    return Jobs(studies / "digits")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.01)


def row(jobs: Jobs, job_id: int) -> Job:
    job = jobs.get(job_id)
    assert job is not None
    return job


def polled_to_the_end(studies: Path, jobs: Jobs, job_id: int) -> Job:
    """Poll as the interface does, until the job has ended."""

    def ended() -> bool:
        ensure_worker(studies, COMMAND)
        return not row(jobs, job_id).is_active

    wait_for(ended, "ended", 120)
    return row(jobs, job_id)


def check_result(folder: Path, total: int, kills: int) -> None:
    assert (folder / "result").read_text() == str(sum(i * i for i in range(total)))
    assert sorted(int(p.stem) for p in folder.glob("*.shard")) == list(range(total))
    made = [int(line) for line in (folder / "made.log").read_text().split()]
    assert len(made) <= total, "finished shards were not made again"
    assert len(made) >= total - kills, "a shard renamed just before a kill may be missing in the log, no other"
    assert list(folder.glob("result.part")) == []


def test_a_killed_job_is_resumed_by_the_next_poll(studies: Path, jobs: Jobs) -> None:
    job_id = jobs.submit("k", "Count", ["count", "c", "20", "0.08"], "a").id
    assert ensure_worker(studies, COMMAND)
    wait_for(lambda: (row(jobs, job_id).done or 0) >= 5, "a quarter done")
    [pid] = started(studies)
    kill(pid)
    orphan = row(jobs, job_id)
    assert (orphan.state, orphan.pid, orphan.attempts) == ("running", pid, 1)
    assert jobs.submit("k", "Count", ["count", "c", "20", "0.08"], "b").id == job_id, "others still join it"
    assert ensure_worker(studies, COMMAND)
    assert polled_to_the_end(studies, jobs, job_id).state == "done"
    assert row(jobs, job_id).attempts == 2 and len(started(studies)) == 2
    check_result(jobs.study / "c", 20, kills=1)


def test_a_killed_and_cancelled_job_stays_cancelled(studies: Path, jobs: Jobs) -> None:
    job_id = jobs.submit("k", "Count", ["count", "c", "400", "0.05"], "a").id
    assert ensure_worker(studies, COMMAND)
    wait_for(lambda: (row(jobs, job_id).done or 0) >= 1, "some progress")
    kill(started(studies)[0])
    assert jobs.cancel(job_id, "a") == "cancelled"
    assert polled_to_the_end(studies, jobs, job_id).state == "cancelled"
    assert not (jobs.study / "c" / "result").exists()


@pytest.mark.slow
def test_a_job_that_kills_its_worker_is_given_up_and_the_next_runs(studies: Path, jobs: Jobs) -> None:
    deadly = jobs.submit("deadly", "Too large", ["die"], "a").id
    after = jobs.submit("after", "Count", ["count", "c", "3", "0"], "a").id
    job = polled_to_the_end(studies, jobs, deadly)
    assert job.state == "failed" and job.attempts == DEATH_LIMIT and job.message is not None
    assert job.message["what"] == "The job was given up" and "memory" in job.message["why"]
    assert polled_to_the_end(studies, jobs, after).state == "done"
    assert len(started(studies)) == DEATH_LIMIT + 1


@pytest.mark.slow
def test_a_job_that_gets_further_each_time_is_not_given_up(studies: Path, jobs: Jobs) -> None:
    job_id = jobs.submit("k", "Steps", ["advance-and-die"], "a").id
    job = polled_to_the_end(studies, jobs, job_id)
    assert job.state == "done" and job.attempts == 9


@pytest.mark.slow
def test_twenty_kills_of_one_job_end_with_the_same_result(studies: Path, jobs: Jobs) -> None:
    """One job of 100 shards, killed each time it is five shards further."""
    total = 100
    job_id = jobs.submit("k", "Count", ["count", "c", str(total), "0.04"], "a").id
    for k in range(20):

        def reached(done: int = 5 * k + 2) -> bool:
            ensure_worker(studies, COMMAND)
            return row(jobs, job_id).state == "running" and (row(jobs, job_id).done or 0) >= done

        wait_for(reached, f"shard {5 * k + 2}")
        kill(started(studies)[-1])
    job = polled_to_the_end(studies, jobs, job_id)
    assert job.state == "done" and job.attempts == 21
    check_result(jobs.study / "c", total, kills=20)


@pytest.mark.slow
def test_twenty_kills_spread_over_the_life_of_the_process(studies: Path, jobs: Jobs) -> None:
    """A fresh job each time, killed at moments spread evenly from the start of the process to beyond its last write."""
    words = ["15", "0.03"]
    start = time.monotonic()
    first = jobs.submit("first", "Count", ["count", "first", *words], "a").id
    polled_to_the_end(studies, jobs, first)
    duration = time.monotonic() - start
    kill(started(studies)[-1])
    for k in range(20):
        name = f"n{k}"
        job_id = jobs.submit(name, "Count", ["count", name, *words], "a").id
        launches = len(started(studies))

        def launched(launches: int = launches) -> bool:
            ensure_worker(studies, COMMAND)
            return len(started(studies)) > launches

        at = time.monotonic()
        wait_for(launched, "started")
        time.sleep(max(0.0, 1.1 * duration * k / 19 - (time.monotonic() - at)))
        kill(started(studies)[-1])
        assert polled_to_the_end(studies, jobs, job_id).state == "done", f"kill {k}"
        check_result(jobs.study / name, 15, kills=1)
        kill(started(studies)[-1])
    assert [job.state for job in jobs.list()] == ["done"] * 21
