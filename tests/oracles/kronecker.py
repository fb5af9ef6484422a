"""Kronecker-factored curvature of small ReLU nets of Linear layers, obvious and slow, in float64.

Every block is a dense matrix ``G (x) A`` over a layer's weights row by row, each followed by its bias. Imports nothing
of ``influence_core``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def layer_gradients(model: nn.Sequential, x: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Inputs ``[n, d + 1]`` and output errors ``[n, o]`` of every Linear layer for the function ``sum f . v``."""
    given, made = [], []
    for layer in model:
        if isinstance(layer, nn.Linear):
            given.append(torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1).detach())
        x = layer(x)
        if isinstance(layer, nn.Linear):
            made.append(x)
    errors = torch.autograd.grad((x * v).sum(), made)
    return list(zip(given, errors, strict=True))


def blocks(
    model: nn.Sequential, x: Tensor, columns: list[Tensor], again: list[Tensor], corrected: bool
) -> list[Tensor]:
    """One dense ``[P_l, P_l]`` matrix per Linear layer from the columns of the loss's Hessian in the outputs.

    ``again``: the columns that corrected eigenvalues are measured with; another draw, where labels are drawn.
    """
    n, found, second = len(x), *([layer_gradients(model, x, v) for v in some] for some in (columns, again))
    result = []
    for layer in range(len(found[0])):
        a = found[0][layer][0]
        inner = sum(torch.outer(row, row) for row in a) / n
        outer = sum(torch.outer(row, row) for seen in found for row in seen[layer][1]) / n
        if not corrected:
            result.append(torch.kron(outer, inner))
            continue
        basis = torch.kron(torch.linalg.eigh(outer)[1], torch.linalg.eigh(inner)[1])
        rows = [torch.outer(e, b).flatten() for seen in second for b, e in zip(a, seen[layer][1], strict=True)]
        values = sum((basis.T @ row).square() for row in rows) / n
        result.append(basis @ torch.diag(values) @ basis.T)
    return result
