"""Obvious curvature matrices of small models in float64, parameters in the order of ``named_parameters``.

Imports nothing of ``influence_core``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def loss_of_row(name: str, f: Tensor, target: Tensor) -> Tensor:
    """The loss of one row from its outputs."""
    if name == "cross_entropy":
        return torch.logsumexp(f, 0) - f[target]
    if name == "mse":
        return (f.reshape(-1) - target.reshape(-1)).square().mean()
    y = target.reshape(-1).to(f.dtype)
    return -(y * F.logsigmoid(f.reshape(-1)) + (1 - y) * F.logsigmoid(-f.reshape(-1))).mean()


def _gradient(value: Tensor, leaves: list[Tensor]) -> Tensor:
    found = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(leaves, found, strict=True)])


def ggn(model: nn.Module, f: Tensor, targets: Tensor, loss: str) -> Tensor:
    """``sum_i J_i' H_i J_i`` ``[P, P]``: a Jacobian row per output and data row, a Hessian per data row."""
    leaves = list(model.parameters())
    total = torch.zeros(sum(p.numel() for p in leaves), sum(p.numel() for p in leaves), dtype=f.dtype)
    for i in range(len(targets)):
        jacobian = torch.stack([_gradient(value, leaves) for value in f[i].reshape(-1)])
        outer: Any = torch.autograd.functional.hessian(
            lambda out, y=targets[i]: loss_of_row(loss, out, y), f[i].detach().reshape(-1)
        )
        total += jacobian.T @ outer @ jacobian
    return total


def ggn_jacrev(model: nn.Module, x: Tensor, loss: Callable[[Tensor, Tensor], Tensor], y: Tensor) -> Tensor:
    """The same by ``torch.func``: all Jacobians and output Hessians at once."""
    named = {name: p.detach() for name, p in model.named_parameters()}
    jacobian = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(named)
    n, c = len(y), model(x).shape[1]
    flat = torch.cat([part.reshape(n, c, -1) for part in jacobian.values()], 2)
    outer = torch.func.vmap(torch.func.hessian(loss))(model(x).detach(), y)
    return torch.einsum("ncp,ncd,ndq->pq", flat, outer, flat)


def hessian_times(model: nn.Module, total_loss: Tensor, vectors: Tensor) -> Tensor:
    """Second derivatives times vectors ``[k, P]``: the gradient of ``gradient . v``, one vector at a time."""
    leaves = list(model.parameters())
    first = torch.autograd.grad(total_loss, leaves, create_graph=True, allow_unused=True)
    flat = torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(leaves, first, strict=True)])
    return torch.stack([_gradient(flat @ vector, leaves) for vector in vectors])


def hessian_func(model: nn.Module, total: Callable[[Callable[..., Tensor]], Tensor]) -> Tensor:
    """All second derivatives by ``torch.func.hessian``: forward over reverse."""
    named = {name: p.detach() for name, p in model.named_parameters()}
    blocks: Any = torch.func.hessian(
        lambda p: total(lambda *inputs: torch.func.functional_call(model, p, inputs))
    )(named)  # fmt: skip
    return torch.cat(
        [torch.cat([blocks[a][b].reshape(named[a].numel(), -1) for b in named], 1) for a in named]
    )  # fmt: skip
