"""The jobs of one study: a small SQLite table that the app, the command line and the worker share.

A job is a command line that computes one artifact. Its ``key`` is the artifact's key, so equal requests meet in one
row: whoever asks second becomes a second *waiter* of the same job. Rows move ``queued -> running -> done | failed |
cancelled`` and, when a worker dies, ``running -> queued`` again. Results live in the store, not here.

Connections are opened per call and closed at once, so one ``Jobs`` may be used from any number of threads.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from influence_core.database import Database, transaction
from influence_core.errors import BadInput, InfluenceError
from influence_core.run import stage_name

FILE_NAME = "jobs.sqlite"
LOG_NAME = ".worker.log"
WAITER_SECONDS = 15.0  # a waiter not seen for this long has closed its browser
DEATH_LIMIT = 5  # deaths in a row without getting any further
ATTEMPT_LIMIT = 100  # however far it gets each time
_LISTED = 200
_SCHEMA = """
CREATE TABLE jobs(
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, title TEXT NOT NULL, argv TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    stage TEXT NOT NULL DEFAULT '', done REAL, total REAL, base_done REAL, base_time REAL, changed REAL,
    message TEXT, estimate_seconds REAL, created REAL NOT NULL, started REAL, finished REAL, heartbeat REAL,
    pid INTEGER, attempts INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0, reached_stage TEXT,
    reached_done REAL, cancel INTEGER NOT NULL DEFAULT 0, dismissed INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX one_active_job_per_key ON jobs(key) WHERE state IN ('queued', 'running');
CREATE INDEX jobs_by_state ON jobs(state);
CREATE TABLE waiters(job_id INTEGER NOT NULL, client TEXT NOT NULL, seen REAL NOT NULL, PRIMARY KEY (job_id, client))
"""
_ACTIVE = "state IN ('queued', 'running')"
_FORGET = "stage = '', done = NULL, total = NULL, base_done = NULL, base_time = NULL, changed = NULL, pid = NULL"


@dataclass(frozen=True)
class Job:
    """One row of the table, as it was when read. Times: seconds since 1970. ``done`` and ``total``: of the stage."""

    id: int
    key: str
    title: str
    argv: tuple[str, ...]
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    stage: str
    done: float | None
    total: float | None
    base_done: float | None
    base_time: float | None
    changed: float | None
    message: Mapping[str, str] | None
    estimate_seconds: float | None
    created: float
    started: float | None
    finished: float | None
    heartbeat: float | None
    pid: int | None
    attempts: int
    cancel: bool
    dismissed: bool

    @property
    def is_active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "running")

    @property
    def fraction(self) -> float:
        """Return the finished share of the present stage, 0 to 1; 1 once the job is done."""
        if self.state == "done":
            return 1.0
        if not self.total or self.done is None or self.total <= 0:
            return 0.0
        return min(max(self.done / self.total, 0.0), 1.0)

    @property
    def seconds_left(self) -> float | None:
        """Return the time left of the present stage at the rate measured since it began here; None while unknown.

        Work that an earlier attempt finished does not count towards the rate.
        """
        if self.state != "running" or None in (self.done, self.total, self.base_done, self.base_time, self.changed):
            return None
        done, total, base_done, base_time, changed = (
            float(value or 0.0) for value in (self.done, self.total, self.base_done, self.base_time, self.changed)
        )
        elapsed, advance = changed - base_time, done - base_done
        if elapsed < 1.0 or advance <= 0 or total <= 0:
            return None
        since = max((self.heartbeat or changed) - changed, 0.0)
        return max((total - done) * elapsed / advance - since, 0.0)


_COLUMNS = ", ".join(field.name for field in fields(Job))
_JobList = list[Job]  # inside the class the name ``list`` is the method


@dataclass(frozen=True)
class Progress:
    """How far the present stage is, and where and when its counting began (the base of the rate)."""

    stage: str = ""
    done: float | None = None
    total: float | None = None
    base_done: float | None = None
    base_time: float | None = None
    changed: float | None = None

    def after(self, stage: str, done: float, total: float, now: float) -> Progress:
        """Return the progress after a report; a new stage, or a count that goes back, begins a new base."""
        same = stage_name(stage) == stage_name(self.stage)
        continues = same and self.done is not None and done >= self.done and total == self.total
        base = (self.base_done, self.base_time) if continues else (done, now)
        return Progress(stage, done, total, *base, now)


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    values["argv"] = tuple(json.loads(values["argv"]))
    values["message"] = json.loads(values["message"]) if values["message"] else None
    values["cancel"], values["dismissed"] = bool(values["cancel"]), bool(values["dismissed"])
    return Job(**values)


class Jobs:
    """The job list of one study.

    Args:
        study_dir: The study's folder. The list is made by the first ``submit``; before that it reads as empty.

    Every method raises ``InfluenceError`` if the list cannot be read or written.
    """

    def __init__(self, study_dir: Path | str) -> None:
        """Remember the folder; nothing is opened."""
        self.study = Path(study_dir)
        self.path = self.study / FILE_NAME
        damaged = "Move this file away and try again: it lists jobs only, and every finished result is kept elsewhere."
        self._file = Database(self.path, "job list", 1, _SCHEMA, damaged)

    def _open(self, create: bool = False) -> AbstractContextManager[sqlite3.Connection]:
        return self._file.open(create)

    def _write(self, statement: str, *values: object) -> bool:
        """Run one statement; return whether it changed a row."""
        with self._open() as db:
            return db.execute(statement, values).rowcount > 0

    def submit(
        self, key: str, title: str, argv: Sequence[str], client: str, estimate_seconds: float | None = None
    ) -> Job:
        """Ask for a job: join the queued or running one of this key, or queue a new row.

        Joining takes back a cancellation not yet in effect. A new row dismisses the finished ones of its key.

        Args:
            key: What is computed; equal keys share one job.
            title: What the user reads.
            argv: The command line, without the program's name.
            client: Who waits (one browser session, one shell).
            estimate_seconds: The cost preview that the user saw.

        Raises:
            InfluenceError: The study is gone, the request is malformed, or the list cannot be written.
        """
        if not self.study.is_dir():
            raise BadInput("There is no such study", f"{self.study} is not a folder.", "Choose another study.")
        if isinstance(argv, str) or not all(isinstance(word, str) for word in argv) or not key:
            raise BadInput("This job cannot be queued", f"Key {key!r}, argv {argv!r}.", "Give a key and some words.")
        now = time.time()
        with self._open(create=True) as db, transaction(db):
            row = db.execute(f"SELECT id FROM jobs WHERE key = ? AND {_ACTIVE}", (key,)).fetchone()
            if row:
                job_id = row["id"]
                db.execute("UPDATE jobs SET cancel = 0 WHERE id = ?", (job_id,))
            else:
                db.execute("UPDATE jobs SET dismissed = 1 WHERE key = ?", (key,))
                insert = "INSERT INTO jobs(key, title, argv, state, estimate_seconds, created) VALUES (?,?,?,?,?,?)"
                values = (key, title, json.dumps([*argv]), "queued", estimate_seconds, now)
                job_id = db.execute(insert, values).lastrowid
            db.execute("INSERT OR REPLACE INTO waiters VALUES (?, ?, ?)", (job_id, client, now))
            return _job(db.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone())

    def _select(self, condition: str, *values: object) -> _JobList:
        with self._open() as db:
            return [_job(row) for row in db.execute(f"SELECT {_COLUMNS} FROM jobs {condition}", values)]

    def get(self, job_id: int) -> Job | None:
        """Return a job, or None if there is none of this id."""
        return next(iter(self._select("WHERE id = ?", job_id)), None)

    def find(self, key: str) -> Job | None:
        """Return the latest job of a key, dismissed or not, or None."""
        return next(iter(self._select("WHERE key = ? ORDER BY id DESC LIMIT 1", key)), None)

    def list(self, active_only: bool = False) -> _JobList:
        """Return the jobs, newest first, without those dismissed; at most the latest 200."""
        active = f"AND {_ACTIVE}" if active_only else ""
        return self._select(f"WHERE dismissed = 0 {active} ORDER BY id DESC LIMIT {_LISTED}")

    def touch(self, job_id: int, client: str) -> bool:
        """Say that a waiter is still there; return False if this client does not wait for the job (any more)."""
        return self._write("UPDATE waiters SET seen = ? WHERE job_id = ? AND client = ?", time.time(), job_id, client)

    def cancel(self, job_id: int, client: str) -> Literal["cancelled", "detached"]:
        """Stop waiting for a job; stop the job itself unless somebody else is waiting for it.

        Returns:
            ``"cancelled"``: the job is cancelled, or will be at its next batch. ``"detached"``: it goes on for others
            (or had already ended).

        Raises:
            InfluenceError: There is no such job.
        """
        now = time.time()
        with self._open() as db, transaction(db):
            row = db.execute("SELECT state FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                raise BadInput("There is no such job", f"{self.path} has no job {job_id}.", "Reload the page.")
            db.execute("DELETE FROM waiters WHERE job_id = ? AND client = ?", (job_id, client))
            if row["state"] not in ("queued", "running"):
                return "cancelled" if row["state"] == "cancelled" else "detached"
            others = "SELECT 1 FROM waiters WHERE job_id = ? AND seen >= ?"
            if db.execute(others, (job_id, now - WAITER_SECONDS)).fetchone():
                return "detached"
            db.execute("UPDATE jobs SET cancel = 1 WHERE id = ?", (job_id,))
            queued = "UPDATE jobs SET state = 'cancelled', finished = ? WHERE id = ? AND state = 'queued'"
            db.execute(queued, (now, job_id))
            return "cancelled"

    def dismiss(self, job_id: int) -> bool:
        """Leave a finished job out of ``list``; return False if there is none or it is still active."""
        return self._write(f"UPDATE jobs SET dismissed = 1 WHERE id = ? AND NOT {_ACTIVE}", job_id)

    # From here on: for the worker, which holds the lock of the studies folder.

    def next_queued(self) -> Job | None:
        """Return the job that has waited longest, or None."""
        return next(iter(self._select("WHERE state = 'queued' ORDER BY created, id LIMIT 1")), None)

    def claim(self, job_id: int, pid: int) -> bool:
        """Take a queued job for this process; False if it is no longer queued."""
        now = time.time()
        change = "state = 'running', pid = ?, started = ?, heartbeat = ?, attempts = attempts + 1"
        return self._write(f"UPDATE jobs SET {change} WHERE id = ? AND state = 'queued'", pid, now, now, job_id)

    def pulse(self, job_id: int, pid: int, progress: Progress) -> Literal["run", "cancel", "lost"]:
        """Write heartbeat and progress; return what the job should do. ``lost``: the row is gone or no longer ours."""
        with self._open() as db, transaction(db):
            ours = db.execute(
                "UPDATE jobs SET stage = ?, done = ?, total = ?, base_done = ?, base_time = ?, changed = ?, "
                "heartbeat = ? WHERE id = ? AND state = 'running' AND pid = ?",
                (*astuple(progress), time.time(), job_id, pid),
            ).rowcount
            if not ours:
                return "lost"
            return "cancel" if db.execute("SELECT cancel FROM jobs WHERE id = ?", (job_id,)).fetchone()[0] else "run"

    def finish(
        self, job_id: int, pid: int, state: Literal["done", "failed", "cancelled"], error: InfluenceError | None = None
    ) -> bool:
        """Record how a running job of this process ended; False if the row is no longer ours."""
        return self._write(
            "UPDATE jobs SET state = ?, message = ?, finished = ?, pid = NULL "
            "WHERE id = ? AND state = 'running' AND pid = ?",
            *(state, _message(error), time.time(), job_id, pid),
        )

    def give_back(self, job_id: int, pid: int) -> bool:
        """Return an interrupted job to the queue, as if never attempted; a cancelled one ends here instead."""
        return self._write(
            f"UPDATE jobs SET {_FORGET}, state = CASE cancel WHEN 1 THEN 'cancelled' ELSE 'queued' END, "
            "finished = CASE cancel WHEN 1 THEN ? END, attempts = attempts - 1 "
            "WHERE id = ? AND state = 'running' AND pid = ?",
            *(time.time(), job_id, pid),
        )

    def recover(self) -> int:
        """Queue again the jobs whose worker died; return how many rows changed.

        To be called only by the holder of the lock, between jobs: then every running row is an orphan. A job that dies
        ``DEATH_LIMIT`` times in a row without getting further than before is given up, so that it cannot loop for ever.
        """
        now = time.time()
        with self._open() as db:
            if not db.execute("SELECT 1 FROM jobs WHERE state = 'running'").fetchone():
                return 0
            with transaction(db):
                orphans = db.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
                for row in orphans:
                    further = row["stage"] != "" and (
                        stage_name(row["stage"]) != stage_name(row["reached_stage"] or "")
                        or (row["done"] or 0) > (row["reached_done"] or 0)
                    )
                    deaths = 1 if further else row["deaths"] + 1
                    give_up = deaths >= DEATH_LIMIT or row["attempts"] >= ATTEMPT_LIMIT
                    state = "cancelled" if row["cancel"] else "failed" if give_up else "queued"
                    error = _died(row["attempts"], self.study.parent / LOG_NAME) if state == "failed" else None
                    reached = (row["stage"], row["done"]) if further else (row["reached_stage"], row["reached_done"])
                    db.execute(
                        f"UPDATE jobs SET state = ?, message = ?, finished = ?, deaths = ?, reached_stage = ?, "
                        f"reached_done = ?, {_FORGET} WHERE id = ?",
                        (state, _message(error), None if state == "queued" else now, deaths, *reached, row["id"]),
                    )
            return len(orphans)

    def fail_active(self, error: InfluenceError) -> None:
        """End every queued or orphaned job with one message: no worker can be started."""
        self._write(
            f"UPDATE jobs SET state = 'failed', message = ?, finished = ? WHERE {_ACTIVE}", _message(error), time.time()
        )


def _message(error: InfluenceError | None) -> str | None:
    return json.dumps({"what": error.what, "why": error.why, "fix": error.fix}) if error else None


def _died(attempts: int, log: Path) -> InfluenceError:
    return InfluenceError(
        "The job was given up",
        f"Its process died without an error message ({attempts} attempts); most often the memory ran out.",
        f"Close other programs or choose a smaller batch or a cheaper method, then start it again. The log is {log}.",
    )
