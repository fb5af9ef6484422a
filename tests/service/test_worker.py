"""The worker: what a job's end becomes, cancelling, signals, idle exit, the lock, and starting it once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from influence_core.errors import Cancelled, StoreProblem
from influence_core.service import worker as worker_module
from influence_core.service.jobs import Job, Jobs
from influence_core.service.worker import LOCK_NAME, LOG_BYTES, LOG_NAME, ensure_worker, run_worker
from tests.service.worker_program import RAISED, execute

ROOT = Path(worker_module.__file__).resolve().parents[2]
COMMAND = [sys.executable, str(Path(__file__).with_name("worker_program.py"))]
SQUARES = {n: str(sum(i * i for i in range(n))) for n in (3, 20, 400)}


def started(studies: Path) -> list[int]:
    """Return the ids of all worker processes started so far."""
    log = studies / "started.log"
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended but was not collected yet does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("TEST_IDLE_SECONDS", "20")
    folder = tmp_path / "studies"
    (folder / "digits").mkdir(parents=True)
    yield folder
    for pid in started(folder):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def jobs(studies: Path) -> Jobs:
    return Jobs(studies / "digits")


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def row(jobs: Jobs, job_id: int) -> Job:
    job = jobs.get(job_id)
    assert job is not None
    return job


def queue(jobs: Jobs, *argv: str, client: str = "a") -> int:
    return jobs.submit(" ".join(argv), "A job", argv, client).id


def log_of(studies: Path) -> str:
    path = studies / LOG_NAME
    return path.read_text() if path.exists() else ""


def test_runs_all_queued_jobs_of_all_studies_oldest_first(studies: Path, jobs: Jobs) -> None:
    (studies / "wine").mkdir()
    order: list[tuple[str, str]] = []
    ids = [(lists, queue(lists, str(i))) for i, lists in enumerate([jobs, Jobs(studies / "wine"), jobs])]
    ran = run_worker(studies, lambda study, argv, *_: order.append((study.name, argv[0])), idle_seconds=0)
    assert ran == 3
    assert order == [("digits", "0"), ("wine", "1"), ("digits", "2")]
    for lists, job_id in ids:
        job = row(lists, job_id)
        assert (job.state, job.fraction, job.attempts, job.pid) == ("done", 1.0, 1, None)
        assert job.started is not None and job.finished is not None and job.created <= job.started <= job.finished


@pytest.mark.parametrize(
    ("name", "what", "why", "fix"),
    [
        ("bad-input", "No such layer", "Layer 'x' is not in the model.", "Use 'fc'."),
        ("value", "The job stopped unexpectedly", "ValueError: seven is not even", LOG_NAME),
        ("runtime", "The job stopped unexpectedly", "RuntimeError: shapes differ", LOG_NAME),
        ("missing-file", "The job stopped unexpectedly", "/data/y.npy", LOG_NAME),
        ("exit", "The job stopped unexpectedly", "SystemExit: 3", LOG_NAME),
        ("memory", "The memory ran out", "", "smaller batch"),
        ("torch-memory", "The memory ran out", "you tried 9 GB.", "smaller batch"),
        ("disk", "The disk is full", "/data/x.npy", "Free some space"),
    ],
)
def test_errors_become_plain_words_and_the_next_job_runs(studies, jobs, name, what, why, fix) -> None:
    failing, after = queue(jobs, "raise", name), queue(jobs, "count", "c", "3", "0")
    assert run_worker(studies, execute, idle_seconds=0) == 2
    job = row(jobs, failing)
    assert job.state == "failed" and job.message is not None
    assert job.message["what"] == what and why in job.message["why"] and fix in job.message["fix"]
    assert "Traceback" not in "".join(job.message.values()) and "\n" not in job.message["why"]
    assert ("Traceback" in log_of(studies)) == (name != "bad-input")
    if name != "bad-input":
        assert type(RAISED[name]).__name__ in log_of(studies)
    assert row(jobs, after).state == "done"
    assert (jobs.study / "c" / "result").read_text() == SQUARES[3]


def test_a_job_that_cancels_itself_ends_cancelled(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "raise", "cancelled")
    assert run_worker(studies, execute, idle_seconds=0) == 1
    assert row(jobs, job_id).state == "cancelled"


def test_cancelling_stops_a_running_job(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "forever")
    told: list[float] = []

    def forever(study: Path, argv: list[str], progress, cancelled: Callable[[], bool]) -> None:
        assert not cancelled()
        assert jobs.cancel(job_id, "a") == "cancelled"
        at = time.monotonic()
        while not cancelled():
            assert time.monotonic() - at < 20
            time.sleep(0.005)
        told.append(time.monotonic() - at)
        raise Cancelled

    run_worker(studies, forever, idle_seconds=0)
    assert row(jobs, job_id).state == "cancelled"
    assert len(told) == 1 and told[0] < 5


def test_a_newcomer_rescues_a_job_that_is_already_stopping(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "work")
    runs: list[int] = []

    def work(study: Path, argv: list[str], progress, cancelled: Callable[[], bool]) -> None:
        runs.append(len(runs))
        if len(runs) == 1:
            jobs.cancel(job_id, "a")
            wait_for(cancelled, "told to stop")
            assert queue(jobs, "work", client="b") == job_id
            raise Cancelled

    run_worker(studies, work, idle_seconds=0)
    assert len(runs) == 2
    assert row(jobs, job_id).state == "done"


def test_a_job_that_ends_before_it_notices_the_flag_is_done(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "quick")
    run_worker(studies, lambda *_: jobs.cancel(job_id, "a"), idle_seconds=0)
    assert row(jobs, job_id).state == "done"


def test_progress_heartbeat_and_time_left_reach_the_table(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "work")
    seen: dict[str, Job] = {}

    def work(study: Path, argv: list[str], progress, cancelled) -> None:
        progress("train gradients", 40, 100)
        time.sleep(1.5)
        progress("train gradients", 50, 100)
        wait_for(lambda: row(jobs, job_id).done == 50, "the second report written", 5)
        seen["moving"] = row(jobs, job_id)
        time.sleep(1.5)
        seen["silent"] = row(jobs, job_id)
        assert time.time() - (seen["silent"].heartbeat or 0) < 1.3, "the heart beats without progress"

    run_worker(studies, work, idle_seconds=0)
    assert row(jobs, job_id).message is None
    moving, silent = seen["moving"], seen["silent"]
    assert (moving.state, moving.stage, moving.fraction, moving.pid) == ("running", "train gradients", 0.5, os.getpid())
    assert moving.seconds_left == pytest.approx(7.5, abs=1.5)
    assert silent.seconds_left is not None and moving.seconds_left is not None
    assert 0.5 < moving.seconds_left - silent.seconds_left < 3.0, "it counts down between reports"


def test_reporting_is_throttled(studies: Path, jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    queue(jobs, "work")
    pulses: list[float] = []
    pulse = Jobs.pulse
    monkeypatch.setattr(Jobs, "pulse", lambda self, *args: pulses.append(time.monotonic()) or pulse(self, *args))
    reports = [0]

    def work(study: Path, argv: list[str], progress, cancelled) -> None:
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            reports[0] += 1
            progress("busy", reports[0], 1e9)
            cancelled()

    run_worker(studies, work, idle_seconds=0)
    assert reports[0] > 1000
    assert 1 <= len(pulses) <= 6


def test_a_study_deleted_while_queued_or_running_does_not_kill_the_worker(studies: Path, jobs: Jobs) -> None:
    other = Jobs(studies / "wine")
    other.study.mkdir()
    queue(jobs, "delete-me")
    queue(jobs, "never-reached")
    last = queue(other, "count", "c", "3", "0")

    def work(study: Path, argv: list[str], progress, cancelled: Callable[[], bool]) -> None:
        if argv == ["delete-me"]:
            shutil.rmtree(study)
            progress("into the void", 1, 2)
            wait_for(cancelled, "told that the study is gone", 10)
            raise FileNotFoundError(study)
        execute(study, argv, progress, cancelled)

    assert run_worker(studies, work, idle_seconds=0) == 2
    assert not jobs.study.exists(), "nothing is written where a study was deleted"
    assert row(other, last).state == "done"


def test_an_unreadable_list_is_passed_over_and_logged_once(studies: Path, jobs: Jobs) -> None:
    (studies / "broken").mkdir()
    (studies / "broken" / "jobs.sqlite").write_bytes(b"rubbish" * 1000)
    job_id = queue(jobs, "count", "c", "3", "0")
    run_worker(studies, execute, idle_seconds=1.2)
    assert row(jobs, job_id).state == "done"
    assert log_of(studies).count("cannot be read") == 1


def test_an_end_that_cannot_be_written_is_tried_again(studies: Path, jobs: Jobs, monkeypatch) -> None:
    job_id = queue(jobs, "count", "c", "3", "0")
    finish, calls = Jobs.finish, []

    def full_at_first(self: Jobs, *args) -> bool:
        calls.append(args)
        if len(calls) == 1:
            raise StoreProblem("The disk is full", "y", "f")
        return finish(self, *args)

    monkeypatch.setattr(Jobs, "finish", full_at_first)
    run_worker(studies, execute, idle_seconds=0)
    assert len(calls) == 2 and row(jobs, job_id).state == "done"


def test_rows_left_running_are_run_again(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "count", "c", "3", "0")
    jobs.claim(job_id, os.getpid())  # even with our own process id, as after a reboot
    run_worker(studies, execute, idle_seconds=0)
    job = row(jobs, job_id)
    assert (job.state, job.attempts) == ("done", 2)


def test_waits_for_further_jobs_then_exits(studies: Path, jobs: Jobs) -> None:
    late = threading.Timer(0.4, lambda: queue(jobs, "count", "c", "3", "0"))
    late.start()
    start = time.monotonic()
    assert run_worker(studies, execute, idle_seconds=0.8) == 1
    assert 1.2 < time.monotonic() - start < 10


def test_a_job_submitted_at_the_last_moment_is_not_left_behind(studies: Path, jobs: Jobs, monkeypatch) -> None:
    """Submitted after the worker's last look, while it still holds the lock: nobody else would start a worker."""
    look, refused = worker_module._Queue.claimed, []

    def look_then_submit(self):
        claim = look(self)
        if claim is None and not refused:
            queue(jobs, "count", "c", "3", "0")
            refused.append(ensure_worker(studies, COMMAND))
        return claim

    monkeypatch.setattr(worker_module._Queue, "claimed", look_then_submit)
    assert run_worker(studies, execute, idle_seconds=0) == 1
    assert refused == [False] and started(studies) == []


def test_signal_handlers_are_restored(studies: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    run_worker(studies, execute, idle_seconds=0)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_missing_studies_folder(tmp_path: Path) -> None:
    assert not ensure_worker(tmp_path / "none", COMMAND)
    with pytest.raises(StoreProblem):
        run_worker(tmp_path / "none", execute, idle_seconds=0)
    assert not (tmp_path / "none").exists()


def test_nothing_is_started_without_work(studies: Path, jobs: Jobs) -> None:
    assert not ensure_worker(studies, COMMAND)
    job_id = queue(jobs, "x")
    jobs.cancel(job_id, "a")
    assert not ensure_worker(studies, COMMAND)
    assert started(studies) == []


def test_fifty_calls_start_one_worker(studies: Path, jobs: Jobs) -> None:
    ids = [queue(jobs, "count", f"c{i}", "3", "0.02") for i in range(3)]
    answers: list[bool] = []

    def call() -> None:
        for _ in range(5):
            answers.append(ensure_worker(studies, COMMAND))

    threads = [threading.Thread(target=call) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 50 and sum(answers) == 1
    wait_for(lambda: not jobs.list(active_only=True), "all jobs finished")
    assert not any(ensure_worker(studies, COMMAND) for _ in range(50)), "an idle worker is a worker"
    assert len(started(studies)) == 1
    assert [row(jobs, job_id).attempts for job_id in ids] == [1, 1, 1]


def test_a_second_worker_leaves_at_once(studies: Path, jobs: Jobs) -> None:
    queue(jobs, "count", "c", "400", "0.05")
    assert ensure_worker(studies, COMMAND)
    assert not free(studies), "held from the first moment, long before the new process could take it itself"
    wait_for(lambda: jobs.list()[0].state == "running", "running")
    second = subprocess.run([*COMMAND, str(studies)], timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert second.returncode == 0
    assert jobs.list()[0].state == "running" and jobs.list()[0].attempts == 1
    assert jobs.list()[0].pid == started(studies)[0]


def test_sigterm_puts_the_job_back_and_the_next_worker_finishes_it(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "count", "c", "20", "0.1")
    assert ensure_worker(studies, COMMAND)
    wait_for(lambda: (row(jobs, job_id).done or 0) >= 3, "some progress")
    [pid] = started(studies)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not alive(pid), "ended")
    job = row(jobs, job_id)
    assert (job.state, job.attempts, job.pid, job.message) == ("queued", 0, None, None)
    assert not (jobs.study / "c" / "result").exists()
    assert ensure_worker(studies, COMMAND)
    wait_for(lambda: row(jobs, job_id).state == "done", "done")
    assert (jobs.study / "c" / "result").read_text() == SQUARES[20]
    made = (jobs.study / "c" / "made.log").read_text().split()
    assert sorted(map(int, made)) == list(range(20)), "no finished shard was made twice"


def test_the_worker_outlives_its_starter_and_is_detached(studies: Path, jobs: Jobs) -> None:
    job_id = queue(jobs, "count", "c", "20", "0.05")
    code = (
        "import sys; from influence_core.service.worker import ensure_worker; "
        f"assert ensure_worker({str(studies)!r}, {COMMAND!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=ROOT)
    wait_for(lambda: started(studies), "started")
    [pid] = started(studies)
    assert os.getsid(pid) == pid != os.getsid(0)
    assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull
    wait_for(lambda: row(jobs, job_id).state == "done", "done")


def test_an_idle_worker_exits_and_leaves_no_zombie(studies: Path, jobs: Jobs, monkeypatch) -> None:
    monkeypatch.setenv("TEST_IDLE_SECONDS", "0.3")
    queue(jobs, "count", "c", "3", "0")
    assert ensure_worker(studies, COMMAND)
    wait_for(lambda: started(studies), "started")
    [pid] = started(studies)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "gone, and collected by its parent")
    assert jobs.list()[0].state == "done"
    assert (studies / LOCK_NAME).read_text() == "", "the launch was not counted as failed"


def test_a_worker_that_cannot_start_is_not_started_for_ever(studies: Path, jobs: Jobs, monkeypatch) -> None:
    job_id = queue(jobs, "count", "c", "3", "0")
    broken = [sys.executable, "-S", "-c", "print('cannot import', flush=True); raise SystemExit(1)"]
    starts: list[int] = []
    clock = time.time()
    for second in range(120):  # the clock of 120 polls, one a second
        monkeypatch.setattr(worker_module.time, "time", lambda now=clock + second: now)
        if ensure_worker(studies, broken):
            starts.append(second)
            wait_for(lambda: log_of(studies).count("cannot import") == len(starts), "the program ran")
            wait_for(lambda: free(studies), "the lock is free")
    monkeypatch.undo()
    assert starts == [0, 2, 6, 14, 30] and len(starts) == worker_module.LAUNCH_LIMIT
    job = row(jobs, job_id)
    assert job.state == "failed" and job.message is not None
    assert job.message["what"] == "The background worker does not start" and LOG_NAME in job.message["fix"]
    again = queue(jobs, "count", "c", "3", "0")
    assert ensure_worker(studies, COMMAND), "asking again tries again"
    wait_for(lambda: row(jobs, again).state == "done", "done")


def free(studies: Path) -> bool:
    lock = worker_module._open_lock(studies)
    try:
        return worker_module._locked(lock, worker_module.fcntl.LOCK_EX)
    finally:
        worker_module._release(lock)


def test_a_program_that_does_not_exist_is_one_clear_message(studies: Path, jobs: Jobs) -> None:
    queue(jobs, "x")
    with pytest.raises(StoreProblem, match="cannot be started"):
        ensure_worker(studies, ["/no/such/program"])
    assert free(studies)


def test_the_log_stays_bounded(studies: Path, jobs: Jobs) -> None:
    (studies / LOG_NAME).write_bytes(b"old\n" * (LOG_BYTES // 2))
    for i in range(3):
        queue(jobs, "print", str(LOG_BYTES - 1000 - i))
    assert ensure_worker(studies, COMMAND)
    assert (studies / LOG_NAME).stat().st_size < LOG_BYTES + 1000
    wait_for(lambda: not jobs.list(active_only=True), "all printed")
    assert (studies / LOG_NAME).stat().st_size <= 1.5 * LOG_BYTES, "two jobs' output of nearly LOG_BYTES each was cut"
    assert log_of(studies).endswith("x\n")


def test_a_forked_child_does_not_keep_a_dead_workers_lock(studies: Path) -> None:
    program = (
        "import os, sys, time; from pathlib import Path; from influence_core.service import worker as w\n"
        f"lock = w._open_lock(Path({str(studies)!r})); assert w._locked(lock, w.fcntl.LOCK_EX)\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60); os._exit(0)\n"
        "print(child, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert not free(studies)
            parent.kill()
            wait_for(lambda: free(studies), "the lock is free", 5)
            assert alive(child)
        finally:
            parent.kill()
            os.kill(child, signal.SIGKILL)


def test_sigterm_ends_a_forked_child_of_the_job(studies: Path, jobs: Jobs) -> None:
    """Pools end their processes with SIGTERM: the worker's own handler must not keep a forked child alive."""
    queue(jobs, "fork")
    status: list[int] = []

    def fork(*_: object) -> None:
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, b"!")
            time.sleep(20)
            os._exit(0)
        assert os.read(ready, 1) == b"!"  # Python drops a signal that arrives before its fork is complete
        os.kill(child, signal.SIGTERM)
        status.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.close(ready)
        os.close(tell)

    run_worker(studies, fork, idle_seconds=0)
    assert status == [128 + signal.SIGTERM]
