"""Influence sketching: Cook's distance of a last layer too wide for its Hessian, by a sketch of the leverage.

::

    Z_i = (B_i' (x) x_i') Omega   [C, k],      T_i = Z_i (sum_j Z_j' Z_j + penalty I)^-1 Z_i',
    D_i = length of the one-step deletion with T_i in the place of the leverage, over p s^2

``Omega`` ``[C d, k]`` is a random orthonormal basis of k directions; only the leverage is sketched, the residuals are
those of the full model. For one output ``D_i = r_i^2 h_i / (1 - h_i)^2 / (p s^2)``, r the Pearson residual. If k = C d
it is Cook's distance exactly; fewer directions see less leverage and keep the order. A magnitude, high = influential.

Cost: ``n C d k + C d k^2 + k^3``; memory ``C d k + n C k`` numbers, the rows in blocks.

Reference: Wojnowicz et al., Influence Sketching: Finding Influential Samples in Large-Scale Regressions, IEEE BigData
2016. Departure: the basis is orthonormal rather than Gaussian, so that L2 is the same in it.
"""

from __future__ import annotations

from typing import final

import torch
from pydantic import Field
from torch import Tensor

from influence_core.estimator import Cost, Fitted, Info, Sizes
from influence_core.estimators.linear_head import HeadConfig, HeadFit, HeadFitted, LinearHead, last_linear
from influence_core.primitives.deletion import HeadInverse
from influence_core.registry import register
from influence_core.task import Needs, Task


class SketchConfig(HeadConfig):
    """How the last layer was fitted, and how finely its leverage is sketched."""

    directions: int = Field(
        256, ge=1, le=4096, description="Random directions of the sketch; more are closer to Cook's distance, slower."
    )


@final
@register
class InfluenceSketching(LinearHead):
    """Cook's distance with a sketched leverage."""

    info = Info(
        name="influence_sketching", title="Influence sketching", family="classical",
        summary="Cook's distance for wide last layers: how far the fit moves without a row, seen in random directions.",
        estimand="Cook's distance with the leverage in a random subspace",
        reference="Wojnowicz et al., Influence Sketching, IEEE BigData 2016",
        needs=Needs.LAST_LAYER | Needs.OUTPUTS, units="rank", scores=False, additive=False, measurements=("loss",),
        functions=False, stochastic=True,
    )  # fmt: skip
    Config = SketchConfig
    config: SketchConfig
    max_parameters = 2_000_000

    def fitted(self, head: HeadFit) -> Fitted:
        """Return the fitted method."""
        return SketchFitted(head)

    def head_identity(self, seed: int) -> dict[str, object]:
        """Return the sketch's size and seed."""
        return {"directions": self.config.directions, "seed": seed}

    def inverted(self, head: HeadFit) -> HeadInverse:
        """Return the inverse of the Hessian within the sketched directions."""
        return sketched_inverse(head.features, head.roots, head.penalty, self.config.directions, head.run.seed)

    def cost(self, task: Task, sizes: Sizes) -> Cost:
        """A forward pass and the sketch."""
        layer = last_linear(task)
        p = (layer.in_features + 1) * layer.out_features
        k = min(self.config.directions, p)
        flop = 2 * sizes.n_train * p * k + 4 * p * k**2 + 14 * k**3
        return Cost(sizes.pass_seconds / 3 + 2e-11 * flop, 8 * (p * k + sizes.n_train * (2 * layer.out_features + 4)))


@final
class SketchFitted(HeadFitted):
    """The sketched deletions."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Add the size of the sketch."""
        rank, size = self.head.artifact.meta["rank"], self.head.weights.numel()
        return (*super().notes, f"The leverage is seen in {rank} of {size} directions.")

    def _self_influence(self) -> Tensor:
        head = self.head
        return (head.deletions.lengths * head.residual_scale / head.n_effective).to(self.run.dtype)


def sketched_inverse(features: Tensor, roots: Tensor, penalty: float, directions: int, seed: int) -> HeadInverse:
    """Return the inverse of ``Omega' H Omega`` as a whitening in the layer's own coordinates."""
    c, d = roots.shape[1], features.shape[1]
    generator = torch.Generator().manual_seed(seed)
    k = min(directions, c * d)
    drawn = torch.randn(c * d, k, generator=generator, dtype=torch.float64).to(features.device)
    basis = torch.linalg.qr(drawn).Q
    subspace = HeadInverse(basis, c)
    total = features.new_zeros(k, k)
    step = max(1, (1 << 23) // (c * k))
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        z = (roots[rows].transpose(1, 2) @ subspace.whitened(features[rows])).reshape(-1, k)
        total.addmm_(z.T, z)
    values, vectors = torch.linalg.eigh(total)
    values = values.clamp_min(0.0) + penalty
    kept = values > 1e-12 * values[-1]
    return HeadInverse(basis @ (vectors[:, kept] * values[kept].rsqrt()), c)
