"""What is to become of the rows in the end: the review log folded into one change per row, and its table, the patch.

One reviewer's standing decision about a row is the change; of several, what most of them decided. A tie is a conflict,
and changes nothing until an owner resolves it. ``unsure`` is no vote.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from influence_core.errors import BadInput
from influence_core.reviews import LOCKED, Decision, Reviews, Standing

Fate = Literal["keep", "relabel", "drop", "downweight"]
FATES = get_args(Fate)
COLUMNS = ("row_id", "split", "action", "old_label", "new_label", "weight", "reviewer", "at", "comment", "content")
RESOLVES = "owner: "  # what the name of whoever resolves a conflict begins with; no reviewer may be called so
_GROUPED = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")


@dataclass(frozen=True)
class Change:
    """What is to become of one row.

    Attributes:
        split: ``train`` or ``test``.
        row: The row's id.
        action: ``keep`` changes nothing: somebody looked, and it is right.
        old: The label that the reviewer saw; None where that was not kept.
        new: The new label of ``relabel``, which may be a class that the study does not have yet.
        weight: The new weight, from 0 to 1, of ``downweight``.
        reviewer: Who decided so, by name; several with commas.
        at: When the last of them did, seconds since 1970.
        comment: In their words.
        content: Hash of what the row says (``row_content``), so that no other row is taken for it; empty: not known.
    """

    split: str
    row: int | str
    action: Fate
    old: str | None = None
    new: str | None = None
    weight: float | None = None
    reviewer: str = ""
    at: float = 0.0
    comment: str = ""
    content: str = ""


@dataclass(frozen=True)
class Conflict:
    """A row about which as many reviewers decided one thing as another; ``votes`` in the order they were given."""

    split: str
    row: int | str
    old: str | None
    votes: tuple[Standing, ...]


def resolved_changes(study_dir: Path | str, class_names: Sequence[str] = ()) -> tuple[list[Change], list[Conflict]]:
    """Fold the review log of a study into one change per row.

    Args:
        study_dir: The study's folder.
        class_names: Its classes; none for a regression, whose labels are compared as numbers.

    Returns:
        Changes and conflicts, both train before test and by row id.

    Raises:
        StoreProblem: The log cannot be read.
    """
    by_row: dict[tuple[str, int | str], list[Standing]] = defaultdict(list)
    for standing in Reviews(study_dir).standing():
        by_row[standing.decision.split, standing.decision.row].append(standing)
    changes, conflicts = [], []
    for (split, row), votes in by_row.items():
        agreed = agreed_votes(votes, is_number=not class_names)
        if agreed is None:
            given = next((vote.decision.given for vote in votes if vote.decision.given is not None), None)
            conflicts.append(Conflict(split, row, given, tuple(votes)))
        elif agreed:
            changes.append(_change(agreed, is_number=not class_names))
    return sorted(changes, key=_order), sorted(conflicts, key=_order)


def agreed_votes(votes: Sequence[Standing], *, is_number: bool = False) -> list[Standing] | None:
    """Return those votes about one row that prevail: none if nobody is sure, None for a tie."""
    owners = [vote for vote in votes if vote.reviewer.startswith(RESOLVES)]
    if owners:
        return owners[-1:]
    camps: dict[Any, list[Standing]] = defaultdict(list)
    for vote in votes:
        if vote.decision.action != "unsure":
            camps[verdict(vote.decision, is_number=is_number)].append(vote)
    if not camps:
        return []
    sizes = sorted(map(len, camps.values()), reverse=True)
    if len(sizes) > 1 and sizes[0] == sizes[1]:
        return None
    return max(camps.values(), key=len)


def verdict(decision: Decision, *, is_number: bool = False) -> tuple[str, Any]:
    """Return what a decision comes to, equal for equal outcomes: to relabel a row as it is labelled is to keep it."""
    if decision.action != "relabel":
        return decision.action, decision.weight
    if same_label(decision.label, decision.given, is_number=is_number):
        return "keep", None
    return "relabel", as_number(decision.label) if is_number else decision.label


def same_label(one: str | None, other: str | None, *, is_number: bool = False) -> bool:
    """Tell whether two labels are the same: in a regression 3 is 3.0."""
    if one is None or other is None or not is_number:
        return one == other
    return as_number(one) == as_number(other)


def as_number(label: str | None) -> float | str | None:
    """Return the number that a label of a regression says, or the label itself where it says none.

    Commas stand between thousands only: what a reader would take for 3.5 must not become 35.
    """
    plain = str(label).strip().replace("−", "-")
    if "," in plain and not _GROUPED.fullmatch(plain):
        return label
    try:
        value = float(plain.replace(",", ""))
    except ValueError:
        return label
    return value if math.isfinite(value) else label


def _change(agreed: Sequence[Standing], *, is_number: bool) -> Change:
    last = agreed[-1].decision
    action = "keep" if verdict(last, is_number=is_number)[0] == "keep" else last.action
    if action == "unsure":  # an owner parks the row
        action = "keep"
    names = ", ".join(dict.fromkeys(vote.reviewer for vote in agreed))
    comment = " / ".join(dict.fromkeys(vote.decision.comment for vote in agreed if vote.decision.comment))
    new = last.label if action == "relabel" else None
    weight = last.weight if action == "downweight" else None
    at = max(vote.at for vote in agreed)
    return Change(last.split, last.row, action, last.given, new, weight, names, at, comment)


def _order(item: Change | Conflict) -> tuple[bool, bool, float, str]:
    number = item.row if isinstance(item.row, int) else math.inf
    return item.split != "train", isinstance(item.row, str), number, str(item.row)


# -- the patch: changes as a table ----------------------------------------------------------------------------------


def patch_table(changes: Sequence[Change]) -> pd.DataFrame:
    """Return changes as a table with a row each and the columns ``COLUMNS``; times in ISO 8601, UTC."""
    lines = [
        (c.row, c.split, c.action, c.old, c.new, c.weight, c.reviewer, _moment(c.at), c.comment, c.content)
        for c in changes
    ]
    table = pd.DataFrame(lines, columns=list(COLUMNS))
    table["weight"] = table["weight"].astype("float64")
    for name in ("old_label", "new_label"):
        table[name] = table[name].astype("object").where(table[name].notna(), None)
    return table


def changes_of_table(table: pd.DataFrame, *, ids_are_numbers: bool) -> list[Change]:
    """Return the changes in the table of a patch; further columns are ignored, and only the first five are needed.

    Args:
        table: As ``patch_table`` makes it; numbers may have become texts on the way.
        ids_are_numbers: Whether the row ids of the study are numbers.

    Raises:
        BadInput: A column is missing, or a line says nothing that can be done; names the line.
    """
    missing = [name for name in COLUMNS[:5] if name not in table.columns]
    if missing:
        why = f"It has no column {', '.join(missing)}; its columns are {', '.join(map(str, table.columns[:12]))}."
        raise BadInput("This is no patch", why, f"A patch has the columns {', '.join(COLUMNS)}.")
    records = table.reindex(columns=list(COLUMNS)).to_dict("records")
    changes = [_read_change({str(k): v for k, v in r.items()}, i, ids_are_numbers) for i, r in enumerate(records, 1)]
    seen: set[tuple[str, int | str]] = set()
    for change in changes:
        if (change.split, change.row) in seen:
            why = f"{change.split} row {change.row} stands in it twice."
            raise BadInput("The patch contradicts itself", why, "Keep one line per row.")
        seen.add((change.split, change.row))
    return changes


def _read_change(record: Mapping[str, Any], line: int, ids_are_numbers: bool) -> Change:
    texts = {name: _text(value) for name, value in record.items()}
    wrong, row, weight = "", texts["row_id"], None
    action, split, new = texts["action"].strip(), texts["split"].strip(), texts["new_label"]
    try:
        row = int(float(row)) if ids_are_numbers and row.endswith(".0") else int(row) if ids_are_numbers else row
        weight = float(texts["weight"]) if texts["weight"] else None
    except (ValueError, OverflowError):
        wrong = f"row_id {texts['row_id']!r} and weight {texts['weight']!r} must be numbers"
    if split == "locked":
        raise BadInput(LOCKED[0], f"Line {line}: row {row}. {LOCKED[1]}", "Take the locked rows out of the patch.")
    if split not in ("train", "test"):
        wrong = f"split is {split!r}, and only train and test rows are cleaned"
    elif action not in FATES:
        wrong = f"action is {action!r}, and the actions are {', '.join(FATES)}"
    elif (action == "relabel") != bool(new):
        wrong = f"action is {action} with the new label {new!r}"
    elif action == "downweight" and (weight is None or not 0 <= weight <= 1):
        wrong = f"weight is {texts['weight']!r}, and it goes from 0 to 1"
    elif row == "":
        wrong = "row_id is empty"
    if wrong:
        raise BadInput("A line of the patch cannot be used", f"Line {line}: {wrong}.", "Mend the line.")
    weight = weight if action == "downweight" else None
    fate: Any = action
    return Change(
        split, row, fate, texts["old_label"] or None, new or None, weight, texts["reviewer"],
        _seconds(texts["at"], line), texts["comment"], texts["content"].strip(),
    )  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _seconds(text: str, line: int) -> float:
    if not text:
        return 0.0
    try:
        moment = datetime.fromisoformat(text)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        _moment(at)  # at the very ends of the calendar another zone has no such day
    except (ValueError, OverflowError):
        why = f"Line {line}: at is {text[:40]!r}."
        raise BadInput("A line of the patch cannot be used", why, "Write times as 2026-01-31T12:00:00Z.") from None
    return at
