"""DataInf: influence functions in closed form, by exchanging a mean and an inverse.

::

    S[t, i] = (1/n) sum over layers of  g_t' M_l g_i
    M_l = (1/n) sum_j (g_j g_j' + lam_l I)^-1 = (1/(n lam_l)) sum_j [I - g_j g_j' / (lam_l + |g_j|^2)]

The mean of the inverses stands for the inverse of the mean, the empirical Fisher matrix of a layer: close where the
damping is large beside the gradients or the layer is tiny (LoRA), and equal for one training row. Kwon et al. (2024),
equation 5, times -1/n: positive = proponent. The mean of the inverses is never below the inverse of the mean, often far
above: with the paper's damping, amounts on a small convex model come out 12 times too large, so that the units are
those of an order, though groups still add up.

``lam_l`` is the paper's (empty damping): a tenth of the mean squared gradient of the layer, ``mean |g|^2 / (10 d_l)``,
per layer, plus weight decay; a number is the same for all layers.

No gradient is written out for layers with one position: a query is weighed by two products with the kept factors.
Cost: the gradients; a query is ``2 n`` products; self-influence n of those, kept. Memory ``4 m P`` bytes for m queries.

Reference: Kwon, Wu, Wu & Zou, DataInf: Efficiently Estimating Data Influence in LoRA-tuned LLMs and Diffusion Models,
ICLR 2024.
"""

from __future__ import annotations

from typing import final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core.config import digest
from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Dense, Side, dot
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

_ROWS = 128  # of a query, or of the training rows, at a time
_BLOCK_BYTES = 64 << 20  # of training gradients that are written out at a time


class DataInfConfig(GradientConfig):
    """How much is added to the curvature."""

    damping: float | None = Field(
        None, gt=0, description="Added to every layer's curvature on top of weight decay. Empty: the paper's, by layer."
    )


@final
@register
class DataInf(Bilinear):
    """The mean of inverses for the inverse of a mean."""

    info = Info(
        name="if_datainf", title="DataInf", family="curvature",
        summary="A shortcut to influence functions without any fitting beyond the gradients; best for small layers.",
        estimand="first-order change of the measurement when row i is left out, by a mean of inverses",
        reference="Kwon, Wu, Wu & Zou, DataInf, ICLR 2024",
        needs=Needs.MODEL, units="rank",
    )  # fmt: skip
    Config = DataInfConfig
    config: DataInfConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def fit(self, task: Task, run: Run) -> DataInfFitted:
        """Compute the training gradients."""
        return DataInfFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients."""
        return super().cost(task, sizes)


@final
class DataInfFitted(BilinearFitted):
    """Training gradients and a damping by layer."""

    estimator: DataInf

    def __init__(self, estimator: DataInf, task: Task, run: Run) -> None:
        """Load or compute the gradients."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.norms = self.cache.squared_norms()
        self.decay = task.recipe.weight_decay if task.recipe is not None else 0.0
        given, sizes = estimator.config.damping, [self.cache.plan.sizes[name] for name in self.cache.plan.layers]
        # A layer without any gradient is divided by 1: its products are zero.
        means = [
            float(f"{float(norms.double().mean()) / (10 * d):.6g}") or 1.0
            for norms, d in zip(self.norms, sizes, strict=True)
        ]  # noqa: E501
        self.damping = [self.decay + (given if given is not None else mean) for mean in means]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the dampings."""
        low, high, rule = min(self.damping), max(self.damping), "the paper's, by layer"
        own = rule if self.estimator.config.damping is None else f"{self.estimator.config.damping:g}"
        return (f"Effective damping {low:.3g} to {high:.3g}: damping ({own}) plus weight decay {self.decay:g}.",
                "The empirical Fisher matrix of a layer has no smallest eigenvalue above 0.")  # fmt: skip

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        if rows.reduce == "mean":
            query = [side.mean() for side in query]
        parts = [
            self.cache.products(self._solved([side.take(slice(start, start + _ROWS)) for side in query]))
            for start in range(0, query[0].rows, _ROWS)
        ]
        return torch.cat(parts) / self.task.n_train

    def _solved(self, query: list[Side]) -> list[Side]:
        """Return ``M_l g_t``, written out."""
        n, step = self.task.n_train, self._step()
        sums = [side.dense().clone() for side in query]
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            for i, train in enumerate(self.cache.block(rows)):
                weights = dot(query[i], train) / (self.damping[i] + self.norms[i, rows]) / n
                sums[i] -= weights @ train.dense()
        return [Dense(total / lam) for total, lam in zip(sums, self.damping, strict=True)]

    def _step(self) -> int:
        largest = max(self.cache.plan.sizes.values())
        return max(16, min(self.task.n_train, _BLOCK_BYTES // (self.run.dtype.itemsize * largest)))

    def _self_influence(self) -> Tensor:
        """Return the diagonal over the training rows, from the store or computed now."""
        inputs = {"kind": "self-influence", "of": self.estimator.identity(self.task, self.run)}
        artifact = self.run.artifacts.obtain(digest(inputs), inputs, self._produce, self.run.waiting)
        return artifact.tensor("values").to(self.run.device)

    def _produce(self, writer: Writer) -> None:
        n = self.task.n_train
        writer.create("values", (n,), np.float64 if self.run.dtype == torch.float64 else np.float32)
        starts = range(0, n, _ROWS)
        for start in self.run.track(starts, "self-influence", len(starts)):
            rows = slice(start, min(start + _ROWS, n))
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                writer.write("values", start, self._diagonal(rows))
                writer.mark_done(f"rows {start}:{rows.stop}")

    def _diagonal(self, rows: slice) -> Tensor:
        """Return ``(1/n) sum_l [|g_i|^2 - (1/n) sum_j <g_i, g_j>^2 / (lam + |g_j|^2)] / lam`` of some rows."""
        n, step = self.task.n_train, self._step()
        own, total = self.cache.block(rows), self.norms[:, rows].clone()
        for start in range(0, n, step):
            other = slice(start, min(start + step, n))
            for i, train in enumerate(self.cache.block(other)):
                total[i] -= dot(own[i], train).square() @ (1 / (self.damping[i] + self.norms[i, other])) / n
        return (total / torch.tensor(self.damping, dtype=total.dtype)[:, None]).sum(0) / n
