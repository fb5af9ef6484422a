"""What the screens draw: plain frozen records, no tensors, nothing to compute.

The service fills them, the components in ``pages/`` draw them, and the tests of the screens make them by hand.
Row ids are the user's own (``int`` or ``str``); texts are raw and must be escaped by whoever puts them into HTML.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from influence_core.service.import_views import ImagesCheck as ImagesCheck
from influence_core.service.import_views import ImagesPreview as ImagesPreview
from influence_core.service.import_views import ImportCheck as ImportCheck
from influence_core.service.import_views import ImportColumn as ImportColumn
from influence_core.service.import_views import ImportPreview as ImportPreview
from influence_core.service.import_views import Reading as Reading
from influence_core.service.import_views import StudyPreview as StudyPreview

RowId = int | str


@dataclass(frozen=True)
class StudyCard:
    """One line of the study picker."""

    name: str
    title: str
    modality: str  # "image" | "table" | "text"
    n_train: int
    n_test: int
    n_locked: int
    n_classes: int
    task: str = "classification"  # "classification" | "regression"


@dataclass(frozen=True)
class Datum:
    """One row of data, as a card shows it.

    Attributes:
        image: PNG data URI, or None where the row is no image.
        cells: Table rows only: ``(column, value as text)``, most telling columns first.
        text: Text rows only: the text, cut where the card is small.
        given: The label in the data; of a regression, the number (typed: the one expected); else empty if typed.
        predicted: The explained model's prediction.
        confidence: The model's probability of its prediction, in [0, 1]; 0 in a regression, which has none.
        truth: The true label where it is known that the given one was planted wrong; else None.
        planted: True if the label was flipped on purpose, False if known to be untouched, None if not known.
        alt: The row in plain words, for screen readers.
        error: Regression only: predicted minus given number.
    """

    split: str
    row_id: RowId
    modality: str
    image: str | None
    cells: tuple[tuple[str, str], ...]
    text: str | None
    given: str
    predicted: str
    confidence: float
    truth: str | None
    planted: bool | None
    alt: str
    error: float | None = None


@dataclass(frozen=True)
class Interval:
    """A figure with its 95% interval: Wilson's for a share, a bootstrap's for others. NaN where it has no value."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class RegressionFigures:
    """How well a model predicts numbers.

    Attributes:
        r2, mae: R squared and mean absolute error per split.
        counts, edges: Histogram of the test residuals, predicted minus given: ``[bins]`` and ``[bins + 1]``.
        ids: Ids of the test rows that are drawn as points: all, or a random sample.
        given, predicted: Their numbers ``[points]``.
        largest_errors: The worst test rows, worst first.
    """

    r2: dict[str, Interval]
    mae: dict[str, Interval]
    counts: np.ndarray
    edges: np.ndarray
    ids: tuple[RowId, ...]
    given: np.ndarray
    predicted: np.ndarray
    largest_errors: tuple[Datum, ...]


@dataclass(frozen=True)
class GroupFigures:
    """The quality of the test predictions by group of one sensitive column.

    Attributes:
        measure: "accuracy", or "mean absolute error" of a regression.
        groups: Name and quality of each group, the largest first.
    """

    column: str
    measure: str
    groups: tuple[tuple[str, Interval], ...]


@dataclass(frozen=True)
class TrainingFigures:
    """How the training went.

    Attributes:
        losses: Mean training loss of every epoch.
        recorded: Epochs from 1 after which weights were kept.
        words: What to make of it, in a sentence.
        is_warning: Whether that is something to mend.
    """

    losses: tuple[float, ...]
    recorded: tuple[int, ...]
    words: str
    is_warning: bool


@dataclass(frozen=True)
class Overview:
    """Everything on the first screen.

    Attributes:
        regression: The figures of a regression; then there are no classes, accuracies and confusion.
        notes: What the import did to the data, in sentences.
        groups: The quality by group of every sensitive column.
        training: How the training went, where its losses were kept.
    """

    study: StudyCard
    description: str
    model: str
    n_params: int
    n_checkpoints: int
    classes: tuple[str, ...]
    class_counts: dict[str, tuple[int, ...]]  # split -> rows per class
    accuracy: dict[str, Interval]  # "train" | "test" | "locked"
    confusion: np.ndarray  # [n_classes, n_classes] int, rows given, columns predicted, test split
    confidently_wrong: tuple[Datum, ...]
    n_wrong: int
    planted_share: float | None  # share of train labels flipped on purpose, where known
    default_method: str
    default_reason: str
    regression: RegressionFigures | None = None
    notes: tuple[str, ...] = ()
    groups: tuple[GroupFigures, ...] = ()
    training: TrainingFigures | None = None


@dataclass(frozen=True)
class PredictionFilter:
    """Which test predictions are listed, and in which order.

    A regression has the statuses "all" and "largest-errors" (the worst tenth), and the orders "error" (largest first),
    "id" and "random"; it takes "confidence", the default, for "error".
    """

    status: str = "all"  # "all" | "wrong" | "confident-wrong" | "right"
    given: str | None = None  # class name: the confusion cell's row
    predicted: str | None = None  # class name: the confusion cell's column
    text: str = ""  # searched in id, labels, text and cells
    order: str = "confidence"  # "confidence" (most confident first) | "id" | "random"
    seed: int = 0  # of the random order
    limit: int = 60


@dataclass(frozen=True)
class PredictionList:
    """The filtered predictions: the first ``limit`` of ``total``."""

    rows: tuple[Datum, ...]
    total: int


@dataclass(frozen=True)
class ConfigField:
    """One option of a method, ready to become a widget."""

    name: str
    label: str
    kind: str  # "bool" | "int" | "float" | "choice" | "text"
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    optional: bool = False  # None is allowed (an empty text or number field means None)


@dataclass(frozen=True)
class MethodView:
    """One method in the method menu.

    Attributes:
        measurements: The measurement kinds it can explain ("loss", "margin", "probability", "logit"); empty: it has
            its own utility, named in ``utility``, and only the target label can be chosen.
        reason: Why it cannot run on this study; empty if it can.
        fitted: The train-side work with default options is done, so an answer is instant.
        pairwise: It scores training rows for a test row (a self-influence-only score cannot be used on Explain).
        layers: The layer names that the ``layers`` option accepts; empty where it has no such option.
    """

    id: str
    title: str
    family: str
    summary: str
    units: str  # "measurement" | "gradient" | "value" | "rank"
    units_in_words: str
    reference: str
    measurements: tuple[str, ...]
    utility: str
    available: bool
    reason: str
    fitted: bool
    pairwise: bool
    fields: tuple[ConfigField, ...]
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExplainRequest:
    """One question: which training rows made the model say this?

    Attributes:
        ids: Test row ids; several are one query only with ``reduce="mean"`` (a confusion cell, a slice).
        target: "true" (the given label), "predicted", or a class name; a regression explains the given number always.
        config: Options of the method that differ from its defaults.
    """

    ids: tuple[RowId, ...]
    method: str
    split: str = "test"
    reduce: str | None = None
    measurement: str = "loss"
    target: str = "predicted"
    k: int = 5
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RankedRow:
    """A training row with its score in one explanation."""

    rank: int  # 1 = strongest
    score: float
    datum: Datum


@dataclass(frozen=True)
class InputAttribution:
    """Which parts of the input the prediction rests on (Captum), beside the card.

    Attributes:
        image: PNG data URI of the heat map laid over the input; None for tables.
        parts: Tables and texts: ``(part, signed contribution)``, strongest first.
    """

    method: str
    note: str
    image: str | None
    parts: tuple[tuple[str, float], ...]
    alt: str


@dataclass(frozen=True)
class QueryView:
    """The explained prediction: one row, or a set with its size."""

    title: str  # "Test row 17" or "12 rows: given 3, predicted 8"
    data: tuple[Datum, ...]  # one row, or the first few of the set
    n_rows: int
    probabilities: tuple[tuple[str, float], ...]  # (class, probability), highest first; a set's mean; no regression's
    notes: tuple[str, ...] = ()  # what a reader should know of a typed row: words that train never had, say


@dataclass(frozen=True)
class Explanation:
    """The answer: ranked training rows on both sides, and what the numbers mean.

    Attributes:
        measured: What is explained, in words ("the model's log-probability of the label 8").
        share: Share of the model's parameters that the scores look at, in [0, 1]; None where that has no meaning.
        notes: Further facts that change how to read the scores, each one sentence (effective damping, ...).
        counts, edges: Histogram of all scores: ``[bins]`` and ``[bins + 1]``.
    """

    query: QueryView
    method: str
    method_title: str
    units: str
    units_in_words: str
    measured: str
    proponents: tuple[RankedRow, ...]
    opponents: tuple[RankedRow, ...]
    n_train: int
    counts: np.ndarray
    edges: np.ndarray
    share: float | None
    share_in_words: str
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class JobView:
    """One background job, as the sidebar and the progress panel show it."""

    id: int
    key: str
    title: str
    state: str  # "queued" | "running" | "done" | "failed" | "cancelled"
    stage: str
    fraction: float
    seconds_left: float | None
    estimate_seconds: float | None
    message: str  # what, why and fix of a failed job, one line
    is_active: bool


@dataclass(frozen=True)
class FitNeeded:
    """The method has not been fitted yet: what that will cost, and the job if one is under way or failed."""

    method: str
    method_title: str
    key: str
    seconds: float  # estimate
    megabytes: float  # disk, estimate
    in_words: str
    job: JobView | None


@dataclass(frozen=True)
class RowCard:
    """A training or test row on its own page.

    Attributes:
        loss: The model's loss on the row; ``loss_rank`` 1 is the highest of its split.
        neighbours: Nearest training rows in the model's penultimate layer, nearest first; score = cosine similarity.
        affected: Train rows: the test rows it influences most under ``method``, strongest first; empty until fitted.
    """

    datum: Datum
    probabilities: tuple[tuple[str, float], ...]
    loss: float
    loss_rank: int
    n_rows: int
    neighbours: tuple[RankedRow, ...]
    method: str
    method_title: str
    helps: tuple[RankedRow, ...]
    hurts: tuple[RankedRow, ...]
    affected_note: str


@dataclass(frozen=True)
class PendingImport:
    """An import that waits, runs, failed or was cancelled.

    Attributes:
        name: The folder, and the name of the study to be.
        file: Name of the uploaded file; empty if it is gone, and then it cannot be tried again.
        stopping: It was cancelled and ends at its next batch.
    """

    name: str
    title: str
    token: str
    roles: dict[str, Any]
    file: str
    job: JobView
    stopping: bool
