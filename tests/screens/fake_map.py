"""The functions about the map, on the fake studies: real coordinates of their rows, no engine."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from influence_core import service
from influence_core.service import views
from tests.screens.fake_data import Material, material

FUNCTIONS = "map_points rows_in_polygon row_ids_in_polygon map_cards start_projection".split()
JOB = views.JobView(7, "umap", "Map by UMAP", "running", "UMAP: laying out", 0.4, 12.0, 30.0, "", True)


@dataclass
class FakeMap:
    """Switches: ``umap`` is "there", "missing", "running" or "failed"; ``waiting``: not even the components are there.

    Attributes:
        started: What was asked to be computed, in order.
        polygons: The regions asked about, in order.
        datum: Makes a card; set by the fake service that this belongs to.
    """

    umap: str = "there"
    waiting: bool = False
    seconds: float = 30.0
    dense: bool = False
    influence: bool = True
    started: list[str] = field(default_factory=list)
    polygons: list[Any] = field(default_factory=list)
    datum: Any = None
    _numbers: Any = field(default_factory=lambda: itertools.count(1))

    def _needed(self, kind: str) -> service.MapNeeded:
        job = {"running": JOB, "failed": views.JobView(8, kind, "Map by UMAP", "failed", "", 0, None, 30.0,
               "The disk is full: 0 MB free. Free some space.", False)}.get(self.umap)  # fmt: skip
        return service.MapNeeded(kind, "Map by UMAP", f"{kind}-key", self.seconds, "About 30 seconds, once.", job)

    def map_points(self, study: str, asked: service.MapRequest) -> service.MapView | service.MapNeeded:
        """Draw the rows by their first two numbers."""
        if self.waiting:
            return self._needed("pca")
        m = material(study)
        xy = np.concatenate([m.inputs[split][:, 1:3] for split in ("train", "test")]).astype(np.float32)
        given = np.concatenate([m.given[split] for split in ("train", "test")])
        n = {split: len(m.given[split]) for split in ("train", "test")}
        is_test = np.arange(len(xy)) >= n["train"]
        ids = tuple([*range(n["train"]), *range(n["test"])])
        scale = asked.colour in ("loss", "influence")
        colours = (
            service.MapColours("sequential", "loss", "How badly it fits.", (), 0.0, 1.0)
            if scale
            else (
                service.MapColours(
                    "category",
                    "given label",
                    "The label in the data.",
                    m.classes,
                    note="Suspects have not been computed yet." if asked.colour == "suspicion" else "",
                )
            )
        )
        points = service.MapPoints(
            xy[:, 0], xy[:, 1], ids, tuple(m.classes[c] for c in given), is_test,
            np.empty(0, int) if scale else given, np.linspace(0, 1, len(xy)) if scale else np.empty(0),
        )  # fmt: skip
        links = tuple(service.MapLink(float(xy[i, 0]), float(xy[i, 1]), i, "3", 1.0 - 2 * (i % 2)) for i in range(4))
        return service.MapView(
            "pca-key", "umap" if self.umap == "there" and asked.drawn == "umap" else "pca", "Two numbers of each row.",
            None if self.umap == "there" or asked.drawn == "pca" else self._needed("umap"), n, len(xy), points, colours,
            xy[:3], np.ones((5, 5), int) if self.dense else None, (0.0, 1.0, 0.0, 1.0),
            xy[:1] if asked.query else xy[:0], links if asked.query else (),
            f"Test row {asked.query.ids[0]} with its strongest training rows." if asked.query else "", m.classes, False,
        )  # fmt: skip

    def rows_in_polygon(self, study: str, asked: service.MapRequest, polygon: Any) -> service.MapSelection:
        """Say the same of every region."""
        self.polygons.append(polygon)
        group = service.GroupInfluence("Test row 94", "Gradient cosine", "the loss", "measurement", "nats", 0.5, 2.0, 7)
        m: Material = material(study)
        mix = tuple((name, 3) for name in m.classes[:2])
        return service.MapSelection(
            {"train": 7, "test": 2}, mix, 1, 0.25, None, (("train", 1), ("test", 2)),
            group if self.influence else None, "" if self.influence else "Choose a prediction on Explain.",
        )  # fmt: skip

    def row_ids_in_polygon(self, study: str, asked: Any, polygon: Any, split: str = "train") -> tuple[int, ...]:
        """Return seven or two rows."""
        return tuple(range(7 if split == "train" else 2))

    def map_cards(self, study: str, rows: Any) -> tuple[views.Datum, ...]:
        """Return cards."""
        return tuple(self.datum(material(study), split, row_id) for split, row_id in rows)

    def start_projection(self, study: str, asked: Any, kind: str, client: str) -> views.JobView:
        """Start a job that goes on for ever."""
        self.started.append(kind)
        return JOB
