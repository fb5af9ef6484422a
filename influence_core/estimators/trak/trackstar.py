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

from typing import Any, final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import digest
from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.bilinear import (  # noqa: E501
    Bilinear,
    BilinearFitted,
    GradientConfig,
    Stage,
    inverse_length,
    moved_batch,
)
from influence_core.examples import Batch
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients
from influence_core.layer_projection import LayerProjection, fisher_blocks
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Side
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
_SMALLEST = 1e-12  # of the largest second moment: a weight that no row moves stays finite


class TrackstarConfig(GradientConfig):
    """How far the layers are projected, and how much is added to the Fisher matrix."""

    dimensions: int = Field(
        16, ge=2, le=128, description="Dimensions kept per side of a layer; a row keeps their square."
    )
    damping: float = Field(
        0.1, gt=0, le=1e6, description="Added to each layer's Fisher matrix, in units of its mean eigenvalue."
    )


@final
@register
class Trackstar(Bilinear):
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

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def gradients(self, task: Task, run: Run, checkpoint: int) -> TrainGradients:
        """Return the training gradients, divided by their second moments and projected."""
        plain = TrainGradients(task, run, GradientSpec(checkpoint, self.layers(task)))
        moments = second_moments(plain, run)
        spec = GradientSpec(checkpoint, self.layers(task), storage=self.config.storage)
        return LayerProjection(task, run, spec, self.config.dimensions, moments, "second moments")

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the second moments, the projected gradients and their Fisher matrix."""
        return TrackstarFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """Two passes, the written-out gradients, and the blocks' eigenvectors."""
        k = min(self.config.dimensions**2, sizes.n_params)
        layers = max(1, sum(1 for module in task.module.modules() if list(module.parameters(recurse=False))))
        flop = 4 * sizes.n_train * sizes.n_params * self.config.dimensions + layers * 14 * k**3
        kept = 4.0 * layers * (sizes.n_train * k + k**2) + super().cost(task, sizes).bytes
        return Cost(3 * sizes.pass_seconds + 2e-11 * flop, kept)


class TrackstarFitted(BilinearFitted):
    """Corrected gradients at unit length."""

    estimator: Trackstar

    def __init__(self, estimator: Trackstar, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.blocks = fisher_blocks(self.cache, run)
        share = estimator.config.damping
        tiny = torch.finfo(torch.float64).tiny
        self.added = [share * block.values.mean().clamp_min(tiny) for block in self.blocks]
        self.lengths = self._lengths()

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        solved: list[Side] = [
            block.applied(side, lambda values, added=added: 1 / (values + added))
            for block, side, added in zip(self.blocks, query, self.added, strict=True)
        ]
        own = inverse_length(self._squared(query))
        return self.cache.products(solved) * own.unsqueeze(1) * inverse_length(self.lengths)

    def _squared(self, sides: list[Side]) -> Tensor:
        """Return ``|R^-1/2 P g|^2`` ``[n]``."""
        parts = [
            block.quadratic(side, lambda values, added=added: 1 / (values + added))
            for block, side, added in zip(self.blocks, sides, self.added, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def _lengths(self) -> Tensor:
        n = self.task.n_train
        starts = range(0, n, 2048)
        return torch.cat([self._squared(self.cache.block(slice(start, min(start + 2048, n)))) for start in starts])


def second_moments(cache: TrainGradients, run: Run) -> list[Tensor]:
    """Return ``1 / sqrt(V)`` of each layer ``[P_layer]``, from the store or computed from the kept gradients."""
    inputs: dict[str, Any] = {"kind": "second moments", "version": VERSION, "of": cache.artifact.key}

    def produce(writer: Writer) -> None:
        n, totals = cache.task.n_train, []
        starts = range(0, n, 256)
        for start in run.track(starts, "second moments of the gradients", len(starts)):
            for i, side in enumerate(cache.block(slice(start, min(start + 256, n)))):
                squared = side.dense().double().square().sum(0)
                if i == len(totals):
                    totals.append(squared)
                else:
                    totals[i] += squared
        for i, total in enumerate(totals):
            writer.save(str(i), total / n)

    artifact = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
    found = [artifact.tensor(str(i)).to(run.device) for i in range(cache.n_layers)]
    return [moment.clamp_min(max(_SMALLEST * float(moment.max()), 1e-300)).rsqrt() for moment in found]
