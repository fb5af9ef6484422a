"""TrackStar: cosines of projected gradients, corrected for how the optimiser and the curvature see them.

::

    phi(z) = G / |G|,      G = R^-1/2  P ( grad l(z) / sqrt(V) ),        S[t, i] = <phi_t, phi_i>

``V`` is the mean of the squared training gradients, element by element, in the place of the optimiser's second moments;
P projects every layer from both sides; ``R = (1/n) sum_i (P g)(P g)' + damping`` is the Fisher matrix of what is left,
one block per layer. Chang et al. (2024), equation 6; positive = proponent. Unit length keeps loud rows from topping
every list, so the self-influence would be the constant 1 and is not offered, and scores are an order that does not add
up. Departure: the paper mixes query gradients into R; here it is the training rows' alone, so that it can be kept.

Cost: two passes over the training rows, the second with the gradients written out, and ``k^6`` per layer; ``n k^2``
numbers per layer on disk.

Reference: Chang, Rajagopal, Bolukbasi, Dixon & Tenney, Scalable Influence and Fact Tracing for Large Language Model
Pretraining, 2024 (arXiv 2410.17413).
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, inverse_length, moved_batch
from influence_core.estimators.projected_layers import ProjectedFitted, ProjectedLayers, ProjectedLayersConfig
from influence_core.examples import Batch
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients
from influence_core.layer_projection import LayerProjection, second_moments
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class TrackstarConfig(ProjectedLayersConfig):
    """Options of TrackStar."""


@final
@register
class Trackstar(ProjectedLayers):
    """Cosines of corrected, projected gradients."""

    info = Info(
        name="trackstar", title="TrackStar", family="trak",
        summary="Compares directions of squeezed gradients, with common directions toned down: finds specific sources.",
        estimand="cosine of projected gradients, corrected by second moments and the Fisher matrix",
        reference="Chang et al., Scalable Influence and Fact Tracing for LLM Pretraining, 2024",
        needs=Needs.MODEL, units="rank", stochastic=True, additive=False, self_influence=False,
    )  # fmt: skip
    Config = TrackstarConfig
    config: TrackstarConfig

    def gradients(self, task: Task, run: Run, checkpoint: int) -> TrainGradients:
        """Return the training gradients, divided by their second moments and projected."""
        moments = second_moments(TrainGradients(task, run, GradientSpec(checkpoint, self.layers(task))), run)
        spec = GradientSpec(checkpoint, self.layers(task), storage=self.config.storage)
        return LayerProjection(task, run, spec, self.config.dimensions, moments, "second moments")

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the second moments, the projected gradients and their Fisher matrix."""
        return TrackstarFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """On top of the projection, the gradients themselves once, and written out."""
        projected, kept = super().cost(task, sizes), Bilinear.cost(self, task, sizes)
        written = 8e-11 * sizes.n_train * sizes.n_params * self.config.dimensions
        return Cost(projected.seconds + kept.seconds + written, projected.bytes + kept.bytes)


@final
class TrackstarFitted(ProjectedFitted):
    """Corrected gradients at unit length."""

    def __init__(self, estimator: Trackstar, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        self.lengths = inverse_length(self.train_quadratic())

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        own = inverse_length(self.quadratic(query))
        return self.cache.products(self.solved(query)) * own.unsqueeze(1) * self.lengths
