"""The convex fit of one linear layer with L2, to the precision of float64.

Minimises ``J(W) = (1/n) sum_i l(W f_i, t_i) + lam |W|^2`` (no 1/2) by Newton's method. Each step solves with the
Hessian by conjugate gradients on matrix products, so that no matrix of ``(C d)^2`` entries is built; they are
preconditioned by one ``d x d`` block, the curvature averaged over the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.errors import BadInput, NumericalProblem
from influence_core.primitives.losses import BinaryCrossEntropy, CrossEntropy, Loss

_STEPS = 60  # of Newton, at most; 10 to 20 are usual
_INNER_STEPS = 500  # of conjugate gradients within one
_ACCEPTED = 1e-10  # length of the gradient, relative to the features' length where that exceeds 1
_AIM = 1e-14
_BLOCK_WIDTH = 4096  # wider features are preconditioned by the diagonal alone

Track = Callable[[Iterable[int], str, float], Iterator[int]]


@dataclass(frozen=True)
class LinearFit:
    """The minimum: weights ``[C, d]``, and the length of J's gradient there."""

    weights: Tensor
    gradient: float


def mean_outputs(f: Tensor, loss: Loss) -> Tensor:
    """Return what the logits ``[n, C]`` predict: the targets ``[n, C]`` at which the loss's gradient vanishes.

    Raises:
        BadInput: The loss does not classify.
    """
    if isinstance(loss, CrossEntropy):
        return F.softmax(f, dim=1)
    if isinstance(loss, BinaryCrossEntropy):
        return torch.sigmoid(f)
    raise BadInput("This layer cannot be refit", f"The loss is '{loss.name}'.", "Use cross_entropy or bce.")


def loss_gradients(f: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Return the gradient of each row's loss in its logits ``[n, C]``; targets are probabilities ``[n, C]``."""
    difference = mean_outputs(f, loss) - targets
    return difference if isinstance(loss, CrossEntropy) else difference / f.shape[1]


def loss_values(f: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Return each row's loss ``[n]`` at probabilities ``[n, C]`` as targets."""
    if isinstance(loss, CrossEntropy):
        return f.logsumexp(1) * targets.sum(1) - (targets * f).sum(1)
    return (F.softplus(f) - targets * f).mean(1)


def fitted_linear(f: Tensor, targets: Tensor, loss: Loss, lam: float, track: Track) -> LinearFit:
    """Return the minimum of J.

    Args:
        f: Features ``[n, d]``, float64; a constant column stands for a bias.
        targets: Probabilities ``[n, C]``, float64.
        loss: Cross-entropy or binary cross-entropy.
        lam: Weight of ``|W|^2``, above 0.
        track: Passes the steps through, for progress and cancelling.

    Raises:
        NumericalProblem: The gradient stays above 1e-10 times the features' length (or 1e-10).
    """
    problem = _Problem(f, targets, loss, lam)
    weights = f.new_zeros(targets.shape[1], f.shape[1])
    gradient = problem.gradient(weights)
    converged = False
    for _ in track(range(_STEPS), "refit of the last layer", _STEPS):
        if converged:  # let the progress run to its end
            continue
        step = problem.newton_step(weights, gradient)
        moved = weights + problem.step_size(weights, gradient, step) * step
        after = problem.gradient(moved)
        # Near the minimum rounding stops all progress: keep the better of the two and be done.
        converged = bool(after.norm() <= _AIM * problem.length) or (
            bool(gradient.norm() <= _ACCEPTED * problem.length) and bool(after.norm() >= gradient.norm() / 2)
        )
        if not converged or after.norm() < gradient.norm():
            weights, gradient = moved, after
    if not gradient.norm() <= _ACCEPTED * problem.length:
        raise NumericalProblem(
            "The last layer cannot be refit",
            f"The gradient stays at {float(gradient.norm()):.1e} after {_STEPS} steps.",
            "Use a larger lam, or scale the features.",
        )
    return LinearFit(weights, float(gradient.norm()))


class _Problem:
    """J, its gradient, and steps towards its minimum."""

    def __init__(self, f: Tensor, targets: Tensor, loss: Loss, lam: float) -> None:
        self.f, self.targets, self.loss, self.lam = f, targets, loss, lam
        self.length = max(1.0, float(f.square().sum(1).mean().sqrt()))

    def value(self, weights: Tensor) -> Tensor:
        return loss_values(self.f @ weights.T, self.targets, self.loss).mean() + self.lam * weights.square().sum()

    def gradient(self, weights: Tensor) -> Tensor:
        errors = loss_gradients(self.f @ weights.T, self.targets, self.loss)
        return errors.T @ self.f / len(self.f) + 2 * self.lam * weights

    def newton_step(self, weights: Tensor, gradient: Tensor) -> Tensor:
        """Return ``-H^-1 gradient``, the more exactly the closer the minimum."""
        logits = self.f @ weights.T
        precondition = self._preconditioner(logits)
        curvature = self.loss.curvature_product  # type: ignore[union-attr]

        def product(v: Tensor) -> Tensor:
            return curvature(logits, self.f @ v.T).T @ self.f / len(self.f) + 2 * self.lam * v

        tolerance = float(gradient.norm()) * min(0.1, max(1e-6, float(gradient.norm()) / self.length))
        step, residual = torch.zeros_like(gradient), -gradient
        z = precondition(residual)
        direction, rho = z, (residual * z).sum()
        for _ in range(_INNER_STEPS):
            if residual.norm() <= tolerance or rho == 0:
                break
            image = product(direction)
            rate = rho / (direction * image).sum()
            step, residual = step + rate * direction, residual - rate * image
            z = precondition(residual)
            before, rho = rho, (residual * z).sum()
            direction = z + (rho / before) * direction
        return step

    def _preconditioner(self, logits: Tensor) -> Callable[[Tensor], Tensor]:
        p = mean_outputs(logits, self.loss)
        weight = (p * (1 - p)).mean(1, keepdim=True) / (1 if isinstance(self.loss, CrossEntropy) else p.shape[1])
        if self.f.shape[1] > _BLOCK_WIDTH:
            diagonal = (weight * self.f.square()).mean(0) + 2 * self.lam
            return lambda v: v / diagonal
        block = (weight * self.f).T @ self.f / len(self.f)
        block.diagonal().add_(2 * self.lam)
        factor = torch.linalg.cholesky(block)
        return lambda v: torch.cholesky_solve(v.T, factor).T

    def step_size(self, weights: Tensor, gradient: Tensor, step: Tensor) -> float:
        """Return the first of 1, 1/2, 1/4, ... that lowers J as much as its slope promises, up to rounding."""
        start, slope = self.value(weights), (gradient * step).sum()
        rounding = 1e-13 * (1 + start.abs())
        size = 1.0
        while self.value(weights + size * step) > start + 1e-4 * size * slope + rounding and size > 1e-6:
            size /= 2
        return size
