"""The deletion diagnostics of Cook & Weisberg: how far the fit moves when a row leaves it.

With ``W - W_(i) = -H^-1 (u_i (x) x_i)`` the one-step deletion of a row (``primitives/deletion.py``; exact for squared
loss), ``h_i`` its leverage, p the effective number of parameters and ``s^2`` the residual variance (a classifier's: 1):

================================  ============================================================================
``cook_distance``                 ``D_i = (W - W_(i))' H (W - W_(i)) / (p s^2)``; for one output
                                  ``e_i^2 h_i / (p s^2 (1 - h_i)^2)`` (Cook 1977)
``dffits``                        ``|t_i| sqrt(h_i / (1 - h_i))``, with ``t_i`` externally studentised: ``s^2`` is
                                  that of the fit without the row
``covratio``                      ``|COVRATIO_i - 1|``, ``COVRATIO_i = (s_(i)^2 / s^2)^p / det(I - T_i)``: what the row
                                  does to the volume of the confidence region
``likelihood_displacement``       ``2 [J(W_(i)) - J(W)]``, J minus the (penalised) log likelihood of all rows
================================  ============================================================================

All are magnitudes without a sign, high = influential, and have no pairwise form. L2 is part of the fit, as in the
recipe; the intercept is a column and is penalised like the others. For a softmax layer ``h_i`` is a matrix and the
formulas hold with it in the place of the number. Conventional flags: ``D > 4/n``, ``DFFITS > 2 sqrt(p/n)``,
``|COVRATIO - 1| > 3p/n``.

Cost: that of the Hessian of the last layer; the likelihood displacement evaluates n fits on n rows, ``n^2 C d``.

References: Cook, Detection of Influential Observation in Linear Regression, Technometrics 1977; Cook & Weisberg,
Residuals and Influence in Regression, 1982; Belsley, Kuh & Welsch, Regression Diagnostics, 1980.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from torch import Tensor

from influence_core.config import digest
from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.linear_head import HeadConfig, HeadFit, HeadFitted, LinearHead, last_linear
from influence_core.examples import moved
from influence_core.registry import register
from influence_core.store import Writer
from influence_core.task import Needs, Task

_NEEDS = Needs.LAST_LAYER | Needs.OUTPUTS
_COOK = "Cook, Detection of Influential Observation in Linear Regression, Technometrics 1977"
_BOOK = "Cook & Weisberg, Residuals and Influence in Regression, 1982"
_BELSLEY = "Belsley, Kuh & Welsch, Regression Diagnostics, 1980"


def _info(name: str, title: str, summary: str, estimand: str, reference: str) -> Info:
    return Info(
        name=name, title=title, family="classical", summary=summary, estimand=estimand, reference=reference,
        needs=_NEEDS, units="rank", scores=False, additive=False, measurements=("loss",), functions=False,
    )  # fmt: skip


@final
@register
class CookDistance(LinearHead):
    """Cook's distance."""

    info = _info(
        "cook_distance", "Cook's distance", "How far the last layer's fit moves when a row is left out.",
        "squared length of the change of the fit, in units of its confidence region", _COOK,
    )  # fmt: skip
    Config = HeadConfig

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return _CookFitted(head)


@final
@register
class Dffits(LinearHead):
    """DFFITS."""

    info = _info(
        "dffits", "DFFITS", "How far a row's own fitted value moves when the row is left out.",
        "change of the row's own outputs over their standard error without it", _BELSLEY,
    )  # fmt: skip
    Config = HeadConfig

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return _DffitsFitted(head)


@final
@register
class CovarianceRatio(LinearHead):
    """COVRATIO."""

    info = _info(
        "covratio", "COVRATIO", "How much a row changes the precision of the fit.",
        "|ratio of the volumes of the confidence regions without and with the row, minus 1|", _BELSLEY,
    )  # fmt: skip
    Config = HeadConfig

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return _CovratioFitted(head)


@final
@register
class LikelihoodDisplacement(LinearHead):
    """Likelihood displacement."""

    info = _info(
        "likelihood_displacement", "Likelihood displacement",
        "How much worse all training rows are fitted when a row is left out of the fit.",
        "twice the rise of the training loss at the fit without the row", _BOOK,
    )  # fmt: skip
    Config = HeadConfig

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """On top of the deletions, n fits evaluated on n rows."""
        layer, base = last_linear(task), super().cost(task, sizes)
        flop = 2.0 * sizes.n_train**2 * layer.out_features * (layer.in_features + 8)
        return Cost(base.seconds + 3e-11 * flop, base.bytes + 8 * sizes.n_train)

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return _DisplacementFitted(head)


@final
class _CookFitted(HeadFitted):
    def _self_influence(self) -> Tensor:
        head = self.head
        return (head.deletions.lengths * head.residual_scale / head.n_effective).to(self.run.dtype)


@final
class _DffitsFitted(HeadFitted):
    def _self_influence(self) -> Tensor:
        head = self.head
        # ``residual_scale`` counts in units of s^2; each row's own is without it.
        ratio = head.deleted_variance / head.variance
        return (head.deletions.shifts * head.residual_scale / ratio).sqrt().to(self.run.dtype)


@final
class _CovratioFitted(HeadFitted):
    @property
    def ratios(self) -> Tensor:
        """Return ``COVRATIO_i`` ``[n_train]`` itself."""
        head = self.head
        spread = head.n_effective * (head.deleted_variance / head.variance).log()
        return (spread - head.deletions.log_volumes).exp()

    def _self_influence(self) -> Tensor:
        return (self.ratios - 1).abs().to(self.run.dtype)


@final
class _DisplacementFitted(HeadFitted):
    def __init__(self, head: HeadFit) -> None:
        super().__init__(head)
        inputs: dict[str, Any] = {"kind": "likelihood displacement", "of": head.artifact.key}
        self.artifact = head.run.artifacts.obtain(digest(inputs), inputs, self._produce, head.run.waiting)

    def _self_influence(self) -> Tensor:
        head = self.head
        scale = {"mse": head.residual_scale, "bce": head.residual_scale}.get(head.loss.name, 1.0)
        return (2 * scale * self.artifact.tensor("rises").to(self.run.device)).to(self.run.dtype)

    def _produce(self, writer: Writer) -> None:
        head, n = self.head, self.task.n_train
        c, d = head.weights.shape
        writer.create("rises", (n,), np.float64)
        targets = moved(self.task.split("train").targets, head.outputs.device, head.outputs.dtype)
        now = head.loss.from_outputs(head.outputs, targets).sum()
        inverse = head.inverse
        step = max(1, (1 << 24) // (n * c))
        starts = range(0, n, step)
        for start in self.run.track(starts, "fits without each row", len(starts)):
            rows = slice(start, min(start + step, n))
            if writer.is_done(f"rows {start}"):
                continue
            change = inverse.responses(head.features[rows], head.deletions.effects[rows])  # W_(i) - W
            f = head.outputs + (change.reshape(-1, d) @ head.features.T).reshape(-1, c, n).transpose(1, 2)
            losses = head.loss.from_outputs(f.reshape(-1, c), targets.repeat(len(change), *[1] * (targets.ndim - 1)))
            longer = (head.weights + change).square().sum((1, 2)) - head.weights.square().sum()
            rises = losses.reshape(len(change), n).sum(1) - now + head.penalty / 2 * longer
            writer.write("rises", start, rises)
            writer.mark_done(f"rows {start}")
