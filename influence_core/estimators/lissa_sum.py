"""The base of influence functions by a sum over small batches: ``h <- g + h - (C_batch + damping I) h / scale``.

The damping stands on its own side of the scale, so that what is shown is what is used, whatever the scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from influence_core.curvature_cache import check_curvature
from influence_core.estimator import Cost, Sizes
from influence_core.estimators.inverse_curvature import Influence, InfluenceConfig, InfluenceFitted
from influence_core.primitives.solvers import neumann
from influence_core.run import Run
from influence_core.task import Task

_KEPT_ROWS = 1024  # whose forward pass is kept in memory
_ABOVE = 1.1  # of the largest eigenvalue of the whole curvature
# Of one product with the curvature, in forward and backward passes over its rows, and of each vector; measured.
_PRODUCT, _EACH, _TERM_SECONDS = 8.0, 10.0, 15e-3
_LANCZOS = 30 * _PRODUCT


class LissaConfig(InfluenceConfig):
    """How long the sum is, and over how many rows."""

    depth: int = Field(100, ge=1, le=1_000_000, description="Terms of the sum; more come nearer to the inverse.")
    sample: int = Field(64, ge=1, le=65_536, description="Training rows drawn for each term; all of them: exact.")
    repeats: int = Field(1, ge=1, le=100, description="Sums that are averaged, each over other draws.")
    scale: float | None = Field(
        None, gt=0, description="Above half the largest curvature of a batch; empty: found by a few passes."
    )


class SummedInfluence(Influence):
    """Influence functions by such a sum; subclasses say which rows are scored."""

    Config = LissaConfig
    config: LissaConfig

    def check(self, task: Task) -> None:
        """Refuse a curvature that a custom loss does not have."""
        check_curvature(task, self.config.curvature)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients and the largest eigenvalue; every question is a sum of its own, and one pass for its error."""
        base, own, config = super().cost(task, sizes), self._sizes(task, sizes), self.config
        passes = config.repeats * config.depth * min(1.0, config.sample / max(1, own.n_train)) + 1
        asking = passes * _PRODUCT * own.pass_seconds + config.repeats * config.depth * _TERM_SECONDS
        scale = _LANCZOS * own.pass_seconds if config.scale is None else 0.0
        return replace(base, seconds=base.seconds + scale, asking=asking, query=passes * _EACH * own.pass_seconds)


class LissaFitted(InfluenceFitted):
    """Products with the curvature of small batches."""

    estimator: Influence
    residual: float | None = None

    def __init__(self, estimator: Influence, task: Task, run: Run) -> None:
        """Find the scale."""
        super().__init__(estimator, task, run)
        self.scale = self.config.scale or self._found_scale()

    @property
    def config(self) -> LissaConfig:
        """Return the options."""
        config = self.estimator.config
        assert isinstance(config, LissaConfig)
        return config

    def _lowest(self) -> float | None:
        if self.curvature.kind != "hessian" or self.config.damping is not None:
            return None
        return self.curvature.ends()[0]

    def _found_scale(self) -> float:
        """Return a scale that a batch's curvature stays below: rows vary, and a batch of few may stand out."""
        n, sample = self.task.n_train, min(self.config.sample, self.task.n_train)
        norms = self.cache.squared_norms().sum(0).double()
        spread = float((norms.max() / norms.mean().clamp_min(1e-30)) ** 0.5) if sample < n else 1.0
        return _ABOVE * (self.curvature.ends()[1] * max(1.0, min(spread, 10.0)) + self.damping)

    def solved(self, targets: Tensor) -> Tensor:
        """Return ``[k, P]``; how far the sum came is in the notes."""
        config, run = self.config, self.run
        mean = torch.zeros_like(targets)
        for repeat in range(config.repeats):
            solution = mean
            steps = neumann(self._drawn(run.seed + repeat), targets, self.scale, config.depth)
            for solution in run.track(steps, "sum over small batches", config.depth):  # noqa: B007
                pass
            mean = mean + solution / config.repeats
        found = self.curvature.products(mean, run) + self.damping * mean - targets
        lengths = targets.norm(dim=1).clamp_min(1e-300)
        self.residual = max(self.residual or 0.0, float((found.norm(dim=1) / lengths).max()))
        return mean

    def _drawn(self, seed: int) -> Callable[[Tensor], Tensor]:
        """Return ``v -> (C + damping I) v`` with C over rows that are drawn anew at every call."""
        n, sample = self.task.n_train, self.config.sample
        generator = torch.Generator().manual_seed(seed)
        whole = None
        if sample >= n:  # nothing to draw: one forward pass serves all terms, where it fits
            whole = self.curvature.product_of(torch.arange(n)) if n <= _KEPT_ROWS else self._passed

        def product(vectors: Tensor) -> Tensor:
            self.run.check_cancelled()
            chosen = whole or self.curvature.product_of(torch.randint(n, (sample,), generator=generator))
            return chosen(vectors) + self.damping * vectors

        return product

    def _passed(self, vectors: Tensor) -> Tensor:
        return self.curvature.products(vectors, self.run)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the effective damping, the scale, and after a query how far the sum came."""
        config = self.config
        found = [*super().notes, f"Scale {self.scale:.3g}; the damping does not depend on it."]
        if self.residual is not None:
            found.append(f"The sum of {config.depth} terms leaves a relative residual of {self.residual:.2g}.")
        return tuple(found)
