"""TracIn as it was meant: over every recorded step, not over a few checkpoints.

::

    S[t, i] = sum_{steps s with i in B_s} (eta_s / B) <grad l_i(theta_s), -grad m_t(theta_s)>

the drop of the query's loss that the steps on row i made, to first order; positive = proponent, as Pruthi et al.
(NeurIPS 2020), section 3.1. For plain SGD the scores of all rows add up to the whole change of the measurement, up to
the size of the steps (and the weight decay's part). With momentum or Adam a step is not the gradient's own: the order
stays meaningful, the sum does not. Unlike SGD-influence it does not ask what later steps made of a change, so that it
tracks retraining far less well (``docs/fidelity.md``).

What is followed is the recorded training, or without a recording that by the recipe; see the notes for how near it
comes to the explained weights.

Cost: one training run to fit; every block of queries is another one, with a gradient of the queries at each step.

Reference: Pruthi et al., Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from influence_core.config import Config
from influence_core.estimator import Fitted, Info
from influence_core.estimators.recorded_steps import RecordedFitted, RecordedSteps
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.threads import one_core
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class TracInIdealConfig(Config):
    """TracIn over all steps has no options."""


@final
@register
class TracInIdeal(RecordedSteps):
    """TracIn over the recorded steps."""

    info = Info(
        name="tracin_ideal", title="TracIn, every step", family="trajectory",
        summary="Adds up, over every training step, how far the step on each row moved the answer.",
        estimand="sum over the steps that used row i of learning rate / batch size x gradient dot product",
        reference="Pruthi et al., Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020",
        needs=Needs.MODEL | Needs.STEPS, units="gradient", query="solve",
    )  # fmt: skip
    Config = TracInIdealConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Go through the training once and keep some of its states."""
        return TracInIdealFitted(self, task, run)


@final
class TracInIdealFitted(RecordedFitted):
    """The recorded steps, with the query at each."""

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        recorded, scalar = self.recorded, measurement.scalar(self.task.loss)
        recorded.run = self.run
        batch = recorded.as_trained(batch)
        dtype = recorded.replay.parameters[0].dtype
        found = torch.zeros(len(batch.targets), self.task.n_train, dtype=dtype, device=self.run.device)
        with one_core():
            for before, _, _, step in recorded.forward("training, with the query at every step"):
                directions = recorded.replay.measured_gradients(before, scalar, batch)
                products = recorded.replay.row_products(before, step, directions)
                found.index_add_(1, step.index.to(found.device), products, alpha=step.rate)
        return found.to(self.run.dtype)
