"""Gradient dot product and cosine at the final model.

::

    grad_dot: S[t, i] = <grad l_i(theta), -grad m_t(theta)>         grad_cos: the same of unit vectors

``m`` is the measurement, positive = proponent. ``grad_dot`` is TracIn with one checkpoint and learning rate 1. The
cosine ignores how loud a row's gradient is: scaling the loss of a row changes nothing. Its self-influence would be 1
for every row and is not offered. Reference: Charpiat et al., Input Similarity from the Neural Network Perspective,
NeurIPS 2019.

Cost: one pass over the training rows; a query is one product with the cached factors.
"""

from __future__ import annotations

from typing import final

from influence_core.estimator import Info
from influence_core.estimators.bilinear import Bilinear, GradientConfig, ProjectedConfig, Stage
from influence_core.registry import register
from influence_core.task import Needs, Task

_REFERENCE = "Charpiat et al., Input Similarity from the Neural Network Perspective, NeurIPS 2019"


@final
@register
class GradDot(Bilinear):
    """Dot product of gradients at the explained model."""

    info = Info(
        name="grad_dot", title="Gradient dot product", family="gradient",
        summary="How far one step on each training row would move the answer, at the final model.",
        estimand="gradient dot product at the final model", reference=_REFERENCE, needs=Needs.MODEL,
        units="gradient", stochastic=True,
    )  # fmt: skip
    Config = ProjectedConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]


@final
@register
class GradCos(Bilinear):
    """Cosine of gradients at the explained model."""

    info = Info(
        name="grad_cos", title="Gradient cosine", family="gradient",
        summary="Whether each training row pushes the final model in the same direction as this answer, however hard.",
        estimand="cosine of gradients at the final model", reference=_REFERENCE, needs=Needs.MODEL,
        units="rank", additive=False, self_influence=False,
    )  # fmt: skip
    Config = GradientConfig
    unit_length = True

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]
