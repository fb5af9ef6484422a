"""FastIF: influence functions on the training rows near the query, by sums over small batches.

The ``nearest`` training rows in the penultimate layer are scored as by ``if_lissa``; the others stay NaN.
With all rows it is ``if_lissa``. Guo et al. (EMNLP 2021), with two departures: the damping is not multiplied by the
scale (theirs of .005 with a scale of 10,000 is one of 50, near a plain dot product), and neighbours are exact rather
than from an index. Opponents are often not near: it finds proponents faster, and hides the others.

Cost: that of ``if_lissa`` per query; the gradients of all rows are kept, so that another query needs none.

Reference: Guo, Rajani, Hase, Bansal & Xiong, FastIF: Scalable Influence Functions for Efficient Model Interpretation
and Debugging, EMNLP 2021.
"""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.embedding_cache import train_embeddings
from influence_core.estimator import Info
from influence_core.estimators.lissa_sum import LissaConfig, LissaFitted, SummedInfluence
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class FastIfConfig(LissaConfig):
    """How many rows are scored, and by how long a sum."""

    nearest: int = Field(1000, ge=1, description="Training rows nearest to the query that are scored.")


@final
@register
class FastIf(SummedInfluence):
    """Influence functions among neighbours."""

    info = Info(
        name="fastif", title="FastIF", family="curvature",
        summary="Influence functions on the training rows that look most like the query; the others are not scored.",
        estimand="first-order change of the measurement when row i, a neighbour, is left out",
        reference="Guo et al., FastIF, EMNLP 2021",
        needs=Needs.MODEL | Needs.LAST_LAYER, units="measurement", query="solve", stochastic=True, approximate=True,
        partial=True, self_influence=False, additive=False,
    )  # fmt: skip
    Config = FastIfConfig
    config: FastIfConfig

    def fit(self, task: Task, run: Run) -> FastIfFitted:
        """Compute the training gradients and embeddings.

        Raises:
            Unavailable: No Gauss-Newton curvature of a custom loss.
        """
        self.check(task)
        return FastIfFitted(self, task, run)


@final
class FastIfFitted(LissaFitted):
    """Sums over small batches, and the rows' embeddings."""

    def __init__(self, estimator: FastIf, task: Task, run: Run) -> None:
        """Load or compute both."""
        super().__init__(estimator, task, run)
        self.nearest = min(estimator.config.nearest, task.n_train)
        self.embeddings = train_embeddings(task, run, "penultimate")

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        scores = super()._scores(batch, measurement, rows)
        if self.nearest == self.task.n_train:
            return scores
        query = self.embeddings.query(batch)
        if rows.reduce == "mean":
            query = query.mean(0, keepdim=True)
        near = torch.cdist(query, self.embeddings.features.to(query)).topk(self.nearest, dim=1, largest=False).indices
        return torch.full_like(scores, torch.nan).scatter(1, near, scores.gather(1, near))

    @property
    def notes(self) -> tuple[str, ...]:
        """Add which rows are scored."""
        return (*super().notes, f"Only the {self.nearest} nearest training rows are scored; opponents are often not.")
