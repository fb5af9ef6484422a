"""HyDRA: the derivative of the trained weights in each row's weight, carried forwards through training.

::

    D_i <- D_i - eta_t V_i,      V_i <- momentum V_i + [i in B_t] grad l_i(theta_t) / B + (H_t + weight_decay) D_i
    S[t, i] = <grad m_t(theta_T), D_i>

D_i is ``d theta / d w_i``, so that S is the drop of the measurement when row i leaves, to first order; positive =
proponent. Chen et al. (AAAI 2021), theirs times -1. It is the number of SGD-influence, found forwards: worth its memory
where there are many queries and few rows to follow, as every query is instant. ``hydra_fast`` leaves the curvature out,
as the paper's runs do: this is TracIn with the gradient of the end, and tracks retraining no better than that.

Cost: a training run with, per step, a gradient of each followed row in the batch and (``hydra``) a curvature product
for every followed row. Memory: ``2 k P`` numbers for k followed rows, twice on disk while it runs.

Reference: Chen, Li, Yu, Hao & Zhang, HyDRA: Hypergradient Data Relevance Analysis, AAAI 2021.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import Config, digest
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.recorded_steps import PASS, RecordedFitted, RecordedSteps, length
from influence_core.examples import Batch
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.replay import State, Step
from influence_core.primitives.threads import one_core
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
MAX_BYTES = 4 << 30  # of derivatives held at once
_MOVE = 1e-8  # seconds per step for each number of the derivatives; measured


class HydraConfig(Config):
    """Which rows are followed, and whether the curvature is."""

    n_rows: int | None = Field(
        None, ge=1, description="Training rows that are followed, drawn at random; empty: all of them."
    )
    curvature: bool = Field(True, description="Whether later steps bend what earlier ones did; without, it is TracIn.")


@final
@preset(
    "hydra_fast", "HyDRA without curvature",
    "Adds up each row's training steps and compares them with the final answer: fast, and no better than TracIn.",
    units="gradient", curvature=False,
)  # fmt: skip
@register
class Hydra(RecordedSteps):
    """Derivatives of the trained weights, forwards."""

    info = Info(
        name="hydra", title="HyDRA", family="trajectory",
        summary="Follows what each row does to the weights through training: slow to fit, then instant for any answer.",
        estimand="derivative of the measurement after training in the weight of row i",
        reference="Chen et al., HyDRA: Hypergradient Data Relevance Analysis, AAAI 2021",
        needs=Needs.MODEL | Needs.STEPS, units="measurement", partial=True, stochastic=True,
    )  # fmt: skip
    Config = HydraConfig
    config: HydraConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Train once more, carrying the derivatives.

        Raises:
            Unavailable: A training by Adam; derivatives of more than 4 GiB.
        """
        self.check(task)
        return HydraFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse a training that was not by SGD."""
        if task.optimizer != "sgd":
            raise Unavailable(
                f"{self.named.title} cannot run here", f"The model was trained by {task.optimizer}.",
                "Use method='magic', which follows any optimiser.",
            )  # fmt: skip

    def followed(self, n_train: int, seed: int) -> Tensor:
        """Return the positions of the rows that are followed, in order."""
        if self.config.n_rows is None or self.config.n_rows >= n_train:
            return torch.arange(n_train)
        drawn = torch.randperm(n_train, generator=torch.Generator().manual_seed(seed))
        return drawn[: self.config.n_rows].sort().values

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A training run, with a curvature product per step and followed row."""
        epochs, steps = length(task, sizes)
        size = round(max(1, epochs * sizes.n_train / max(1.0, steps)))
        k = min(self.config.n_rows or sizes.n_train, sizes.n_train)
        bends = 3.0 * k / max(1, min(size, sizes.n_train)) * min(size, 8) if self.config.curvature else 1.0
        moved = _MOVE * steps * k * sizes.n_params
        return Cost(epochs * sizes.pass_seconds * (PASS + bends) + moved, 16.0 * k * sizes.n_params)


@final
class HydraFitted(RecordedFitted):
    """``D`` ``[k, P]`` of the followed rows."""

    estimator: Hydra

    def __init__(self, estimator: Hydra, task: Task, run: Run) -> None:
        """Load the derivatives, or train."""
        super().__init__(estimator, task, run)
        self.rows = estimator.followed(task.n_train, run.seed)
        needed = 4 * len(self.rows) * self.recorded.n_params * self.recorded.replay.parameters[0].element_size()
        if needed > MAX_BYTES:
            fits = max(1, len(self.rows) * MAX_BYTES // needed)
            raise Unavailable(
                f"{self.info.title} needs too much memory here",
                f"Following {len(self.rows):,} rows takes {needed / 2**30:.1f} GiB; the limit is 4.",
                f"Use n_rows={fits}, or method='magic', which keeps nothing per row.",
            )
        inputs: dict[str, Any] = {
            "kind": "hydra", "version": VERSION, "of": self.recorded.artifact.key, "rows": self.rows.tolist(),
            "curvature": estimator.config.curvature,
        }  # fmt: skip
        self.artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)

    @property
    def notes(self) -> tuple[str, ...]:
        """Add how many rows are followed."""
        k, n = len(self.rows), self.task.n_train
        return (*super().notes, *((f"{k} of {n} training rows are followed.",) if k < n else ()))

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        final = -self.recorded.final_gradients(measurement.scalar(self.task.loss), batch)
        changes = self.artifact.tensor("changes")[int(self.artifact.meta["slot"])].to(self.run.device)
        found = torch.full((len(final), self.task.n_train), torch.nan, dtype=final.dtype, device=self.run.device)
        found[:, self.rows.to(self.run.device)] = final @ changes.T
        return found.to(self.run.dtype)

    # -- carrying the derivatives -------------------------------------------------------------------------------------

    def _produce(self, writer: Writer) -> None:
        recorded, k = self.recorded, len(self.rows)
        like = recorded.replay.parameters[0]
        dtype = np.float64 if like.dtype == torch.float64 else np.float32
        for name in ("changes", "speeds"):
            writer.create(name, (2, k, recorded.n_params), dtype)
        # Two slots in turn: what is marked as done is never being overwritten.
        segments = -(-len(recorded.steps) // recorded.segment)
        done = next((s for s in range(segments, 0, -1) if writer.is_done(f"segment {s}")), 0)
        if done:
            changes, speeds = (writer.read(name)[done % 2].clone().to(like) for name in ("changes", "speeds"))
        else:
            changes, speeds = (like.new_zeros(k, recorded.n_params) for _ in range(2))
        place = torch.full((self.task.n_train,), -1)
        place[self.rows] = torch.arange(k)
        with one_core():
            for before, _, _, step in recorded.forward("training, with derivatives", done * recorded.segment):
                changes, speeds = self._moved(before, step, changes.detach(), speeds.detach(), place)
                ended = step.number + 1
                if ended % recorded.segment == 0 or ended == len(recorded.steps):
                    segment = -(-ended // recorded.segment)
                    writer.write("changes", segment % 2, changes[None])
                    writer.write("speeds", segment % 2, speeds[None])
                    writer.mark_done(f"segment {segment}")
        writer.meta["slot"] = segments % 2

    def _moved(
        self, before: State, step: Step, changes: Tensor, speeds: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        replay = self.recorded.replay
        if self.estimator.config.curvature:
            _, bent = replay.derivatives(before, step, changes)
        else:
            assert replay.decay is not None  # the step that led here has set it
            bent = replay.decay * changes
        own = place[step.index]
        inside = (own >= 0).nonzero().flatten()
        if len(inside):
            gradients = replay.row_gradients(before, step, inside) / len(step.index)
            bent = bent.index_add(0, own[inside].to(bent.device), gradients)
        return replay.rule.pushed(changes, speeds, bent, step.rate, step.number)
