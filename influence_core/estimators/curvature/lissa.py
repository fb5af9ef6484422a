"""LiSSA: the inverse of the curvature by a long sum over small batches.

::

    h <- g + h - (C_batch + (damping + weight_decay) I) h / scale,        (C + ...)^-1 g = h / scale  at the end

as in Agarwal et al. (2017) and Koh & Liang (2017). The trap of the official code is that its fixed point is
``(C + damping x scale I)^-1``: a damping of .005 with a scale of 10,000 is one of 50, and what is left is a dot product
of gradients. Here the damping stands on its own side of the scale, so that what is shown is what is used, whatever the
scale. The scale is found by Lanczos' method (1.1 times the largest eigenvalue, more where batches are small), and the
notes say how far the result is from solving the system.

Cost: the gradients once; each block of queries takes ``depth`` products with batches of ``sample`` rows.

References: Koh & Liang, ICML 2017; Agarwal, Bullins & Hazan, Second-Order Stochastic Optimization, JMLR 2017.
"""

from __future__ import annotations

from typing import final

from influence_core.estimator import Info
from influence_core.estimators.lissa_sum import LissaConfig, LissaFitted, SummedInfluence
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


@final
@register
class Lissa(SummedInfluence):
    """Influence functions by a stochastic sum."""

    info = Info(
        name="if_lissa", title="Influence functions (LiSSA)", family="curvature",
        summary="Influence functions whose division is a long sum over small batches: for models nothing else fits.",
        estimand="first-order change of the measurement when row i is left out",
        reference="Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017",
        needs=Needs.MODEL, units="measurement", query="solve", stochastic=True, approximate=True,
    )  # fmt: skip
    Config = LissaConfig
    config: LissaConfig

    def fit(self, task: Task, run: Run) -> LissaFitted:
        """Compute the training gradients, and how large the curvature is.

        Raises:
            Unavailable: No Gauss-Newton curvature of a custom loss.
        """
        self.check(task)
        return LissaFitted(self, task, run)
