"""SOURCE: training in segments of constant curvature, between following every step and looking at the end only.

::

    S[t, i] = (1/n) sum_l < S_L ... S_{l+1} g_t ,  r_l(H_l) g_{i,l} >
    S_l = exp(-eta_l K_l H_l),        r_l(h) = (1 - exp(-eta_l K_l h)) / h

The training, as recorded or else by the recipe, is cut at the recorded checkpoints; segment l took ``K_l`` steps at the
mean rate ``eta_l`` (over ``1 - momentum``), and its curvature ``H_l`` and gradients are those of its checkpoint: EK-FAC
of the Gauss-Newton matrix plus the weight decay. A direction of large curvature has settled (``r = 1/h``, the influence
function), one of small curvature has moved ``eta K`` times its gradient (TracIn), so that no damping is chosen. Bae et
al. (2024), equation 13; positive = proponent, leave-one-out to first order. Departure: one checkpoint per segment
rather than their mean.

Cost: a pass over the training rows and a curvature per checkpoint, then instant queries. Memory as ``if_ekfac``, times
the checkpoints.

Reference: Bae, Lin, Lorraine & Grosse, Training Data Attribution via Approximate Unrolling, NeurIPS 2024.
"""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from influence_core.curvature_cache import check_curvature
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.estimators.recorded_steps import followed
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.kronecker_cache import ErrorKind, LayerCurvature
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.replay import recorded_steps
from influence_core.primitives.spectrum import Function
from influence_core.recipe import Recipe
from influence_core.recorded_training import RecordedTraining
from influence_core.registry import register
from influence_core.run import Run
from influence_core.task import Needs, Task


class SourceConfig(GradientConfig):
    """Which layers are looked at."""


@final
@register
class Source(Bilinear):
    """Approximate unrolling over segments."""

    info = Info(
        name="source", title="SOURCE", family="trajectory",
        summary="Follows training from checkpoint to checkpoint: nearly as close as every step, with instant answers.",
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
        return Cost(
            base.seconds + c * ((1 + 1.4 * max(1, sizes.n_classes)) * sizes.pass_seconds + 2e-10 * sizes.n_params**1.5),
            base.bytes + 32.0 * c * sizes.n_params,
        )  # noqa: E501


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
        layers = [LayerCurvature(cache, run, ErrorKind()) for cache in self.caches]
        self.spectra = [layer.ekfac() for layer in layers]
        self.curvature_note = layers[-1].note

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how training was cut."""
        lengths = ", ".join(f"{length:.3g}" for length in self.lengths)
        found = f"{len(self.lengths)} segments; rate times steps of each: {lengths}."
        if not self.known:
            found += " The recipe does not say when the checkpoints were taken: they count as evenly spread."
        return (found, self.curvature_note)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        scalar = measurement.scalar(self.task.loss)
        sides = query_gradients(self.caches[-1], batch, scalar, self.run.batch_size)
        total = torch.zeros(len(batch.targets), self.task.n_train, dtype=self.run.dtype, device=self.run.device)
        for cache, spectrum, length in reversed(list(zip(self.caches, self.spectra, self.lengths, strict=True))):
            total += cache.products(spectrum.applied(sides, settled(length, self.decay))) / self.task.n_train
            sides = spectrum.applied(sides, faded(length, self.decay))
        return total

    def _self_influence(self) -> Tensor:
        return Fitted._self_influence(self)


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
