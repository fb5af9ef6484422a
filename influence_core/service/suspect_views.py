"""What the screens draw of suspected labels: plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass

from influence_core.service.review_views import Decided
from influence_core.service.views import Datum, FitNeeded, RankedRow, RowId

SURE = 0.5  # what is more probable than this is more likely so than not


@dataclass(frozen=True)
class SuspectFilter:
    """Which train rows are listed, and in which order.

    Attributes:
        column: The detector that orders them; empty for the default list.
        given: Class that the rows carry; ``suggested``: class they should rather have. Empty for any.
        flagged: A detector that must say "mislabelled" by itself; empty for any.
        agree: At least so many detectors must say so.
        text: Searched in id, labels, text and cells.
        likely: Only rows whose label is more likely wrong than right.
        sliced: A column that parts the rows, and ``group``: one of its slices; empty for all.
        planted: "yes" or "no" where it is known which labels were flipped on purpose; empty for both.
        page: From 0, of ``limit`` rows each.
    """

    column: str = ""
    given: str = ""
    suggested: str = ""
    flagged: str = ""
    agree: int = 0
    likely: bool = False
    sliced: str = ""
    group: str = ""
    text: str = ""
    planted: str = ""
    page: int = 0
    limit: int = 24


@dataclass(frozen=True)
class SuspectColumn:
    """A detector as a column: its numbers are higher for more suspicious rows.

    Attributes:
        in_sample: A model that saw the labels gives the numbers, which may hide what it memorised.
        flags: It can say "mislabelled" by itself.
    """

    name: str
    title: str
    unit: str
    summary: str
    in_sample: bool
    flags: bool


@dataclass(frozen=True)
class SuspectRow:
    """One suspected train row.

    Attributes:
        suggested: The class it should rather have; empty in a regression.
        chance: Calibrated probability of the suggestion; ``wrong``: that the given label is wrong. In [0, 1].
        score: Its number in the column that orders the list.
        flagged: How many detectors say "mislabelled".
        reasons: Why it is suspected, each in a few plain words.
        feeds: Wrong test predictions that training on the row pushed away from their labels.
        decided: What reviewers decided about it.
    """

    rank: int
    datum: Datum
    suggested: str
    chance: float
    wrong: float
    score: float
    flagged: int
    reasons: tuple[str, ...]
    feeds: tuple[Datum, ...]
    decided: tuple[Decided, ...] = ()

    @property
    def is_sure(self) -> bool:
        """Whether the suggestion is more likely right than wrong."""
        return bool(self.suggested) and self.chance > SURE


@dataclass(frozen=True)
class BudgetPrecision:
    """How many of the first rows of an order are mislabelled.

    Attributes:
        budget: How many rows are looked at.
        share: The share of wrong labels among them; ``expected``: the same, estimated from the chances.
        recall: The share of all wrong labels that are among them.
        known: From planted truth; else from the chances alone.
    """

    budget: int
    share: float
    expected: float
    recall: float
    known: bool


@dataclass(frozen=True)
class SuspectPage:
    """The filtered suspects: one page of ``total``.

    Attributes:
        column: What orders them; ``columns``: all that were computed, the default first.
        n_flagging: How many detectors can say "mislabelled" by themselves.
        likely: About how many of the train labels are wrong; None in a regression.
        planted: How many were flipped on purpose, where that is known.
        budgets: Precision at some numbers of reviewed rows.
        missing: Detectors that cannot run here, with the reason.
        held_out: Where out-of-fold numbers come from, in words; empty without any.
        more: What out-of-fold numbers would cost; None where they are there or cannot be had.
        slice_columns: Columns that part the rows; ``groups``: the slices of the chosen one with their sizes.
    """

    rows: tuple[SuspectRow, ...]
    total: int
    n_train: int
    column: SuspectColumn
    columns: tuple[SuspectColumn, ...]
    n_flagging: int
    likely: int | None
    planted: int | None
    budgets: tuple[BudgetPrecision, ...]
    notes: tuple[str, ...]
    missing: tuple[tuple[str, str], ...]
    held_out: str
    more: FitNeeded | None
    slice_columns: tuple[str, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class SuspectEvidence:
    """What speaks against a label, for its card.

    Attributes:
        ready: Label errors were looked for; else only ``classes`` is filled.
        classes: Every class with its probability of being the true one, the most probable first.
        flagged_by: Titles of the detectors that say "mislabelled", of ``n_flagging`` that can.
        values: Detector -> its number, unit, and whether it is in-sample.
        rank: Place in the default list, from 1, of ``n_train``.
        neighbours: The nearest train rows by their inputs, nearest first; score = distance.
        disagreeing: How many of them carry another label.
    """

    split: str
    row_id: RowId
    ready: bool
    given: str
    suggested: str
    chance: float
    wrong: float
    classes: tuple[tuple[str, float], ...]
    reasons: tuple[str, ...]
    flagged_by: tuple[str, ...]
    n_flagging: int
    values: tuple[tuple[str, float, str, bool], ...]
    rank: int
    n_train: int
    neighbours: tuple[RankedRow, ...]
    disagreeing: int
    feeds: tuple[Datum, ...]


@dataclass(frozen=True)
class Oddity:
    """A row that is odd for another reason than its label.

    Attributes:
        measure: How odd, in the unit that the page names.
        other: The row that it resembles; None for an outlier.
        words: What is odd, in a few words.
    """

    rank: int
    datum: Datum
    measure: float
    other: Datum | None
    words: str


@dataclass(frozen=True)
class OddityPage:
    """One of the further lists: near-duplicates, rows of test that are in train, outliers.

    Attributes:
        measured: What ``measure`` means.
        reason: Why there is no list; empty if there is one.
    """

    kind: str
    rows: tuple[Oddity, ...]
    total: int
    measured: str
    reason: str
