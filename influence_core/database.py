"""SQLite files of a study: opened for each call, brought to their version, refused from the future, in plain words.

A file that does not exist reads as an empty one in memory: looking at a study writes nothing. Connections are closed at
once, so that one ``Database`` may be used from any number of threads and processes.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from influence_core.errors import StoreProblem

_BUSY_SECONDS = 10.0
_ROOM = 256 << 10  # bytes that opening and changing a file may take


@dataclass(frozen=True)
class Database:
    """One SQLite file with its schema.

    Attributes:
        path: The file.
        name: What messages call it, as in "job list".
        version: Version of the schema; kept in the file.
        schema: Statements that make an empty file, separated by semicolons.
        damaged: What to do with a file that cannot be read.
        synchronous: ``FULL``: what was committed survives a power cut; ``NORMAL``: a crash of the process.
    """

    path: Path
    name: str
    version: int
    schema: str
    damaged: str
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"

    @contextmanager
    def open(self, create: bool = False) -> Iterator[sqlite3.Connection]:
        """Yield a connection whose rows are read by column name.

        Raises:
            StoreProblem: The file cannot be read or written, or is from a newer program.
        """
        missing = not create and not os.path.exists(self.path)
        mode = "rwc" if create else "rw"
        address = ":memory:" if missing else f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            db = sqlite3.connect(address, timeout=_BUSY_SECONDS, isolation_level=None, uri=True)
            try:
                self._prepare(db)
                yield db
            finally:
                db.close()
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # a fault of this program, not of the file
        except sqlite3.DatabaseError as error:
            raise self._problem(error) from error

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Bring a new file to the present version; refuse one from the future."""
        db.row_factory = sqlite3.Row
        db.execute(f"PRAGMA synchronous = {self.synchronous}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > self.version:
            why = f"{self.path} has version {version}; this program knows version {self.version}."
            fix = "Update this program or move the file away."
            raise StoreProblem(f"The {self.name} comes from a newer program", why, fix)
        if version == self.version:
            return
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:  # the switch to WAL does not honour the busy timeout when two processes make it at once
            try:
                db.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with transaction(db):
            if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in self.schema.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {self.version}")

    def _problem(self, error: sqlite3.Error) -> StoreProblem:
        path, code = self.path, getattr(error, "sqlite_errorname", "") or ""
        why = f"{path}: {error}."
        # Without room for its shared memory SQLite cannot even read, and calls that an I/O error.
        refused = code.startswith("SQLITE_IOERR") and path.exists()
        if code == "SQLITE_FULL" or (refused and shutil.disk_usage(path).free < _ROOM):
            return StoreProblem("The disk is full", why, "Free some space and try again; nothing finished is lost.")
        if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return StoreProblem(f"The {self.name} is busy", why, "Try again in a moment.")
        if code.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            fix = "Make this file and its folder writable, or use another studies folder."
            return StoreProblem(f"The {self.name} cannot be written", why, fix)
        return StoreProblem(f"The {self.name} cannot be read", why, self.damaged)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Take the write lock at once, so that what is read inside is still true when it is written."""
    db.execute("BEGIN IMMEDIATE")
    yield db
    db.execute("COMMIT")  # not reached after an error: closing the connection then rolls back
