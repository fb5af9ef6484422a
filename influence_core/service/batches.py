"""Many rows decided at once: one act in the review log, which one undo takes back."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from influence_core.errors import BadInput
from influence_core.measurement import Rows
from influence_core.reviews import MAX_ROWS, Act, Decision, Logged, Reviews
from influence_core.service import access
from influence_core.service import data as rows
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import opened
from influence_core.service.queues import refuse_locked
from influence_core.service.review_acts import filled, reviewer_name
from influence_core.service.review_views import Batch, BatchDone, BatchLine, RowId

_WHAT = "These rows cannot be decided together"
_VERBS = {"relabel": "relabelled", "keep": "kept as labelled", "drop": "dropped", "downweight": "down-weighted",
          "unsure": "marked as unsure"}  # fmt: skip


def relabelling(study: str, split: str, row_ids: Sequence[RowId], label: str, evidence: Mapping[str, Any]) -> Batch:
    """Return the batch that gives all rows one label, without those that carry it.

    Raises:
        BadInput: They may not review, a row is unknown or locked, or the label is no class of the study.
    """
    access.check(base_name(study), "reviewer")
    refuse_locked(split)
    held = opened(base_name(study))
    classes = held.study.header.classes
    if label not in classes:
        raise BadInput(_WHAT, f"'{label[:40]}' is no class.", f"Use one of: {', '.join(classes)}.")
    ids = tuple(row_ids)
    places = held.study.task.positions(Rows(split, ids))
    others = rows.given_labels(held, split)[places] != classes.index(label)
    kept = tuple(row for row, other in zip(ids, others.tolist(), strict=True) if other)
    left = ((len(ids) - len(kept), f"labelled {label} already"),) if len(kept) < len(ids) else ()
    return Batch(split, "relabel", kept, (label,) * len(kept), evidence, left)


def decided_among(study: str, batch: Batch) -> int:
    """Return about how many of the rows somebody has decided already.

    Raises:
        BadInput: They may not review.
    """
    access.check(base_name(study), "reviewer")
    return len(Reviews(study_folder(study)).decided_rows(batch.split).intersection(batch.rows))


def decide_together(study: str, reviewer: str, token: str, batch: Batch, again: bool = False) -> BatchDone:
    """Write a batch as one act; what is returned is on the disk. Sent again under its token it changes nothing.

    Args:
        study: The study's name.
        reviewer: The typed name; whoever is signed in reviews under their own.
        token: What tells this batch from every other of the reviewer's.
        batch: The rows with what is to become of them.
        again: Also decide about rows that somebody has decided already, which else are left as they are: whoever
            reviews them one by one at this moment is not overruled by a list.

    Raises:
        BadInput: They may not review, a row is unknown or locked, or nothing is left to decide.
        StoreProblem: The disk refuses; nothing was written.
    """
    name = reviewer_name(study, reviewer)
    refuse_locked(batch.split)
    held = opened(base_name(study))
    if not 0 < len(batch.rows) <= MAX_ROWS:
        why = f"There are {len(batch.rows):,}."
        raise BadInput(_WHAT, why, f"Choose 1 to {MAX_ROWS:,} rows.")
    labels = batch.labels or (None,) * len(batch.rows)
    made = filled(held, [
        Decision(batch.split, row, batch.action, label) for row, label in zip(batch.rows, labels, strict=True)
    ])  # fmt: skip
    said = {**batch.evidence, "action": batch.action, "label": labels[0] if len(set(labels)) == 1 else None}
    act = Act(f"batch {token}"[:200], 1, "decide", made, said, spares=not again)
    line = Reviews(study_folder(study)).record(name, [act])[0]
    return BatchDone(batch_line(line), len(batch.rows) - line.n_rows)


def undo_batch(study: str, reviewer: str, tab: str, number: int) -> str:
    """Undo one batch of the reviewer's, whatever they decided since, and say what it was.

    Raises:
        BadInput: They may not review.
    """
    name, log = reviewer_name(study, reviewer), Reviews(study_folder(study))
    done = log.record(name, [Act(f"undo {secrets.token_hex(8)}", 1, "undo", of=(tab, number))])[0]
    line = None if done.target is None else log.line(done.target)
    if line is None:
        return "This batch does not hold any more."
    return f"Undone: {rows_in_words(line.n_rows)} are as they were before."


def batches(study: str, reviewer: str = "", limit: int = 20) -> tuple[BatchLine, ...]:
    """Return the batches that hold, of one reviewer or of all, the latest first."""
    opened(base_name(study))
    return tuple(batch_line(line) for line, _ in Reviews(study_folder(study)).batches(reviewer or None, limit))


def rows_in_words(n: int) -> str:
    """Return how many rows."""
    return f"{n:,} row{'' if n == 1 else 's'}"


def batch_line(line: Logged) -> BatchLine:
    """Return an act about many rows as a line of the list of batches."""
    said = line.evidence
    verb = _VERBS.get(str(said.get("action")), "decided")
    ruled = {"suggested": " as suggested", "patch": f" as in {_files(said.get('files'))}"}
    to = f" to “{said['label']}”" if said.get("label") else ruled.get(str(said.get("rule")), "")
    return BatchLine(line.reviewer, line.tab, line.number, line.at, line.n_rows,
                     f"{rows_in_words(line.n_rows)} {verb}{to}")  # fmt: skip


def _files(names: object) -> str:
    shown = [str(name) for name in names] if isinstance(names, list) else []
    more = f" and {len(shown) - 2} more" if len(shown) > 2 else ""
    return f"{', '.join(shown[:2])}{more}" if shown else "a patch"


__all__ = ["batch_line", "batches", "decide_together", "decided_among", "relabelling", "rows_in_words", "undo_batch"]
