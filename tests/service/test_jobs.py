"""The jobs table: sharing, waiting, cancelling, time left, recovery and refusals."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from influence_core.database import Database
from influence_core.errors import BadInput, InfluenceError, StoreProblem
from influence_core.service import jobs as jobs_module
from influence_core.service.jobs import ATTEMPT_LIMIT, DEATH_LIMIT, WAITER_SECONDS, Jobs, Progress

ROOT = Path(jobs_module.__file__).resolve().parents[2]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    study = tmp_path / "digits"
    study.mkdir()
    return Jobs(study)


def submit(jobs: Jobs, key: str = "k", client: str = "a"):
    return jobs.submit(key, f"Fit {key}", ["fit", "--method", key], client, 12.5)


def running(jobs: Jobs, key: str = "k", client: str = "a", pid: int = 77) -> int:
    job = submit(jobs, key, client)
    assert jobs.claim(job.id, pid)
    return job.id


def query(jobs: Jobs, statement: str, *values: object) -> list[tuple]:
    db = sqlite3.connect(jobs.path)
    try:
        with db:
            return db.execute(statement, values).fetchall()
    finally:
        db.close()


def clients(jobs: Jobs, job_id: int) -> set[str]:
    return {row[0] for row in query(jobs, "SELECT client FROM waiters WHERE job_id = ?", job_id)}


def test_submitted_job_reads_back_as_given(jobs: Jobs) -> None:
    before = time.time()
    job = jobs.submit("k", "Anpassen „ü“ ' ; --", ["fit", "--title", "a 'b' \"c\" ü"], "a", 12.5)
    assert jobs.get(job.id) == jobs.find("k") == job
    assert (job.state, job.title, job.argv) == ("queued", "Anpassen „ü“ ' ; --", ("fit", "--title", "a 'b' \"c\" ü"))
    assert (job.estimate_seconds, job.attempts, job.message, job.started, job.stage) == (12.5, 0, None, None, "")
    assert before <= job.created <= time.time()
    assert job.is_active and job.fraction == 0.0 and job.seconds_left is None
    assert query(jobs, "PRAGMA journal_mode") == [("wal",)]


def test_equal_keys_share_one_job_while_active(jobs: Jobs) -> None:
    first = submit(jobs, client="a")
    assert submit(jobs, client="b").id == first.id
    jobs.claim(first.id, 77)
    third = submit(jobs, client="c")
    assert third.id == first.id and third.state == "running"
    assert submit(jobs, key="other").id != first.id
    assert clients(jobs, first.id) == {"a", "b", "c"}
    assert query(jobs, "SELECT count(*) FROM jobs") == [(2,)]


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_a_finished_key_gets_a_new_row(jobs: Jobs, state) -> None:
    first = running(jobs)
    jobs.finish(first, 77, state, InfluenceError("w", "y", "f") if state == "failed" else None)
    again = submit(jobs)
    assert again.id > first and again.state == "queued" and again.attempts == 0
    old = jobs.get(first)
    assert old is not None and old.state == state and old.dismissed
    assert jobs.list() == [again] and jobs.find("k") == again


SUBMITTER = """
import sys, threading, time
from pathlib import Path
from influence_core.service.jobs import Jobs
study, name = Path(sys.argv[1]), sys.argv[2]
found, errors = set(), []
def submit(i):
    try:
        found.add(Jobs(study).submit("k", "t", ["fit"], f"{name}-{i}").id)
    except Exception as error:
        errors.append(repr(error))
Path(study.parent, name).touch()
while not Path(study.parent, "go").exists(): time.sleep(0.001)
threads = [threading.Thread(target=submit, args=(i,)) for i in range(20)]
for t in threads: t.start()
for t in threads: t.join()
print(sorted(found), errors)
"""


def test_two_processes_of_twenty_threads_make_one_row(jobs: Jobs, tmp_path: Path) -> None:
    """The file does not exist yet: its making is part of the race."""
    program = [sys.executable, "-c", SUBMITTER, str(jobs.study)]
    processes = [subprocess.Popen([*program, name], stdout=subprocess.PIPE, text=True, cwd=ROOT) for name in "pq"]
    while not all((tmp_path / name).exists() for name in "pq"):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert answers == ["[1] []", "[1] []"]
    assert query(jobs, "SELECT count(*) FROM jobs") == [(1,)]
    assert len(clients(jobs, 1)) == 40


def test_threads_share_one_object(jobs: Jobs) -> None:
    errors: list[BaseException] = []

    def use(i: int) -> None:
        try:
            job = submit(jobs, key=f"k{i % 5}", client=f"c{i}")
            jobs.touch(job.id, f"c{i}")
            assert jobs.get(job.id) is not None
            assert jobs.list(active_only=True)
        except BaseException as error:  # noqa: BLE001 (handed to the main thread)
            errors.append(error)

    threads = [threading.Thread(target=use, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(job.key for job in jobs.list()) == ["k0", "k1", "k2", "k3", "k4"]


def test_cancelling_alone_cancels_a_queued_job_at_once(jobs: Jobs) -> None:
    job = submit(jobs)
    assert jobs.cancel(job.id, "a") == "cancelled"
    ended = jobs.get(job.id)
    assert ended is not None and ended.state == "cancelled" and ended.finished is not None
    assert not jobs.claim(job.id, 77)
    assert jobs.cancel(job.id, "a") == "cancelled"


def test_cancelling_a_running_job_sets_the_flag_only(jobs: Jobs) -> None:
    job_id = running(jobs)
    assert jobs.pulse(job_id, 77, Progress()) == "run"
    assert jobs.cancel(job_id, "a") == "cancelled"
    job = jobs.get(job_id)
    assert job is not None and job.state == "running" and job.cancel
    assert jobs.pulse(job_id, 77, Progress()) == "cancel"


def test_cancelling_detaches_while_another_waits(jobs: Jobs) -> None:
    job_id = running(jobs, client="a")
    submit(jobs, client="b")
    assert jobs.cancel(job_id, "a") == "detached"
    assert clients(jobs, job_id) == {"b"}
    assert not jobs.touch(job_id, "a") and clients(jobs, job_id) == {"b"}
    assert jobs.pulse(job_id, 77, Progress()) == "run"
    assert jobs.cancel(job_id, "b") == "cancelled"
    assert jobs.pulse(job_id, 77, Progress()) == "cancel"


def test_only_waiters_seen_lately_keep_a_job(jobs: Jobs) -> None:
    job = submit(jobs, client="a")
    submit(jobs, client="gone")
    submit(jobs, client="still-there")
    query(jobs, "UPDATE waiters SET seen = ? WHERE client != 'a'", time.time() - WAITER_SECONDS - 1)
    assert jobs.touch(job.id, "still-there")
    assert jobs.cancel(job.id, "a") == "detached"
    query(jobs, "UPDATE waiters SET seen = ?", time.time() - WAITER_SECONDS - 1)
    assert jobs.cancel(job.id, "a") == "cancelled"


def test_a_client_that_never_waited_can_cancel_an_abandoned_job(jobs: Jobs) -> None:
    job = submit(jobs)
    query(jobs, "DELETE FROM waiters")
    assert jobs.cancel(job.id, "reloaded") == "cancelled"


def test_cancelling_what_is_done_or_unknown(jobs: Jobs) -> None:
    job_id = running(jobs)
    jobs.finish(job_id, 77, "done")
    assert jobs.cancel(job_id, "a") == "detached"
    with pytest.raises(BadInput, match="no job 99"):
        jobs.cancel(99, "a")


def test_joining_takes_back_a_cancellation(jobs: Jobs) -> None:
    job_id = running(jobs)
    jobs.cancel(job_id, "a")
    assert submit(jobs, client="b").id == job_id
    assert jobs.pulse(job_id, 77, Progress()) == "run"
    # The worker had seen the flag before and stopped: the job goes back to the queue for the newcomer.
    assert jobs.give_back(job_id, 77)
    job = jobs.get(job_id)
    assert job is not None and (job.state, job.attempts, job.pid, job.finished) == ("queued", 0, None, None)


def test_giving_back_a_cancelled_job_ends_it(jobs: Jobs) -> None:
    job_id = running(jobs)
    jobs.cancel(job_id, "a")
    assert jobs.give_back(job_id, 77)
    job = jobs.get(job_id)
    assert job is not None and job.state == "cancelled" and job.finished is not None


def test_list_is_newest_first_and_without_dismissed(jobs: Jobs) -> None:
    ids = [submit(jobs, key=f"k{i}").id for i in range(4)]
    jobs.claim(ids[0], 77)
    jobs.finish(ids[0], 77, "done")
    assert [job.id for job in jobs.list()] == ids[::-1]
    assert [job.id for job in jobs.list(active_only=True)] == ids[:0:-1]
    assert not jobs.dismiss(ids[1]), "an active job cannot be dismissed"
    assert jobs.dismiss(ids[0]) and not jobs.dismiss(99)
    assert [job.id for job in jobs.list()] == ids[:0:-1]
    found = jobs.find("k0")
    assert found is not None and found.dismissed


def test_queue_order_and_single_claim(jobs: Jobs) -> None:
    first, second = submit(jobs, key="x"), submit(jobs, key="y")
    queued = jobs.next_queued()
    assert queued is not None and queued.id == first.id
    assert jobs.claim(first.id, 77) and not jobs.claim(first.id, 78)
    queued = jobs.next_queued()
    assert queued is not None and queued.id == second.id
    assert jobs.pulse(first.id, 78, Progress()) == "lost"
    assert not jobs.finish(first.id, 78, "done") and jobs.finish(first.id, 77, "done")
    assert jobs.pulse(first.id, 77, Progress()) == "lost"


def test_progress_and_time_left(jobs: Jobs) -> None:
    """Ten units in five seconds from a base of 40: 50 more units take 25 seconds."""
    job_id = running(jobs)
    now = time.time()
    progress = Progress().after("gradients", 40, 100, now - 5.0).after("gradients", 50, 100, now)
    assert jobs.pulse(job_id, 77, progress) == "run"
    job = jobs.get(job_id)
    assert job is not None and job.heartbeat is not None
    assert (job.stage, job.done, job.total, job.fraction) == ("gradients", 50.0, 100.0, 0.5)
    assert job.seconds_left == pytest.approx(25.0 - (job.heartbeat - now), abs=1e-3)
    assert now <= job.heartbeat <= time.time()


def test_time_left_is_none_until_it_means_something(jobs: Jobs) -> None:
    job_id = running(jobs)

    def left(progress: Progress) -> float | None:
        jobs.pulse(job_id, 77, progress)
        job = jobs.get(job_id)
        assert job is not None
        return job.seconds_left

    now = time.time()
    start = Progress().after("s", 0, 10, now)
    assert left(Progress()) is None and left(start) is None
    assert left(start.after("s", 5, 10, now + 0.5)) is None, "half a second is too short to measure a rate"
    assert left(start.after("s", 0, 10, now + 9)) is None, "nothing done"
    assert left(start.after("s", 5, 10, now + 2.0)) == pytest.approx(2.0, abs=0.2)
    assert left(start.after("s", 10, 10, now + 2.0)) == 0.0
    assert left(Progress().after("s", 0, 0, now).after("s", 3, 0, now + 5)) is None, "no total"


def test_a_new_stage_or_total_begins_a_new_rate() -> None:
    first = Progress().after("a", 0, 10, 100.0).after("a", 10, 10, 110.0)
    assert (first.base_done, first.base_time) == (0, 100.0)
    for later in (first.after("b", 0, 10, 111.0), first.after("a", 10, 20, 111.0), first.after("a", 3, 10, 111.0)):
        assert (later.base_done, later.base_time, later.changed) == (later.done, 111.0, 111.0)


def test_fraction_stays_between_zero_and_one(jobs: Jobs) -> None:
    job_id = running(jobs)
    for done, total, expected in [(5, 4, 1.0), (-1, 4, 0.0), (1, 0, 0.0), (float("nan"), 4, 0.0), (1, 4, 0.25)]:
        jobs.pulse(job_id, 77, Progress().after("s", done, total, time.time()))
        job = jobs.get(job_id)
        assert job is not None and job.fraction == expected
    jobs.finish(job_id, 77, "done")
    job = jobs.get(job_id)
    assert job is not None and job.fraction == 1.0 and not job.is_active and job.seconds_left is None


def test_failure_carries_its_three_parts(jobs: Jobs) -> None:
    job_id = running(jobs)
    jobs.finish(job_id, 77, "failed", InfluenceError("What ü", "why 'x'", "fix <b>"))
    job = jobs.get(job_id)
    assert job is not None and job.message == {"what": "What ü", "why": "why 'x'", "fix": "fix <b>"}


def test_orphans_are_queued_again_and_given_up_at_the_limit(jobs: Jobs) -> None:
    job_id = submit(jobs).id
    for death in range(1, DEATH_LIMIT + 1):
        assert jobs.claim(job_id, 77)
        assert jobs.recover() == 1 and jobs.recover() == 0
        job = jobs.get(job_id)
        assert job is not None and job.attempts == death
        assert job.state == ("failed" if death == DEATH_LIMIT else "queued")
    assert job.message is not None and set(job.message) == {"what", "why", "fix"}
    assert f"{DEATH_LIMIT} attempts" in job.message["why"] and ".worker.log" in job.message["fix"]


def test_getting_further_each_time_is_not_a_loop(jobs: Jobs) -> None:
    """A crash each time at a later point resumes for ever (up to the absolute limit); at the same point it ends."""
    job_id = submit(jobs).id
    for attempt in range(1, 3 * DEATH_LIMIT):
        assert jobs.claim(job_id, 77)
        jobs.pulse(job_id, 77, Progress().after("s", attempt, 100, time.time()))
        jobs.recover()
        job = jobs.get(job_id)
        assert job is not None and job.state == "queued" and job.fraction == 0.0
    for again in range(1, DEATH_LIMIT):
        assert jobs.claim(job_id, 77), again
        jobs.pulse(job_id, 77, Progress().after("s", 3 * DEATH_LIMIT - 1 - again % 2, 100, time.time()))
        jobs.recover()
    job = jobs.get(job_id)
    assert job is not None and job.state == "failed"


def test_attempts_have_an_absolute_limit(jobs: Jobs) -> None:
    job_id = running(jobs)
    query(jobs, "UPDATE jobs SET attempts = ?", ATTEMPT_LIMIT)
    jobs.pulse(job_id, 77, Progress().after("s", 1, 100, time.time()))
    jobs.recover()
    job = jobs.get(job_id)
    assert job is not None and job.state == "failed"


def test_a_cancelled_orphan_stays_cancelled(jobs: Jobs) -> None:
    job_id = running(jobs)
    jobs.cancel(job_id, "a")
    jobs.recover()
    job = jobs.get(job_id)
    assert job is not None and job.state == "cancelled" and job.message is None


def test_looking_writes_nothing(jobs: Jobs) -> None:
    assert jobs.list() == [] and jobs.get(1) is None and jobs.find("k") is None
    assert not jobs.touch(1, "a") and not jobs.dismiss(1) and jobs.recover() == 0 and jobs.next_queued() is None
    assert list(jobs.study.iterdir()) == []


def test_a_deleted_study_reads_as_empty_and_takes_no_jobs(jobs: Jobs) -> None:
    jobs.study.rmdir()
    assert jobs.list() == []
    with pytest.raises(BadInput, match="no such study"):
        submit(jobs)
    assert not jobs.study.exists()


@pytest.mark.parametrize("argv", ["fit digits", ["fit", 3], [None]])
def test_malformed_requests_are_refused(jobs: Jobs, argv) -> None:
    with pytest.raises(BadInput):
        jobs.submit("k", "t", argv, "a")
    with pytest.raises(BadInput):
        jobs.submit("", "t", ["fit"], "a")
    assert jobs.list() == []


def test_any_folder_name_will_do(tmp_path: Path) -> None:
    study = tmp_path / "a #1?mode=ro %41 ü"
    study.mkdir()
    jobs = Jobs(study)
    assert jobs.get(submit(jobs).id) is not None
    assert (study / "jobs.sqlite").exists() and sorted(p.name for p in tmp_path.iterdir()) == [study.name]


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to have a header" * 90, b"SQLite format 3\0"]
)
def test_a_corrupt_list_is_one_clear_message(jobs: Jobs, content: bytes) -> None:
    jobs.path.write_bytes(content)
    for use in (jobs.list, lambda: submit(jobs), lambda: jobs.cancel(1, "a"), jobs.recover):
        with pytest.raises(StoreProblem, match="cannot be read") as caught:
            use()
        assert str(jobs.path) in caught.value.why and "Move this file away" in caught.value.fix
    assert jobs.path.read_bytes() == content, "nothing is overwritten"


def test_a_damaged_page_is_one_clear_message(jobs: Jobs) -> None:
    for i in range(50):
        submit(jobs, key=f"{i}" * 50)
    size = jobs.path.stat().st_size
    with jobs.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(StoreProblem, match="cannot be read"):
        jobs.list()


def test_a_read_only_list_can_be_read_but_not_written(jobs: Jobs) -> None:
    """Header byte 18 is the write version: one this SQLite does not know makes the file read-only, for root too."""
    job = submit(jobs)
    with jobs.path.open("r+b") as file:
        file.seek(18)
        file.write(b"\x09")
    assert jobs.get(job.id) == job
    for use in (lambda: submit(jobs), lambda: jobs.cancel(job.id, "a"), lambda: jobs.touch(job.id, "a")):
        with pytest.raises(StoreProblem, match="cannot be written"):
            use()


def test_a_folder_in_the_place_of_the_list(jobs: Jobs) -> None:
    jobs.path.mkdir()
    with pytest.raises(StoreProblem, match="cannot be written"):
        submit(jobs)


def test_a_list_from_a_newer_program_is_refused(jobs: Jobs) -> None:
    submit(jobs)
    query(jobs, "PRAGMA user_version = 7")
    with pytest.raises(StoreProblem, match="newer program"):
        jobs.list()


def test_a_full_disk_is_named_and_nothing_is_half_written(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(jobs, key="before")
    prepare = Database._prepare

    def prepare_full(self: Database, db: sqlite3.Connection) -> None:
        prepare(self, db)
        db.execute("PRAGMA max_page_count = 1")  # SQLite then answers as on a full disk

    monkeypatch.setattr(Database, "_prepare", prepare_full)
    with pytest.raises(StoreProblem, match="disk is full"):
        jobs.submit("k" * 100_000, "t", ["fit"], "a")
    monkeypatch.undo()
    assert [job.key for job in jobs.list()] == ["before"]
    assert query(jobs, "SELECT count(*) FROM waiters") == [(1,)]
