"""GAS: TracIn with unit gradients, so that loud rows do not top every list.

::

    S[t, i] = sum_c w_c <g_i,c, g_t,c> / (|g_i,c| |g_t,c|)

as Hammoudeh & Lowd (2022), equation 7, positive = proponent; ``w_c`` is the learning rate at checkpoint c (their
choice) or 1. Weight decay is not part of a row's gradient here. A set of rows as one query is the mean of its rows'
scores. The self-influence would be the constant ``sum_c w_c`` and is not offered.

Cost: one pass over the training rows per checkpoint, shared with TracIn; a query is one product with cached factors.
"""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field

from influence_core.estimator import Info
from influence_core.estimators.bilinear import Bilinear, GradientConfig, Stage
from influence_core.registry import register
from influence_core.task import Needs, Task


class GasConfig(GradientConfig):
    """Options of GAS."""

    weights: Literal["learning_rate", "uniform"] = Field(
        "learning_rate", description="Weight of a checkpoint: its learning rate, or the same for all."
    )


@final
@register
class Gas(Bilinear):
    """Cosines of gradients, summed over checkpoints."""

    info = Info(
        name="gas", title="GAS", family="gradient",
        summary="TracIn that compares directions, not lengths: shows rows about this answer, not the loudest rows.",
        estimand="sum over checkpoints of weight x gradient cosine",
        reference="Hammoudeh & Lowd, Identifying a Training-Set Attack's Target Using Renormalized Influence, CCS 2022",
        needs=Needs.CHECKPOINTS | Needs.LEARNING_RATES, units="rank", additive=False, self_influence=False,
    )  # fmt: skip
    Config = GasConfig
    config: GasConfig
    unit_length = True

    def stages(self, task: Task) -> list[Stage]:
        """Every checkpoint."""
        rates = task.learning_rates or ()
        return [Stage(c, rate if self.config.weights == "learning_rate" else 1.0) for c, rate in enumerate(rates)]
