"""Influence functions in the sharpest directions of the curvature, found by Arnoldi's (here Lanczos') iteration.

::

    S[t, i] = (1/n) sum_{j in top k} (u_j' g_t)(u_j' g_i) / (v_j + damping + weight_decay)

``(v_j, u_j)`` are the k largest Ritz pairs after r products with the Gauss-Newton matrix, which is symmetric and never
negative, so that no component turns its sign round. Schioppa et al. (AAAI 2022), times -1/n: positive = proponent. The
directions that are kept are those that the inverse amplifies least: this is a filter, not an approximation of the
damped inverse, and is to be compared with the truncated one. With r = k = P it is ``if_exact``. The basis is made
orthogonal again at every step, without which found directions come back.

Cost: r passes over the training rows, then a query is a product with the kept gradients. Memory: ``2 r P`` numbers
while it runs, ``k P`` on disk.

Reference: Schioppa, Zablotskaia, Vilar & Sokolov, Scaling Up Influence Functions, AAAI 2022.
"""

from __future__ import annotations

from typing import Any, final

import torch
from pydantic import Field

from influence_core import damping
from influence_core.config import digest
from influence_core.curvature_cache import Curvature, check_curvature
from influence_core.estimator import Cost, Info, Sizes
from influence_core.estimators.spectral import Curved, Spectral, SpectralConfig, SpectralFitted
from influence_core.gradient_cache import TrainGradients
from influence_core.primitives.solvers import filled, ritz_pairs
from influence_core.primitives.spectrum import FullBlock, WholeSpectrum
from influence_core.registry import register
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task

VERSION = 1


class ArnoldiConfig(SpectralConfig):
    """How many directions are found and kept."""

    iterations: int = Field(100, ge=2, le=2_000, description="Products with the curvature: passes over the rows.")
    top: int = Field(50, ge=1, le=2_000, description="Directions of the largest curvature that are kept.")
    damping: float | None = Field(0.0, ge=0, description=damping.HELP)


@final
@register
class Arnoldi(Spectral):
    """Influence functions in a few directions."""

    info = Info(
        name="if_arnoldi", title="Influence functions (Arnoldi)", family="curvature",
        summary="Influence functions seen only in the directions in which the loss bends most: for large models.",
        estimand="part of the first-order change that lies in the sharpest directions",
        reference="Schioppa et al., Scaling Up Influence Functions, AAAI 2022",
        needs=Needs.MODEL | Needs.OUTPUTS, units="rank",
    )  # fmt: skip
    Config = ArnoldiConfig
    config: ArnoldiConfig

    def fit(self, task: Task, run: Run) -> SpectralFitted:
        """Compute the training gradients and the directions.

        Raises:
            Unavailable: No Gauss-Newton curvature of a custom loss.
        """
        check_curvature(task, "ggn")
        return SpectralFitted(self, task, run)

    def curvature(self, cache: TrainGradients, run: Run) -> Curved:
        """The largest Ritz pairs, from the store or found now."""
        whole = Curvature(cache.task, run, cache.plan, "ggn")
        size, steps = cache.plan.n_attributed, min(self.config.iterations, cache.plan.n_attributed)
        inputs: dict[str, Any] = {
            "kind": "ritz pairs", "version": VERSION, "of": cache.artifact.key, "iterations": steps,
            "precision": str(whole.dtype),
        }  # fmt: skip

        def produce(writer: Writer) -> None:
            start = torch.randn(size, generator=torch.Generator().manual_seed(0), dtype=whole.dtype).to(run.device)
            found = filled(ritz_pairs(lambda v: whole.products(v[None])[0], start, steps), steps)
            values, vectors = list(run.track(found, "sharpest directions", steps))[-1]
            writer.save("values", values)
            writer.save("vectors", vectors)

        artifact = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
        values, vectors = artifact.tensor("values"), artifact.tensor("vectors")
        order = values.argsort(descending=True)[: self.config.top]
        order = order[values[order] > 1e-10 * values.max()]
        block = FullBlock(values[order].to(run.device), vectors[:, order].to(run.device))
        sizes = [cache.plan.sizes[name] for name in cache.plan.layers]
        note = f"{len(order)} of {size:,} directions are seen, the sharpest ones."
        return Curved(WholeSpectrum(block, sizes), (note,), damping.WHOLE)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """The gradients, and a pass per product."""
        base, r = super().cost(task, sizes), min(self.config.iterations, sizes.n_params)
        seconds = base.seconds + 4.0 * r * sizes.pass_seconds + 2e-11 * r**2 * sizes.n_params
        return Cost(seconds, base.bytes + 8.0 * r * sizes.n_params)
