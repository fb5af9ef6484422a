"""Influence functions: what leaving a training row out does to an answer, to first order at the optimum.

::

    S[t, i] = (1/n) g_t' (C + (damping + weight_decay) I)^-1 g_i

``g_i`` is the gradient of row i's loss without the L2 term, ``g_t`` that of the negated measurement, ``C`` the
curvature of the mean loss over the n training rows: its Gauss-Newton matrix (``ggn``) or its Hessian. The objective is
``(1/n) sum_i l_i + weight_decay/2 |theta|^2``; a row leaves with the divisor and the L2 unchanged. This is Koh & Liang
(2017), equation 2, times -1/n: positive = proponent, in units of the measurement.

Assumes that the model is at a minimum; for squared error of a linear model it is then exact up to the factor
``1 - leverage``. With ``ggn`` and damping it estimates the proximal Bregman response of Bae et al. (2022), which a net
that has not converged has too; the Hessian of such a net is indefinite, and is refused until the damping lifts it.

The damping is chosen for the model unless it is given (``damping.py``); notes say how much, and the smallest eigenvalue
where it is known. For a Hessian ``if_cg`` finds the most negative direction by Lanczos' method.

Cost: ``if_exact`` writes C out and factorises it, ``n x n_outputs x P^2`` and ``P^3`` operations once, then instant
queries. ``if_cg`` never builds it: as many passes over the training rows as iterations, per block of queries, for any
P; its self-influence is such a solve for every training row, kept in the store.

The curvature products are our own. curvlinops, the reference in the tests, wants a model and a loss of its outputs: it
takes no loss of the model itself, reports no progress, cannot be cancelled within a product, and checks determinism by
evaluating everything twice.

References: Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017; Bae, Ng, Lo, Ghassemi &
Grosse, If Influence Functions are the Answer, Then What is the Question?, NeurIPS 2022.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar, final

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from influence_core import damping
from influence_core.config import digest
from influence_core.curvature_cache import KIND_IN_WORDS, MAX_EIGEN, Curvature, CurvatureKind, check_curvature
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.bilinear import Bilinear, BilinearFitted, GradientConfig, Stage, moved_batch
from influence_core.examples import Batch
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.sides import Dense
from influence_core.primitives.solvers import (
    EigenInverse,
    Inverse,
    Solve,
    check_definite,
    cholesky_inverse,
    conjugate_gradients,
    filled,
)
from influence_core.registry import preset, register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

MAX_PARAMETERS = 12_000  # of a curvature written out: 1.2 GB in float64
_VECTOR_BYTES = 256 << 20  # of right-hand sides solved together
_FLOP = 1.5e-11  # seconds per floating-point operation of a float64 matrix product
_REFERENCE = "Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017"


class InfluenceConfig(GradientConfig):
    """Which curvature, and how much is added to it."""

    version: ClassVar[int] = 2

    curvature: CurvatureKind = Field(
        "ggn",
        description="ggn: Gauss-Newton, never negative, for nets. hessian: second derivatives, for converged models.",
    )
    damping: float | None = Field(None, ge=0, description=damping.HELP)


class ExactConfig(InfluenceConfig):
    """Options of influence functions by a factorised curvature."""


class IterativeConfig(InfluenceConfig):
    """Options of influence functions by conjugate gradients."""

    tolerance: float = Field(
        1e-8, gt=0, lt=1, description="Stop when the residual of a query has shrunk by this factor."
    )
    max_iterations: int = Field(
        200, ge=1, le=100_000, description="Passes over the training rows per query at most."
    )  # fmt: skip


class Influence(Bilinear):
    """The equation; subclasses solve it."""

    config: InfluenceConfig

    def stages(self, task: Task) -> list[Stage]:
        """The last checkpoint."""
        return [Stage(task.n_checkpoints - 1, 1.0)]

    def n_attributed(self, task: Task) -> int:
        """Return P, the number of parameters in the chosen layers."""
        layers = self.layers(task)
        return sum(
            parameter.numel()
            for name, parameter in task.module.named_parameters()
            if layers is None or any(name == layer or name.startswith(f"{layer}.") for layer in layers)
        )

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients of the chosen layers."""
        return super().cost(task, self._sizes(task, sizes))

    def _sizes(self, task: Task, sizes: Sizes) -> Sizes:
        return sizes if self.config.layers is None else replace(sizes, n_params=self.n_attributed(task))


@final
@preset(
    "if_ggn",
    "Influence functions (Gauss-Newton)",
    "Influence functions with the Gauss-Newton curvature, which stays meaningful for nets that have not converged.",
    needs=Needs.OUTPUTS,
    curvature="ggn",
)
@register
class InfluenceExact(Influence):
    """Influence functions with the curvature written out and factorised."""

    info = Info(
        name="if_exact", title="Influence functions (exact)", family="curvature",
        summary="How far the answer would move if each training row were left out and the model settled again.",
        estimand="first-order change of the measurement when row i is left out", reference=_REFERENCE,
        needs=Needs.MODEL, units="measurement",
    )  # fmt: skip
    Config = ExactConfig
    config: ExactConfig

    def fit(self, task: Task, run: Run) -> ExactFitted:
        """Compute the training gradients and the curvature.

        Raises:
            Unavailable: Too many parameters, or no Gauss-Newton curvature of a custom loss.
            NumericalProblem: The curvature is not positive definite with this damping.
        """
        check_curvature(task, self.config.curvature)
        size = self.n_attributed(task)
        if size > MAX_PARAMETERS:
            raise Unavailable(
                "The curvature is too large to be written out",
                f"{size:,} parameters need {8e-9 * size**2:,.1f} GB; the limit is {MAX_PARAMETERS:,} parameters.",
                "Use if_cg, or config layers=('last',).",
            )
        return ExactFitted(self, task, run)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients, the curvature and its factorisation, growing as P^3."""
        base, sizes = super().cost(task, sizes), self._sizes(task, sizes)
        p, outputs = sizes.n_params, max(1, sizes.n_classes)
        if self.config.curvature == "ggn":
            written = 1.5 * outputs * sizes.pass_seconds + 2 * _FLOP * sizes.n_train * outputs * p**2
        else:
            written = 1.5 * p * sizes.pass_seconds
        # Measured: eigenvectors take about 14 p^3 operations' time, eigenvalues with a Cholesky factor about 6.
        factorised = _FLOP * p**3 * (14 if p <= MAX_EIGEN else 6)
        return Cost(base.seconds + written + factorised, base.bytes + 8 * p**2)


@final
@register
class InfluenceIterative(Influence):
    """Influence functions by conjugate gradients, for models whose curvature cannot be written out."""

    info = Info(
        name="if_cg", title="Influence functions (conjugate gradients)", family="curvature",
        summary="Influence functions for larger models: slower for each new answer, because each one solves a system.",
        estimand="first-order change of the measurement when row i is left out", reference=_REFERENCE,
        needs=Needs.MODEL, units="measurement", query="solve",
    )  # fmt: skip
    Config = IterativeConfig
    config: IterativeConfig

    def fit(self, task: Task, run: Run) -> IterativeFitted:
        """Compute the training gradients; the curvature is met in the queries.

        Raises:
            Unavailable: No Gauss-Newton curvature of a custom loss.
        """
        check_curvature(task, self.config.curvature)
        return IterativeFitted(self, task, run)


class InfluenceFitted(BilinearFitted):
    """Training gradients, and the curvature that queries are divided by."""

    estimator: Influence

    def __init__(self, estimator: Influence, task: Task, run: Run) -> None:
        """Load or compute the gradients."""
        super().__init__(estimator, task, run)
        self.cache = self.caches[0]
        self.curvature = Curvature(task, run, self.cache.plan, estimator.config.curvature)
        self.chosen = damping.chosen(estimator.config.damping, self.cache, run, self._lowest())
        self.damping = self.chosen.total

    @abstractmethod
    def _lowest(self) -> float | None:
        """Return the smallest eigenvalue, where it may be negative and the damping is to be chosen."""

    @abstractmethod
    def solved(self, targets: Tensor) -> Tensor:
        """Return ``(C + damping I)^-1`` times rows ``[k, P]``."""

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``v' (C + damping I)^-1 v`` of rows ``[k, P]``."""
        return (vectors * self.solved(vectors)).sum(1)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was added to the curvature."""
        return (self.chosen.note,)

    def _scores(self, batch: Batch, measurement: Measurement, rows: Rows) -> Tensor:
        batch = moved_batch(batch, self.run)
        query = query_gradients(self.cache, batch, measurement.scalar(self.task.loss), self.run.batch_size)
        if rows.reduce == "mean":
            # The scores are linear in the query: a set of rows needs one solve, not one per row.
            query = [side.mean() for side in query]
        m, step = query[0].rows, max(1, _VECTOR_BYTES // (8 * self.cache.plan.n_attributed))
        parts = []
        for start in range(0, m, step):
            taken = [side.take(slice(start, start + step)).dense() for side in query]
            solved = self.solved(torch.cat(taken, 1).to(self.curvature.dtype)) / self.task.n_train
            sizes = [part.shape[1] for part in taken]
            parts.append(self.cache.products([Dense(part) for part in solved.to(self.run.dtype).split(sizes, 1)]))
        return torch.cat(parts)

    def _self_influence(self) -> Tensor:
        """Return ``(1/n) g_i' (C + damping I)^-1 g_i``, kept in the store: by ``if_cg`` it is a solve per row."""
        inputs = {"kind": "self-influence", "of": self.estimator.identity(self.task, self.run)}
        artifact = self.run.artifacts.obtain(digest(inputs), inputs, self._produce, self.run.waiting)
        return artifact.tensor("scores").to(self.run.device)

    def _produce(self, writer: Writer) -> None:
        n, size = self.task.n_train, self.cache.plan.n_attributed
        writer.create("scores", (n,), np.float64 if self.run.dtype == torch.float64 else np.float32)
        step = min(256, max(1, _VECTOR_BYTES // (8 * size)))
        starts = range(0, n, step)
        for start in self.run.track(starts, "self-influence", len(starts)):
            rows = slice(start, min(start + step, n))
            if not writer.is_done(f"rows {start}:{rows.stop}"):
                vectors = torch.cat([side.dense() for side in self.cache.block(rows)], 1).to(self.curvature.dtype)
                writer.write("scores", start, self.quadratic(vectors) / n)
                writer.mark_done(f"rows {start}:{rows.stop}")


@final
class ExactFitted(InfluenceFitted):
    """A factorised curvature: queries are products."""

    def __init__(self, estimator: Influence, task: Task, run: Run) -> None:
        """Load or compute the curvature, and refuse an indefinite one."""
        super().__init__(estimator, task, run)
        artifact = self.curvature.factorised()
        own, decay = self.chosen.own, self.chosen.decay
        check_definite(self.values, own, decay)
        if "vectors" in artifact.names():
            self.inverse: Inverse = EigenInverse(self.values, artifact.tensor("vectors").to(run.device), self.damping)
        else:
            self.inverse = cholesky_inverse(artifact.tensor("matrix").to(run.device), own, decay)

    @property
    def values(self) -> Tensor:
        """Return the eigenvalues before damping, smallest first."""
        return self.curvature.factorised().tensor("values").to(self.run.device)

    def _lowest(self) -> float | None:
        return float(self.values[0]) if self.curvature.kind == "hessian" else None

    def solved(self, targets: Tensor) -> Tensor:
        """Return ``[k, P]``."""
        return self.inverse.solved(targets)

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``[k]``."""
        return self.inverse.quadratic(vectors)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the damping and what it stands against."""
        kind = KIND_IN_WORDS[self.curvature.kind]
        lowest, highest = float(self.values[0]), float(self.values[-1])
        return (
            *super().notes,
            f"Eigenvalues of the {kind} before damping: smallest {lowest:.3g}, largest {highest:.3g}.",
        )


@final
class IterativeFitted(InfluenceFitted):
    """Products with the curvature: every query is a solve."""

    estimator: InfluenceIterative
    last: Solve | None = None

    def _lowest(self) -> float | None:
        """Lanczos, some passes over the data, for a Hessian whose damping is to be chosen; kept in the store."""
        if self.curvature.kind != "hessian" or self.estimator.config.damping is not None:
            return None
        return self.curvature.lowest()

    def solved(self, targets: Tensor) -> Tensor:
        """Return ``[k, P]``; how far the solver came is in the notes."""
        config, run = self.estimator.config, self.run

        def damped(vectors: Tensor) -> Tensor:
            return self.curvature.products(vectors, run) + self.damping * vectors

        steps = conjugate_gradients(damped, targets, config.tolerance, config.max_iterations)
        total = config.max_iterations + 1
        for step in run.track(filled(steps, total), "conjugate gradients", total):
            self.last = step
        assert self.last is not None
        return self.last.solution

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the damping and, after a query, how far its solve came."""
        if self.last is None:
            return super().notes
        residual = float(self.last.residuals.max())
        found = f"Conjugate gradients: {self.last.iterations} iterations, relative residual {residual:.2g}."
        if residual > 10 * self.estimator.config.tolerance:
            found += " This is short of the tolerance: raise max_iterations or the damping."
        return (*super().notes, found)
