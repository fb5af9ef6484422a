"""Losses by example, the outputs they read, and the curvature of the loss in the outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import BadInput


class Scalar(Protocol):
    """A differentiable number per row: a loss, or the negative of a measurement."""

    def __call__(self, model: Callable[..., Any], batch: Any, /) -> Tensor:
        """Return ``[n]``."""
        ...


def outputs(model: Callable[..., Any], inputs: Any) -> Tensor:
    """Call the model as its inputs ask: tensor, keywords or positions; take ``.logits`` of a structured answer."""
    if isinstance(inputs, Mapping):
        answer = model(**inputs)
    elif isinstance(inputs, (tuple, list)):
        answer = model(*inputs)
    else:
        answer = model(inputs)
    return answer.logits if hasattr(answer, "logits") else answer


def predicted_classes(f: Tensor) -> Tensor:
    """Return the predicted class ``[n]`` from outputs ``[n, C]``, or ``[n]`` or ``[n, 1]`` of one logit."""
    f = f.reshape(len(f), -1)
    return f.argmax(1) if f.shape[1] > 1 else (f[:, 0] > 0).long()


def _flat(values: Tensor) -> Tensor:
    """Return ``[n, d]``, a vector becoming one column."""
    return values.reshape(len(values), -1)


class CrossEntropy:
    """``-log softmax(f)_y`` with class targets ``[n]``."""

    name = "cross_entropy"
    classifies = True

    def from_outputs(self, f: Tensor, targets: Tensor) -> Tensor:
        """Return the losses ``[n]`` of logits ``[n, C]``."""
        return F.cross_entropy(f, targets, reduction="none")

    def __call__(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """Return the losses ``[n]``."""
        return self.from_outputs(outputs(model, batch.inputs), batch.targets)

    def curvature_root(self, f: Tensor) -> Tensor:
        """Return B ``[n, C, C]`` with ``B B' = diag(p) - p p'``, the Hessian of the loss in the logits."""
        p = F.softmax(f, dim=-1)
        root = p.sqrt()
        return torch.diag_embed(root) - p.unsqueeze(-1) * root.unsqueeze(-2)

    def curvature_product(self, f: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian in the logits times ``v`` ``[n, C]``."""
        p = F.softmax(f, dim=-1)
        return p * (v - (p * v).sum(-1, keepdim=True))

    def probabilities(self, f: Tensor) -> Tensor:
        """Return ``[n, C]``."""
        return F.softmax(f, dim=-1)


class BinaryCrossEntropy:
    """``-log sigmoid`` with one logit per row and targets 0 or 1."""

    name = "bce"
    classifies = True

    def from_outputs(self, f: Tensor, targets: Tensor) -> Tensor:
        """Return the losses ``[n]``, a mean over several outputs."""
        f = _flat(f)
        return F.binary_cross_entropy_with_logits(f, _flat(targets).to(f.dtype), reduction="none").mean(1)

    def __call__(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """Return the losses ``[n]``."""
        return self.from_outputs(outputs(model, batch.inputs), batch.targets)

    def curvature_root(self, f: Tensor) -> Tensor:
        """Return B ``[n, d, d]``, diagonal."""
        f = _flat(f)
        p = torch.sigmoid(f)
        return torch.diag_embed((p * (1 - p) / f.shape[1]).sqrt())

    def curvature_product(self, f: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian in the outputs times ``v``, in the shape of ``f``."""
        p = torch.sigmoid(f)
        return p * (1 - p) * v / _flat(f).shape[1]

    def probabilities(self, f: Tensor) -> Tensor:
        """Return ``[n, 2]``: of the classes 0 and 1."""
        p = torch.sigmoid(_flat(f)[:, 0])
        return torch.stack([1 - p, p], 1)


class SquaredError:
    """``(f - y)^2``, a mean over several outputs."""

    name = "mse"
    classifies = False

    def from_outputs(self, f: Tensor, targets: Tensor) -> Tensor:
        """Return the losses ``[n]``."""
        return (_flat(f) - _flat(targets)).square().mean(1)

    def __call__(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """Return the losses ``[n]``."""
        return self.from_outputs(outputs(model, batch.inputs), batch.targets)

    def curvature_root(self, f: Tensor) -> Tensor:
        """Return B ``[n, d, d]``: the constant ``sqrt(2 / d) I``."""
        f = _flat(f)
        eye = torch.eye(f.shape[1], dtype=f.dtype, device=f.device)
        return (eye * (2 / f.shape[1]) ** 0.5).expand(len(f), -1, -1)

    def curvature_product(self, f: Tensor, v: Tensor) -> Tensor:
        """Return the Hessian in the outputs times ``v``, in the shape of ``f``."""
        return v * (2 / _flat(f).shape[1])


class CustomLoss:
    """A user's ``f(model, batch) -> [n]``; the outputs behind it are unknown."""

    classifies = False

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        """Keep the function under a name."""
        self.function, self.name = function, name

    def __call__(self, model: Callable[..., Any], batch: Any) -> Tensor:
        """Return the losses ``[n]``."""
        return self.function(model, batch)


BuiltinLoss = CrossEntropy | BinaryCrossEntropy | SquaredError
Loss = BuiltinLoss | CustomLoss
LOSSES: dict[str, BuiltinLoss] = {loss.name: loss for loss in (CrossEntropy(), BinaryCrossEntropy(), SquaredError())}


def resolved_loss(loss: Any) -> Loss:
    """Return the loss of a name, or a function as one.

    Raises:
        BadInput: Neither.
    """
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]
    if not isinstance(loss, str) and callable(loss):
        return CustomLoss(cast("Callable[..., Tensor]", loss), getattr(loss, "__qualname__", "custom"))
    raise BadInput(
        "Unknown loss", f"loss is {loss!r}.", f"Use {', '.join(LOSSES)} or f(model, batch) -> losses by row."
    )


class _Scalar(nn.Module):
    """A scalar and its model as one module."""

    def __init__(self, model: nn.Module, scalar: Scalar) -> None:
        super().__init__()
        self.model, self.scalar = model, scalar

    def forward(self, batch: Any) -> Tensor:
        return self.scalar(self.model, batch)


def scalar_at(model: nn.Module, scalar: Scalar, parameters: Mapping[str, Tensor], batch: Any) -> Tensor:
    """Return the scalar ``[n]`` with some parameters replaced wherever it looks: calls, methods and weights alike."""
    named = {f"model.{name}": value for name, value in parameters.items()}
    return torch.func.functional_call(_Scalar(model, scalar), named, (batch,))
