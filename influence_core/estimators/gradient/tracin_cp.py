"""TracInCP: learning-rate-weighted dot products of gradients over checkpoints.

Estimates, to first order, how much the training steps that used row i lowered the loss of the query::

    S[t, i] = sum_c eta_c <grad l_i(theta_c), -grad m_t(theta_c)>

with ``m`` the measurement (minus the loss by default), as in Pruthi et al. (2020), equation 1; positive = proponent,
the paper's own sign. The preset ``tracin_fast`` looks at the last layer only, bias included (Captum's method of that
name leaves the bias out). ``tracin_randproj`` keeps random projections: their error grows with the lengths of the
gradients and not with their product (``|g||h| sqrt(2/k)``), so that nearly orthogonal pairs are noise. The weight is
the learning rate alone, not times visits over batch size, so that scores equal
Captum's. For Adam the learning rate is not the step size: the order of rows is still meaningful, the amount is not.

Cost: one pass over the training rows per checkpoint; a query is one product with the cached factors.
"""

from __future__ import annotations

from typing import final

from influence_core.estimator import Info
from influence_core.estimators.bilinear import Bilinear, ProjectedConfig, Stage
from influence_core.registry import preset, register
from influence_core.task import Needs, Task

_REFERENCE = "Pruthi et al., Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020"


@final
@preset(
    "tracin_randproj",
    "TracIn, projected",
    "TracIn on random projections of the gradients: small on disk and fast for large models, with random error.",
    projection=512,
)
@preset(
    "tracin_fast",
    "TracIn, last layer",
    "TracIn on the last layer alone, its bias included: fast, but blind to what earlier layers learnt.",
    needs=Needs.LAST_LAYER,
    layers=("last",),
)
@register
class TracInCP(Bilinear):
    """TracIn over recorded checkpoints, all layers or named ones, exact or projected."""

    info = Info(
        name="tracin_cp", title="TracIn", family="gradient",
        summary="Adds up, over checkpoints, how far a training step on each row would have moved the answer.",
        estimand="sum over checkpoints of learning rate x gradient dot product",
        reference=_REFERENCE, needs=Needs.CHECKPOINTS | Needs.LEARNING_RATES, units="gradient", stochastic=True,
    )  # fmt: skip
    Config = ProjectedConfig
    config: ProjectedConfig

    def stages(self, task: Task) -> list[Stage]:
        """Every checkpoint, weighted by its learning rate."""
        return [Stage(c, rate) for c, rate in enumerate(task.learning_rates or ())]
