"""Influence functions with the empirical Fisher matrix, inverted exactly in as many dimensions as there are rows.

::

    S[t, i] = (1/n) g_t' (F + lam I)^-1 g_i    F = (1/n) sum_j g_j g_j'    lam = damping + weight_decay

By Woodbury's identity this is ``k_t (K + n lam I)^-1`` with the kernels ``K_ij = <g_i, g_j>``, ``k_tj = <g_t, g_j>``:
no matrix over parameters appears, whatever the model, and the kernels come from the factors of the layers. Koh & Liang
(2017), equation 2, with F as curvature, times -1/n: positive = proponent, in units of the measurement.

F is made of the true labels: it is not the Gauss-Newton matrix, and on a model that fits its rows it is much smaller.
Works for every loss. Assumes n small: up to 6,000 rows.

Cost: n^2/2 products of gradients and ``14 n^3`` operations once; a query is n products and n^2 operations. Memory
``16 n^2`` bytes. The damping is not part of what is kept.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from influence_core import damping
from influence_core.config import digest
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, Stage, moved_batch
from influence_core.estimators.spectral import SpectralConfig
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.kronecker import eigenbasis
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

MAX_ROWS = 6_000  # of a kernel written out: .6 GB with its eigenvectors
_ROWS = 256
_SHARE = 0.2  # of the damping that the rules give the whole curvature
_FLOP = 1.5e-11  # seconds per floating-point operation of a float64 matrix product


class WoodburyConfig(SpectralConfig):
    """Options of influence functions by the empirical Fisher matrix."""


@final
@register
class InfluenceWoodbury(Bilinear):
    """Influence functions by the kernel of the training gradients."""

    info = Info(
        name="if_woodbury", title="Influence functions (empirical Fisher)", family="curvature",
        summary="Influence functions with the training rows' own gradients as curvature: for any model with few rows.",
        estimand="first-order change of the measurement when row i is left out, by the empirical Fisher matrix",
        reference="Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017",
        needs=Needs.MODEL, units="measurement", approximate=True,
    )  # fmt: skip
    Config = WoodburyConfig
    config: WoodburyConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def fit(self, task: Task, run: Run) -> WoodburyFitted:
        """Compute the training gradients and their kernel.

        Raises:
            Unavailable: Too many training rows.
        """
        self.check(task)
        return WoodburyFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse too many training rows."""
        if task.n_train > MAX_ROWS:
            raise Unavailable(
                "The kernel of the training rows is too large",
                f"{task.n_train:,} rows need {16e-9 * task.n_train**2:,.1f} GB; the limit is {MAX_ROWS:,} rows.",
                "Use if_ekfac, which grows with the number of rows.",
            )

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients, their kernel and its eigenvectors."""
        base, n = super().cost(task, sizes), sizes.n_train
        kernel = 2 * n * n * min(sizes.n_params, 64 * sizes.n_params**0.5) * _FLOP / 2
        return Cost(base.seconds + kernel + 14 * _FLOP * n**3, base.bytes + 8 * n * n)


@final
class WoodburyFitted(BilinearFitted):
    """Training gradients, and the eigenvectors of their kernel."""

    estimator: InfluenceWoodbury

    def __init__(self, estimator: InfluenceWoodbury, task: Task, run: Run) -> None:
        """Load or compute both."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        inputs = {"kind": "gradient kernel", "version": 1, "of": self.cache.artifact.key}
        artifact = run.artifacts.obtain(digest(inputs), inputs, lambda writer: self._produce(writer, run), run.waiting)
        self.values, self.vectors = (artifact.tensor(name).to(run.device) for name in ("values", "vectors"))
        self.chosen = damping.chosen(estimator.config.damping, self.cache, run, None, _SHARE)
        # Fewer rows than parameters: F has a null space, whatever its kernel has.
        short = task.n_train < self.cache.plan.n_attributed
        self.lowest = 0.0 if short else float(self.values[-self.cache.plan.n_attributed]) / task.n_train
        damping.check_lifted(self.lowest, float(self.values[-1]) / task.n_train, self.chosen)

    def _produce(self, writer: Writer, run: Run) -> None:
        n = self.task.n_train
        kernel = torch.zeros(n, n, dtype=torch.float64, device=run.device)
        starts = range(0, n, _ROWS)
        for start in run.track(starts, "products of the training gradients", len(starts)):
            rows = slice(start, min(start + _ROWS, n))
            kernel[rows] = self.cache.products(self.cache.block(rows)).double()
        for _ in run.track(range(1), "eigenvectors of the kernel", 1):
            values, vectors = eigenbasis(kernel)
            writer.save("values", values)
            writer.save("vectors", vectors)

    @property
    def _shift(self) -> float:
        return self.task.n_train * self.chosen.total

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the damping and what it stands against."""
        highest = float(self.values[-1]) / self.task.n_train
        return (
            self.chosen.note,
            f"Eigenvalues of the empirical Fisher matrix before damping: smallest {self.lowest:.3g}, "
            f"largest {highest:.3g}.",
        )

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        kernel = self.cache.products(query).double()
        turned = (kernel @ self.vectors) / (self.values + self._shift)
        return (turned @ self.vectors.T).to(self.run.dtype)

    def _self_influence(self) -> Tensor:
        """Return the diagonal of ``K (K + n lam I)^-1``."""
        return (self.vectors.square() @ (self.values / (self.values + self._shift))).to(self.run.dtype)
