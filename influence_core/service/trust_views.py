"""What the screen Trust draws: plain frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from influence_core.service.views import Datum, JobView

Figure = tuple[float, float, float]  # a value and its 95% interval; NaN where there is none


@dataclass(frozen=True)
class TrustLine:
    """How well one method tracks retraining, with a 95% interval, and what it took: fitting and scoring 100 rows."""

    method: str
    title: str
    value: float
    low: float
    high: float
    ceiling: float
    seconds: float
    note: str


@dataclass(frozen=True)
class MetricTable:
    """What one metric found out.

    Attributes:
        metric: Its name.
        title: In a few words.
        words: How to read it.
        columns: Names of the figures.
        rows: Title of a method, its figures, and how they were measured; the best first.
        floor: What the truth says of its own noise; empty where it has none.
    """

    metric: str
    title: str
    words: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Figure, ...], str], ...]
    floor: str


@dataclass(frozen=True)
class Agreement:
    """How far methods say the same.

    Attributes:
        titles: Of the methods ``[k]``, in the order of the lines, those without a line after them.
        numbers: Of the methods ``[k]``: a line's own, counted from 1, and on from there.
        ranks: Their mean rank correlations ``[k, k]``; NaN where a pair was not compared.
        shared: The share of top rows that they have in common ``[k, k]``.
        top: Of how many top rows.
    """

    titles: tuple[str, ...]
    numbers: tuple[int, ...]
    ranks: np.ndarray
    shared: np.ndarray
    top: int


@dataclass(frozen=True)
class MetricChoice:
    """A metric that can be asked for: what it asks, or why it cannot be measured on this study."""

    name: str
    title: str
    question: str
    problem: str
    suggested: bool


@dataclass(frozen=True)
class Candidate:
    """A method that runs here.

    Attributes:
        seconds: The estimate of fitting it and scoring 100 rows.
        suggested: Well known, and cheap here.
        dear: A sentence where that cost is absurd; else empty.
        unjudged: Metric -> why it says nothing about this method.
    """

    method: str
    title: str
    seconds: float
    suggested: bool
    dear: str
    unjudged: Mapping[str, str]


@dataclass(frozen=True)
class TrustPage:
    """All that the screen shows, but for the removal curve.

    Attributes:
        lines: The best first; empty while nothing is known.
        truth: What they are held against, in words.
        advice: One sentence made from the numbers.
        tables: What the other metrics found out.
        agreement: None while no two methods were compared.
        unmeasured: Title and reason of methods that were tried.
        metrics: What can be asked.
        candidates: The methods that run here, the cheapest first.
        cannot: Title and reason of those that do not.
        job: A measurement under way, failed or cancelled.
        may_measure: Whether whoever asks may start one.
    """

    lines: tuple[TrustLine, ...]
    truth: str
    advice: str
    tables: tuple[MetricTable, ...]
    agreement: Agreement | None
    unmeasured: tuple[tuple[str, str], ...]
    metrics: tuple[MetricChoice, ...]
    candidates: tuple[Candidate, ...]
    cannot: tuple[tuple[str, str], ...]
    job: JobView | None
    may_measure: bool


@dataclass(frozen=True)
class MeasuringPlan:
    """What a measurement would take.

    Attributes:
        words: All of it in one sentence.
        prices: Metric -> its price in words, as if it were the only one.
        dear: A sentence for every chosen method whose cost here is absurd.
    """

    words: str
    prices: Mapping[str, str]
    dear: tuple[str, ...]


@dataclass(frozen=True)
class RemovalLine:
    """What removing rows in one order does to a prediction.

    Attributes:
        counts: How many rows were removed.
        margins: Margin of the predicted class after that; below 0 the prediction has flipped.
        low, high: What 95% of the draws lie between; the margins themselves where there is one.
        draws: How many orders that is the mean of.
        flip: Fewest removed rows that flip it; None: it does not.
        flipped: Share of the draws that flip.
    """

    title: str
    counts: tuple[int, ...]
    margins: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    draws: int
    flip: float | None
    flipped: float


@dataclass(frozen=True)
class RemovalPage:
    """The removal curves of one prediction, and what computing them takes.

    Attributes:
        datum: The prediction; None where nothing can be removed.
        choices: Predictions to choose from: those with curves, then the most confident mistakes.
        known: Ids of those with curves.
        lines: By method, the fewest rows to the flip first.
        random: That of random rows.
        words: What the curves say, in one sentence; empty while there are none.
        candidates: The methods that can be asked, the cheapest first.
        problem: Why nothing can be removed here; empty if it can.
        job: The computation under way, failed or cancelled.
    """

    datum: Datum | None
    choices: tuple[Datum, ...]
    known: tuple[int | str, ...]
    lines: tuple[RemovalLine, ...]
    random: RemovalLine | None
    words: str
    candidates: tuple[Candidate, ...]
    problem: str
    job: JobView | None
    may_measure: bool
