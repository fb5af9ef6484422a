"""The base of influence functions that divide by a curvature: ``S = (1/n) g_t' (C + damping I)^-1 g_i``.

Subclasses say how a system with ``C + damping I`` is solved.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core import damping
from influence_core.config import digest
from influence_core.curvature_cache import Curvature, CurvatureKind
from influence_core.estimator import Cost, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Dense
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

_VECTOR_BYTES = 256 << 20  # of right-hand sides solved together


class InfluenceConfig(GradientConfig):
    """Which curvature, and how much is added to it."""

    version: ClassVar[int] = 2

    curvature: CurvatureKind = Field(
        "ggn",
        description="ggn: Gauss-Newton, never negative, for nets. hessian: second derivatives, for converged models.",
    )
    damping: float | None = Field(None, ge=0, description=damping.HELP)


class Influence(Bilinear):
    """The equation; subclasses solve it."""

    config: InfluenceConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def n_attributed(self, task: Task) -> int:
        """Return P, the number of parameters in the chosen layers."""
        layers = self.layers(task)
        return sum(
            parameter.numel()
            for name, parameter in task.module.named_parameters()
            if layers is None or any(name == layer or name.startswith(f"{layer}.") for layer in layers)
        )

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients of the chosen layers."""
        return super().cost(task, self._sizes(task, sizes))

    def _sizes(self, task: Task, sizes: Sizes) -> Sizes:
        return sizes if self.config.layers is None else replace(sizes, n_params=self.n_attributed(task))


class InfluenceFitted(BilinearFitted):
    """Training gradients, and the curvature that queries are divided by."""

    estimator: Influence

    def __init__(self, estimator: Influence, task: Task, run: Run) -> None:
        """Load or compute the gradients."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.curvature = Curvature(task, run, self.cache.plan, estimator.config.curvature)
        self.chosen = damping.chosen(estimator.config.damping, self.cache, run, self._lowest())
        self.damping = self.chosen.total

    @abstractmethod
    def _lowest(self) -> float | None:
        """Return the smallest eigenvalue, where it may be negative and the damping is to be chosen."""

    @abstractmethod
    def solved(self, targets: Tensor) -> Tensor:
        """Return ``(C + damping I)^-1`` times rows ``[k, P]``."""

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``v' (C + damping I)^-1 v`` of rows ``[k, P]``."""
        return (vectors * self.solved(vectors)).sum(1)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was added to the curvature."""
        return (self.chosen.note,)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        if rows.reduce == "mean":
            # The scores are linear in the query: a set of rows needs one solve, not one per row.
            query = [side.mean() for side in query]
        m, step = query[0].rows, max(1, _VECTOR_BYTES // (8 * self.cache.plan.n_attributed))
        parts = []
        for start in range(0, m, step):
            taken = [side.take(slice(start, start + step)).dense() for side in query]
            solved = self.solved(torch.cat(taken, 1).to(self.curvature.dtype)) / self.task.n_train
            sizes = [part.shape[1] for part in taken]
            parts.append(self.cache.products([Dense(part) for part in solved.to(self.run.dtype).split(sizes, 1)]))
        return torch.cat(parts)

    def _self_influence(self) -> Tensor:
        """Return ``(1/n) g_i' (C + damping I)^-1 g_i``, kept in the store: by ``if_cg`` it is a solve per row."""
        inputs = {"kind": "self-influence", "of": self.estimator.identity(self.task, self.run)}
        artifact = self.run.artifacts.obtain(digest(inputs), inputs, self._produce, self.run.waiting)
        return artifact.tensor("scores").to(self.run.device)

    def _produce(self, writer: Writer) -> None:
        n, size = self.task.n_train, self.cache.plan.n_attributed
        writer.create("scores", (n,), np.float64 if self.run.dtype == torch.float64 else np.float32)
        step = min(256, max(1, _VECTOR_BYTES // (8 * size)))
        starts = range(0, n, step)
        for start in self.run.track(starts, "self-influence", len(starts)):
            rows = slice(start, min(start + step, n))
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                vectors = torch.cat([side.dense() for side in self.cache.block(rows)], 1).to(self.curvature.dtype)
                writer.write("scores", start, self.quadratic(vectors) / n)
                writer.mark_done(f"rows {start}:{rows.stop}")
