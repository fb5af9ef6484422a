"""What the screen *Map* asks and draws: plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from influence_core.service.views import ExplainRequest, JobView, RowId


@dataclass(frozen=True)
class MapRequest:
    """Which map.

    Attributes:
        place: "penultimate" | "input" | "gradients": where in the model rows are looked at.
        drawn: "umap" (principal components until it is there) | "pca".
        colour: "label" | "prediction" | "correct" | "loss" | "suspicion" | "self-influence" | "influence".
        split: "train" | "test"; empty for both.
        given, predicted: Class names; rows of others are drawn as ghosts and never selected.
        status: "all" | "wrong" | "right", likewise.
        query: The prediction (or set of them) that "influence" and the lines are about, and the method of
            "self-influence"; None for none.
    """

    place: str = "penultimate"
    drawn: str = "umap"
    colour: str = "label"
    split: str = ""
    given: str | None = None
    predicted: str | None = None
    status: str = "all"
    query: ExplainRequest | None = None


@dataclass(frozen=True)
class MapNeeded:
    """A projection that has not been computed yet: what it will cost, and its job if there is one."""

    kind: str  # "pca" | "umap"
    title: str
    key: str
    seconds: float  # estimate
    in_words: str
    job: JobView | None


@dataclass(frozen=True)
class MapColours:
    """What the points' colours say.

    Attributes:
        kind: "category" (``names`` by code), "sequential" or "diverging" (around 0).
        title, words: A short name, and one sentence.
        names: Categories; a code of -1 has none.
        low, high: Ends of the scale; values beyond are drawn at the end.
        note: Why another colour than the one asked for; else empty.
    """

    kind: str
    title: str
    words: str
    names: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    note: str = ""


@dataclass(frozen=True)
class MapPoints:
    """Rows drawn as points: ``[n]`` each.

    Attributes:
        codes: Category of each, or -1; empty for a scale.
        values: Number of each (NaN: none, drawn grey); empty for categories.
        is_test: Whether a row is of the test split.
    """

    x: np.ndarray
    y: np.ndarray
    ids: tuple[RowId, ...]
    labels: tuple[str, ...]
    is_test: np.ndarray
    codes: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class MapLink:
    """A line from the query to one of its strongest training rows; ``score`` above zero is a proponent."""

    x: float
    y: float
    row_id: RowId
    label: str
    score: float


@dataclass(frozen=True)
class MapView:
    """The map as it can be drawn now.

    Attributes:
        key: Of the projection; another key is another map.
        drawn: "pca" or "umap", as it is now.
        words: What the axes are, in a sentence.
        umap: What is missing until UMAP replaces the principal components; None if nothing is.
        n_rows: Split -> rows.
        n_matching: Rows that the filters leave.
        points: At most 20,000 of these.
        ghosts: Coordinates ``[m, 2]`` of other rows, grey.
        density: Counts ``[bins, bins]`` of all matching rows (rows are heights), where not all are drawn; else None.
        box: Low x, high x, low y, high y of all rows.
        query: Coordinates ``[m, 2]`` of the explained rows; empty without a query.
        query_words: Its title, or why it has no lines.
    """

    key: str
    drawn: str
    words: str
    umap: MapNeeded | None
    n_rows: dict[str, int]
    n_matching: int
    points: MapPoints
    colours: MapColours
    ghosts: np.ndarray
    density: np.ndarray | None
    box: tuple[float, float, float, float]
    query: np.ndarray
    links: tuple[MapLink, ...]
    query_words: str
    classes: tuple[str, ...]
    is_regression: bool


@dataclass(frozen=True)
class GroupInfluence:
    """The influence of a group of training rows together on one query.

    Attributes:
        total: Sum over the group, in the method's units: above zero, the group helps.
        everything: The same sum over all training rows, to compare with.
        n_train: Training rows in the group; test rows influence nothing.
    """

    title: str
    method_title: str
    measured: str
    units: str
    units_in_words: str
    total: float
    everything: float
    n_train: int


@dataclass(frozen=True)
class MapSelection:
    """What lies in a region of the map: all matching rows there, drawn or not.

    Attributes:
        count: Split -> rows.
        mix: ``(class, rows)`` of the given labels, most first; empty for a regression.
        n_wrong: Rows whose prediction differs from the label; None without a model or for a regression.
        mean_loss: The model's mean loss there; None without a model.
        numbers: A regression's least, mean and greatest given number there; else None.
        examples: Split and id of up to 12 rows, the model's greatest losses first.
        influence: On the query; None with the reason in ``influence_note``.
    """

    count: dict[str, int]
    mix: tuple[tuple[str, int], ...]
    n_wrong: int | None
    mean_loss: float | None
    numbers: tuple[float, float, float] | None
    examples: tuple[tuple[str, RowId], ...]
    influence: GroupInfluence | None
    influence_note: str

    @property
    def total(self) -> int:
        """Return the number of rows."""
        return sum(self.count.values())
