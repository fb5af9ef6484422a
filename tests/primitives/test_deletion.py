"""One-step deletions of a linear layer against refits, and the inverse in whitened form against the dense one."""

from __future__ import annotations

import torch
from torch import Tensor

from influence_core.primitives.deletion import deletions, head_inverse
from tests.cases import normal

N, D, C, PENALTY = 12, 3, 2, 0.4
X, Y = normal(N, D, seed=1), normal(N, C, seed=2)
ROOTS = torch.eye(C).double().expand(N, C, C)  # of a squared loss l = |f - y|^2 / 2


def fitted(weights: Tensor) -> Tensor:
    """The minimiser ``[C, D]`` of the weighted sum of losses and penalty / 2 |W|^2."""
    hessian = X.T @ (weights[:, None] * X) + PENALTY * torch.eye(D).double()
    return torch.linalg.solve(hessian, X.T @ (weights[:, None] * Y)).T


def without(row: int) -> Tensor:
    weights = torch.ones(N).double()
    weights[row] = 0.0
    return fitted(weights)


def test_the_inverse_in_whitened_form_is_the_dense_one() -> None:
    roots = normal(N, C, C, seed=3)
    inverse = head_inverse(X, roots, PENALTY)
    rows = torch.einsum("ncb,nd->nbcd", roots, X).reshape(N * C, C * D)
    dense = torch.linalg.inv(rows.T @ rows + PENALTY * torch.eye(C * D).double())
    torch.testing.assert_close(inverse.whitening @ inverse.whitening.T, dense, rtol=1e-10, atol=1e-12)
    q, x = normal(4, C, seed=4), normal(4, D, seed=5)
    expected = (torch.einsum("mc,md->mcd", q, x).reshape(4, -1) @ dense).reshape(4, C, D)
    torch.testing.assert_close(inverse.responses(x, q), expected, rtol=1e-10, atol=1e-12)


def test_deletions_of_a_squared_loss_are_refits() -> None:
    whole = fitted(torch.ones(N).double())
    inverse = head_inverse(X, ROOTS, PENALTY)
    white = inverse.whitened(X)
    blocks, errors = white @ white.mT, X @ whole.T - Y
    found = deletions(blocks, ROOTS, errors)
    hessian = X.T @ X + PENALTY * torch.eye(D).double()
    assert not bool(found.alone.any())
    for i in range(N):
        moved = whole - without(i)
        step = -torch.linalg.solve(hessian, found.effects[i][:, None].mul(X[i]).T).T
        torch.testing.assert_close(step, moved, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.lengths[i], (moved @ hessian * moved).sum(), rtol=1e-9, atol=1e-12)
        leverage = X[i] @ torch.linalg.solve(hessian, X[i])
        torch.testing.assert_close(found.leverages[i], C * leverage, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.log_volumes[i], C * torch.log1p(-leverage), rtol=1e-9, atol=1e-12)
        shift = (X[i] @ moved.T).square().sum() / leverage
        torch.testing.assert_close(found.shifts[i], shift, rtol=1e-9, atol=1e-12)


def test_a_row_that_alone_determines_a_direction_is_told() -> None:
    features = torch.cat([X, torch.zeros(N, 1).double()], 1)
    features[5, 3] = 2.0
    inverse = head_inverse(features, ROOTS, 0.0)
    white = inverse.whitened(features)
    found = deletions(white @ white.mT, ROOTS, normal(N, C, seed=6))
    assert found.alone.nonzero().flatten().tolist() == [5]
    assert bool(found.effects.isfinite().all()) and bool(found.log_volumes.isfinite().all())


def test_directions_that_no_row_has_are_left_out() -> None:
    features = torch.cat([X, X[:, :1]], 1)
    assert head_inverse(features, ROOTS, 0.0).rank == C * D
    assert head_inverse(features, ROOTS, 0.1).rank == C * (D + 1)
