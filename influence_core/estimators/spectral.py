"""The base of influence functions whose curvature is known by its eigenvalues: ``S = (1/n) g_t' (C + damping)^-1 g_i``.

Subclasses say which curvature. Queries are divided by it and compared with the kept factors of the training gradients;
self-influence never forms a pair.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core import damping
from influence_core.config import digest
from influence_core.estimator import Cost, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import TrainGradients, query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Side
from influence_core.primitives.spectrum import Function, Spectrum, damped_inverse
from influence_core.primitives.threads import on_one_core
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

_VECTOR_BYTES = 256 << 20  # of queries that are written out together
_ONE_CORE = 1 << 27  # multiplications of a query up to which waking a second core costs more than it saves
_BLOCK_BYTES = 32 << 20  # of rotated training rows at a time


class SpectralConfig(GradientConfig):
    """Options of influence functions by a curvature with known eigenvalues."""

    damping: float | None = Field(None, ge=0, description=damping.HELP)


@dataclass(frozen=True)
class Curved:
    """A curvature with what is said of it."""

    spectrum: Spectrum
    notes: tuple[str, ...] = ()
    damping_share: float = damping.FACTORED


class Spectral(Bilinear):
    """Influence functions over the spectrum of a curvature."""

    config: SpectralConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    @abstractmethod
    def curvature(self, cache: TrainGradients, run: Run) -> Curved:
        """Return the curvature at the explained model, from the store or computed now."""

    def fit(self, task: Task, run: Run) -> SpectralFitted:
        """Compute the training gradients and the curvature."""
        return SpectralFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients; subclasses add the curvature."""
        return super().cost(task, sizes)


class SpectralFitted(BilinearFitted):
    """Training gradients and a spectrum."""

    estimator: Spectral

    def __init__(self, estimator: Spectral, task: Task, run: Run) -> None:
        """Load or compute both, and choose the damping."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.curved = estimator.curvature(self.cache, run)
        self.spectrum = self.curved.spectrum
        self.chosen = damping.chosen(estimator.config.damping, self.cache, run, None, self.curved.damping_share)
        self.damping = self.chosen.total
        self.check_invertible()

    def check_invertible(self) -> None:
        """Refuse a curvature that is singular with this damping."""
        damping.check_lifted(*self.spectrum.extremes(), self.chosen)

    @property
    def inverse(self) -> Function:
        """Return what the eigenvalues become."""
        return damped_inverse(self.damping)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the damping and what it stands against."""
        lowest, highest = self.spectrum.extremes()
        values = f"Eigenvalues of the curvature before damping: smallest {lowest:.3g}, largest {highest:.3g}."
        return (self.chosen.note, values, *self.curved.notes)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        work = len(batch.targets) * self.task.n_train * self.cache.plan.n_attributed
        if work <= _ONE_CORE and self.run.device.type == "cpu":
            return on_one_core(lambda: self._compared(batch, measurement, rows))
        return self._compared(batch, measurement, rows)

    def _compared(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        if rows.reduce == "mean":  # linear in the query: a set of rows is divided once
            query = [side.mean() for side in query]
        step = max(1, _VECTOR_BYTES // (self.run.dtype.itemsize * self.cache.plan.n_attributed))
        parts = []
        for start in range(0, query[0].rows, step):
            parts.append(self.compared_with([side.take(slice(start, start + step)) for side in query]))
        return torch.cat(parts)

    def compared_with(self, query: list[Side]) -> Tensor:
        """Return the scores ``[m, n_train]`` of a query's gradients."""
        return self.cache.products(self.spectrum.applied(query, self.inverse)) / self.task.n_train

    def _self_influence(self) -> Tensor:
        """Return ``(1/n) g_i' (C + damping)^-1 g_i``, kept in the store."""
        return self.per_row("self-influence", self.inverse) / self.task.n_train

    def per_row(self, stage: str, function: Function) -> Tensor:
        """Return ``g_i' function(C) g_i`` of the training rows, ``[n_train]``, from the store or computed now."""
        inputs = {"kind": stage, "of": self.estimator.identity(self.task, self.run)}

        def produce(writer: Writer) -> None:
            self._produce_rows(writer, stage, function)

        artifact = self.run.artifacts.obtain(digest(inputs), inputs, produce, self.run.waiting)
        return artifact.tensor("values").to(self.run.device)

    def _produce_rows(self, writer: Writer, stage: str, function: Function) -> None:
        n, itemsize = self.task.n_train, self.run.dtype.itemsize
        writer.create("values", (n,), np.float64 if itemsize == 8 else np.float32)
        numbers = self.spectrum.row_numbers(self.cache.block(slice(0, 1)))
        step = max(1, min(n, _BLOCK_BYTES // max(1, itemsize * numbers)))
        starts = range(0, n, step)
        for start in self.run.track(starts, stage, len(starts)):
            rows = slice(start, min(start + step, n))
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                writer.write("values", start, self.spectrum.quadratic(self.cache.block(rows), function))
                writer.mark_done(f"rows {start}:{rows.stop}")
