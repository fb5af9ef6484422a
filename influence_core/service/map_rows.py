"""The rows behind a map, all of them, as arrays: where they are, what they are called, and what the filters leave.

Everything here is read from the projection's artifact and two columns of the data, so that the map of a million rows
opens without its task.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from influence_core.artifact import Artifact
from influence_core.costs import seconds_in_words, sizes
from influence_core.errors import BadInput
from influence_core.primitives.polygons import SortedPoints
from influence_core.service import tasks
from influence_core.service.map_views import MapNeeded, MapRequest
from influence_core.service.opened import OpenStudy
from influence_core.workflows.projection import (
    MAX_FITTED,
    PLACES,
    SPLITS,
    Projection,
    ProjectionConfig,
    Said,
    found_projection,
    projection,
    projection_key,
    said_of_rows,
)  # fmt: skip

AT_ONCE_SECONDS = 3.0
COLOURS = ("label", "prediction", "correct", "loss", "suspicion", "self-influence", "influence")
STATUSES = ("all", "wrong", "right")
_TITLES = {"pca": "Map by principal components", "umap": "Map by UMAP"}


def check_request(request: MapRequest) -> None:
    """Raise ``BadInput`` for a choice that does not exist."""
    choices = {"place": PLACES, "drawn": ("umap", "pca"), "colour": COLOURS, "split": ("", *SPLITS), "status": STATUSES}
    for name, known in choices.items():
        if getattr(request, name) not in known:
            shown = ", ".join(choice for choice in known if choice)
            raise BadInput("This map cannot be drawn", f"{name} is {getattr(request, name)!r}.", f"Use {shown}.")


class MapRows:
    """All train rows of a projection, followed by all test rows."""

    def __init__(self, held: OpenStudy, drawn: Projection, pca: Artifact) -> None:
        """Name the arrays; they are read when asked for."""
        self.held, self.key, self.share = held, drawn.key, drawn.share
        self.n = {split: len(drawn.xy[split]) for split in SPLITS}
        self.xy = np.concatenate([drawn.xy[split] for split in SPLITS])
        self._said = said_of_rows(pca)

    @property
    def nbytes(self) -> int:
        """Return about how many bytes this holds once it is used."""
        return 10 * self.xy.nbytes

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names; empty for a regression."""
        return () if self.is_regression else tuple(self.held.study.header.classes)

    @property
    def is_regression(self) -> bool:
        """Tell whether labels are numbers."""
        return self.held.study.header.task == "regression"

    @cached_property
    def ids(self) -> np.ndarray:
        """Return row ids ``[n]``."""
        study = self.held.study
        parts = [study.column(split, study.header.id) for split in SPLITS]
        same = len({part.dtype.kind for part in parts}) == 1
        return np.concatenate(parts if same else [part.astype(object) for part in parts])

    @cached_property
    def given(self) -> np.ndarray:
        """Return the given labels ``[n]``: class indices, or numbers."""
        return np.concatenate([self.held.study.targets(split) for split in SPLITS])

    @cached_property
    def is_test(self) -> np.ndarray:
        """Return which rows are of the test split ``[n]``."""
        return np.arange(len(self.xy)) >= self.n["train"]

    @property
    def knows_model(self) -> bool:
        """Tell whether predictions and losses are kept."""
        return bool(self._said)

    def _of_model(self, part: str) -> np.ndarray:
        if not self._said:
            raise BadInput("There is no trained model", "It has said nothing of these rows.", "Colour by label.")
        said: list[Said] = [self._said[split] for split in SPLITS]
        return np.concatenate([getattr(one, part) for one in said])

    @cached_property
    def predicted(self) -> np.ndarray:
        """Return what the model says ``[n]``: class indices, or numbers."""
        return self._of_model("predicted")

    @cached_property
    def loss(self) -> np.ndarray:
        """Return the model's loss ``[n]``."""
        return self._of_model("loss")

    @cached_property
    def wrong(self) -> np.ndarray:
        """Return which predictions differ from the label ``[n]``."""
        return self.predicted != self.given

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Return low x, high x, low y, high y, with a little room."""
        low, high = self.xy.min(0).astype(float), self.xy.max(0).astype(float)
        room = np.maximum(0.03 * (high - low), 1e-6)
        return float(low[0] - room[0]), float(high[0] + room[0]), float(low[1] - room[1]), float(high[1] + room[1])

    @cached_property
    def sorted(self) -> SortedPoints:
        """Return the points, ready to be asked which lie in a polygon."""
        return SortedPoints(self.xy)

    def matching(self, request: MapRequest) -> np.ndarray:
        """Return which rows the filters leave ``[n]``.

        Raises:
            BadInput: A class that the study does not have, or a filter that needs a model where there is none.
        """
        kept = np.ones(len(self.xy), dtype=bool)
        if request.split:
            kept &= self.is_test == (request.split == "test")
        for name, values in (("given", "given"), ("predicted", "predicted")):
            wanted = getattr(request, name)
            if not wanted or self.is_regression:
                continue
            if wanted not in self.classes:
                known = ", ".join(self.classes[:12])
                raise BadInput("Unknown class", f"{name} is '{wanted}'; the classes are {known}.", "Choose one.")
            kept &= getattr(self, values) == self.classes.index(wanted)
        if request.status != "all" and not self.is_regression:
            kept &= self.wrong == (request.status == "wrong")
        return kept

    def position(self, split: str, row_id: Any) -> int | None:
        """Return the place of a row among all, or None."""
        if split not in SPLITS:
            return None
        start = 0 if split == "train" else self.n["train"]
        found = np.flatnonzero(self.ids[start : start + self.n[split]] == row_id)
        return start + int(found[0]) if len(found) else None

    def label_names(self, places: np.ndarray) -> tuple[str, ...]:
        """Return the given labels of some rows in words."""
        if self.is_regression:
            return tuple(f"{value:.4g}" for value in self.given[places].tolist())
        names = self.classes
        return tuple(names[code] for code in self.given[places].tolist())


def map_rows(study: str, held: OpenStudy, request: MapRequest) -> MapRows | MapNeeded:
    """Return the rows as they can be drawn now, or the projection that takes too long to be waited for."""
    check_request(request)
    fingerprint = held.study.fingerprint
    config = ProjectionConfig.checked({"place": request.place, "kind": "pca"})
    pca = found_projection(fingerprint, config, held.run)
    if pca is None:
        if (seconds := _pca_seconds(held)) > AT_ONCE_SECONDS:
            return needed(study, held, config, seconds)
        projection(held.study.task, held.run, config)
        pca = found_projection(fingerprint, config, held.run)
        assert pca is not None  # computed just now
    drawn = pca[0]
    if request.drawn == "umap":
        umap = found_projection(fingerprint, config.changed(kind="umap"), held.run)
        drawn = drawn if umap is None else umap[0]
    return held.remembered(("map rows", drawn.key), lambda: MapRows(held, drawn, pca[1]))


def _pca_seconds(held: OpenStudy) -> float:
    """Return about how long principal components take: a pass forward, and a little for every row."""
    size = sizes(held.study.task, held.run)
    rows = size.n_train + size.n_test
    return 0.5 * size.pass_seconds * rows / max(1, size.n_train) + 2e-5 * rows


def umap_seconds(n: int) -> float:
    """Return about how long UMAP takes for ``n`` rows: to load it, to fit, to place the rest."""
    return 15 + 1.2e-3 * min(n, MAX_FITTED) + 4e-4 * max(0, n - MAX_FITTED)


def needed(study: str, held: OpenStudy, config: ProjectionConfig, seconds: float) -> MapNeeded:
    """Return what a projection will cost, with its job if there is one that still says something."""
    key = projection_key(held.study.fingerprint, config, held.run)
    words = seconds_in_words(seconds)
    return MapNeeded(
        config.kind, _TITLES[config.kind], key, seconds, f"{words[0].upper()}{words[1:]}, once.",
        tasks.found(study, key),
    )  # fmt: skip


def umap_needed(study: str, held: OpenStudy, request: MapRequest, rows: MapRows) -> MapNeeded | None:
    """Return what is missing until UMAP can be drawn; None if it is drawn, or not asked for."""
    config = ProjectionConfig.checked({"place": request.place, "kind": "umap"})
    if request.drawn != "umap" or rows.key == projection_key(held.study.fingerprint, config, held.run):
        return None
    return needed(study, held, config, umap_seconds(len(rows.xy)))
