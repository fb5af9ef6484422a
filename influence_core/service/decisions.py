"""What was decided: the audit, the pace, agreement and conflicts, the patch and the cleaned data."""

from __future__ import annotations

import secrets
import tempfile
from collections import Counter, defaultdict
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from influence_core.adapters.original_file import original_file
from influence_core.changes import RESOLVES, resolved_changes, verdict
from influence_core.errors import BadInput
from influence_core.metrics.reviewer_agreement import agreement
from influence_core.reviews import Act, Decision, Reviews, Standing
from influence_core.service import access
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import opened
from influence_core.service.review_acts import reviewer_name
from influence_core.service.review_views import Agreement, ConflictView, DecisionsPage, LogLine, Pace, RowId, decided
from influence_core.service.review_words import NOTHING, step_words
from influence_core.service.reviews import is_resolution
from influence_core.workflows import patch_replay, patches

_CONFLICTS_SHOWN = 50
_Votes = dict[Hashable, dict[str, Hashable]]


def decisions_page(study: str) -> DecisionsPage:
    """Return progress, agreement and conflicts of a study's reviewers."""
    held, log = opened(base_name(study)), Reviews(study_folder(study))
    classes = held.study.header.classes
    changes, conflicts = resolved_changes(study_folder(study), classes)
    pace = tuple(
        Pace(name, count, first, last, 60 * (count - 1) / (last - first) if last > first else None)
        for name, (count, first, last) in log.counts().items()
    )
    shown = tuple(
        ConflictView(one.split, one.row, one.old, tuple(map(decided, one.votes)))
        for one in conflicts[:_CONFLICTS_SHOWN]
    )
    actions = dict(Counter(change.action for change in changes))
    said = _agreement(log.standing(), is_number=not classes)
    owner = access.role(base_name(study)) == "owner"
    names = tuple(name for name in log.reviewers() if not is_resolution(name))
    return DecisionsPage(pace, actions, len(conflicts), shown, said, owner, names)


def _agreement(standing: list[Standing], *, is_number: bool) -> Agreement:
    votes: _Votes = defaultdict(dict)
    for one in standing:
        if one.decision.action != "unsure" and not is_resolution(one.reviewer):
            action, label = verdict(one.decision, is_number=is_number)
            # To keep a label is to say that it is right: the choice is the label.
            choice = one.decision.given if action == "keep" and one.decision.given is not None else label or action
            votes[one.decision.split, one.decision.row][one.reviewer] = str(choice)
    measure, value, n_rows, names = agreement(votes)
    shared = {row: said for row, said in votes.items() if len(said) > 1}
    counts = Counter(str(choice) for said in shared.values() for choice in said.values())
    per_class = tuple(
        (name, agreement({row: {who: c == name for who, c in said.items()} for row, said in shared.items()})[1], n)
        for name, n in counts.most_common(20)
    )
    return Agreement(measure, value, n_rows, names, per_class)


def decisions_log(
    study: str, text: str = "", reviewer: str = "", before: int | None = None, limit: int = 100
) -> tuple[LogLine, ...]:
    """Return lines of the audit, the latest first; ``text`` is searched in rows, actions, labels and comments."""
    opened(base_name(study))
    found = Reviews(study_folder(study)).log(reviewer=reviewer or None, text=text[:200], before=before, limit=limit)
    return tuple(
        LogLine(line.seq, line.reviewer, line.at, line.kind, line.standing, line.n_rows, _words(made), line.evidence)
        for line, made in found
    )


def _words(made: tuple[Decision, ...]) -> str:
    shown = []
    for d in made[:3]:
        to = f" {d.given} → {d.label}" if d.action == "relabel" else f" to {d.weight}" if d.weight is not None else ""
        said = f" ({d.comment})" if d.comment else ""
        shown.append(f"{d.split} row {d.row}: {d.action}{to}{said}")
    return "; ".join(shown)


def undo_last(study: str, reviewer: str, expects: int | None = None) -> str:
    """Undo the reviewer's own last act, one row or a batch, and say what it was.

    Args:
        study: The study's name.
        reviewer: Whose; whoever is signed in undoes their own.
        expects: Number in the log of the act that was announced (``next_steps``).

    Raises:
        BadInput: They may not review, or the last act is another than the announced one by now.
    """
    name, log = reviewer_name(study, reviewer), Reviews(study_folder(study))
    line = log.record(name, [Act(f"decisions-{secrets.token_hex(8)}", 1, "undo", expects=expects)])[0]
    return NOTHING["undo"] if line.target is None else f"Undone: {step_words(log.step(line.target))}."


def resolve_conflict(
    study: str, split: str, row_id: RowId, action: str, label: str | None = None, weight: float | None = None
) -> None:
    """Decide a conflict as an owner; it holds against any number of reviewers, until an owner decides otherwise.

    Raises:
        BadInput: They are not the study's owner, or this is no decision.
    """
    access.check(base_name(study), "owner")
    log, name = Reviews(study_folder(study)), f"{RESOLVES}{access.visitor().person or 'this computer'}"
    votes = log.about(split, row_id)
    if not votes:
        raise BadInput("There is no conflict", f"Nobody decided about {split} row {row_id}.", "Reload the page.")
    given = next((vote.decision.given for vote in votes if vote.decision.given is not None), None)
    done: Any = action
    decision = Decision(split, row_id, done, label, weight, "conflict resolved", given)
    log.record(name, [Act(f"resolve-{secrets.token_hex(8)}", 1, "decide", (decision,))])


def patch_file(study: str, format: str) -> bytes:
    """Return the patch of a study: what is to become of its rows, by whom, and why."""
    held = opened(base_name(study))
    changes, _ = resolved_changes(study_folder(study), held.study.header.classes)
    return patches.patch_bytes(patches.with_rows_seen(changes, held.study), format)


def cleaned_data(study: str, format: str) -> bytes:
    """Return the data of a study as its reviewers corrected them, in the shape in which they came."""
    held = opened(base_name(study))
    changes, _ = resolved_changes(study_folder(study), held.study.header.classes)
    done = patch_replay.replayed(held.study, patches.with_rows_seen(changes, held.study))
    return patches.data_bytes(patches.users_shape(held.study, done.table), format)


def cleaned_original(study: str, title: str, file: bytes) -> tuple[bytes, str]:
    """Return the user's own file with the corrected labels, everything else as it came, and the ending of its name.

    Args:
        study: The study that was imported from it.
        title: The file's name, for its kind.
        file: Its content.

    Raises:
        BadInput: It is not the file that the study was imported from.
    """
    held = opened(base_name(study))
    with tempfile.TemporaryDirectory(prefix="influence-original-") as folder:
        path = Path(folder) / (Path(title).name or "original.csv")
        path.write_bytes(file)
        changes, _ = resolved_changes(study_folder(study), held.study.header.classes)
        return original_file(held.study, patches.with_rows_seen(changes, held.study), path)
