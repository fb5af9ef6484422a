"""Leave-one-out by brute force, on models small enough to be retrained. Imports nothing of ``influence_core``.

The objective is ``(1/n) sum_i w_i l_i + decay/2 |theta|^2``; a row left out has ``w_i = 0``, the divisor stays n.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def ridge(x: Tensor, y: Tensor, decay: float, weights: Tensor) -> Tensor:
    """Weights ``[d]`` of linear regression on ``(x theta - y)^2``, in closed form."""
    n, d = x.shape
    moments = 2 / n * (x * weights.unsqueeze(1)).T @ x + decay * torch.eye(d, dtype=x.dtype)
    return torch.linalg.solve(moments, 2 / n * x.T @ (weights * y))


def logistic(x: Tensor, y: Tensor, n_classes: int, decay: float, weights: Tensor) -> Tensor:
    """Weights ``[n_classes, d + 1]`` (bias last) of multinomial logistic regression, by Newton to the last digit."""
    n = len(x)
    padded = torch.cat([x, torch.ones(n, 1, dtype=x.dtype)], 1)
    theta = torch.zeros(n_classes * padded.shape[1], dtype=x.dtype)
    eye = torch.eye(len(theta), dtype=x.dtype)
    for _ in range(50):
        p = (padded @ theta.reshape(n_classes, -1).T).softmax(1)
        error = (p - F.one_hot(y, n_classes)) * weights.unsqueeze(1)
        gradient = (error.T @ padded).flatten() / n + decay * theta
        outer = (torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)) * weights[:, None, None]
        curvature = torch.einsum("ncd,np,nq->cpdq", outer, padded, padded).reshape(len(theta), -1) / n + decay * eye
        step = torch.linalg.solve(curvature, gradient)
        theta = theta - step
        if float(step.abs().max()) < 1e-14:
            break
    return theta.reshape(n_classes, -1)


@dataclass
class Net:
    """Weights of a tanh net with one hidden layer, in the shapes of ``torch.nn.Linear``."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor

    def tensors(self) -> list[Tensor]:
        return [self.w1, self.b1, self.w2, self.b2]

    def logits(self, x: Tensor) -> Tensor:
        """``[..., n, C]`` for ``x [n, d]``; weights may have a leading axis of models."""
        hidden = torch.tanh(x @ self.w1.mT + self.b1.unsqueeze(-2))
        return hidden @ self.w2.mT + self.b2.unsqueeze(-2)


def sgd_runs(
    start: Net, x: Tensor, y: Tensor, weights: Tensor, order: list[Tensor], rate: float, decay: float
) -> list[Net]:
    """Train one net per row of ``weights [m, n]`` on the same batches; return the nets after every step.

    A step divides by the full batch size whatever the weights.
    """
    m = len(weights)
    net = Net(*[part.expand(m, *part.shape).clone() for part in start.tensors()])
    steps = []
    for batch in order:
        net = Net(*[part.detach().requires_grad_() for part in net.tensors()])
        logits = net.logits(x[batch])
        losses = F.cross_entropy(logits.flatten(0, 1), y[batch].repeat(m), reduction="none").reshape(m, -1)
        gradients = torch.autograd.grad((losses * weights[:, batch]).sum() / len(batch), net.tensors())
        pairs = zip(net.tensors(), gradients, strict=True)
        net = Net(*[(part - rate * (g + decay * part)).detach() for part, g in pairs])
        steps.append(net)
    return steps
