"""The infinitesimal jackknife of the last layer: influence, and error bars for any measurement.

::

    U[t, i] = n d m(W(w) x_t) / d w_i  at uniform weights w,        S[t, i] = U[t, i] / n
    standard error of m_t  =  sqrt( (1 / n^2) sum_i U[t, i]^2 )

``W(w)`` is the fit with row weights w, so that ``S = -m'(f_t)' x_t' H^-1 (e_i (x) x_i)``: leave-one-out to first order,
positive = proponent. The variance is Jaeckel's (1972); for least squares it is the HC0 sandwich, right also where the
residuals differ in size. Jackknife and infinitesimal jackknife differ by the leverage: ``dfbeta`` of a linear
regression is ``S / (1 - h_i)``. First order only, and for smooth measurements.

Cost: that of the Hessian of the last layer; a query is ``n C d``.

Reference: Jaeckel, The Infinitesimal Jackknife, Bell Laboratories memorandum, 1972.
"""

from __future__ import annotations

from typing import final

from torch import Tensor

from influence_core.estimator import Fitted, Info
from influence_core.estimators.linear_head import HeadConfig, HeadFit, HeadFitted, LinearHead
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.task import Needs


@final
@register
class InfinitesimalJackknife(LinearHead):
    """Influence of the last layer with standard errors of the measurement."""

    info = Info(
        name="infinitesimal_jackknife", title="Infinitesimal jackknife", family="classical",
        summary="How the answer changes when a row counts a little less in the last layer's fit; gives error bars too.",
        estimand="first-order change of the measurement when row i is left out, last layer only",
        reference="Jaeckel, The Infinitesimal Jackknife, Bell Laboratories memorandum, 1972",
        needs=Needs.LAST_LAYER | Needs.OUTPUTS, units="measurement", functions=False,
    )  # fmt: skip
    Config = HeadConfig

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return JackknifeFitted(head)


@final
class JackknifeFitted(HeadFitted):
    """First-order deletions."""

    def standard_errors(self, test: Rows, measurement: Measurement | None = None) -> Tensor:
        """Return the standard error ``[m]`` of the measurement of each query row, over draws of the training rows."""
        return self.scores(test, measurement).square().sum(1).sqrt()

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        return self.first_order(batch, measurement).to(self.run.dtype)
