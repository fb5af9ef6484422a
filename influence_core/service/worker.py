"""The worker: one background process per studies folder that runs queued jobs, one at a time.

Its life is a ``flock`` on ``<studies>/.worker.lock``: the kernel frees it on any death, so "is there a worker?" never
depends on a clock or on a process id. Whoever starts a worker takes the lock first and lets the child inherit it; so
there is no moment at which a second one could start. A free lock beside a ``running`` row means that a worker died.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from influence_core.errors import Cancelled, InfluenceError, StoreProblem
from influence_core.service.jobs import FILE_NAME, LOG_NAME, Job, Jobs, Progress

Execute = Callable[[Path, list[str], Callable[[str, float, float], None], Callable[[], bool]], None]
_End = Literal["done", "failed", "cancelled", "interrupted"]

LOCK_NAME = ".worker.lock"
LOG_BYTES = 4 << 20  # beyond this the log keeps its last quarter
LAUNCH_LIMIT = 5  # workers in a row that died before their first look at the queue
_LOCK_VARIABLE = "INFLUENCE_WORKER_LOCK"
_POLL_SECONDS = 0.5
_PULSE_SECONDS = 0.2
_HEARTBEAT_SECONDS = 1.0
_RECORD_SECONDS = 10.0  # how long the end of a job is tried to be written down
_FULL = {errno.ENOSPC, errno.EDQUOT}

_locks: set[int] = set()


def _forget_locks() -> None:
    """Close the locks in a forked child, which would otherwise keep a dead worker's lock held."""
    for lock in list(_locks):
        with suppress(OSError):
            os.close(lock)
    _locks.clear()


os.register_at_fork(after_in_child=_forget_locks)


def _open_lock(studies: Path) -> int:
    try:
        lock = os.open(studies / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        why = f"{studies}: {error.strerror}."
        raise StoreProblem(
            "The studies folder cannot be written", why, "Make it writable or use another one."
        ) from error
    _locks.add(lock)
    return lock


def _release(lock: int) -> None:
    """Close this process's copy; a child that inherited the lock keeps it."""
    _locks.discard(lock)
    os.close(lock)


def _locked(lock: int, kind: int, seconds: float = 0.0) -> bool:
    """Try to lock; keep trying for some seconds, because a passing look at the lock holds it shared for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)


def _own_lock(studies: Path) -> int | None:
    """Return the lock of this worker, inherited or taken now; None if another worker has it."""
    inherited = os.environ.pop(_LOCK_VARIABLE, None)  # popped: this worker's own children must not adopt it
    if inherited is not None:
        with suppress(OSError, ValueError):
            lock = int(inherited)
            if os.path.samestat(os.fstat(lock), os.stat(studies / LOCK_NAME)) and _locked(lock, fcntl.LOCK_EX):
                os.set_inheritable(lock, False)
                _locks.add(lock)
                return lock
    lock = _open_lock(studies)
    if _locked(lock, fcntl.LOCK_EX, seconds=2.0):
        return lock
    _release(lock)
    return None


def _job_lists(studies: Path) -> list[Jobs]:
    return [Jobs(path.parent) for path in sorted(studies.glob(f"*/{FILE_NAME}"))]


def _has_work(studies: Path) -> bool:
    for jobs in _job_lists(studies):
        with suppress(InfluenceError):  # the screen of that study shows the message; other studies go on
            if jobs.list(active_only=True):
                return True
    return False


def _launch_allowed(studies: Path, lock: int) -> bool:
    """Count launches in the lock file until one worker reports for work; wait longer after each, then give up."""
    try:
        failures, last = (float(word) for word in os.pread(lock, 100, 0).split())
    except ValueError:
        failures, last = 0.0, 0.0
    if failures >= LAUNCH_LIMIT:
        error = InfluenceError(
            "The background worker does not start",
            f"It ended {LAUNCH_LIMIT} times before doing anything.",
            f"Read the end of {studies / LOG_NAME}, remove the cause and start the job again.",
        )
        for jobs in _job_lists(studies):
            with suppress(InfluenceError):
                jobs.fail_active(error)
        os.ftruncate(lock, 0)
        return False
    if failures and abs(time.time() - last) < 2.0**failures:
        return False
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{failures + 1:.0f} {time.time()}".encode(), 0)
    return True


def _spawn(studies: Path, command: Sequence[str], lock: int) -> None:
    root = str(Path(__file__).resolve().parents[2])  # the package must be found whatever the folder we were started in
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = os.environ | {_LOCK_VARIABLE: str(lock), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    _trim_log(studies)
    with open(studies / LOG_NAME, "ab") as log:
        words, nothing = [*command, str(studies)], subprocess.DEVNULL
        process = subprocess.Popen(
            words, stdin=nothing, stdout=log, stderr=log, env=environment, start_new_session=True, pass_fds=(lock,)
        )
    # Waiting for it in a thread leaves no zombie behind in a server that lives for weeks.
    threading.Thread(target=process.wait, name="worker-reaper", daemon=True).start()


def ensure_worker(studies_dir: Path | str, command: Sequence[str] | None = None) -> bool:
    """Start a worker if there is work and none is alive. Cheap: to be called after each ``submit`` and at every poll.

    Args:
        studies_dir: The folder whose subfolders are studies.
        command: The program to start, to which the folder is appended; by default ``python -m influence_core worker``.

    Returns:
        Whether a worker was started by this call.

    Raises:
        InfluenceError: The folder cannot be written or no process can be started.
    """
    studies = Path(studies_dir).resolve()
    if not studies.is_dir():
        return False
    lock = _open_lock(studies)
    try:
        # Shared, so that two who look at once do not take each other for a worker.
        if not _locked(lock, fcntl.LOCK_SH) or not _has_work(studies):
            return False
        if not _locked(lock, fcntl.LOCK_EX, seconds=0.1) or not _launch_allowed(studies, lock):
            return False
        _spawn(studies, command or (sys.executable, "-m", "influence_core", "worker"), lock)
        return True
    except OSError as error:
        raise StoreProblem(
            "The background worker cannot be started",
            f"{error.strerror or error}.",
            f"Check that {studies} is writable and that memory and disk are not full.",
        ) from error
    finally:
        _release(lock)


def _trim_log(studies: Path) -> None:
    """Keep the log's last quarter, in place: the worker's standard output is appended to this very file."""
    with suppress(OSError), open(studies / LOG_NAME, "r+b") as log:
        if log.seek(0, os.SEEK_END) > LOG_BYTES:
            log.seek(-LOG_BYTES // 4, os.SEEK_END)
            tail = log.read()
            log.seek(0)
            log.write(tail)
            log.truncate()


def _log(studies: Path, text: str) -> None:
    with suppress(OSError), open(studies / LOG_NAME, "a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} [{os.getpid()}] {text}\n")


class _Lease:
    """The thread beside a running job: carries progress and heartbeat out and the cancel flag in, five times a second.

    The job itself only touches memory, so reporting costs it nothing, however often it reports.
    """

    def __init__(self, jobs: Jobs, job: Job, stop: threading.Event) -> None:
        self.told = False  # whether the job was ever asked to stop
        self._unwanted = False
        self._jobs, self._job, self._stop = jobs, job, stop
        self._progress = Progress()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="job-lease", daemon=True)

    def __enter__(self) -> _Lease:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def progress(self, stage: str, done: float, total: float) -> None:
        """Take a report: ``done`` of ``total`` of a stage."""
        self._progress = self._progress.after(stage, float(done), float(total), time.time())

    def cancelled(self) -> bool:
        """Whether the job should stop: nobody wants it any more, its study is gone, or the worker has to end."""
        asked = self._unwanted or self._stop.is_set()
        self.told = self.told or asked
        return asked

    def _keep(self) -> None:
        written, last = Progress(), time.monotonic()
        while not self._ended.wait(_PULSE_SECONDS):
            progress, now = self._progress, time.monotonic()
            try:
                if progress is not written or now - last >= _HEARTBEAT_SECONDS:
                    self._unwanted = self._jobs.pulse(self._job.id, os.getpid(), progress) != "run"
                    written, last = progress, now
                    _trim_log(self._jobs.study.parent)
                else:
                    row = self._jobs.get(self._job.id)
                    self._unwanted = row is None or row.cancel
            except InfluenceError as error:  # a full disk or a busy file passes; the job goes on meanwhile
                _log(self._jobs.study.parent, f"job {self._job.id}: no heartbeat: {error}")


def _failure(error: BaseException, log: Path) -> InfluenceError:
    """Return the plain words for what ended a job."""
    if isinstance(error, InfluenceError):
        return error
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "memory" in text and "alloc" in text):
        fix = "Close other programs, or choose a smaller batch, fewer layers or a projection, then start it again."
        return InfluenceError("The memory ran out", text.partition("\n")[0] or "No more could be allocated.", fix)
    if isinstance(error, OSError) and error.errno in _FULL:
        fix = "Free some space and start it again: finished parts are kept."
        return InfluenceError("The disk is full", f"{error.filename or log.parent}: {error.strerror}.", fix)
    why = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return InfluenceError("The job stopped unexpectedly", why, f"The full report is in {log}.")


def _run(jobs: Jobs, job: Job, execute: Execute, stop: threading.Event) -> None:
    """Run one claimed job to its end and write down how it ended."""
    log, lease, failure = jobs.study.parent / LOG_NAME, _Lease(jobs, job, stop), None
    state: _End = "done"
    try:
        with lease:
            execute(jobs.study, list(job.argv), lease.progress, lease.cancelled)
    except Cancelled:
        state = "interrupted" if lease.told else "cancelled"
    except (Exception, SystemExit) as error:  # whatever it is, the worker and the other jobs go on
        state, failure = "failed", _failure(error, log)
        if failure is not error:
            _log(jobs.study.parent, f"job {job.id} ({job.title}):\n{''.join(traceback.format_exception(error))}")
    _record(jobs, job, state, failure, stop)
    gc.collect()  # the next job may need the memory of this one


def _record(jobs: Jobs, job: Job, state: _End, failure: InfluenceError | None, stop: threading.Event) -> None:
    """Write the end of a job, patiently: if it cannot be written, the job counts as orphaned and runs again."""
    deadline, pid = time.monotonic() + _RECORD_SECONDS, os.getpid()
    while True:
        try:
            if state == "interrupted":  # ends as cancelled if the flag still stands: somebody may have joined since
                ours = jobs.give_back(job.id, pid)
            else:
                ours = jobs.finish(job.id, pid, state, failure)
            if not ours:
                _log(jobs.study.parent, f"job {job.id} ended ({state}) but its row is gone")
            return
        except InfluenceError as error:
            _log(jobs.study.parent, f"job {job.id}: its end cannot be written: {error}")
            if time.monotonic() > deadline or stop.wait(1.0):
                return


class _Queue:
    """The queued jobs of all studies, oldest first; a list that cannot be read is passed over, and logged once."""

    def __init__(self, studies: Path) -> None:
        self._studies = studies
        self._complaints: set[str] = set()

    def claimed(self) -> tuple[Jobs, Job] | None:
        """Return the next job, claimed for this process, or None."""
        waiting: list[tuple[float, str, Job, Jobs]] = []
        for jobs in _job_lists(self._studies):
            with self._complaining():
                jobs.recover()
                job = jobs.next_queued()
                if job is not None:
                    waiting.append((job.created, jobs.study.name, job, jobs))
        for _, _, job, jobs in sorted(waiting, key=lambda entry: entry[:2]):
            with self._complaining():
                if jobs.claim(job.id, os.getpid()):
                    return jobs, job
        return None

    @contextmanager
    def _complaining(self) -> Iterator[None]:
        try:
            yield
        except InfluenceError as error:
            if str(error) not in self._complaints:
                self._complaints.add(str(error))
                _log(self._studies, str(error))


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event, where this is the main thread; restore the former handlers after."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    worker = os.getpid()

    def on_signal(number: int, _: object) -> None:
        if os.getpid() != worker:
            os._exit(128 + number)  # a forked child of the job: end, as it would have without this handler
        stop.set()

    former = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _work_until_idle(studies: Path, execute: Execute, lock: int, stop: threading.Event, idle_seconds: float) -> int:
    queue, count, idle_since = _Queue(studies), 0, time.monotonic()
    while not stop.is_set():
        claim = queue.claimed()
        os.ftruncate(lock, 0)  # no longer a failed launch
        if claim is not None:
            _run(*claim, execute, stop)
            count, idle_since = count + 1, time.monotonic()
        elif time.monotonic() - idle_since >= idle_seconds:
            break
        else:
            stop.wait(min(_POLL_SECONDS, idle_seconds))
    return count


def run_worker(studies_dir: Path | str, execute: Execute, idle_seconds: float = 30.0) -> int:
    """Run queued jobs of all studies, oldest first, until there are none for a while or SIGTERM arrives.

    Args:
        studies_dir: The folder whose subfolders are studies.
        execute: Called as ``execute(study_dir, argv, progress, cancelled)`` in this process. It reports with
            ``progress(stage, done, total)`` and raises ``Cancelled`` soon after ``cancelled()`` is true.
        idle_seconds: How long to wait for further jobs.

    Returns:
        How many jobs it ran; 0 at once if another worker is alive.

    Raises:
        InfluenceError: The studies folder does not exist or cannot be written.
    """
    studies = Path(studies_dir).resolve()
    count = 0
    with _stop_signals() as stop:
        while (lock := _own_lock(studies)) is not None:
            try:
                count += _work_until_idle(studies, execute, lock, stop, idle_seconds)
            finally:
                _release(lock)
            # Whoever submitted during the last look found the lock held and started nobody: look once more without it.
            if stop.is_set() or not _has_work(studies):
                break
    return count
