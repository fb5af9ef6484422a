"""What leaving one row out does to the fit of a linear layer: the one-step (Newton) deletion, in closed form.

The layer has outputs ``f_i = W x_i`` and minimises ``sum_i l(f_i, y_i) + (penalty / 2) |W|^2``, with the Hessian
``H = sum_i (B_i B_i') (x) (x_i x_i') + penalty I``, where ``B_i B_i'`` is the Hessian of the loss in the outputs and
``e_i`` its gradient. Newton's step after row i has left is

    W - W_(i) = -H^-1 (u_i (x) x_i),      u_i = e_i + B_i (I - T_i)^-1 B_i' K_i e_i,      T_i = B_i' K_i B_i

with ``K_i[c, c'] = (E_c (x) x_i)' H^-1 (E_c' (x) x_i)``: the row's own block of the inverse. It is exact for a squared
loss. ``T_i`` is the leverage (one number where there is one output), so that ``u_i = e_i / (1 - h_i)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FLAT = 1e-12  # eigenvalues below this share of the largest are a direction that no row determines
_ALONE = 1e-5  # distance of a leverage from 1 below which a row alone determines a direction, up to rounding


@dataclass(frozen=True)
class Deletions:
    """What leaving each row out does, ``[n]`` unless said.

    Attributes:
        effects: ``u`` ``[n, C]``.
        leverages: ``tr T``.
        log_volumes: ``log det(I - T)``.
        lengths: ``u' K u``, the move of W measured by H.
        shifts: The move of the row's own outputs, measured by their covariance.
        alone: Whether only this row determines some direction; such a direction is left as it is.
    """

    effects: Tensor
    leverages: Tensor
    log_volumes: Tensor
    lengths: Tensor
    shifts: Tensor
    alone: Tensor


def deletions(blocks: Tensor, roots: Tensor, errors: Tensor) -> Deletions:
    """Return the one-step deletions of rows.

    Args:
        blocks: ``K`` ``[n, C, C]``.
        roots: ``B`` ``[n, C, C]``.
        errors: ``e`` ``[n, C]``.
    """
    hat = roots.transpose(1, 2) @ blocks @ roots
    values, vectors = torch.linalg.eigh((hat + hat.transpose(1, 2)) / 2)
    lone = values > 1 - _ALONE
    left = (1 - values).masked_fill(lone, 1.0)
    pulled = (roots.transpose(1, 2) @ (blocks @ errors.unsqueeze(2))).transpose(1, 2) @ vectors
    moved = (pulled / left.unsqueeze(1)).masked_fill(lone.unsqueeze(1), 0.0) @ vectors.transpose(1, 2)
    effects = errors + (roots @ moved.transpose(1, 2)).squeeze(2)
    lengths = torch.einsum("nc,ncd,nd->n", effects, blocks, effects)
    own = (roots.transpose(1, 2) @ (blocks @ effects.unsqueeze(2))).squeeze(2)
    turned = (own.unsqueeze(1) @ vectors).squeeze(1)
    seen = values > _FLAT * values.amax(1, keepdim=True).clamp_min(_FLAT)
    shifts = torch.where(seen, turned.square() / values.masked_fill(~seen, 1.0), 0.0).sum(1)
    return Deletions(
        effects, values.sum(1), left.log().sum(1), lengths.clamp_min(0.0), shifts.clamp_min(0.0), lone.any(1)
    )


@dataclass(frozen=True)
class HeadInverse:
    """The inverse of H on the directions that the rows determine: ``whitening`` ``[C d, r]`` with ``W W' = H^+``."""

    whitening: Tensor
    n_outputs: int

    @property
    def rank(self) -> int:
        """Return the number of parameters that the rows determine."""
        return self.whitening.shape[1]

    def whitened(self, features: Tensor) -> Tensor:
        """Return ``(E_c (x) x_i)' W`` for every output c, ``[n, C, r]``."""
        n, d = features.shape
        cut = self.whitening.reshape(self.n_outputs, d, self.rank).permute(1, 0, 2).reshape(d, -1)
        return (features @ cut).reshape(n, self.n_outputs, self.rank)

    def responses(self, features: Tensor, gradients: Tensor) -> Tensor:
        """Return ``H^+ (q_t (x) x_t)`` for rows with output gradients q ``[m, C]``, ``[m, C, d]``."""
        white = torch.einsum("mc,mcr->mr", gradients, self.whitened(features))
        return (white @ self.whitening.T).reshape(len(features), self.n_outputs, features.shape[1])


def head_inverse(features: Tensor, roots: Tensor, penalty: float) -> HeadInverse:
    """Return the inverse of ``H`` from features ``[n, d]`` and roots ``[n, C, C]``; memory ``2 (C d)^2`` numbers."""
    n, d = features.shape
    c = roots.shape[1]
    hessian = features.new_zeros(c * d, c * d)
    step = max(1, (1 << 22) // (c * c * d))
    for start in range(0, n, step):
        x, b = features[start : start + step], roots[start : start + step]
        rows = (b.transpose(1, 2).unsqueeze(3) * x[:, None, None, :]).reshape(-1, c * d)
        hessian.addmm_(rows.T, rows)
    values, vectors = torch.linalg.eigh(hessian)
    values = values.clamp_min(0.0) + penalty
    kept = values > _FLAT * values[-1].clamp_min(torch.finfo(values.dtype).tiny)
    return HeadInverse(vectors[:, kept] * values[kept].rsqrt(), c)
