"""The exact derivative of training in the weight of each row: SGD-influence, and MAGIC for any optimiser.

::

    S[t, i] = d m_t(theta_T) / d w_i  at w = 1,        theta_T trained with the loss of row i times w_i

and leaving row i out is ``w_i: 1 -> 0`` with every batch keeping its order and divisor, so that S is leave-one-out to
first order, positive = proponent. All rows come from one sweep backwards through the recorded steps:

    S_i += (1/B) <a, grad l_i(theta_t)>  if i in B_t,      u <- u + (H_t + weight_decay) a,      u_T = grad m_t(theta_T)

with ``a = -eta_t u`` for plain SGD (Hara, Nitanda & Maehara, NeurIPS 2019, in ``sgd_influence``, theirs times -1 as
they predict the loss), and through the state of momentum or Adam otherwise (Ilyas & Engstrom, MAGIC, 2025, in
``magic``): the same number, for any optimiser. Equal to automatic differentiation through the run. Traps avoided: the
divisor stays B when a row leaves; the L2 term is the recipe's and stays; dropout masks and batch statistics are those
of the recorded step.

What is followed is the training that a Recorder wrote down in the user's own loop, or without one that by the recipe. A
recorded training is compared with its checkpoints on the way and refused where it goes astray (dropout, random
augmentations, an unknown optimiser: the message says how far). Where a recipe does not lead to the explained weights
(other hardware) the replayed model is what is explained, and the notes say how far apart they are.

Cost: one training run to fit, then per block of queries another one and two derivatives of every batch: about four
training runs, kept every few seconds so that a killed one goes on. Memory: ``2 sqrt(T)`` states of P to 3P numbers, and
the queries' ``[m, P]``, on disk six times while it runs.
"""

from __future__ import annotations

import math
from functools import partial
from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config, digest
from influence_core.errors import Unavailable
from influence_core.estimator import Fitted, Info
from influence_core.estimators.kept_sweep import KeptSweep
from influence_core.estimators.recorded_steps import RecordedFitted, RecordedSteps
from influence_core.examples import Batch, content_hash
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.replay import Adjoint
from influence_core.primitives.threads import one_core
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
_QUERY_BYTES = 128 << 20  # of the carried gradients


class AdjointConfig(Config):
    """How far back training is followed."""

    last_epochs: int | None = Field(
        None, ge=1, description="Follow the last epochs only, which is faster; empty: from the first step on."
    )


@final
@preset(
    "sgd_influence", "SGD-influence",
    "Follows every step of SGD backwards and finds what each row did to the answer: the closest to retraining.",
)  # fmt: skip
@register
class Magic(RecordedSteps):
    """Exact derivative of training in the row weights."""

    info = Info(
        name="magic", title="MAGIC", family="trajectory",
        summary="Follows training backwards, whatever the optimiser, and finds what each row did to the answer.",
        estimand="derivative of the measurement after training in the weight of row i",
        reference="Ilyas & Engstrom, MAGIC: Near-Optimal Data Attribution for Deep Learning, 2025; Hara, Nitanda & "
        "Maehara, Data Cleansing for Models Trained with SGD, NeurIPS 2019",
        needs=Needs.MODEL | Needs.STEPS, units="measurement", query="solve",
    )  # fmt: skip
    Config = AdjointConfig
    config: AdjointConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Go through the training once and keep some of its states.

        Raises:
            Unavailable: ``sgd_influence`` of a training by Adam.
        """
        self.check(task)
        return AdjointFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse ``sgd_influence`` of a training by Adam."""
        if self.named.name == "sgd_influence" and task.optimizer != "sgd":
            raise Unavailable(
                f"{self.named.title} cannot run here", f"The model was trained by {task.optimizer}.",
                "Use method='magic', which follows any optimiser.",
            )  # fmt: skip


@final
class AdjointFitted(RecordedFitted):
    """The recorded steps, gone through backwards."""

    estimator: Magic

    @property
    def notes(self) -> tuple[str, ...]:
        """Add how far back training is followed."""
        last = self.estimator.config.last_epochs
        return (*super().notes, *((f"Only the last {last} epochs are followed.",) if last else ()))

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        recorded, scalar = self.recorded, measurement.scalar(self.task.loss)
        recorded.run = self.run
        with one_core():
            final = -recorded.final_gradients(scalar, batch)
            if rows.reduce == "mean":
                final = final.mean(0, keepdim=True)  # linear in the query
            step = max(1, _QUERY_BYTES // (final.element_size() * final.shape[1]))
            return torch.cat([self._swept(part) for part in final.split(step)]).to(self.run.dtype)

    def _swept(self, final: Tensor) -> Tensor:
        """Return the derivatives ``[k, n_train]`` of measurements with gradients ``[k, P]`` in the final weights."""
        recorded, last, first = self.recorded, self.estimator.config.last_epochs, 0
        if last is not None:
            first = max(0, len(recorded.steps) - math.ceil(last * recorded.steps_per_epoch))
        inputs = {
            "kind": "sweep backwards", "version": VERSION, "of": recorded.artifact.key, "first": first,
            "final": content_hash(final.cpu()),
        }  # fmt: skip
        produce = partial(self._sweep, final=final, first=first)
        artifact = self.run.artifacts.obtain(digest(inputs), inputs, produce, self.run.waiting)
        return artifact.tensor("scores").clone().to(final.device)

    def _sweep(self, writer: Writer, final: Tensor, first: int) -> None:
        """Go back through the steps, from where an earlier process was."""
        recorded, segment = self.recorded, self.recorded.segment
        adjoint = Adjoint(recorded.replay, final)
        found = final.new_zeros(len(final), self.task.n_train)

        def carried() -> dict[str, Tensor]:
            return {"weights": adjoint.weights, "first": adjoint.first, "second": adjoint.second, "found": found}

        kept, below = KeptSweep(writer, carried()), None
        earlier = kept.found(range(len(recorded.steps) // segment + 1))
        if earlier is not None:
            below, held = earlier[0] * segment, {name: value.to(final) for name, value in earlier[1].items()}
            adjoint.weights, adjoint.first, adjoint.second = held["weights"], held["first"], held["second"]
            found = held["found"]
        for before, after, gradient, step in recorded.backward("training, backwards", first, below):
            found.index_add_(1, step.index.to(found.device), adjoint.back(before, after, gradient, step))
            if step.number % segment == 0:
                kept.keep(step.number // segment, carried())
        kept.close()
        writer.save("scores", found)
