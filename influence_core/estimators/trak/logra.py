"""LoGra: influence functions on gradients that are projected layer by layer, from both sides.

::

    S[t, i] = (1/n) sum_layers  <P g_t, (F + damping I)^-1 P g_i>,      F = (1/n) sum_i (P g_i)(P g_i)'

``P g = (P_out E')(A P_in)`` is the projected gradient of a layer (``layer_projection.py``) and F the empirical Fisher
matrix of what is left of it, one block per layer. Choe et al. (2024); positive = proponent. Only projected gradients
are kept: this is the method for models whose gradients, or even factors, would not fit on the disk. F is not calibrated
as the Gauss-Newton matrix is, so that the scores are an order. The paper's damping, a tenth of the block's mean
eigenvalue, is the default here too.

Cost: a pass over the training rows and ``k^6`` per layer; ``n k^2`` numbers per layer on disk.

Reference: Choe et al., What is Your Data Worth to GPT? LLM-Scale Data Valuation with Influence Functions, 2024.
"""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients
from influence_core.layer_projection import LayerProjection, fisher_blocks
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class LograConfig(GradientConfig):
    """How far the layers are projected, and how much is added to the Fisher matrix."""

    dimensions: int = Field(
        16, ge=2, le=128, description="Dimensions kept per side of a layer; a row keeps their square."
    )
    damping: float = Field(
        0.1, gt=0, le=1e6, description="Added to each layer's Fisher matrix, in units of its mean eigenvalue."
    )


@final
@register
class Logra(Bilinear):
    """Influence functions on two-sided projections."""

    info = Info(
        name="logra", title="LoGra", family="trak",
        summary="Influence functions on gradients squeezed layer by layer: for models too large for anything else.",
        estimand="order of the first-order change when row i is left out, in projected layers",
        reference="Choe et al., What is Your Data Worth to GPT?, 2024",
        needs=Needs.MODEL, units="rank", stochastic=True,
    )  # fmt: skip
    Config = LograConfig
    config: LograConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def gradients(self, task: Task, run: Run, checkpoint: int) -> TrainGradients:
        """Return the projected training gradients."""
        spec = GradientSpec(checkpoint, self.layers(task), storage=self.config.storage)
        k = self.config.dimensions
        key = f"projected/{spec}/{k}/{run.precision}/{run.device}/{run.seed}/{run.artifacts.root}"
        if key not in task.memo:
            task.memo[key] = LayerProjection(task, run, spec, k)
        run.artifacts.use(task.memo[key].artifact.key)
        return task.memo[key]

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the projected gradients and their Fisher matrix."""
        return LograFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A pass, and the blocks' eigenvectors."""
        k = self.config.dimensions**2
        layers = max(1, sum(1 for module in task.module.modules() if list(module.parameters(recurse=False))))
        size = min(k, sizes.n_params)
        flop = layers * (2 * sizes.n_train * size**2 + 14 * size**3)
        return Cost(1.5 * sizes.pass_seconds + 2e-11 * flop, 4.0 * layers * (sizes.n_train * size + size**2))


class LograFitted(BilinearFitted):
    """Projected gradients and the blocks of their Fisher matrix."""

    estimator: Logra

    def __init__(self, estimator: Logra, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.blocks = fisher_blocks(self.cache, run)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what is kept of a row."""
        kept = sum(len(block.values) for block in self.blocks)
        return (f"{kept:,} of {self.cache.plan.n_attributed:,} numbers per gradient are kept.",)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        share = self.estimator.config.damping
        solved = []
        for block, side in zip(self.blocks, query, strict=True):
            added = share * block.values.mean().clamp_min(torch.finfo(block.values.dtype).tiny)
            solved.append(block.applied(side, lambda values, added=added: 1 / (values + added)))
        return self.cache.products(solved) / self.task.n_train

    def _self_influence(self) -> Tensor:
        n, share, parts = self.task.n_train, self.estimator.config.damping, []
        for start in range(0, n, 2048):
            total: Tensor | None = None
            for block, side in zip(self.blocks, self.cache.block(slice(start, min(start + 2048, n))), strict=True):
                added = share * block.values.mean().clamp_min(torch.finfo(block.values.dtype).tiny)
                part = block.quadratic(side, lambda values, added=added: 1 / (values + added))
                total = part if total is None else total + part
            assert total is not None
            parts.append(total)
        return torch.cat(parts) / n
