"""SOURCE: training in segments of constant curvature, between following every step and looking at the end only.

::

    S[t, i] = (1/n) sum_l < S_L ... S_{l+1} g_t ,  r_l(H_l) g_{i,l} >
    S_l = exp(-eta_l K_l H_l),        r_l(h) = (1 - exp(-eta_l K_l h)) / h

The training, as recorded or else by the recipe, is cut into segments of recorded checkpoints; segment l took ``K_l``
steps at the mean rate ``eta_l`` (over ``1 - momentum``), and its curvature ``H_l`` and gradients ``g_{i,l}`` are the
means over its checkpoints, each weighted by the training that led to it: the Gauss-Newton matrix, whole for a small
model and by EK-FAC for a larger one, plus the weight decay. A direction of large curvature has settled (``r = 1/h``,
the influence function), one of small curvature has moved ``eta K`` times its gradient (TracIn), so that no damping is
chosen. Bae et al. (2024), equation 13; positive = proponent, leave-one-out to first order.

One segment is the default: means over the whole of training came nearer to retraining than two, three or a segment per
checkpoint in each of eleven small trainings (``benchmarks/segments.py``), by the whole matrix and by EK-FAC alike. The
paper uses three.

Cost: a pass over the training rows and a curvature per checkpoint, then instant queries. Memory: the weights and the
training gradients of every checkpoint, and a curvature as of ``if_exact`` or ``if_ekfac`` per segment.

Reference: Bae, Lin, Lorraine & Grosse, Training Data Attribution via Approximate Unrolling, NeurIPS 2024.
"""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core.curvature_cache import check_curvature
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.estimators.gauss_newton import HELP, Choice, added_cost, gauss_newton
from influence_core.estimators.recorded_steps import followed
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.replay import recorded_steps
from influence_core.primitives.spectrum import Function
from influence_core.recipe import Recipe
from influence_core.recorded_training import RecordedTraining
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Over, Task


class SourceConfig(GradientConfig):
    """How training is cut, and by which curvature."""

    segments: int = Field(
        1, ge=1, le=1000, description="Parts of training with a curvature of their own; at most one per checkpoint."
    )
    curvature: Choice = Field("auto", description=HELP)


class Segment(NamedTuple):
    """Checkpoints with their weights in the segment's means, and its rate times steps."""

    over: Over
    length: float


@final
@register
class Source(Bilinear):
    """Approximate unrolling over segments."""

    info = Info(
        name="source", title="SOURCE", family="trajectory",
        summary="Sees the curvature and the gradients met all along training, not only at its end; instant answers.",
        estimand="first-order change of the measurement when row i is left out of training",
        reference="Bae et al., Training Data Attribution via Approximate Unrolling, NeurIPS 2024",
        needs=Needs.CHECKPOINTS | Needs.STEPS | Needs.OUTPUTS, units="measurement", approximate=True,
    )  # fmt: skip
    Config = SourceConfig
    config: SourceConfig

    def stages(self, task: Task) -> list[Stage]:
        """Every checkpoint: the end of a segment."""
        return [Stage(c, 1.0) for c in range(task.n_checkpoints)]

    def fit(self, task: Task, run: Run) -> Fitted:
        """Compute gradients and curvature at every checkpoint.

        Raises:
            Unavailable: A training by Adam, or no Gauss-Newton curvature of a custom loss.
        """
        self.check(task)
        return SourceFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse a training that was not by SGD, and a custom loss."""
        if task.optimizer != "sgd":
            raise Unavailable(
                f"{self.named.title} cannot run here",
                f"The model was trained by {task.optimizer}, whose steps are not the learning rate's.",
                "Use method='magic', which follows any optimiser.",
            )
        check_curvature(task, "ggn")

    def identity(self, task: Task, run: Run) -> dict[str, Any]:
        """Add the recording that the segments are taken from."""
        return {**super().identity(task, run), **followed(task)}

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients and the curvature, per checkpoint."""
        base, c = super().cost(task, sizes), max(1, sizes.n_checkpoints)
        added = added_cost(sizes, self.config.curvature, c, min(self.config.segments, c))
        return Cost(base.seconds + added.seconds, base.bytes + added.bytes)


@final
class SourceFitted(BilinearFitted):
    """Gradients and curvature at every checkpoint."""

    estimator: Source

    def __init__(self, estimator: Source, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        if task.recorded is not None:
            self.decay, self.known = task.recorded.decay, True
            self.lengths = recorded_lengths(task.recorded)
        else:
            assert task.recipe is not None
            self.decay = task.recipe.weight_decay
            self.lengths, self.known = segment_lengths(task.recipe, task.n_train, task.n_checkpoints)
        self.segments = cut(self.lengths, estimator.config.segments)
        choice = estimator.config.curvature
        self.curvatures = [gauss_newton(self.caches[-1], run, choice, segment.over) for segment in self.segments]

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how training was cut."""
        lengths = ", ".join(f"{length:.3g}" for length in self.lengths)
        parts = f"{len(self.segments)} segment{'s' if len(self.segments) > 1 else ''}"
        found = f"{parts} of {len(self.lengths)} checkpoints; rate times steps up to each: {lengths}."
        if not self.known:
            found += " The recipe does not say when the checkpoints were taken: they count as evenly spread."
        return (found, self.curvatures[-1].note)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        scalar = measurement.scalar(self.task.loss)
        sides = query_gradients(self.caches[-1], batch, scalar, self.run.batch_size)
        total = torch.zeros(len(batch.targets), self.task.n_train, dtype=self.run.dtype, device=self.run.device)
        for segment, (spectrum, _, _) in reversed(list(zip(self.segments, self.curvatures, strict=True))):
            moved = spectrum.applied(sides, settled(segment.length, self.decay))
            for checkpoint, weight in segment.over:
                total += self.caches[checkpoint].products(moved) * (weight / self.task.n_train)
            if segment is not self.segments[0]:
                sides = spectrum.applied(sides, faded(segment.length, self.decay))
        return total

    def _self_influence(self) -> Tensor:
        return Fitted._self_influence(self)


def cut(lengths: list[float], parts: int) -> list[Segment]:
    """Return consecutive checkpoints in so many parts, or one each where there are fewer."""
    found = []
    for members in np.array_split(np.arange(len(lengths)), min(parts, len(lengths))):
        whole = sum(lengths[c] for c in members)  # 0: weights from before the first step
        shares = [lengths[c] / whole if whole else 1 / len(members) for c in members]
        found.append(Segment(list(zip(members.tolist(), shares, strict=True)), whole))
    return found


def segment_lengths(recipe: Recipe, n_train: int, n_checkpoints: int) -> tuple[list[float], bool]:
    """Return rate times steps (over ``1 - momentum``) up to each checkpoint, and whether their epochs are known."""
    marks = list(recipe.checkpoints) or [recipe.epochs]
    known = len(marks) == n_checkpoints
    if not known:
        marks = [recipe.epochs * (c + 1) / n_checkpoints for c in range(n_checkpoints)]  # type: ignore[misc]
    rates = [step.rate for step in recorded_steps(recipe, n_train)]
    per_epoch = len(rates) / recipe.epochs
    ends = [round(mark * per_epoch) for mark in marks]
    return [sum(rates[a:b]) / (1 - recipe.momentum) for a, b in zip([0, *ends[:-1]], ends, strict=True)], known


def recorded_lengths(recorded: RecordedTraining) -> list[float]:
    """Return rate times steps (over ``1 - momentum``) up to each checkpoint, as they were recorded."""
    rates, ends = recorded.rates(), recorded.places()
    return [sum(rates[a:b]) / (1 - recorded.momentum) for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def faded(length: float, decay: float) -> Function:
    """Return ``h -> exp(-length (h + decay))``."""
    return lambda values: torch.exp(-length * (values.clamp_min(0) + decay))


def settled(length: float, decay: float) -> Function:
    """Return ``h -> (1 - exp(-length (h + decay))) / (h + decay)``, and ``length`` where the curvature is 0."""

    def function(values: Tensor) -> Tensor:
        moved = values.clamp_min(0) + decay
        tiny = moved * length < 1e-12
        return torch.where(
            tiny, torch.as_tensor(length).to(moved), -torch.expm1(-length * moved) / moved.masked_fill(tiny, 1.0)
        )  # noqa: E501

    return function
