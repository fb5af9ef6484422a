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

from dataclasses import replace
from typing import final

from pydantic import Field
from torch import Tensor

from influence_core.curvature_cache import KIND_IN_WORDS, MAX_EIGEN, check_curvature
from influence_core.errors import Unavailable
from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.inverse_curvature import Influence, InfluenceConfig, InfluenceFitted
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
from influence_core.task import Needs, Task

# Of one product of the curvature with vectors, in passes over the training rows, and of each vector; measured.
_PRODUCT, _PRODUCT_EACH, _PRODUCT_SECONDS = 8.0, 2.0, 5e-3
MAX_PARAMETERS = 12_000  # of a curvature written out: 1.2 GB in float64
_FLOP = 1.5e-11  # seconds per floating-point operation of a float64 matrix product
_REFERENCE = "Koh & Liang, Understanding Black-box Predictions via Influence Functions, ICML 2017"


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
        self.check(task)
        return ExactFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse a curvature that a custom loss does not have, or that is too large."""
        check_curvature(task, self.config.curvature)
        size = self.n_attributed(task)
        if size > MAX_PARAMETERS:
            raise Unavailable(
                "The curvature is too large to be written out",
                f"{size:,} parameters need {8e-9 * size**2:,.1f} GB; the limit is {MAX_PARAMETERS:,} parameters.",
                "Use if_cg, or config layers=('last',).",
            )

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
        self.check(task)
        return IterativeFitted(self, task, run)

    def check(self, task: Task) -> None:
        """Refuse a curvature that a custom loss does not have."""
        check_curvature(task, self.config.curvature)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients; every question is a solve, taken to need half of its iterations."""
        base, own = super().cost(task, sizes), self._sizes(task, sizes)
        products = self.config.max_iterations / 2
        asking = products * (_PRODUCT * own.pass_seconds + _PRODUCT_SECONDS)
        return replace(base, asking=asking, query=products * _PRODUCT_EACH * own.pass_seconds)


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
