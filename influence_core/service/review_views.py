"""What the review screens draw: plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from influence_core.reviews import Action, Standing

RowId = int | str


@dataclass(frozen=True)
class Queue:
    """Rows to review, in order.

    Attributes:
        token: Its name in an address.
        title: What it is, in a few words.
        source: Where it comes from, for the audit.
    """

    token: str
    title: str
    split: str
    row_ids: tuple[RowId, ...]
    source: str

    @cached_property
    def places(self) -> dict[RowId, int]:
        """Return the place of every row, from 0."""
        return {row: place for place, row in enumerate(self.row_ids)}


@dataclass(frozen=True)
class Cell:
    """A column of a table row under review, beside what its nearest training rows hold there.

    Attributes:
        near: Their values in short, a range or the most frequent one; empty where rows are not compared.
        differs: The row's value lies outside of theirs.
        read: The model reads this column.
    """

    name: str
    value: str
    near: str = ""
    differs: bool = False
    read: bool = True


@dataclass(frozen=True)
class BesideRow:
    """A row beside the one under review: small, with its label and why it is there.

    Attributes:
        differs: Table rows: ``(column, its value, the value of the row under review)``, furthest apart first.
        alike: In how many columns that the model reads it does not differ, of ``columns``.
    """

    split: str
    row_id: RowId
    given: str
    predicted: str
    image: str | None
    text: str
    score: float
    differs: tuple[tuple[str, str, str], ...] = ()
    alike: int = 0
    columns: int = 0


@dataclass(frozen=True)
class Beside:
    """One kind of evidence; ``note`` says what its numbers are, or why there are no rows.

    Attributes:
        kind: ``near``, ``pro``, ``opp`` or ``hurts``.
    """

    kind: str
    title: str
    note: str
    rows: tuple[BesideRow, ...] = ()


@dataclass(frozen=True)
class Decided:
    """A decision that holds about a row; ``at``: seconds since 1970."""

    reviewer: str
    action: str
    label: str | None
    weight: float | None
    comment: str
    at: float


def decided(standing: Standing) -> Decided:
    """Return a decision that holds, as screens show it."""
    d = standing.decision
    return Decided(standing.reviewer, d.action, d.label, d.weight, d.comment, standing.at)


@dataclass(frozen=True)
class ReviewCard:
    """A row with everything that a decision about it needs.

    Attributes:
        position: Its place in the queue, from 0.
        suggested: The label that it should have, if any can be said.
        error: Regression only: predicted minus given number, in words.
        chance: How probable that is, in [0, 1]; None in a regression.
        chance_from: Where the chance comes from.
        reasons: Why the row is in question, in sentences.
        classes: Every class with its likelihood, the most likely first; None where only the order is known.
        decided: What others decided; ``mine`` is the reviewer's own.
        evidence: What is on screen, in short, for the audit.
    """

    position: int
    split: str
    row_id: RowId
    image: str | None
    text: str | None
    cells: tuple[Cell, ...]
    alt: str
    given: str
    predicted: str
    error: str | None
    suggested: str | None
    chance: float | None
    chance_from: str
    reasons: tuple[str, ...]
    classes: tuple[tuple[str, float], ...]
    beside: tuple[Beside, ...]
    evidence: Mapping[str, Any] = field(default_factory=dict)
    decided: tuple[Decided, ...] = ()
    mine: Decided | None = None


@dataclass(frozen=True)
class ReviewBatch:
    """Cards from a place of a queue on.

    Attributes:
        start: The place of the first card.
        total: Rows of the queue.
        done: Those about which this reviewer's decision holds.
        new_classes: Classes that the study does not have and that reviewers have given to rows.
    """

    start: int
    total: int
    done: int
    cards: tuple[ReviewCard, ...]
    new_classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReviewState:
    """What was decided about a card of a queue: by others, and by the reviewer."""

    position: int
    row_id: RowId
    decided: tuple[Decided, ...]
    mine: Decided | None


@dataclass(frozen=True)
class ReviewStates:
    """What was decided about some cards of a queue; of those in between, nothing.

    Attributes:
        first: Place of the first card asked about; ``n``: how many were.
        done: Rows of the queue about which the reviewer's decision holds.
    """

    first: int
    n: int
    done: int
    states: tuple[ReviewState, ...]


@dataclass(frozen=True)
class Receipt:
    """What became of acts that were sent: on the disk, or refused for ever, with the reason.

    Attributes:
        kept: ``(tab, number, rows that an undo or redo was about)``, the first twenty of many.
        said: ``(tab, number, in words)`` of every undo or redo that was about something.
        refused: ``(tab, number, reason)``.
    """

    kept: tuple[tuple[str, int, tuple[RowId, ...]], ...]
    refused: tuple[tuple[str, int, str], ...] = ()
    said: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True)
class StepView:
    """An act that the next undo or redo is about.

    Attributes:
        seq: Its number in the log.
        words: What it did, such as ``'ham' → 'spam' on row 312`` or ``relabelled 37 rows as 'spam'``.
        at: When, in seconds since 1970; ``ago``: how long that is past, in words.
    """

    seq: int
    words: str
    at: float
    ago: str


@dataclass(frozen=True)
class NextSteps:
    """What the next undo and the next redo of a reviewer are about; None where there is nothing."""

    undo: StepView | None
    redo: StepView | None


@dataclass(frozen=True)
class Batch:
    """Rows to be decided together.

    Attributes:
        action: What becomes of them: ``keep``, ``relabel``, ``drop``, ``downweight`` or ``unsure``.
        labels: Of ``relabel``: the new label of every row.
        evidence: What was on screen, for the audit.
        left: Of the rows that were looked at, those that are not among ``rows``: how many, and why.
        wrong: The mean probability that their labels are wrong; None where it is not known.
    """

    split: str
    action: Action
    rows: tuple[RowId, ...]
    labels: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    left: tuple[tuple[int, str], ...] = ()
    wrong: float | None = None


@dataclass(frozen=True)
class BatchLine:
    """A batch in the log, by which it is undone: ``tab`` and ``number`` name it among its reviewer's acts."""

    reviewer: str
    tab: str
    number: int
    at: float
    n_rows: int
    words: str


@dataclass(frozen=True)
class BatchDone:
    """A batch that is on the disk; ``spared``: rows left as they are, because somebody had decided about them."""

    line: BatchLine
    spared: int


@dataclass(frozen=True)
class Pace:
    """How far a reviewer is: standing decisions, when the first and the last were made, and how many a minute."""

    reviewer: str
    decisions: int
    first: float
    last: float
    per_minute: float | None


@dataclass(frozen=True)
class LogLine:
    """A line of the audit."""

    seq: int
    reviewer: str
    at: float
    kind: str
    standing: bool
    n_rows: int
    words: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True)
class ConflictView:
    """A row about which reviewers disagree."""

    split: str
    row_id: RowId
    given: str | None
    votes: tuple[Decided, ...]


@dataclass(frozen=True)
class Agreement:
    """How far reviewers agree on the rows that at least two of them decided about.

    Attributes:
        measure: "Cohen's kappa" or "Krippendorff's alpha"; empty where there is nothing to compare.
        value: 1 is perfect, 0 what chance would give; NaN where it has no value.
        per_class: The same for each outcome against all others, with the number of times it was chosen.
    """

    measure: str
    value: float
    n_rows: int
    reviewers: tuple[str, ...]
    per_class: tuple[tuple[str, float, int], ...] = ()


@dataclass(frozen=True)
class DecisionsPage:
    """Everything on the screen of decisions but the log.

    Attributes:
        reviewers: Everybody who ever decided, without owners who resolved conflicts: they resolve them otherwise.
    """

    pace: tuple[Pace, ...]
    actions: Mapping[str, int]
    n_conflicts: int
    conflicts: tuple[ConflictView, ...]
    agreement: Agreement
    may_resolve: bool
    reviewers: tuple[str, ...] = ()
