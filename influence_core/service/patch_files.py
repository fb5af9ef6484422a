"""Patches that a browser brought: what would become of each line, and what fits written as decisions, in one act."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from influence_core.changes import Change, as_number, patch_table, resolved_changes
from influence_core.config import digest
from influence_core.errors import BadInput
from influence_core.review_records import MAX_COMMENT, check_decision
from influence_core.reviews import MAX_ROWS, Act, Decision, Reviews
from influence_core.service.batches import batch_line
from influence_core.service.data import is_regression
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import OpenStudy, opened, told_if_gone
from influence_core.service.patch_views import PATCH_STATES, PatchFile, PatchLine, PatchPage
from influence_core.service.review_acts import check_label, filled, reviewer_name
from influence_core.service.review_views import BatchDone, RowId
from influence_core.service.uploads import safe_name
from influence_core.store import disk_errors
from influence_core.tables import table_bytes
from influence_core.workflows.patch_replay import Outcome, outcomes, was_reviewed
from influence_core.workflows.patches import merged, read_patch

MAX_BYTES = 50 << 20  # of all files together
MAX_FILES = 20
_SHOWN = 20  # lines in each state
_COMMAND = "Use the command line: python -m influence_core replay STUDY --patch FILE"
_WHAT = "The patch cannot be applied"
_Place = tuple[str, RowId]


@dataclass(frozen=True)
class _Line:
    """A change with its state here; ``place``: the row that it is about now."""

    state: str
    change: Change
    place: _Place
    why: str = ""


@dataclass(frozen=True)
class _Read:
    """Patches as one, against the data: what fits what, whatever reviewers have decided."""

    key: str
    outcomes: tuple[Outcome, ...]
    disputed: tuple[tuple[Change, ...], ...]


@told_if_gone
def patch_page(study: str, files: Sequence[PatchFile], follow: bool = False) -> PatchPage:
    """Return what would become of patches if they were applied now; nothing is written.

    Args:
        study: The study's name.
        files: The patches; several are merged.
        follow: Rows that have moved are changed where they are now.

    Raises:
        BadInput: Too many or too large files, or one that is no patch of this study; names it.
    """
    held = opened(base_name(study))
    lines = _lines(study, held, _read(held, files, follow))
    counts = Counter(line.state for line in lines)
    first: dict[str, list[_Line]] = defaultdict(list)
    for line in lines:
        if len(first[line.state]) < _SHOWN:
            first[line.state].append(line)
    known = held.study.header.classes
    added = {str(line.change.new): None for line in lines if line.state == "fits" and line.change.new is not None}
    return PatchPage(
        {state: counts[state] for state in PATCH_STATES},
        {state: tuple(map(_shown, first[state])) for state in PATCH_STATES if state in first},
        () if is_regression(held) else tuple(name for name in added if name not in known),
        sum(not line.change.content for line in lines if line.state != "disputed"),
    )


@told_if_gone
def patch_lines(study: str, files: Sequence[PatchFile], follow: bool, format: str) -> bytes:
    """Return every line of patches with what would become of it, as a file; rows in dispute once for each patch.

    Raises:
        BadInput: As for ``patch_page``, or an unknown format.
    """
    held = opened(base_name(study))
    read = _read(held, files, follow)
    lines = [line for line in _lines(study, held, read) if line.state != "disputed"]
    lines += [_in_dispute(said, change) for said in read.disputed for change in said]
    table = patch_table([line.change for line in lines])
    table.insert(0, "result", [PATCH_STATES[line.state] for line in lines])
    table.insert(1, "why", [line.why for line in lines])
    return table_bytes(table, format)


@told_if_gone
def apply_patch(
    study: str, reviewer: str, token: str, files: Sequence[PatchFile], follow: bool = False, again: bool = False
) -> BatchDone:
    """Write the lines of patches that fit as decisions of a reviewer: one act in the log, which one undo takes back.

    What is returned is on the disk. Sent again under its token it changes nothing.

    Args:
        study: The study's name.
        reviewer: The typed name; whoever is signed in reviews under their own.
        token: What tells this act from every other of the reviewer's.
        files: The patches; several are merged.
        follow: Rows that have moved are decided where they are now.
        again: Also decide about rows about which something else was decided here.

    Raises:
        BadInput: They may not review, the files cannot be used, or nothing of them fits.
        StoreProblem: The disk refuses; nothing was written.
    """
    name, log = reviewer_name(study, reviewer), Reviews(study_folder(study))
    tab = f"patch {token}"[:200]
    if (line := log.found(name, tab, 1)) is not None:
        return BatchDone(batch_line(line), 0)
    held = opened(base_name(study))
    read = _read(held, files, follow)
    taken = ("fits", "decided") if again else ("fits",)
    lines = [line for line in _lines(study, held, read) if line.state in taken]
    if not lines:
        why = "No line of it fits a row of this study that is not decided already."
        raise BadInput(_WHAT, why, "Look at the lines below it: each has its reason.")
    made = filled(held, [_decision(line, name) for line in lines])
    said = {
        "screen": "decisions", "rule": "patch", "files": [safe_name(file.name) for file in files], "patch": read.key,
        "follow": follow, "by": sorted({line.change.reviewer for line in lines if line.change.reviewer})[:20],
    }  # fmt: skip
    line = log.record(name, [Act(tab, 1, "decide", made, said, spares=not again)])[0]
    return BatchDone(batch_line(line), len(made) - line.n_rows)


def _decision(line: _Line, reviewer: str) -> Decision:
    """Return a line as a decision; whose it was stands in the comment if it was somebody else's."""
    change, (split, row) = line.change, line.place
    by = "" if change.reviewer in ("", reviewer) else f"{change.reviewer} decided so"
    comment = ": ".join(part for part in (by, change.comment) if part)
    if len(comment) > MAX_COMMENT:
        comment = f"{comment[: MAX_COMMENT - 1]}…"
    return Decision(split, row, change.action, change.new, change.weight, comment)


# -- what is in the files -------------------------------------------------------------------------------------------


def _read(held: OpenStudy, files: Sequence[PatchFile], follow: bool) -> _Read:
    """Return the patches against the data; the last ones are remembered, for every run of a screen asks again."""
    size = sum(len(file.content) for file in files)
    if not 0 < len(files) <= MAX_FILES:
        raise BadInput(_WHAT, f"There are {len(files):,} files.", f"Choose 1 to {MAX_FILES}.")
    if size > MAX_BYTES:
        raise BadInput("The file is too large to be sent", f"There are more than {MAX_BYTES:,} bytes.", _COMMAND)
    key = digest([[[file.name, blake2b(file.content).hexdigest()] for file in files], follow])
    known: _Read | None = held.recalled(("patch read",))
    if known is not None and known.key == key:
        return known
    changes, disputed = merged([_changes(held, file) for file in files])
    if len(changes) > MAX_ROWS:
        raise BadInput(_WHAT, f"It is about {len(changes):,} rows, and {MAX_ROWS:,} is the most.", _COMMAND)
    read = _Read(key, outcomes(held.study, changes, follow=follow), tuple(disputed))
    held.remember(("patch read",), read)
    return read


def _changes(held: OpenStudy, file: PatchFile) -> list[Change]:
    title = safe_name(file.name)
    try:
        if not file.content:
            raise BadInput("The file is empty", f"{title} has no bytes.", "Choose a patch.")
        with tempfile.TemporaryDirectory(prefix="influence-patch-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / f"patch{Path(title).suffix.lower()}"
            with disk_errors(path):
                path.write_bytes(file.content)
            changes = read_patch(path, held.study, title, MAX_ROWS)
        for change in changes:
            _check(held, change)
    except BadInput as problem:
        why = problem.why if title in problem.why else f"{title}: {problem.why}"
        raise BadInput(problem.what, why, problem.fix) from None
    return changes


def _check(held: OpenStudy, change: Change) -> None:
    """Raise for a change that could be no decision here."""
    try:
        if change.new is not None:
            check_label(held, change.new)
        check_decision(Decision(change.split, change.row, change.action, change.new, change.weight))
    except BadInput as problem:
        why = f"{change.split} row {str(change.row)[:60]}: {problem.why.removeprefix(f'Row {change.row}: ')}"
        raise BadInput("A line of the patch cannot be used", why, "Mend the line.") from None


# -- what becomes of each line --------------------------------------------------------------------------------------


def _lines(study: str, held: OpenStudy, read: _Read) -> list[_Line]:
    """Return the lines in the order of the patch, rows in dispute last, once each."""
    folder, is_number = study_folder(study), is_regression(held)
    resolved, _ = resolved_changes(folder, held.study.header.classes)
    holds = {(change.split, change.row): change for change in resolved}
    votes: dict[_Place, list[str]] = defaultdict(list)
    for one in Reviews(folder).standing():
        d = one.decision
        votes[d.split, d.row].append(f"{one.reviewer}: {_does(d.action, None, d.label, d.weight)}")
    lines = []
    for outcome in read.outcomes:
        line = _against_data(outcome, is_number=is_number)
        if line.state in ("fits", "already") and line.place in votes:
            line = _against_decisions(line, holds.get(line.place), votes[line.place], is_number=is_number)
        lines.append(line)
    return lines + [_in_dispute(said, said[0]) for said in read.disputed]


def _against_data(outcome: Outcome, *, is_number: bool) -> _Line:
    change, at = outcome.change, outcome.at
    place = at or (change.split, change.row)
    now = "" if at is None else f"{at[0]} row {at[1]}"
    state, found = {"applied": "fits"}.get(outcome.result, outcome.result), outcome.found
    if change.action == "keep" and state == "already":  # nothing changes, but that somebody looked is worth keeping
        state = "fits" if found is not None and was_reviewed(change, found, is_number=is_number) else "conflict"
    why = {
        "fits": f"is {now} now" if now else "",
        "already": "not there any more" if found is None else f"labelled {found}",
        "conflict": f"labelled {found}, but {change.old} was reviewed",
        "changed": "the row of this id says something else than what was reviewed",
        "moved": f"what was reviewed is {now} now",
        "missing": "no row of this study",
    }[state]
    return _Line(state, change, place, why)


def _against_decisions(line: _Line, holds: Change | None, votes: list[str], *, is_number: bool) -> _Line:
    if holds is not None and _comes_to(holds, is_number) == _comes_to(line.change, is_number):
        return replace(line, state="already", why=f"decided so by {holds.reviewer}")
    # What the data say already needs no decision; that somebody here decided otherwise is their affair.
    return line if line.state == "already" else replace(line, state="decided", why="; ".join(votes))


def _comes_to(change: Change, is_number: bool) -> tuple[Any, ...]:
    return change.action, as_number(change.new) if is_number and change.new is not None else change.new, change.weight


def _in_dispute(said: Sequence[Change], change: Change) -> _Line:
    why = "; ".join(
        f"{one.reviewer or 'somebody'}: {_does(one.action, None, one.new, one.weight)}"
        + (f" of {one.content[:6]}" if len({c.content for c in said}) > 1 else "")
        for one in said
    )
    return _Line("disputed", change, (change.split, change.row), why)


def _shown(line: _Line) -> PatchLine:
    change = line.change
    does = "" if line.state == "disputed" else _does(change.action, change.old, change.new, change.weight)
    by = "" if line.state == "disputed" else change.reviewer
    return PatchLine(line.state, change.split, change.row, does, by, line.why)


def _does(action: str, old: str | None, new: str | None, weight: float | None) -> str:
    if action == "relabel":
        return f"relabel to {new}" if old is None else f"{old} → {new}"
    if weight is not None:
        return f"{action} to {weight:g}"
    return action if old is None else f"{action}, labelled {old}"


__all__ = ["apply_patch", "patch_lines", "patch_page"]
