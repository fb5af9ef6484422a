"""RelatIF: influence on this prediction relative to influence on everything.

::

    theta:  R[t, i] = g_t' H^-1 g_i / |H^-1 g_i|              loss:  R[t, i] = g_t' H^-1 g_i / sqrt(g_i' H^-1 g_i)

with ``H = C + (damping + weight_decay) I``. Influence functions name the same outliers for every prediction, because
their gradients are large; here a row is measured by how much it moves this answer for how much it moves the model
(``theta``: its parameters, equation 8) or all losses (``loss``: equation 9). ``loss`` is the cosine in the inner
product of ``H^-1`` times ``sqrt(g_t' H^-1 g_t)``, hence bounded by it. Barshan, Brunet & Dziugaite (2020), times -1:
positive = proponent. ``renorm_if`` divides by ``|g_i|`` alone (Hammoudeh & Lowd, CCS 2022). An order only: a ratio does
not add up over rows and predicts no amount.

``C`` is the Gauss-Newton matrix, whose radicand cannot be negative as the Hessian's can: factorised whole up to 4,000
parameters (shared with ``if_exact``), by EK-FAC beyond (shared with ``if_ekfac``). The denominators need no solve per
row, and not one per query either: they are functions of the eigenvalues, rotated and squared once and kept.

Cost: that of the curvature, then one product over the training rows. Memory as ``if_exact`` or ``if_ekfac``.

Reference: Barshan, Brunet & Dziugaite, RelatIF: Identifying Explanatory Training Samples via Relative Influence,
AISTATS 2020.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from influence_core import damping
from influence_core.curvature_cache import check_curvature
from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.gauss_newton import HELP, Choice, added_cost, gauss_newton
from influence_core.estimators.spectral import Curved, Spectral, SpectralConfig, SpectralFitted
from influence_core.gradient_cache import TrainGradients
from influence_core.primitives.sides import Side
from influence_core.primitives.spectrum import damped_inverse_squared
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.task import Needs, Task


class RelatifConfig(SpectralConfig):
    """Relative to what, and by which curvature."""

    version: ClassVar[int] = 2

    relative_to: Literal["loss", "theta", "gradient"] = Field(
        "loss", description="loss: how far a row moves all losses. theta: the weights. gradient: how loud the row is."
    )
    curvature: Choice = Field("auto", description=HELP)


@final
@preset(
    "renorm_if",
    "Influence functions (renormalised)",
    "Influence per length of a row's gradient: loud rows no longer explain every answer.",
    relative_to="gradient",
)
@preset(
    "relatif_theta",
    "RelatIF (weights)",
    "Influence relative to how far a row moves the whole model: the same loud rows no longer explain every answer.",
    relative_to="theta",
)
@register
class Relatif(Spectral):
    """Influence divided by a row's effect on everything."""

    info = Info(
        name="relatif_loss", title="RelatIF (losses)", family="curvature",
        summary="Influence relative to a row's effect on all losses: rows that matter for this answer in particular.",
        estimand="influence of row i on the measurement per unit of its effect on all of them",
        reference="Barshan, Brunet & Dziugaite, RelatIF, AISTATS 2020",
        needs=Needs.MODEL | Needs.OUTPUTS, units="rank", additive=False,
    )  # fmt: skip
    Config = RelatifConfig
    config: RelatifConfig

    def fit(self, task: Task, run: Run) -> RelatifFitted:
        """Compute the training gradients and the curvature.

        Raises:
            Unavailable: ``curvature="exact"`` with too many parameters.
        """
        check_curvature(task, "ggn")
        return RelatifFitted(self, task, run)

    def curvature(self, cache: TrainGradients, run: Run) -> Curved:
        """The whole matrix or EK-FAC's."""
        found = gauss_newton(cache, run, self.config.curvature)
        return Curved(found.spectrum, (found.note,), damping.WHOLE if found.whole else damping.FACTORED)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients and the curvature."""
        base, added = super().cost(task, sizes), added_cost(sizes, self.config.curvature)
        return Cost(base.seconds + added.seconds, base.bytes + added.bytes)


@final
class RelatifFitted(SpectralFitted):
    """The ratios."""

    estimator: Relatif

    def compared_with(self, query: list[Side]) -> Tensor:
        """Return ``[m, n_train]``."""
        return super().compared_with(query) * self.task.n_train * self._weights()

    def _self_influence(self) -> Tensor:
        """Return the diagonal: a row's own effect per unit of its effect on everything."""
        return self._effects() * self._weights()

    def _effects(self) -> Tensor:
        """Return ``g_i' H^-1 g_i``."""
        return self.per_row("effect on all losses", self.inverse)

    def _weights(self) -> Tensor:
        """Return one over the denominators; 0 for a row without a gradient, which moves nothing."""
        if "weights" not in self.memo:
            relative_to = self.estimator.config.relative_to
            if relative_to == "gradient":
                squared = self.cache.squared_norms().sum(0)
            elif relative_to == "theta":
                function: Any = damped_inverse_squared(self.damping)
                squared = self.per_row("effect on the weights", function)
            else:
                squared = self._effects()
            self.memo["weights"] = torch.where(
                squared > 0, squared.clamp_min(1e-300 if squared.dtype == torch.float64 else 1e-38).rsqrt(), 0.0
            )  # noqa: E501
        return self.memo["weights"]
