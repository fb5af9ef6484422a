"""The training loss of each row: the baseline beside every detector of wrong labels.

::

    I[i] = l_i(theta_last)          or, over the recorded checkpoints,          I[i] = sum_c l_i(theta_c)

A number per training row, no pairs; high = the model does not agree with the row's label, or has not learnt it. The
sum tells rows learnt late from rows learnt early, and still works where the last model has memorised all of them.
Evaluated in eval mode, without weight decay.

Cost: one forward pass over the training rows per checkpoint; one number per row and checkpoint on disk.
"""

from __future__ import annotations

from typing import Literal, final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config, digest
from influence_core.errors import BadInput, NumericalProblem
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1


class TrainingLossConfig(Config):
    """When the loss is taken."""

    checkpoints: Literal["last", "sum"] = Field(
        "last", description="last: at the explained model; sum: added up over all recorded checkpoints."
    )


@final
@register
class TrainingLoss(Estimator):
    """Loss of the training rows."""

    info = Info(
        name="loss", title="Training loss", family="baseline",
        summary="How badly the model fits each training row's own label: the plainest sign of a wrong one.",
        estimand="training loss of each row", needs=Needs.MODEL, units="rank",
        reference="Arpit et al., A Closer Look at Memorization in Deep Networks, ICML 2017",
        scores=False, additive=False, measurements=(), functions=False, utility="the training loss of each row",
    )  # fmt: skip
    Config = TrainingLossConfig
    config: TrainingLossConfig

    def stages(self, task: Task) -> list[int]:
        """Return the checkpoints that are looked at."""
        last = task.n_checkpoints - 1
        return [last] if self.config.checkpoints == "last" else list(range(last + 1))

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute the losses, one artifact per checkpoint."""
        total = sum(checkpoint_losses(task, run, checkpoint) for checkpoint in self.stages(task))
        assert isinstance(total, Tensor)
        return TrainingLossFitted(self, task, run, total.to(run.device))

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A third of a forward and backward pass per checkpoint."""
        stages = len(self.stages(task))
        return Cost(stages * sizes.pass_seconds / 3, stages * sizes.n_train * 4.0)


class TrainingLossFitted(Fitted):
    """The losses of the training rows."""

    def __init__(self, estimator: TrainingLoss, task: Task, run: Run, losses: Tensor) -> None:
        """Keep the losses ``[n_train]``."""
        super().__init__(estimator, task, run)
        self._losses = losses

    def _self_influence(self) -> Tensor:
        return self._losses.clone()


def checkpoint_losses(task: Task, run: Run, checkpoint: int) -> Tensor:
    """Return the loss ``[n_train]`` of each training row at a checkpoint, from the store or computed now.

    Raises:
        BadInput: The loss does not give one number per row.
        NumericalProblem: A loss is not finite.
    """
    inputs = {
        "kind": "train losses", "version": VERSION, "task": task.fingerprint,
        "checkpoint": task.checkpoint_hash(checkpoint), "precision": run.precision,
    }  # fmt: skip

    def produce(writer: Writer) -> None:
        model, train = task.model_at(checkpoint, run.device, run.dtype), task.split("train")
        writer.create("losses", (len(train),), torch.empty(0, dtype=run.dtype).numpy().dtype)
        stage = f"training loss, checkpoint {checkpoint + 1} of {task.n_checkpoints}"
        starts = range(0, len(train), run.batch_size)
        for start in run.track(starts, stage, len(starts)):
            rows = slice(start, min(start + run.batch_size, len(train)))
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                with torch.no_grad():
                    losses = task.loss(model, train.batch(rows, run.device, run.dtype))
                _check_losses(task, losses, rows, checkpoint)
                writer.write("losses", start, losses)
                writer.mark_done(f"rows {start}:{rows.stop}")

    return run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).tensor("losses")


def _check_losses(task: Task, losses: Tensor, rows: slice, checkpoint: int) -> None:
    """Raise unless there is one finite loss for each of the rows."""
    if losses.shape != (rows.stop - rows.start,):
        raise BadInput(
            "The loss cannot be used",
            f"It returned the shape {tuple(losses.shape)} for {rows.stop - rows.start} rows.",
            "Return one loss per row, shape [n], without reduction.",
        )
    bad = ~losses.isfinite()
    if bool(bad.any()):
        row = task.ids("train")[rows.start + int(bad.nonzero()[0])]
        raise NumericalProblem(
            "A loss is not a number",
            f"Training row {row} has the loss {float(losses[bad][0])} at checkpoint {checkpoint}.",
            "Correct the row, or leave this checkpoint out.",
        )
