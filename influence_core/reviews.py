"""The review log of a study: who decided what about which row, append-only, and what holds now.

Reviewers send *acts*, numbered by themselves: ``(reviewer, tab, number)`` names one act for ever, so that an act which
is sent again after a lost connection is recognised and changes nothing. An act decides about one row or many, or undoes
or redoes the reviewer's own last one. Nothing is ever deleted: an undone act stays in the log, with the one that undid
it. A reviewer's last standing decision about a row is theirs; between two tabs the later one wins.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from influence_core.database import Database, transaction
from influence_core.errors import BadInput
from influence_core.review_records import (
    ACTIONS,
    LOCKED,
    MAX_COMMENT,
    MAX_ROWS,
    Act,
    Action,
    Decision,
    Kind,
    Logged,
    Standing,
    Step,
    check_act,
    check_name,
    row_key,
)

__all__ = [
    "ACTIONS", "FILE_NAME", "LOCKED", "MAX_COMMENT", "MAX_ROWS", "SCHEMA", "Act", "Action", "Decision", "Kind",
    "Logged", "Reviews", "Standing", "Step",
]  # fmt: skip

FILE_NAME = "reviews.sqlite"
# standing: 1 holds, 0 was undone and can be redone, -1 was undone for good.
SCHEMA = """
CREATE TABLE acts(
    seq INTEGER PRIMARY KEY AUTOINCREMENT, reviewer TEXT NOT NULL, tab TEXT NOT NULL, number INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('decide', 'undo', 'redo')), at REAL NOT NULL, target INTEGER,
    standing INTEGER NOT NULL DEFAULT 1 CHECK (standing IN (1, 0, -1)), n_rows INTEGER NOT NULL DEFAULT 0,
    evidence TEXT, UNIQUE (reviewer, tab, number));
CREATE INDEX acts_by_reviewer ON acts(reviewer, standing, seq);
CREATE TABLE decisions(
    act INTEGER NOT NULL REFERENCES acts(seq), split TEXT NOT NULL, row TEXT NOT NULL, action TEXT NOT NULL,
    label TEXT, weight REAL, comment TEXT NOT NULL DEFAULT '', given TEXT,
    PRIMARY KEY (act, split, row)) WITHOUT ROWID;
CREATE INDEX decisions_by_row ON decisions(split, row, act)
"""


class Reviews:
    """The review log in a study's folder; made by the first act.

    Every method raises ``StoreProblem`` if the log cannot be read or written.
    """

    def __init__(self, study_dir: Path | str) -> None:
        """Remember the folder; nothing is opened."""
        self.study = Path(study_dir)
        damaged = "Restore this file from a backup: it holds the reviewers' decisions."
        self._file = Database(self.study / FILE_NAME, "review log", 1, SCHEMA, damaged, "FULL")

    def record(self, reviewer: str, acts: Sequence[Act]) -> list[Logged]:
        """Write acts in their order, all of them or none; return them as they stand in the log.

        What is returned is on the disk. An act that is there already is returned as it was written then. To undo
        where nothing stands, or to redo where nothing was undone, is an act without a target.

        Raises:
            BadInput: An act is malformed, its rows cannot be reviewed, or it spares all of them.
        """
        check_name(reviewer, "reviewer")
        for act in acts:
            check_act(act)
        if not self.study.is_dir():
            raise BadInput("There is no such study", f"{self.study.name} is not there.", "Choose another study.")
        with self._file.open(create=True) as db, transaction(db):
            return [_recorded(db, reviewer, act) for act in acts]

    def standing(self, split: str | None = None) -> list[Standing]:
        """Return every reviewer's decision that holds now about every row, in the order in which they were made."""
        with self._file.open() as db:
            return [_standing(row) for row in db.execute(_LATEST.format(where="d.split = ?" if split else "1"),
                                                         (split,) if split else ())]  # fmt: skip

    def about(self, split: str, row: int | str) -> list[Standing]:
        """Return every reviewer's decision that holds now about one row."""
        with self._file.open() as db:
            found = db.execute(_LATEST.format(where="d.split = ? AND d.row = ?"), (split, row_key(row)))
            return [_standing(line) for line in found]

    def log(
        self, *, reviewer: str | None = None, text: str = "", before: int | None = None, limit: int = 200
    ) -> list[tuple[Logged, tuple[Decision, ...]]]:
        """Return lines of the log, the latest first, each with up to 20 of its decisions.

        Args:
            reviewer: Of this reviewer only.
            text: Only acts about a row, action, label or with a comment that contains this.
            before: Only lines before this one, for the next page.
            limit: At most so many.
        """
        conditions, values = ["1"], list[Any]()
        if reviewer is not None:
            conditions.append("reviewer = ?")
            values.append(reviewer)
        if before is not None:
            conditions.append("seq < ?")
            values.append(before)
        if text:
            conditions.append(
                "seq IN (SELECT act FROM decisions WHERE instr(lower(row || ' ' || action || ' ' || "
                "coalesce(label, '') || ' ' || comment), lower(?)))"
            )
            values.append(text)
        select = f"SELECT * FROM acts WHERE {' AND '.join(conditions)} ORDER BY seq DESC LIMIT ?"
        with self._file.open() as db:
            lines = [_logged(row) for row in db.execute(select, (*values, limit))]
            return [(line, _decisions(db, line.seq)) for line in lines]

    def decided(self, split: str, rows: Sequence[int | str]) -> dict[int | str, list[Standing]]:
        """Return every reviewer's decision that holds now about some rows; rows nobody decided about are left out."""
        found: dict[int | str, list[Standing]] = {}
        select = _LATEST.format(where="d.split = ? AND d.row = ?")
        with self._file.open() as db:
            for row in rows:
                if lines := [_standing(line) for line in db.execute(select, (split, row_key(row)))]:
                    found[row] = lines
        return found

    def rows_of(self, reviewer: str, split: str) -> dict[int | str, int]:
        """Return the rows about which a reviewer's decision holds, each with the last act, in the order of the acts."""
        select = (
            "SELECT d.row, max(d.act) AS last FROM decisions d JOIN acts a ON a.seq = d.act "
            "WHERE a.standing = 1 AND a.reviewer = ? AND d.split = ? GROUP BY d.row ORDER BY last"
        )
        with self._file.open() as db:
            return {json.loads(row["row"]): row["last"] for row in db.execute(select, (reviewer, split))}

    def last_row(self, reviewer: str, split: str, queue: str) -> int | str | None:
        """Return the row that a reviewer decided last from a queue, by what the evidence says of it; None for none."""
        select = (
            "SELECT d.row FROM acts a JOIN decisions d ON d.act = a.seq WHERE a.standing = 1 AND a.reviewer = ? "
            "AND d.split = ? AND json_extract(a.evidence, '$.queue') = ? ORDER BY a.seq DESC LIMIT 1"
        )
        with self._file.open() as db:
            found = db.execute(select, (reviewer, split, queue)).fetchone()
            return None if found is None else json.loads(found[0])

    def decided_rows(self, split: str) -> set[int | str]:
        """Return the rows about which anybody's decision holds."""
        with self._file.open() as db:
            return {json.loads(key) for key in _decided_keys(db, split)}

    def batches(self, reviewer: str | None = None, limit: int = 20) -> list[tuple[Logged, tuple[Decision, ...]]]:
        """Return the acts about more than one row that hold, of one reviewer or of all, the latest first."""
        whose, values = ("reviewer = ? AND ", (reviewer,)) if reviewer is not None else ("", ())
        select = f"SELECT * FROM acts WHERE {whose}kind = 'decide' AND standing = 1 AND n_rows > 1"
        with self._file.open() as db:
            lines = [_logged(row) for row in db.execute(f"{select} ORDER BY seq DESC LIMIT ?", (*values, limit))]
            return [(line, _decisions(db, line.seq)) for line in lines]

    def line(self, seq: int) -> Logged | None:
        """Return a line of the log."""
        with self._file.open() as db:
            row = db.execute("SELECT * FROM acts WHERE seq = ?", (seq,)).fetchone()
            return None if row is None else _logged(row)

    def found(self, reviewer: str, tab: str, number: int) -> Logged | None:
        """Return the act that a reviewer's tab and number name, or None if it was never written."""
        with self._file.open() as db:
            row = db.execute(_NAMED, (reviewer, tab, number)).fetchone()
            return None if row is None else _logged(row)

    def decisions(self, seq: int) -> tuple[Decision, ...]:
        """Return up to 20 of the decisions of an act."""
        with self._file.open() as db:
            return _decisions(db, seq)

    def next_step(self, reviewer: str, kind: Literal["undo", "redo"]) -> Step | None:
        """Return the act that a reviewer's next undo or redo is about, or None if there is none."""
        with self._file.open() as db:
            seq = _target(db, reviewer, kind)
            return None if seq is None else _step(db, seq)

    def step(self, seq: int) -> Step:
        """Return an act that decides, as an undo or redo of it is told."""
        with self._file.open() as db:
            return _step(db, seq)

    def last_number(self, reviewer: str, tab: str) -> int:
        """Return the highest number of a reviewer's acts from a tab, or 0."""
        with self._file.open() as db:
            select = "SELECT coalesce(max(number), 0) FROM acts WHERE reviewer = ? AND tab = ?"
            return db.execute(select, (reviewer, tab)).fetchone()[0]

    def new_labels(self, known: Sequence[str], limit: int = 50) -> tuple[str, ...]:
        """Return labels that standing decisions give and that are none of ``known``, in the order they came up."""
        select = (
            "SELECT d.label, min(d.act) FROM decisions d JOIN acts a ON a.seq = d.act WHERE a.standing = 1 "
            "AND d.label IS NOT NULL AND d.label NOT IN (SELECT value FROM json_each(?)) GROUP BY 1 ORDER BY 2 LIMIT ?"
        )
        with self._file.open() as db:
            return tuple(row[0] for row in db.execute(select, (json.dumps(list(known)), limit)))

    def reviewers(self) -> tuple[str, ...]:
        """Return everybody who ever decided, also those whose every act was undone, by name."""
        with self._file.open() as db:
            return tuple(row[0] for row in db.execute("SELECT DISTINCT reviewer FROM acts ORDER BY 1"))

    def counts(self) -> dict[str, tuple[int, float, float]]:
        """Return per reviewer: standing acts that decide, and the times of the first and the last."""
        select = (
            "SELECT reviewer, count(*), min(at), max(at) FROM acts WHERE kind = 'decide' AND standing = 1 GROUP BY 1"
        )
        with self._file.open() as db:
            return {row[0]: (row[1], row[2], row[3]) for row in db.execute(select)}


_NAMED = "SELECT * FROM acts WHERE reviewer = ? AND tab = ? AND number = ?"
_LATEST = """
SELECT d.*, a.reviewer, a.at FROM decisions d JOIN acts a ON a.seq = d.act
WHERE a.standing = 1 AND {where} AND d.act = (
    SELECT max(e.act) FROM decisions e JOIN acts b ON b.seq = e.act
    WHERE e.split = d.split AND e.row = d.row AND b.standing = 1 AND b.reviewer = a.reviewer)
ORDER BY d.act, d.row
"""


def _recorded(db: sqlite3.Connection, reviewer: str, act: Act) -> Logged:
    found = db.execute(_NAMED, (reviewer, act.tab, act.number)).fetchone()
    if found is None:
        decisions, target = act.decisions, None if act.kind == "decide" else _target(db, reviewer, act.kind, act.of)
        if act.expects is not None and target != act.expects:
            why = "What you would change back is another act by now: somebody, or another tab of yours, was quicker."
            raise BadInput(f"Nothing was {act.kind}ne", why, "Look at what stands there now, and press again.")
        if act.kind == "decide":  # a new decision ends what could be redone
            decisions = _unspared(db, decisions) if act.spares else decisions
            db.execute("UPDATE acts SET standing = -1 WHERE reviewer = ? AND kind = 'decide' AND standing = 0",
                       (reviewer,))  # fmt: skip
        elif target is not None:
            db.execute("UPDATE acts SET standing = ? WHERE seq = ?", (act.kind == "redo", target))
        insert = "INSERT INTO acts(reviewer, tab, number, kind, at, target, n_rows, evidence) VALUES (?,?,?,?,?,?,?,?)"
        values = (reviewer, act.tab, act.number, act.kind, time.time(), target, len(decisions))
        seq = db.execute(insert, (*values, json.dumps(dict(act.evidence)))).lastrowid
        lines = [(seq, d.split, row_key(d.row), d.action, d.label, d.weight, d.comment, d.given) for d in decisions]
        db.executemany("INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?)", lines)
        found = db.execute(_NAMED, (reviewer, act.tab, act.number)).fetchone()
    return _logged(found)


def _unspared(db: sqlite3.Connection, decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    """Return the decisions about rows that nobody has decided about."""
    taken = {split: _decided_keys(db, split) for split in {decision.split for decision in decisions}}
    left = tuple(decision for decision in decisions if row_key(decision.row) not in taken[decision.split])
    if not left:
        why = "Somebody has decided about every one of them meanwhile."
        raise BadInput("Nothing is left to decide", why, "Look at the list again.")
    return left


def _decided_keys(db: sqlite3.Connection, split: str) -> set[str]:
    select = "SELECT DISTINCT d.row FROM decisions d JOIN acts a ON a.seq = d.act WHERE a.standing = 1 AND d.split = ?"
    return {row["row"] for row in db.execute(select, (split,))}


def _target(db: sqlite3.Connection, reviewer: str, kind: Kind, of: tuple[str, int] | None = None) -> int | None:
    """Return the act that an undo or redo of this reviewer is about: the one named, else the last one."""
    mine = "reviewer = ? AND kind = 'decide' AND standing = ?"
    from_standing = kind == "undo"
    if of is not None:
        row = db.execute(f"SELECT seq FROM acts WHERE {mine} AND tab = ? AND number = ?",
                         (reviewer, from_standing, *of)).fetchone()  # fmt: skip
        return None if row is None else row["seq"]
    if from_standing:
        row = db.execute(f"SELECT seq FROM acts WHERE {mine} ORDER BY seq DESC LIMIT 1", (reviewer, 1)).fetchone()
        return None if row is None else row["seq"]
    undone = [row["seq"] for row in db.execute(f"SELECT seq FROM acts WHERE {mine}", (reviewer, 0))]
    if not undone:
        return None
    # What was undone last is done again first; the undos of all of them are younger than the last decision.
    last = "SELECT target FROM acts WHERE reviewer = ? AND standing = 1 AND kind = 'undo' ORDER BY seq DESC"
    return next(row["target"] for row in db.execute(last, (reviewer,)) if row["target"] in set(undone))


def _step(db: sqlite3.Connection, seq: int) -> Step:
    act = _logged(db.execute("SELECT * FROM acts WHERE seq = ?", (seq,)).fetchone())
    select = "SELECT action, label, count(*) FROM decisions WHERE act = ? GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20"
    counts = tuple((row[0], row[1], row[2]) for row in db.execute(select, (seq,)))
    first = db.execute("SELECT * FROM decisions WHERE act = ? LIMIT 1", (seq,)).fetchone()
    return Step(act.seq, act.at, act.n_rows, counts, _decision(first))


def _logged(row: sqlite3.Row) -> Logged:
    return Logged(
        row["seq"], row["reviewer"], row["tab"], row["number"], row["kind"], row["at"], row["target"],
        row["standing"] == 1, row["n_rows"], json.loads(row["evidence"] or "{}"),
    )  # fmt: skip


def _decision(row: sqlite3.Row) -> Decision:
    return Decision(
        row["split"], json.loads(row["row"]), row["action"], row["label"], row["weight"], row["comment"], row["given"]
    )


def _decisions(db: sqlite3.Connection, seq: int) -> tuple[Decision, ...]:
    rows: Iterable[sqlite3.Row] = db.execute("SELECT * FROM decisions WHERE act = ? ORDER BY row LIMIT 20", (seq,))
    return tuple(_decision(row) for row in rows)


def _standing(row: sqlite3.Row) -> Standing:
    return Standing(_decision(row), row["reviewer"], row["act"], row["at"])
