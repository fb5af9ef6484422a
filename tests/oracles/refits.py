"""Brute leave-one-out of a convex model: Newton's method to the last digit for every row left out."""

from __future__ import annotations

import torch
from torch import Tensor


def softmax_fit(x: Tensor, y: Tensor, weights: Tensor, decay: float, n_classes: int, start: Tensor) -> Tensor:
    """Return ``theta [C, d+1]`` minimising ``sum_i w_i ce_i + decay/2 |theta|^2``, bias last and decayed too."""
    a = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    target = torch.nn.functional.one_hot(y, n_classes).to(x.dtype)
    theta = start.clone()
    size = theta.numel()
    for _ in range(50):
        p = (a @ theta.T).softmax(1)
        gradient = (weights[:, None] * (p - target)).T @ a + decay * theta
        if gradient.abs().max() < 1e-14:
            break
        curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        hessian = torch.einsum("n,nij,nk,nl->ikjl", weights, curvature, a, a).reshape(size, size)
        hessian += decay * torch.eye(size, dtype=x.dtype)
        theta = theta - torch.linalg.solve(hessian, gradient.flatten()).reshape(theta.shape)
    return theta


def cross_entropies(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    logits = x @ theta[:, :-1].T + theta[:, -1]
    return logits.logsumexp(1) - logits[range(len(y)), y]


def leave_one_out(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], decay: float, n_classes: int) -> Tensor:
    """Return ``loss_t(without i) - loss_t(with all)`` ``[n_test, n_train]``; the divisor stays n."""
    (x, y), n = train, len(train[1])
    even = torch.full((n,), 1 / n, dtype=x.dtype)
    full = softmax_fit(x, y, even, decay, n_classes, torch.zeros(n_classes, x.shape[1] + 1, dtype=x.dtype))
    columns = []
    for i in range(n):
        weights = even.clone()
        weights[i] = 0
        without = softmax_fit(x, y, weights, decay, n_classes, full)
        columns.append(cross_entropies(without, *test) - cross_entropies(full, *test))
    return torch.stack(columns, 1)
