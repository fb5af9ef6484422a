"""Products with the curvature of a summed loss in the parameters, one batch at a time, and the matrix written out.

Two curvatures of ``sum_i l_i`` over the rows of a batch:

- Gauss-Newton (GGN): ``sum_i J_i' H_i J_i`` with ``J_i`` the Jacobian of the outputs and ``H_i`` the Hessian of the
  built-in loss in them. Never negative, whatever the model.
- Hessian: second derivatives of any loss, custom ones included. Indefinite away from a minimum.

Vectors are ``[k, P]`` over the parameters of a ``GradientPlan`` alone, in the layout of its sides; several share one
forward pass. Everything is plain double backward: it needs no forward-mode derivative of any operation, runs the
model's own code once, and follows a custom loss that reads the module's weights behind its back.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from influence_core.primitives.gradients import GradientPlan, named_parameters, parameter_vector, per_example_gradients
from influence_core.primitives.losses import BuiltinLoss, Scalar, outputs

_VECTOR_ROWS = 4096  # rows times vectors that are differentiated together: bounds the memory of a product

Product = Callable[[Tensor], Tensor]


@contextmanager
def _differentiable_twice() -> Iterator[None]:
    """Keep attention on the one kernel whose backward pass can itself be differentiated."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield


def ggn_product(model: nn.Module, loss: BuiltinLoss, batch: Any, plan: GradientPlan) -> Product:
    """Return the map ``[k, P] -> [k, P]`` of the batch's Gauss-Newton matrix, summed over rows.

    Args:
        model: In eval mode, its parameters requiring gradients.
        loss: A built-in loss: its Hessian in the outputs is known.
        batch: ``n`` rows, on the device of the model.
        plan: Which parameters, from ``planned_gradients`` of this model.

    Cost: a forward and a backward pass kept in memory, then about two backward passes per vector.
    """
    leaves = _attributed(model, plan)
    with _differentiable_twice():
        f = outputs(model, batch.inputs)
        # J' u is linear in u, so its derivative along v is J v: forward mode by two backward passes.
        u = torch.zeros_like(f, requires_grad=True)
        pulled = torch.autograd.grad(f, list(leaves.values()), u, create_graph=True, allow_unused=True)

    def product(vectors: Tensor) -> Tensor:
        with _differentiable_twice():
            directions = _by_parameter(model, plan, vectors, leaves)
            used = [(g, d) for g, d in zip(pulled, directions, strict=True) if g is not None and g.requires_grad]
            change = _gradients([g for g, _ in used], [u], [d for _, d in used], len(vectors))[0]
            bent = torch.stack([loss.curvature_product(f.detach(), v) for v in change])
            return _vectors(model, plan, leaves, _gradients([f], list(leaves.values()), [bent], len(vectors)))

    return _in_steps(product, len(f))


def hessian_product(model: nn.Module, scalar: Scalar, batch: Any, plan: GradientPlan) -> Product:
    """Return the map ``[k, P] -> [k, P]`` of the Hessian of ``sum_i scalar_i`` over the batch.

    Args:
        model: In eval mode, its parameters requiring gradients.
        scalar: Any twice differentiable loss, ``[n]`` per row.
        batch: ``n`` rows, on the device of the model.
        plan: Which parameters, from ``planned_gradients`` of this model.

    Cost: a forward and a backward pass kept in memory, then about two backward passes per vector.
    """
    leaves = _attributed(model, plan)
    with _differentiable_twice():
        losses = scalar(model, batch)
        first = torch.autograd.grad(losses.sum(), list(leaves.values()), create_graph=True, allow_unused=True)

    def product(vectors: Tensor) -> Tensor:
        with _differentiable_twice():
            directions = _by_parameter(model, plan, vectors, leaves)
            used = [(g, d) for g, d in zip(first, directions, strict=True) if g is not None and g.requires_grad]
            parts = _gradients([g for g, _ in used], list(leaves.values()), [d for _, d in used], len(vectors))
            return _vectors(model, plan, leaves, parts)

    return _in_steps(product, len(losses))


def ggn_roots(model: nn.Module, loss: BuiltinLoss, batch: Any, plan: GradientPlan) -> Iterator[Tensor]:
    """Yield ``D_c [n, P]`` for every output c, with ``sum_c D_c' D_c`` the batch's Gauss-Newton matrix.

    Row i of ``D_c`` is the gradient of ``f_i . b_ic``, with ``b_ic`` the columns of a root of the loss's Hessian in the
    outputs, ``H_i = B_i B_i'``: per-example gradients of a loss that is linear in the outputs.

    Cost: ``n_outputs`` passes of per-example gradients.
    """
    with torch.no_grad():
        roots = loss.curvature_root(outputs(model, batch.inputs))

    def scalar(inner: Callable[..., Any], rows: Any) -> Tensor:
        return (outputs(inner, rows.inputs).reshape(len(rows.targets), -1) * rows.targets).sum(1)

    for c in range(roots.shape[-1]):
        # The column travels in the place of the targets, so that it is cut with the rows it belongs to.
        sides = per_example_gradients(model, scalar, batch._replace(targets=roots[..., c]), plan)
        yield torch.cat([side.dense().detach() for side in sides], 1)


def identity_blocks(size: int, step: int, like: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield ``(first row, rows [k, size])`` of the identity matrix, ``step`` rows at a time."""
    for start in range(0, size, step):
        stop = min(start + step, size)
        block = like.new_zeros(stop - start, size)
        block[:, start:stop].fill_diagonal_(1)
        yield start, block


# -- between vectors and parameters ---------------------------------------------------------------------------------


def _attributed(model: nn.Module, plan: GradientPlan) -> dict[str, Tensor]:
    """Return the parameters of a plan by name."""
    own = dict(model.named_parameters())
    names = named_parameters(model, plan, next(iter(own.values())).new_zeros(plan.n_attributed))
    return {name: own[name] for name in names}


def _by_parameter(model: nn.Module, plan: GradientPlan, vectors: Tensor, leaves: dict[str, Tensor]) -> list[Tensor]:
    """Return vectors ``[k, P]`` cut into ``[k, *shape]`` by parameter."""
    named = torch.func.vmap(lambda vector: named_parameters(model, plan, vector))(vectors)
    return [named[name] for name in leaves]


def _vectors(model: nn.Module, plan: GradientPlan, leaves: dict[str, Tensor], parts: list[Tensor]) -> Tensor:
    """Return the inverse of ``_by_parameter``."""
    named = dict(zip(leaves, parts, strict=True))
    return torch.func.vmap(lambda values: parameter_vector(model, plan, values))(named)


def _gradients(values: list[Tensor], leaves: list[Tensor], directions: list[Tensor], k: int) -> list[Tensor]:
    """Return ``directions' d values / d leaves`` for k directions at once, zero where there is no dependence."""
    found: Sequence[Tensor | None] = [None] * len(leaves)
    if values:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # vmap announces every operator it has to loop over
                found = torch.autograd.grad(
                    values, leaves, directions, retain_graph=True, allow_unused=True, is_grads_batched=True
                )
        except RuntimeError:  # an operator that cannot be vectorised
            rows = [
                torch.autograd.grad(values, leaves, [d[j] for d in directions], retain_graph=True, allow_unused=True)
                for j in range(k)
            ]
            found = [None if part[0] is None else torch.stack(part) for part in zip(*rows, strict=True)]
    return [
        leaf.new_zeros(k, *leaf.shape) if part is None else part.detach()
        for leaf, part in zip(leaves, found, strict=True)
    ]


def _in_steps(product: Product, rows: int) -> Product:
    step = max(1, _VECTOR_ROWS // max(1, rows))
    return lambda vectors: torch.cat([product(part) for part in vectors.split(step)])
