"""The base of gradient methods: ``S = sum_c weight_c * <F_test,c , P F_train,c>``, optionally of unit vectors."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config
from influence_core.estimator import Cost, Estimator, Fitted, Sizes
from influence_core.examples import Batch, moved
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients, resolved_layers
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Side
from influence_core.primitives.threads import ahead
from influence_core.run import Run
from influence_core.task import Task

_FEW = 4  # rows of a query that one core handles faster than several


class GradientConfig(Config):
    """Which gradients are compared."""

    layers: tuple[str, ...] | None = Field(
        None, description="Names of layers to look at, 'last' for the last one; empty: all of them."
    )
    storage: Literal["full", "half"] = Field(
        "full", description="half keeps 16-bit numbers: half the disk and memory, scores to about three digits."
    )


class ProjectedConfig(GradientConfig):
    """Which gradients are compared, and in how many dimensions."""

    projection: int | None = Field(
        None, ge=16, le=65_536,
        description="Dimensions of a random projection; empty: exact. Fewer dimensions are faster and noisier.",
    )  # fmt: skip


@dataclass(frozen=True)
class Stage:
    """One checkpoint with its weight in the sum."""

    checkpoint: int
    weight: float


class Bilinear(Estimator):
    """A sum of inner products over checkpoints; subclasses say which checkpoints and weights."""

    config: GradientConfig
    unit_length: ClassVar[bool] = False

    @property
    def unit_layers(self) -> bool:
        """Tell whether each layer's gradient has unit length, and the products are averaged over layers."""
        return False

    @abstractmethod
    def stages(self, task: Task) -> list[Stage]:
        """Return the checkpoints and their weights."""

    def layers(self, task: Task) -> tuple[str, ...] | None:
        """Return the layers that are compared, or None for all."""
        return resolved_layers(task, self.config.layers)

    def gradients(self, task: Task, run: Run, checkpoint: int) -> TrainGradients:
        """Return the training rows' gradients at a checkpoint, from the store or computed now."""
        projection = getattr(self.config, "projection", None)
        spec = GradientSpec(checkpoint, self.layers(task), projection, self.config.storage)
        key = f"gradients/{spec}/{run.precision}/{run.device}/{run.seed if projection else ''}/{run.artifacts.root}"
        if key not in task.memo:
            task.memo[key] = TrainGradients(task, run, spec)
        run.artifacts.use(task.memo[key].artifact.key)
        return task.memo[key]

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the training gradients at every stage."""
        return BilinearFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """One pass per checkpoint with a little on top; the disk holds the factors."""
        stages = len(self.stages(task))
        projection = getattr(self.config, "projection", None)
        per_row = projection or min(sizes.n_params, 64 * sizes.n_params**0.5)
        seconds = 1.5 * stages * sizes.pass_seconds + (
            2e-11 * stages * sizes.n_train * sizes.n_params * (projection or 0)
        )
        return Cost(
            seconds, stages * sizes.n_train * per_row * (2 if getattr(self.config, "storage", "full") == "half" else 4)
        )


class BilinearFitted(Fitted):
    """Training gradients at every stage, and products with any query's."""

    estimator: Bilinear

    def __init__(self, estimator: Bilinear, task: Task, run: Run) -> None:
        """Load or compute the gradients."""
        super().__init__(estimator, task, run)
        self.stages = estimator.stages(task)
        self.caches = [estimator.gradients(task, run, stage.checkpoint) for stage in self.stages]

    @property
    def share(self) -> float:
        """Return attributed over all parameters."""
        plan = self.caches[0].plan
        return plan.n_attributed / max(1, plan.n_params)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        scalar = measurement.scalar(self.task.loss)
        total = torch.zeros(len(batch.targets), self.task.n_train, dtype=self.run.dtype, device=self.run.device)

        def gradients(cache: TrainGradients) -> list[Side]:
            return query_gradients(cache, batch, scalar, self.run.batch_size)

        few = len(batch.targets) <= _FEW and self.run.device.type == "cpu"
        queries = ahead(gradients, self.caches) if few else map(gradients, self.caches)
        for stage, cache, query in zip(self.stages, self.caches, queries, strict=True):
            total += stage.weight * self.compared(cache, query)
        return total

    def compared(self, cache: TrainGradients, query: list[Side]) -> Tensor:
        """Return the products of one stage ``[m, n_train]``, of unit vectors where the method asks for it."""
        if self.estimator.unit_layers:
            own = torch.stack([inverse_length(side.squared_norms()) for side in query]) / len(query)
            return cache.products(query, (own, inverse_length(cache.squared_norms())))
        products = cache.products(query)
        if not self.estimator.unit_length:
            return products
        lengths = sum(side.squared_norms() for side in query)
        assert isinstance(lengths, Tensor)
        return products * inverse_length(lengths).unsqueeze(1) * inverse_length(cache.squared_norms().sum(0))

    def _self_influence(self) -> Tensor:
        """Return ``sum_c weight_c |g_i,c|^2`` from the stored norms."""
        parts = [
            stage.weight * (torch.ones_like(norms) if self.estimator.unit_length else norms)
            for stage, norms in ((s, c.squared_norms().sum(0)) for s, c in zip(self.stages, self.caches, strict=True))
        ]
        return torch.stack(parts).sum(0)


def inverse_length(squared: Tensor) -> Tensor:
    """Return ``1/|g|``, and 0 for a zero gradient: a row that taught nothing points nowhere."""
    return torch.where(squared > 0, squared.clamp_min(torch.finfo(squared.dtype).tiny).rsqrt(), 0.0)


def moved_batch(batch: Batch, run: Run) -> Batch:
    """Return a batch on the run's device in its precision."""
    return Batch(*moved(batch, run.device, run.dtype))
