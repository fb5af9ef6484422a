"""DFBETA on a prediction: what the one-step deletion of a training row does to the measurement of a test row.

::

    S[t, i] = m(W x_t) - m(W_(i) x_t),        W - W_(i) = -H^-1 (u_i (x) x_i)

DFBETA is the change of the coefficients when row i leaves (Belsley, Kuh & Welsch 1980; Cook & Weisberg 1982); here it
is carried on to the prediction, and the measurement is evaluated at the new prediction rather than linearised. For a
linear regression, with or without L2, it is leave-one-out itself; for logistic and softmax regression one Newton step
of it. ``changes`` returns the coefficients' own changes, and ``standardised`` divides them by their standard errors
without the row (DFBETAS). Positive = proponent, in units of the measurement.

Cost: that of the Hessian of the last layer; a query is ``C (C d)^2 + n C d``.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from influence_core.estimator import Fitted, Info
from influence_core.estimators.linear_head import HeadConfig, HeadFit, HeadFitted, LinearHead
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.task import Needs

_BYTES = 64 << 20  # of changed outputs held at once


@final
@register
class Dfbeta(LinearHead):
    """One-step leave-one-out of the last layer."""

    info = Info(
        name="dfbeta", title="DFBETA (one-step leave-one-out)", family="classical",
        summary="Leaves each row out of the last layer's fit by a closed formula and looks how the answer changes.",
        estimand="measurement with all rows minus measurement after a Newton step without row i, last layer only",
        reference="Belsley, Kuh & Welsch, Regression Diagnostics, 1980",
        needs=Needs.LAST_LAYER | Needs.OUTPUTS, units="measurement", functions=False, additive=False,
    )  # fmt: skip
    Config = HeadConfig

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return DfbetaFitted(head)


@final
class DfbetaFitted(HeadFitted):
    """The deletions, and what they do to any prediction."""

    def changes(self, rows: slice = slice(None)) -> Tensor:
        """Return ``W - W_(i)`` of some training rows, ``[k, C, d]``; the last column is the intercept's."""
        return -self.head.inverse.responses(self.head.features[rows], self.head.deletions.effects[rows])

    def standardised(self, rows: slice = slice(None)) -> Tensor:
        """Return DFBETAS of some training rows, ``[k, C, d]``: changes over their standard errors without the row."""
        head = self.head
        # H is that of the loss; divided by ``residual_scale`` of s^2 = 1 it is that of the likelihood.
        variances = head.inverse.whitening.square().sum(1) / (head.residual_scale * head.variance)
        errors = variances.reshape(1, *head.weights.shape) * head.deleted_variance[rows, None, None]
        return self.changes(rows) / errors.sqrt()

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        head, n = self.head, self.task.n_train
        features, f = self.queried(batch)
        m, c = f.shape
        now = self.measured(f, batch, measurement)
        found = torch.empty(m, n, dtype=torch.float64, device=self.run.device)
        inverse, effects = head.inverse, head.deletions.effects
        step = max(1, _BYTES // (8 * c * max(1, m)))
        white = inverse.whitened(features)
        for start in range(0, n, step):
            part = slice(start, min(start + step, n))
            left = torch.einsum("ncr,nc->nr", inverse.whitened(head.features[part]), effects[part])
            moved = f.unsqueeze(1) + torch.einsum("mcr,nr->mnc", white, left)
            targets = batch.targets.repeat_interleave(moved.shape[1], 0)
            after = self.measured(moved.reshape(-1, c), Batch(batch.inputs, targets), measurement)
            found[:, part] = now.unsqueeze(1) - after.reshape(m, -1)
        return found.to(self.run.dtype)
