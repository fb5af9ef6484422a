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

from torch import Tensor

from influence_core.estimator import Fitted, Info
from influence_core.estimators.bilinear import moved_batch
from influence_core.estimators.projected_layers import ProjectedFitted, ProjectedLayers, ProjectedLayersConfig
from influence_core.examples import Batch
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients
from influence_core.layer_projection import LayerProjection
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class LograConfig(ProjectedLayersConfig):
    """Options of LoGra."""


@final
@register
class Logra(ProjectedLayers):
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

    def gradients(self, task: Task, run: Run, checkpoint: int) -> TrainGradients:
        """Return the projected training gradients."""
        spec = GradientSpec(checkpoint, self.layers(task), storage=self.config.storage)
        return LayerProjection(task, run, spec, self.config.dimensions)

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the projected gradients and their Fisher matrix."""
        return LograFitted(self, task, run)


@final
class LograFitted(ProjectedFitted):
    """Projected gradients divided by their Fisher matrix."""

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        return self.cache.products(self.solved(query)) / self.task.n_train

    def _self_influence(self) -> Tensor:
        return self.train_quadratic() / self.task.n_train
