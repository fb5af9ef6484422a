"""GAS: TracIn with unit gradients, so that loud rows do not top every list.

::

    S[t, i] = sum_c w_c <g_i,c, g_t,c> / (|g_i,c| |g_t,c|)

as Hammoudeh & Lowd (2022), equation 7, positive = proponent; ``w_c`` is the learning rate at checkpoint c (their
choice) or 1. Weight decay is not part of a row's gradient here. A set of rows as one query is the mean of its rows'
scores. The self-influence would be the constant ``sum_c w_c`` and is not offered.

``gas_layerwise`` gives each layer's gradient unit length and takes the mean of the layers' cosines (the paper sums
them), so that no layer speaks louder than another. ``cosin`` is the same authors' earlier CosIn (UDL 2021): every
checkpoint counts the same.

Cost: one pass over the training rows per checkpoint, shared with TracIn; a query is one product with cached factors.
"""

from __future__ import annotations

from typing import Literal, final

from pydantic import Field

from influence_core.estimator import Info
from influence_core.estimators.bilinear import Bilinear, GradientConfig, Stage
from influence_core.registry import preset, register
from influence_core.task import Needs, Task


class GasConfig(GradientConfig):
    """Options of GAS."""

    weights: Literal["learning_rate", "uniform"] = Field(
        "learning_rate", description="Weight of a checkpoint: its learning rate, or the same for all."
    )
    normalise: Literal["whole", "layers"] = Field(
        "whole", description="What has unit length: the whole gradient, or each layer's part of it."
    )


@final
@preset(
    "gas_layerwise", "GAS, layer by layer",
    "GAS that compares directions within each layer, so that no single layer decides.", normalise="layers",
)  # fmt: skip
@preset(
    "cosin", "CosIn", "Adds up, over checkpoints, how far gradients point the same way; every checkpoint counts alike.",
    weights="uniform",
)  # fmt: skip
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

    @property
    def unit_layers(self) -> bool:
        """Tell whether each layer has unit length by itself."""
        return self.config.normalise == "layers"

    def stages(self, task: Task) -> list[Stage]:
        """Every checkpoint."""
        rates = task.learning_rates or ()
        return [Stage(c, rate if self.config.weights == "learning_rate" else 1.0) for c, rate in enumerate(rates)]
