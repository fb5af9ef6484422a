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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from influence_core.database import Database, transaction
from influence_core.errors import BadInput

FILE_NAME = "reviews.sqlite"
Action = Literal["keep", "relabel", "drop", "downweight", "unsure"]
Kind = Literal["decide", "undo", "redo"]
ACTIONS = get_args(Action)
MAX_ROWS = 200_000  # of one act
MAX_COMMENT = 2_000  # characters
_MAX_NAME = 200
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


@dataclass(frozen=True)
class Decision:
    """What is to become of one row.

    Attributes:
        split: ``train`` or ``test``.
        row: The row's id.
        action: What to do.
        label: The new label of ``relabel``.
        weight: The new weight, from 0 to 1, of ``downweight``.
        comment: In the reviewer's words.
        given: The label that the reviewer saw.
    """

    split: str
    row: int | str
    action: Action
    label: str | None = None
    weight: float | None = None
    comment: str = ""
    given: str | None = None


@dataclass(frozen=True)
class Act:
    """Something that a reviewer did.

    Attributes:
        evidence: What was on screen (method, checkpoint, scores, neighbours).
        expects: Of an undo or redo that was announced: the act that it is about. It is refused if that is another by
            now.
    """

    tab: str
    number: int
    kind: Kind = "decide"
    decisions: tuple[Decision, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    expects: int | None = None


@dataclass(frozen=True)
class Logged:
    """A line of the log: an act with what became of it. ``standing``: not undone; ``at``: seconds since 1970."""

    seq: int
    reviewer: str
    tab: str
    number: int
    kind: Kind
    at: float
    target: int | None
    standing: bool
    n_rows: int
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """An act that the next undo or redo is about.

    Attributes:
        counts: ``(action, label, rows)``, the most frequent first; at most 20.
        first: One of its decisions.
    """

    seq: int
    at: float
    n_rows: int
    counts: tuple[tuple[Action, str | None, int], ...]
    first: Decision


@dataclass(frozen=True)
class Standing:
    """A reviewer's decision that holds now, with the act that made it."""

    decision: Decision
    reviewer: str
    seq: int
    at: float


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
            BadInput: An act is malformed, or its rows cannot be reviewed.
        """
        _check_name(reviewer, "reviewer")
        for act in acts:
            _check_act(act)
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
            found = db.execute(_LATEST.format(where="d.split = ? AND d.row = ?"), (split, _key(row)))
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
                if lines := [_standing(line) for line in db.execute(select, (split, _key(row)))]:
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


_LATEST = """
SELECT d.*, a.reviewer, a.at FROM decisions d JOIN acts a ON a.seq = d.act
WHERE a.standing = 1 AND {where} AND d.act = (
    SELECT max(e.act) FROM decisions e JOIN acts b ON b.seq = e.act
    WHERE e.split = d.split AND e.row = d.row AND b.standing = 1 AND b.reviewer = a.reviewer)
ORDER BY d.act, d.row
"""


def _recorded(db: sqlite3.Connection, reviewer: str, act: Act) -> Logged:
    known = "SELECT * FROM acts WHERE reviewer = ? AND tab = ? AND number = ?"
    found = db.execute(known, (reviewer, act.tab, act.number)).fetchone()
    if found is None:
        target = None if act.kind == "decide" else _target(db, reviewer, act.kind)
        if act.expects is not None and target != act.expects:
            why = "What you would change back is another act by now: somebody, or another tab of yours, was quicker."
            raise BadInput(f"Nothing was {act.kind}ne", why, "Look at what stands there now, and press again.")
        if act.kind == "decide":  # a new decision ends what could be redone
            db.execute("UPDATE acts SET standing = -1 WHERE reviewer = ? AND kind = 'decide' AND standing = 0",
                       (reviewer,))  # fmt: skip
        elif target is not None:
            db.execute("UPDATE acts SET standing = ? WHERE seq = ?", (act.kind == "redo", target))
        insert = "INSERT INTO acts(reviewer, tab, number, kind, at, target, n_rows, evidence) VALUES (?,?,?,?,?,?,?,?)"
        values = (reviewer, act.tab, act.number, act.kind, time.time(), target, len(act.decisions))
        seq = db.execute(insert, (*values, json.dumps(dict(act.evidence)))).lastrowid
        lines = [(seq, d.split, _key(d.row), d.action, d.label, d.weight, d.comment, d.given) for d in act.decisions]
        db.executemany("INSERT INTO decisions VALUES (?,?,?,?,?,?,?,?)", lines)
        found = db.execute(known, (reviewer, act.tab, act.number)).fetchone()
    return _logged(found)


def _target(db: sqlite3.Connection, reviewer: str, kind: Kind) -> int | None:
    """Return the act that an undo or redo of this reviewer is about: the last standing one, the last undone one."""
    which, order = ("standing = 1", "DESC") if kind == "undo" else ("standing = 0", "ASC")
    select = f"SELECT seq FROM acts WHERE reviewer = ? AND kind = 'decide' AND {which} ORDER BY seq {order} LIMIT 1"
    row = db.execute(select, (reviewer,)).fetchone()
    return None if row is None else row["seq"]


def _step(db: sqlite3.Connection, seq: int) -> Step:
    act = _logged(db.execute("SELECT * FROM acts WHERE seq = ?", (seq,)).fetchone())
    select = "SELECT action, label, count(*) FROM decisions WHERE act = ? GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20"
    counts = tuple((row[0], row[1], row[2]) for row in db.execute(select, (seq,)))
    first = db.execute("SELECT * FROM decisions WHERE act = ? LIMIT 1", (seq,)).fetchone()
    return Step(act.seq, act.at, act.n_rows, counts, _decision(first))


def _check_name(name: str, what: str) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        why = f"The {what} is {str(name)[:80]!r}."
        raise BadInput("This decision cannot be kept", why, f"Give a {what} of 1 to {_MAX_NAME} visible characters.")


def _check_act(act: Act) -> None:
    _check_name(act.tab, "tab")
    wrong = ""
    if not isinstance(act.number, int) or act.number < 1:
        wrong = f"its number is {act.number!r}"
    elif act.kind not in get_args(Kind):
        wrong = f"its kind is {act.kind!r}"
    elif (act.kind == "decide") != bool(act.decisions):
        wrong = f"it is of kind {act.kind} and has {len(act.decisions)} decisions"
    elif len(act.decisions) > MAX_ROWS:
        wrong = f"it is about {len(act.decisions):,} rows, and {MAX_ROWS:,} is the most"
    elif len({(d.split, _key(d.row)) for d in act.decisions}) != len(act.decisions):
        wrong = "a row is in it twice"
    if wrong:
        raise BadInput("This decision cannot be kept", f"{wrong[0].upper()}{wrong[1:]}.", "Reload the page.")
    for decision in act.decisions:
        _check_decision(decision)


def _check_decision(decision: Decision) -> None:
    if decision.split == "locked":
        raise BadInput(
            "Locked rows are not cleaned",
            "They tell whether cleaning helped; a reviewed judge would agree with whoever reviewed it.",
            "Review train and test rows.",
        )
    wrong = ""
    if decision.split not in ("train", "test"):
        wrong = f"the split is {decision.split!r}"
    elif decision.action not in ACTIONS:
        wrong = f"the action is {decision.action!r}"
    elif (decision.action == "relabel") != (decision.label is not None):
        wrong = f"{decision.action} with the label {decision.label!r}"
    elif decision.label is not None and not (0 < len(decision.label) <= _MAX_NAME and decision.label.strip()):
        wrong = f"the label is {decision.label[:80]!r}"
    elif (decision.action == "downweight") != (decision.weight is not None):
        wrong = f"{decision.action} with the weight {decision.weight!r}"
    elif decision.weight is not None and not 0 <= decision.weight <= 1:
        wrong = f"the weight is {decision.weight}"
    elif len(decision.comment) > MAX_COMMENT:
        wrong = f"the comment has {len(decision.comment):,} characters, and {MAX_COMMENT:,} is the most"
    if wrong:
        raise BadInput("This decision cannot be kept", f"Row {decision.row}: {wrong}.", "Decide again.")


def _key(row: int | str) -> str:
    """Return a row id as text that tells 7 from "7"."""
    return json.dumps(row)


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
