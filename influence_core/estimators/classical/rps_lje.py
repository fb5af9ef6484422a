"""Representer points by a local Jacobian expansion: a logit split among the training rows, without refitting a layer.

A Newton step from a nearby point ``W_d`` leads to the last layer's minimum, ``W ~ W_d - H_d^-1 (1/n) sum_i g_i(W_d)``,
so that a logit is a sum over the training rows,

    logit_c(x_t) ~ sum_i c_i,     c_i = (1/n) f_t' (W_d - H_d^-1 g_i)_c,     S[t, i] = -(1/n) f_t' (H_d^-1 g_i)_c

as Sui, Wu & Sanner (NeurIPS 2021), theorem 2; positive = proponent (excites class c). The part ``f_t' W_d / n`` is the
same for every row; it is left out of the scores, whose signs would otherwise all be its own, and is ``constant``.
``W_d`` is the explained model's last layer after one step up its loss of size ``ascent``, as in the official code; with
0 the scores are the influence function of the last layer on the logit. L2 is the recipe's, in ``H_d`` and in ``g_i``'s
mean; the official code has none, and its H is singular without it, so that flat directions are left out here. c is the
measurement's target label; for a single logit the class 0 has minus the logit.

Cost: that of the Hessian of the last layer; a query is ``n C d``.
"""

from __future__ import annotations

from typing import final

from pydantic import Field
from torch import Tensor

from influence_core.estimator import Fitted, Info
from influence_core.estimators.linear_head import HeadConfig, HeadFit, HeadFitted, LinearHead
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.task import Needs


class ExpansionConfig(HeadConfig):
    """Where the last layer is expanded."""

    ascent: float = Field(
        0.01, ge=0, le=10, description="Step up the loss from the trained layer, to the point that is expanded."
    )


@final
@register
class RepresenterExpansion(LinearHead):
    """Representer points by a local Jacobian expansion."""

    info = Info(
        name="rps_lje", title="Representer points (local expansion)", family="classical",
        summary="Splits the last layer's evidence for a class into one share per training row, on the layer as it is.",
        estimand="share of the target class's logit in a Newton step of the last layer, without the part common to all",
        reference="Sui, Wu & Sanner, Representer Point Selection via Local Jacobian Expansion, NeurIPS 2021",
        needs=Needs.LAST_LAYER | Needs.LABELS, units="rank", measurements=("logit",), functions=False,
    )  # fmt: skip
    Config = ExpansionConfig
    config: ExpansionConfig

    def expansion_point(self, head: HeadFit) -> Tensor:
        """Return the trained layer after one step up its mean loss with L2."""
        errors = head.errors_at(head.features @ head.weights.T)
        gradient = (errors.T @ head.features + head.penalty * head.weights) / len(head.features)
        return head.weights + self.config.ascent * gradient

    def head_identity(self, seed: int) -> dict[str, object]:
        """Return the step."""
        return {"ascent": self.config.ascent}

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return ExpansionFitted(head)


@final
class ExpansionFitted(HeadFitted):
    """The expansion at one point."""

    def constant(self, test: Rows, measurement: Measurement | None = None) -> Tensor:
        """Return the part of each query row's logit ``[m]`` that is no row's own: with the scores it adds up to it.

        It is ``f_t' (W_d - H_d^-1 penalty W_d)_c``: the expansion point, and the L2 term of the Newton step.
        """
        measurement = measurement or self.own_measurement
        batch = self.task.query(test, measurement, self.run.dtype)
        features, f = self.queried(batch)
        slopes = self.slopes(f, batch, measurement)
        pulled = self.head.inverse.responses(features, slopes)
        decay = self.head.penalty * (pulled * self.head.weights).sum((1, 2))
        return ((slopes * f).sum(1) - decay).to(self.run.dtype)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        return self.first_order(batch, measurement).to(self.run.dtype)
