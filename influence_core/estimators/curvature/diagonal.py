"""Influence functions with a diagonal curvature: every parameter on its own.

::

    S[t, i] = (1/n) sum_p g_t,p g_i,p / (C_pp + damping + weight_decay)

``C_pp`` is the diagonal of the Gauss-Newton matrix of the mean loss (``labels`` exact: a backward pass per output;
sampled: labels drawn from the model), or of the empirical Fisher matrix (true labels). Koh & Liang (2017), equation 2,
with that curvature, times -1/n: positive = proponent, in units of the measurement. Exact where parameters do not
interact, which orthogonal inputs of a linear model give; in nets they do, so that it stays close to plain gradients.

The sums of squares come from the factors of a layer (``E^2' A^2``), no gradient is written out. Cost: one pass with as
many backward passes as columns; memory 8 bytes per parameter. Queries and self-influence are products with the kept
factors.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

from pydantic import Field

from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.spectral import Curved, Spectral, SpectralConfig
from influence_core.gradient_cache import TrainGradients
from influence_core.kronecker_cache import ErrorKind, LayerCurvature, check_kind
from influence_core.primitives.kronecker import Labels
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class DiagonalConfig(SpectralConfig):
    """Whose errors, and how much is added."""

    version: ClassVar[int] = 2

    labels: Labels = Field(
        "exact", description="exact: all classes, weighted. sampled: drawn from the model. true: the true labels."
    )


@final
@register
class InfluenceDiagonal(Spectral):
    """Influence functions with a diagonal curvature."""

    info = Info(
        name="if_diag", title="Influence functions (diagonal)", family="curvature",
        summary="Influence functions that look at every weight of the model on its own: cheap, and rough for networks.",
        estimand="first-order change of the measurement when row i is left out, parameters apart",
        reference="Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017",
        needs=Needs.MODEL, units="measurement", stochastic=True, approximate=True,
    )  # fmt: skip
    Config = DiagonalConfig
    config: DiagonalConfig

    def fit(self, task: Task, run: Run) -> Any:
        """Compute the training gradients and the diagonal.

        Raises:
            Unavailable: A custom loss with labels other than ``true``.
        """
        check_kind(task.loss, ErrorKind(self.config.labels))
        return super().fit(task, run)

    def curvature(self, cache: TrainGradients, run: Run) -> Curved:
        """The diagonal."""
        layers = LayerCurvature(cache, run, ErrorKind(self.config.labels))
        return Curved(layers.diagonal(), (f"Diagonal curvature from {layers.kind.words}.",))

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients, and a pass with a backward pass per column."""
        base = super().cost(task, sizes)
        columns = max(1, sizes.n_classes) if self.config.labels == "exact" else 1
        return Cost(base.seconds + (0.5 + 0.8 * columns) * sizes.pass_seconds, base.bytes + 8 * sizes.n_params)
