"""What the training rows look like inside the model: computed once, kept on disk, shared by all who compare rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from influence_core.config import Config, digest
from influence_core.errors import NumericalProblem, Unavailable
from influence_core.examples import Batch, moved, taken
from influence_core.primitives.features import flat_inputs, layer_values
from influence_core.primitives.neighbors import central_point
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 1


class EmbeddingConfig(Config):
    """Where rows are compared."""

    embedding: str = Field(
        "penultimate", min_length=1,
        description="'penultimate': what enters the last layer; 'input': the raw input; a name: what leaves the layer.",
    )  # fmt: skip


class Place(NamedTuple):
    """A place in the model: the input or output of a layer; without a layer, the raw input."""

    layer: str | None
    side: str

    @property
    def words(self) -> str:
        """Return the place in the user's words."""
        if self.layer is None:
            return "of the raw input"
        return f"that enter '{self.layer}'" if self.side == "input" else f"that leave '{self.layer}'"


def embedding_place(task: Task, embedding: str) -> Place:
    """Return the place that an option names.

    Raises:
        Unavailable: The task has no model, or no last layer.
    """
    if embedding == "input":
        return Place(None, "input")
    if task.n_checkpoints == 0:
        raise Unavailable(
            f"Rows cannot be compared at '{embedding}'", "There is no trained model.",
            "Use embedding='input', or give checkpoints=[...].",
        )  # fmt: skip
    if embedding != "penultimate":
        return Place(embedding, "output")
    if task.last_layer is None:
        raise Unavailable(
            "There is no penultimate layer", "The model does not end with a Linear layer.",
            "Use embedding='input' or a layer's name.",
        )  # fmt: skip
    # A model that is one Linear layer alone has no name for it: what enters it is the raw input.
    return Place(task.last_layer or None, "input")


class TrainEmbeddings:
    """Embeddings of all training rows at the explained model, and of any query at the same place."""

    def __init__(self, task: Task, run: Run, place: Place) -> None:
        """Load the artifact, computing it first if needed.

        Raises:
            BadInput: No such layer.
            NumericalProblem: A row's embedding is not finite.
        """
        self.task, self.place = task, place
        self.device, self.dtype, self.batch_size = run.device, run.dtype, run.batch_size
        self.model: nn.Module | None = task.model_at(-1, run.device, run.dtype) if place.layer is not None else None
        inputs = {
            "kind": "train embeddings", "version": VERSION, "task": task.fingerprint, "place": list(place),
            "checkpoint": task.checkpoint_hash(-1) if place.layer is not None else None, "precision": run.precision,
        }  # fmt: skip
        self.key = digest(inputs)
        artifact = run.artifacts.obtain(self.key, inputs, lambda writer: self._produce(writer, run), run.waiting)
        self.features = artifact.tensor("features")
        self.twins = artifact.tensor("twins").to(run.device)

    @property
    def width(self) -> int:
        """Return the numbers per row."""
        return self.features.shape[1]

    @property
    def note(self) -> str:
        """Return one sentence on where rows are compared."""
        return f"Rows are compared by the {self.width} numbers {self.place.words}."

    @cached_property
    def center(self) -> Tensor:
        """Return an embedding ``[d]`` in the midst of all, float64."""
        return central_point(self.features).to(self.device)

    def query(self, batch: Batch) -> Tensor:
        """Return the embeddings ``[m, d]`` of any rows."""
        starts = range(0, len(batch.targets), self.batch_size)
        return torch.cat([self._embedded(taken(batch, slice(start, start + self.batch_size))) for start in starts])

    def _embedded(self, batch: Batch) -> Tensor:
        inputs = moved(batch.inputs, self.device, self.dtype)
        if self.model is None or self.place.layer is None:
            return flat_inputs(inputs).to(self.dtype)
        return layer_values(self.model, inputs, self.place.layer, self.place.side).to(self.dtype)

    def _produce(self, writer: Writer, run: Run) -> None:
        train, n = self.task.split("train"), self.task.n_train
        width = self._embedded(train.batch(slice(0, 1))).shape[1]
        kind = torch.empty(0, dtype=run.dtype).numpy().dtype
        writer.create("features", (n, width), kind)
        seen: dict[bytes, int] = {}
        twins: list[int] = []
        starts = range(0, n, run.batch_size)
        for start in run.track(starts, "embeddings of the training rows", len(starts)):
            rows = slice(start, min(start + run.batch_size, n))
            batch = train.batch(rows, "cpu", run.dtype)
            # Rounding differs between batches, so that identical rows are known by what went in, not by what came out.
            twins += [seen.setdefault(name, start + i) for i, name in enumerate(_row_hashes(batch.inputs))]
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                features = self._embedded(batch)
                self._check(features, start)
                writer.write("features", start, features)
                writer.mark_done(f"rows {start}:{rows.stop}")
        writer.save("twins", torch.tensor(twins))

    def _check(self, features: Tensor, start: int) -> None:
        bad = ~features.isfinite().all(1)
        if bool(bad.any()):
            row = self.task.ids("train")[start + int(bad.nonzero()[0])]
            raise NumericalProblem(
                "An embedding is not a number",
                f"Training row {row} has a NaN or an infinity among the numbers {self.place.words}.",
                "Correct the row, or choose another embedding.",
            )


def train_embeddings(task: Task, run: Run, embedding: str) -> TrainEmbeddings:
    """Return the embeddings that an option names, from memory, from the store, or computed now.

    Raises:
        InfluenceError: No such place in this model, or a row that is not finite there.
    """
    place = embedding_place(task, embedding)
    memo = f"embeddings/{place}/{run.precision}/{run.device}/{run.artifacts.root}"
    if memo not in task.memo:
        task.memo[memo] = TrainEmbeddings(task, run, place)
    run.artifacts.use(task.memo[memo].key)
    return task.memo[memo]


def class_labels(targets: Tensor) -> Tensor:
    """Return class indices ``[n]`` from the targets of a classifier; of several outputs, the first."""
    return targets.reshape(len(targets), -1)[:, 0].long()


def _row_hashes(inputs: Any) -> list[bytes]:
    """Return a hash of each row of nested tensors."""
    parts: list[Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, Tensor):
            parts.append(value.reshape(len(value), -1).contiguous().view(torch.uint8))
        else:
            for item in value.values() if isinstance(value, Mapping) else value:
                collect(item)

    collect(inputs)
    return [hashlib.blake2b(row, digest_size=16).digest() for row in torch.cat(parts, 1).numpy()]
