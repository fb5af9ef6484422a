"""What stands in a review log: acts, their decisions, and what is checked before they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from influence_core.errors import BadInput

Action = Literal["keep", "relabel", "drop", "downweight", "unsure"]
Kind = Literal["decide", "undo", "redo"]
ACTIONS = get_args(Action)
MAX_ROWS = 200_000  # of one act
MAX_COMMENT = 2_000  # characters
LOCKED = (
    "Locked rows are not cleaned",
    "They tell whether cleaning helped; a reviewed judge would agree with whoever reviewed it.",
)  # what is wrong with a decision about one, and why
_MAX_NAME = 200


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
        tab: Where it was made; ``number``: its number among the acts from there, from 1.
        kind: What kind of act.
        decisions: Of ``decide``: what is to become of which rows.
        evidence: What was on screen (method, checkpoint, scores, neighbours).
        of: Of ``undo`` and ``redo``: tab and number of the reviewer's act that it is about; None: the last one.
        expects: Of an undo or redo of the last one that was announced: the place of that act in the log. It is refused
            if the last one is another by now.
        spares: Rows about which anybody's decision holds when the act is written are left out of it.
    """

    tab: str
    number: int
    kind: Kind = "decide"
    decisions: tuple[Decision, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    of: tuple[str, int] | None = None
    expects: int | None = None
    spares: bool = False


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


def check_name(name: str, what: str) -> None:
    """Raise ``BadInput`` for a name that nobody could read or tell apart."""
    if not isinstance(name, str) or not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
        why = f"The {what} is {str(name)[:80]!r}."
        raise BadInput("This decision cannot be kept", why, f"Give a {what} of 1 to {_MAX_NAME} visible characters.")


def check_act(act: Act) -> None:
    """Raise ``BadInput`` for an act that says nothing which can be kept."""
    check_name(act.tab, "tab")
    wrong = ""
    if not isinstance(act.number, int) or act.number < 1:
        wrong = f"its number is {act.number!r}"
    elif act.kind not in get_args(Kind):
        wrong = f"its kind is {act.kind!r}"
    elif (act.kind == "decide") != bool(act.decisions):
        wrong = f"it is of kind {act.kind} and has {len(act.decisions)} decisions"
    elif len(act.decisions) > MAX_ROWS:
        wrong = f"it is about {len(act.decisions):,} rows, and {MAX_ROWS:,} is the most"
    elif len({(d.split, row_key(d.row)) for d in act.decisions}) != len(act.decisions):
        wrong = "a row is in it twice"
    elif act.of is not None and act.kind == "decide":
        wrong = "it decides, and names an act to undo"
    if wrong:
        raise BadInput("This decision cannot be kept", f"{wrong[0].upper()}{wrong[1:]}.", "Reload the page.")
    for decision in act.decisions:
        check_decision(decision)


def check_decision(decision: Decision) -> None:
    """Raise ``BadInput`` for a decision that says nothing which can be kept."""
    if decision.split == "locked":
        raise BadInput(*LOCKED, "Review train and test rows.")
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


def row_key(row: int | str) -> str:
    """Return a row id as text that tells 7 from "7"."""
    return json.dumps(row)
