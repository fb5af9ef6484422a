"""The base of methods on layers that are projected from both sides: their kept gradients and Fisher blocks.

``F_l = (1/n) sum_i (P g_i)(P g_i)'`` is the empirical Fisher matrix of what is left of layer l; a damping in units of
its mean eigenvalue makes it invertible.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from influence_core.estimator import Cost, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage
from influence_core.layer_projection import fisher_blocks
from influence_core.primitives.sides import Side
from influence_core.run import Run
from influence_core.task import Task

_ROWS = 2048  # of the training rows' lengths at a time


class ProjectedLayersConfig(GradientConfig):
    """How far the layers are projected, and how much is added to the Fisher matrix."""

    dimensions: int = Field(
        16, ge=2, le=128, description="Dimensions kept per side of a layer; a row keeps their square."
    )
    damping: float = Field(
        0.1, gt=0, le=1e6, description="Added to each layer's Fisher matrix, in units of its mean eigenvalue."
    )


class ProjectedLayers(Bilinear):
    """Methods on projected layers; subclasses say which gradients are projected."""

    config: ProjectedLayersConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A pass, and the blocks' eigenvectors."""
        size = min(self.config.dimensions**2, sizes.n_params)
        layers = max(1, sum(1 for module in task.module.modules() if list(module.parameters(recurse=False))))
        flop = layers * (2 * sizes.n_train * size**2 + 14 * size**3)
        return Cost(1.5 * sizes.pass_seconds + 2e-11 * flop, 4.0 * layers * (sizes.n_train * size + size**2))


class ProjectedFitted(BilinearFitted):
    """Projected gradients and the blocks of their Fisher matrix."""

    estimator: ProjectedLayers

    def __init__(self, estimator: ProjectedLayers, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.blocks = fisher_blocks(self.cache, run)
        tiny = torch.finfo(torch.float64).tiny
        self.added = [estimator.config.damping * block.values.mean().clamp_min(tiny) for block in self.blocks]

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what is kept of a row."""
        kept = sum(len(block.values) for block in self.blocks)
        return (f"{kept:,} of {self.cache.plan.n_attributed:,} numbers per gradient are kept.",)

    def solved(self, query: list[Side]) -> list[Side]:
        """Return ``(F + damping)^-1 g`` of every row, a side per layer."""
        return [
            block.applied(side, lambda values, added=added: 1 / (values + added))
            for block, side, added in zip(self.blocks, query, self.added, strict=True)
        ]

    def quadratic(self, sides: list[Side]) -> Tensor:
        """Return ``g' (F + damping)^-1 g`` of every row, ``[k]``."""
        parts = [
            block.quadratic(side, lambda values, added=added: 1 / (values + added))
            for block, side, added in zip(self.blocks, sides, self.added, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def train_quadratic(self) -> Tensor:
        """Return the same of the training rows, ``[n_train]``."""
        n = self.task.n_train
        starts = range(0, n, _ROWS)
        return torch.cat([self.quadratic(self.cache.block(slice(start, min(start + _ROWS, n)))) for start in starts])
