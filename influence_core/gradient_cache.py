"""The training rows' gradients at one checkpoint: computed once, kept on disk as factors, read back memory-mapped.

Every gradient method answers from these artifacts, so that grad-dot, TracIn and influence functions on one task share
them. A half-precision copy is opt-in; its rows are stored at unit length with their scale beside them, so that small
gradients do not vanish.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.errors import BadInput, NumericalProblem
from influence_core.examples import Batch, taken
from influence_core.measurement import Measurement
from influence_core.primitives.gradients import GradientPlan, per_example_gradients, planned_gradients
from influence_core.primitives.losses import Scalar, outputs
from influence_core.primitives.projections import GaussianProjection
from influence_core.primitives.sides import Dense, Factored, Side, Tokens, concatenated, dot, temporary_numbers
from influence_core.run import Run
from influence_core.store import Artifact, Writer
from influence_core.task import Task

VERSION = 1
_BLOCK_BYTES = 1 << 20  # of train features per product: small enough to stay in cache between its uses


@dataclass(frozen=True)
class GradientSpec:
    """Which gradients are kept: part of the key.

    Attributes:
        checkpoint: Index of the checkpoint.
        layers: Module names, or None for the whole model.
        projection: Dimensions of a random projection, or None.
        storage: ``"full"``: the run's precision; ``"half"``: float16 with a scale per row.
        of: What the gradients are of: the training loss, minus the margin of the row's label, minus the one output, or
            minus the sum of the outputs over the root of their number (the kernel of all outputs at once).
    """

    checkpoint: int
    layers: tuple[str, ...] | None = None
    projection: int | None = None
    storage: Literal["full", "half"] = "full"
    of: Literal["loss", "margin", "output", "outputs"] = "loss"


def resolved_layers(task: Task, layers: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Return the layers with ``last`` replaced by the name of the last layer; None: the whole model."""
    if layers is None or ("last" in layers and task.last_layer == ""):  # the model is one Linear
        return None
    return tuple(task.last_layer or "last" if name == "last" else name for name in layers)


class TrainGradients:
    """Gradients of the training loss of all training rows at one checkpoint, and of any query at the same one."""

    def __init__(self, task: Task, run: Run, spec: GradientSpec) -> None:
        """Load the artifact, computing it first if needed."""
        self.task, self.run, self.spec = task, run, spec
        self.model = task.model_at(spec.checkpoint, run.device, run.dtype)
        first = task.split("train").batch(slice(0, 3), run.device, run.dtype)
        self.scalar: Scalar = _scalar_of(task, spec.of)
        self.plan: GradientPlan = planned_gradients(self.model, self.scalar, first, spec.layers)
        self._projection: GaussianProjection | None = None
        self._alone = threading.Lock()
        inputs = {
            "kind": "train gradients", "version": VERSION, "task": task.fingerprint,
            "checkpoint": task.checkpoint_hash(spec.checkpoint),
            "layers": self.plan.layers, "general": self.plan.general,
            "projection": [spec.projection, run.seed] if spec.projection else None,
            "storage": spec.storage, "precision": run.precision, **self.identity(),
        }  # fmt: skip
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)
        self._sides, self._scales = self._opened()
        # Opened now: an artifact may be evicted, while what is mapped stays.
        self._norms = torch.stack([self.artifact.tensor(f"{i}.norms") for i in range(self.n_layers)])

    # -- computing ------------------------------------------------------------------------------------------------

    def query(self, batch: Batch, scalar: Scalar) -> list[Side]:
        """Return the gradients of any rows, one side per stored layer, in this run's precision."""
        with self._alone:  # hooks and replaced parameters belong to one caller at a time
            return self.compressed(per_example_gradients(self.model, scalar, batch, self.plan))

    def compressed(self, sides: list[Side]) -> list[Side]:
        """Return what is kept of gradients: all of them, or their projection; subclasses may keep something else."""
        return [self.projection(sides)] if self.spec.projection else sides

    def identity(self) -> dict[str, Any]:
        """Return what else the kept numbers depend on; empty for gradients of the training loss as they are."""
        return {} if self.spec.of == "loss" else {"of": self.spec.of}

    @property
    def projection(self) -> Callable[[list[Side]], Side]:
        """Return the projection, drawn on first use."""
        if self._projection is None:
            assert self.spec.projection is not None
            sizes = [self.plan.sizes[name] for name in self.plan.layers]
            self._projection = GaussianProjection(
                sizes, self.spec.projection, self.run.seed, self.run.device, self.run.dtype
            )
        return self._projection

    def _produce(self, writer: Writer) -> None:
        task, run = self.task, self.run
        train = task.split("train")
        shapes = self.query(train.batch(slice(0, 1), run.device, run.dtype), self.scalar)
        writer.meta["forms"] = [_form(side) for side in shapes]
        writer.meta["layers"] = list(self.plan.layers)
        writer.meta["attributed"] = [self.plan.n_attributed, self.plan.n_params]
        for i, side in enumerate(shapes):
            for name, tensor in side.tensors().items():
                kind = torch.float16 if self.spec.storage == "half" and name != "t" else tensor.dtype
                writer.create(f"{i}.{name}", (len(train), *tensor.shape[1:]), _numpy_type(kind))
            writer.create(f"{i}.norms", (len(train),), _numpy_type(run.dtype))
            if self.spec.storage == "half":
                writer.create(f"{i}.scale", (len(train),), np.float32)
        stage = f"train gradients, checkpoint {self.spec.checkpoint + 1} of {task.n_checkpoints}"
        starts = range(0, len(train), run.batch_size)
        for start in run.track(starts, stage, len(starts)):
            rows = slice(start, min(start + run.batch_size, len(train)))
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                sides = self.query(train.batch(rows, run.device, run.dtype), self.scalar)
                self._write(writer, start, sides)
                writer.mark_done(f"rows {start}:{rows.stop}")

    def _write(self, writer: Writer, start: int, sides: list[Side]) -> None:
        for i, side in enumerate(sides):
            norms = side.squared_norms()
            if not bool(norms.isfinite().all()):
                row = self.task.ids("train")[start + int((~norms.isfinite()).nonzero()[0])]
                layer = self.plan.layers[min(i, len(self.plan.layers) - 1)]
                where = f"Training row {row} at checkpoint {self.spec.checkpoint}"
                raise NumericalProblem(
                    "A gradient is not a number",
                    f"{where} has a NaN or infinite gradient in '{layer}'.",
                    "Correct the row, or leave this checkpoint out.",
                )
            writer.write(f"{i}.norms", start, norms)
            if self.spec.storage == "half":
                scale = _unit_scale(side)
                writer.write(f"{i}.scale", start, scale.float())
                side = side.scaled(1 / scale)
            for name, tensor in side.tensors().items():
                halved = self.spec.storage == "half" and name != "t"
                writer.write(f"{i}.{name}", start, _halved(tensor) if halved else tensor)

    # -- reading --------------------------------------------------------------------------------------------------

    def _opened(self) -> tuple[list[Side], list[Tensor] | None]:
        sides = [_restored(self.artifact, i, form) for i, form in enumerate(self.artifact.meta["forms"])]
        scales = (
            [self.artifact.tensor(f"{i}.scale") for i in range(len(sides))] if self.spec.storage == "half" else None
        )
        if self.run.device.type == "cuda":
            stored = sum(tensor.nbytes for side in sides for tensor in side.tensors().values())
            if stored < torch.cuda.mem_get_info(self.run.device)[0] // 2:  # keep warm features on the device
                sides = [_moved(side, self.run.device) for side in sides]
        return sides, scales

    @property
    def n_layers(self) -> int:
        """Return the number of stored sides."""
        return len(self._sides)

    @property
    def bytes(self) -> int:
        """Return the size of the stored features."""
        return sum(tensor.nbytes for side in self._sides for tensor in side.tensors().values())

    def block(self, rows: slice) -> list[Side]:
        """Return some training rows in the run's precision and on its device."""
        sides = [_cast(side, self.run.dtype) for side in self._raw_block(rows)]
        if self._scales is None:
            return sides
        return [side.scaled(scale[rows].to(side_dtype(side))) for side, scale in zip(sides, self._scales, strict=True)]

    def _raw_block(self, rows: slice) -> list[Side]:
        """Return some rows as they are stored: in their precision, without their scales."""
        whole = rows == slice(0, self.task.n_train)
        sides = [side if whole else side.take(rows) for side in self._sides]
        return [_moved(side, self.run.device) for side in sides] if self.run.device.type != "cpu" else sides

    def _step(self, query: list[Side]) -> int:
        """Return how many rows are compared at a time, so that what is built on the way fits the cache."""
        n, m, size = self.task.n_train, query[0].rows, self.run.dtype.itemsize
        temporary = max(temporary_numbers(q, side) for q, side in zip(query, self._sides, strict=True)) * size
        if any(not _multiplied_as_stored(q, side) for q, side in zip(query, self._sides, strict=True)):
            temporary += 2 * self.bytes // n  # the rows in the run's precision
        budget = _BLOCK_BYTES if m <= 4 else 32 * _BLOCK_BYTES
        return n if temporary == 0 else min(n, max(64, budget // temporary))

    def products(self, query: list[Side], weights: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Return the inner products ``[m, n_train]`` with a query's sides, summed over layers.

        Args:
            query: One side per layer.
            weights: Factors of each layer's products: of the query rows ``[n_layers, m]`` and of the training rows
                ``[n_layers, n_train]``.
        """
        n, step = self.task.n_train, self._step(query)
        result = torch.zeros(query[0].rows, n, dtype=self.run.dtype, device=self.run.device)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            for i, side in enumerate(self._raw_block(rows)):
                part = dot(query[i], side if _multiplied_as_stored(query[i], side) else _cast(side, self.run.dtype))
                # The scale of a stored row multiplies its products: cheaper than multiplying the row.
                part = part if self._scales is None else part * self._scales[i][rows].to(part)
                result[:, rows] += part if weights is None else part * weights[0][i][:, None] * weights[1][i][rows]
        return result

    def squared_norms(self) -> Tensor:
        """Return ``|g_i|^2`` by layer, ``[n_layers, n_train]``, as computed when the gradients were."""
        return self._norms.to(self.run.device)


def _scalar_of(task: Task, of: str) -> Scalar:
    """Return what training rows' gradients are of, negated as every query's is."""
    if of == "loss":
        return task.loss
    if of == "margin":
        return Measurement("margin").scalar(task.loss)
    if of == "output":
        return lambda model, batch: -outputs(model, batch.inputs).reshape(len(batch.targets))

    def summed(model: Any, batch: Batch) -> Tensor:
        f = outputs(model, batch.inputs).reshape(len(batch.targets), -1)
        return -f.sum(1) / f.shape[1] ** 0.5

    return summed


# -- forms on disk ----------------------------------------------------------------------------------------------------


def _form(side: Side) -> dict[str, Any]:
    if isinstance(side, Factored):
        return {"form": "factored", "bias": side.bias}
    if isinstance(side, Tokens):
        return {"form": "tokens", "n_tokens": side.n_tokens}
    return {"form": "dense"}


def _restored(artifact: Artifact, i: int, form: dict[str, Any]) -> Side:
    if form["form"] == "factored":
        return Factored(artifact.tensor(f"{i}.a"), artifact.tensor(f"{i}.e"), form["bias"])
    if form["form"] == "tokens":
        return Tokens(artifact.tensor(f"{i}.t"), artifact.tensor(f"{i}.e"), form["n_tokens"])
    return Dense(artifact.tensor(f"{i}.g"))


def _numpy_type(dtype: torch.dtype) -> np.dtype:
    return torch.empty(0, dtype=dtype).numpy().dtype


def _mapped(side: Side, change: Callable[[Tensor], Tensor]) -> Side:
    if isinstance(side, Factored):
        return Factored(change(side.inputs), change(side.errors), side.bias)
    if isinstance(side, Tokens):
        return Tokens(side.tokens.to(change(side.errors).device), change(side.errors), side.n_tokens)
    return Dense(change(side.dense()))


def _moved(side: Side, device: torch.device) -> Side:
    return _mapped(side, lambda tensor: tensor.to(device))


def _cast(side: Side, dtype: torch.dtype) -> Side:
    return _mapped(side, lambda tensor: tensor.to(dtype))


def _multiplied_as_stored(query: Side, train: Side) -> bool:
    """Tell whether a product takes the stored precision as it is: equal ones, and one vector with written-out rows."""
    return side_dtype(query) == side_dtype(train) or (isinstance(train, Dense) and query.rows == 1)


def _unit_scale(side: Side) -> Tensor:
    """Return the largest |number| of what varies with the loss, per row: the gradients or the output errors."""
    values = side.values if isinstance(side, Dense) else side.errors  # type: ignore[union-attr]
    return values.flatten(1).abs().amax(1).clamp_min(1e-30)


def side_dtype(side: Side) -> torch.dtype:
    """Return the precision of a side."""
    return (side.values if isinstance(side, Dense) else side.errors).dtype  # type: ignore[union-attr]


def _halved(tensor: Tensor) -> Tensor:
    """Return 16-bit numbers.

    Raises:
        BadInput: A number is too large for 16 bits.
    """
    half = tensor.half()
    if not bool(half.isfinite().all()):
        raise BadInput(
            "Half precision cannot hold these features",
            f"A layer's input reaches {float(tensor.abs().max()):.3g}, and 16-bit numbers end at 65,504.",
            "Use storage='full', or scale the inputs of the model.",
        )
    return half


def query_gradients(cache: TrainGradients, batch: Batch, scalar: Scalar, chunk: int) -> list[Side]:
    """Return a query's gradients, ``chunk`` rows at a time to bound memory, as one side per layer."""
    n = len(batch.targets)
    if n <= chunk:
        return cache.query(batch, scalar)
    parts = [cache.query(taken(batch, slice(start, start + chunk)), scalar) for start in range(0, n, chunk)]
    return [concatenated([part[i] for part in parts]) for i in range(len(parts[0]))]
