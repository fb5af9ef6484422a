"""TRAK: the model linearised at its trained weights and fitted again without a row, averaged over models.

::

    S[t, i] = [ (1/K) sum_k  g_t,k' (Phi_k' W_k Phi_k + ridge I)^-1 phi_i,k ]  *  [ (1/K) sum_k q_i,k ]

``phi_i`` is the gradient of row i's model output (the margin ``log p_y / (1 - p_y)``, or the one output of a
regression), Phi stacks the training rows', ``q_i = 1 - p_y`` is minus the slope of the loss in that output
(``2 (y - f)`` of a squared error), and ``g_t`` the gradient of the measurement. Park et al. (ICML 2023), equation 17;
positive = proponent. Gradients are projected to ``projection`` dimensions, or with ``projection=None`` exact: then,
with more parameters than rows, the equal form ``(Phi g_t)' (Phi Phi' + ridge)^-1`` over rows is used.

``ridge`` empty: .01 of the mean eigenvalue that ``Phi' W Phi`` would have if it were evenly spread; the paper's 0 is
singular where there are fewer rows than dimensions. ``weighted`` puts back what the paper drops, ``W = diag(p(1 - p))``
and the recipe's L2 in the place of the ridge, which makes the logistic case leave-one-out to first order. Traps of the
official code avoided: no rescaling by the mean of the inverse, full precision, eval mode.

Models other than the explained one are trained by the recipe on a random ``share`` of the rows (``ensembles.py``).

Cost per model: a training run (except the first), per-example gradients, ``n P k`` for the projection, ``n k^2 + k^3``.
Memory: ``n k`` numbers per model on disk, and the projection ``P k``.
"""

from __future__ import annotations

from typing import Any, final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import digest
from influence_core.ensembles import trained_members
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Estimator, Fitted, Info, Sizes
from influence_core.estimators.bilinear import GradientConfig, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import GradientSpec, TrainGradients, query_gradients, resolved_layers
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.losses import CrossEntropy, Loss, outputs
from influence_core.primitives.sides import Dense, Side
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1
MAX_ROWS = 10_000  # of the form over rows: 800 MB in float64
_TRAINING = 2.0  # a training pass against one forward and backward pass


class TrakConfig(GradientConfig):
    """How many models, and what of their gradients is kept."""

    models: int = Field(
        1, ge=1, le=1000, description="1: the explained model alone. More are trained by the recipe and averaged."
    )
    share: float = Field(
        0.5, gt=0, le=1, description="Part of the training rows that each further model is trained on."
    )
    projection: int | None = Field(
        512, ge=16, le=65_536,
        description="Dimensions of a random projection; empty: exact. Fewer dimensions are faster and noisier.",
    )  # fmt: skip
    ridge: float | None = Field(
        None, ge=0, description="Added to the curvature of the linearised model; empty: .01 of its mean eigenvalue."
    )
    weighted: bool = Field(
        False, description="Weigh rows by p(1 - p) and use the recipe's L2: calibrated where the model is convex."
    )


@final
@preset(
    "trak_ensemble", "TRAK (5 models)",
    "TRAK averaged over five models trained on half of the rows each: what one seed did by chance averages out.",
    needs=Needs.RECIPE, models=5,
)  # fmt: skip
@register
class Trak(Estimator):
    """TRAK over one or more trained models."""

    info = Info(
        name="trak", title="TRAK", family="trak",
        summary="Replaces the model by its linear approximation and asks how that would change without each row.",
        estimand="order of the first-order change of the margin when row i is left out",
        reference="Park et al., TRAK: Attributing Model Behavior at Scale, ICML 2023",
        needs=Needs.MODEL | Needs.OUTPUTS, units="rank", stochastic=True,
    )  # fmt: skip
    Config = TrakConfig
    config: TrakConfig

    def fit(self, task: Task, run: Run) -> Fitted:
        """Train the further models, and keep the projected gradients and their covariance's eigenvectors.

        Raises:
            Unavailable: A regression with several outputs; no recipe for further models; too many rows unprojected.
        """
        return TrakFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """Training, gradients, projection and factorisation of every model."""
        models, k = self.config.models, self.config.projection
        epochs = task.recipe.epochs if task.recipe is not None else 1
        n, p = sizes.n_train, sizes.n_params
        size = k or min(n, p)
        flop = 2 * n * p * (k or size) + 2 * n * size**2 + 14 * size**3
        trained = 0 if models == 1 else models * epochs * _TRAINING * sizes.pass_seconds
        return Cost(trained + models * (1.5 * sizes.pass_seconds + 2e-11 * flop), models * 4 * (n * size + 2 * size**2))


class TrakFitted(Fitted):
    """Gradients and eigenvectors of every model."""

    estimator: Trak

    def __init__(self, estimator: Trak, task: Task, run: Run) -> None:
        """Load or compute."""
        super().__init__(estimator, task, run)
        config = estimator.config
        own = "margin" if task.loss.classifies else "output"
        if own == "output" and task.outputs_of("train", torch.tensor([0])).numel() != 1:
            raise Unavailable(
                f"{self.info.title} cannot run here", "A row of this regression has several outputs.",
                "Use an influence function, or one output; projection=None changes nothing here.",
            )  # fmt: skip
        if config.models == 1:
            members = [task]
        else:
            members = trained_members(task, run, list(range(1, config.models + 1)), config.share)
        spec = GradientSpec(-1, resolved_layers(task, config.layers), config.projection, config.storage, own)
        self.members = [TrakMember(estimator, member, run, spec) for member in members]

    @property
    def share(self) -> float:
        """Return attributed over all parameters."""
        plan = self.members[0].cache.plan
        return plan.n_attributed / max(1, plan.n_params)

    @property
    def notes(self) -> tuple[str, ...]:
        """Say how many models there are, and what was added to the curvature."""
        first, config = self.members[0], self.estimator.config
        where = f"{config.projection} random directions" if config.projection else "all parameters"
        models = "the explained model" if config.models == 1 else f"{config.models} models trained anew"
        return (
            f"Averaged over {models}, in {where}; ridge {first.ridge:.3g}.",
            "Scores are in order of effect on the margin, not in its units." if not config.weighted else
            "Rows are weighed by p(1 - p): scores estimate the change of the measurement.",
        )  # fmt: skip

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        scalar = measurement.scalar(self.task.loss)
        kernels = [member.kernel(batch, scalar, self.run) for member in self.members]
        slopes = torch.stack([member.slopes for member in self.members]).mean(0)
        return (torch.stack(kernels).mean(0) * slopes).to(self.run.dtype)


class TrakMember:
    """One model: its training rows' gradients, their covariance's eigenvectors, and the slopes of their losses."""

    def __init__(self, estimator: Trak, task: Task, run: Run, spec: GradientSpec) -> None:
        """Load or compute."""
        config = estimator.config
        self.task, self.run, self.weighted = task, run, config.weighted
        self.cache = TrainGradients(task, run, spec)
        run.artifacts.use(self.cache.artifact.key)
        self.by_rows = config.projection is None and self.cache.plan.n_attributed > task.n_train
        if self.by_rows and task.n_train > MAX_ROWS:
            raise Unavailable(
                "TRAK without projection cannot run here",
                f"There are {task.n_train:,} training rows; without projection it takes up to {MAX_ROWS:,}.",
                "Use projection=2048.",
            )
        inputs: dict[str, Any] = {
            "kind": "trak", "version": VERSION, "of": self.cache.artifact.key, "weighted": self.weighted,
        }  # fmt: skip
        artifact = run.artifacts.obtain(digest(inputs), inputs, self._produce, run.waiting)
        self.values, self.vectors = (artifact.tensor(name).to(run.device) for name in ("values", "vectors"))
        self.slopes = artifact.tensor("slopes").to(run.device)
        self.weights = artifact.tensor("weights").to(run.device)
        self.ridge = self._ridge(config.ridge)

    def kernel(self, batch: Batch, scalar: Any, run: Run) -> Tensor:
        """Return ``g_t' (Phi' W Phi + ridge)^-1 phi_i`` ``[m, n_train]``."""
        query = query_gradients(self.cache, batch, scalar, run.batch_size)
        kept = self.values > 1e-10 * self.values[-1].clamp_min(torch.finfo(self.values.dtype).tiny)
        vectors = self.vectors[:, kept]
        inverse = 1 / (self.values[kept] + self.ridge)
        if self.by_rows:
            # With V = sqrt(W) Phi:  V' (V V' + ridge)^-1 = (V' V + ridge)^-1 V', so that phi_i is divided by sqrt(w_i).
            root = self.weights.sqrt()
            moved = (self.cache.products(query).double() * root) @ vectors
            return ((moved * inverse) @ vectors.T) / root
        solved = ((_dense(query) @ vectors) * inverse) @ vectors.T
        sizes = [side.dense().shape[1] for side in query]
        parts: list[Side] = [Dense(part.to(run.dtype)) for part in solved.split(sizes, 1)]
        return self.cache.products(parts).double()

    def _ridge(self, given: float | None) -> float:
        if given is not None:
            return given
        if self.weighted and self.task.recipe is not None and self.task.recipe.weight_decay > 0:
            return self.task.n_train * self.task.recipe.weight_decay
        return 0.01 * float(self.values.sum()) / max(1, len(self.values))

    def _produce(self, writer: Writer) -> None:
        task, n = self.task, self.task.n_train
        model, train = self.cache.model, task.split("train")
        with torch.no_grad():
            f = torch.cat([outputs(model, b.inputs) for _, b in train.batches(1024, self.run.device, self.run.dtype)])
        slopes, weights = output_slopes(f.double(), train.targets.to(f.device), task.loss)
        if not self.weighted:
            weights = torch.ones_like(weights)
        if self.by_rows:
            weights = weights.clamp_min(1e-12)  # a row of no weight has no effect either: its slope is 0 as well
        writer.save("slopes", slopes)
        writer.save("weights", weights)
        starts = range(0, n, 1024)
        total: Tensor | None = None
        for start in self.run.track(starts, "covariance of the gradients", len(starts)):
            rows = slice(start, min(start + 1024, n))
            if self.by_rows:
                part = self.cache.products(self.cache.block(rows)).double()
                total = part if total is None else torch.cat([total, part])
            else:
                block = _dense(self.cache.block(rows)) * weights[rows].sqrt().unsqueeze(1)
                total = block.T @ block if total is None else total.addmm_(block.T, block)
        assert total is not None
        if self.by_rows:
            total = total * weights.sqrt() * weights.sqrt().unsqueeze(1)
        values, vectors = torch.linalg.eigh((total + total.T) / 2)
        writer.save("values", values.clamp_min(0))
        writer.save("vectors", vectors)


def output_slopes(f: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Return minus the slope of each row's loss in its output, and the loss's curvature there, ``[n]`` each."""
    if not loss.classifies:
        return 2 * (targets.reshape(len(f)).double() - f.reshape(len(f))), torch.full((len(f),), 2.0).double()
    if isinstance(loss, CrossEntropy):
        p = f.softmax(1).gather(1, targets.unsqueeze(1)).squeeze(1)
    else:
        p = torch.sigmoid(f.reshape(len(f), -1)[:, 0] * (2 * targets.reshape(len(f), -1)[:, 0].double() - 1))
    return 1 - p, p * (1 - p)


def _dense(sides: list[Any]) -> Tensor:
    return torch.cat([side.dense() for side in sides], 1).double()
