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

from torch import Tensor

from influence_core.config import Config, digest
from influence_core.errors import BadInput
from influence_core.estimator import Fitted, Info
from influence_core.estimators.kept_sweep import KeptSweep
from influence_core.estimators.recorded_steps import RecordedFitted, RecordedSteps
from influence_core.examples import Batch, content_hash
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.threads import one_core
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1


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
        recorded = self.recorded
        recorded.run = self.run
        query = recorded.as_trained(batch)
        final = recorded.final_gradients(measurement.scalar(self.task.loss), batch)
        inputs = {
            "kind": "sweep with a query", "version": VERSION, "of": recorded.artifact.key,
            "measurement": measurement.name, "rows": content_hash(query.inputs, query.targets, final.cpu()),
        }  # fmt: skip
        if not isinstance(measurement.kind, str):
            try:
                inputs["measurement"] = digest(measurement.identity())
            except BadInput:  # nobody could tell it from another: computed, and not kept
                return self._swept(None, query, measurement).to(self.run.dtype)

        def produce(writer: Writer) -> None:
            writer.save("scores", self._swept(writer, query, measurement))

        artifact = self.run.artifacts.obtain(digest(inputs), inputs, produce, self.run.waiting)
        return artifact.tensor("scores").clone().to(self.run.device, self.run.dtype)

    def _swept(self, writer: Writer | None, batch: Batch, measurement: Measurement) -> Tensor:
        """Go through the steps, from where an earlier process was."""
        recorded, scalar, first = self.recorded, measurement.scalar(self.task.loss), 0
        segment = recorded.segment
        like = recorded.replay.parameters[0].detach()
        found = like.new_zeros(len(batch.targets), self.task.n_train)
        kept = None if writer is None else KeptSweep(writer, {"found": found})
        earlier = None if kept is None else kept.found(range(len(recorded.steps) // segment, -1, -1))
        if earlier is not None:
            first, found = earlier[0] * segment, earlier[1]["found"].to(found)
        with one_core():
            for before, _, _, step in recorded.forward("training, with the query at every step", first):
                directions = recorded.replay.measured_gradients(before, scalar, batch)
                products = recorded.replay.row_products(before, step, directions)
                found.index_add_(1, step.index.to(found.device), products, alpha=step.rate)
                if kept is not None and (step.number + 1) % segment == 0:
                    kept.keep((step.number + 1) // segment, {"found": found})
        if kept is not None:
            kept.close()
        return found
