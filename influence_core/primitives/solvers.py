"""Linear systems with a symmetric curvature matrix plus damping: factorised, or by conjugate gradients.

Right-hand sides and solutions are rows, ``[k, P]``. Whatever is not positive definite is refused, with the eigenvalue
that is in the way and the damping that would lift it: an indefinite inverse turns rankings around without a sound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar, final

import torch
from torch import Tensor

from influence_core.errors import NumericalProblem

Step = TypeVar("Step")
_INDEFINITE = "The curvature is not positive definite"


class Inverse(Protocol):
    """The inverse of a positive definite matrix."""

    def solved(self, targets: Tensor) -> Tensor:
        """Return the solutions ``[k, P]`` for right-hand sides ``[k, P]``."""
        ...

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``v' A^-1 v`` of each row, ``[k]``."""
        ...


@final
@dataclass(frozen=True)
class EigenInverse:
    """``(Q diag(values) Q' + damping I)^-1``: another damping costs nothing."""

    values: Tensor
    vectors: Tensor
    damping: float

    def solved(self, targets: Tensor) -> Tensor:
        """Return ``[k, P]``."""
        return ((targets @ self.vectors) / (self.values + self.damping)) @ self.vectors.T

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``[k]``."""
        return ((vectors @ self.vectors).square() / (self.values + self.damping)).sum(1)

    @cached_property
    def inverted(self) -> Tensor:
        """Return what this is the inverse of, ``[P, P]``."""
        return (self.vectors * (self.values + self.damping)) @ self.vectors.T


@final
@dataclass(frozen=True)
class CholeskyInverse:
    """``(L L')^-1`` from the lower factor."""

    factor: Tensor

    def solved(self, targets: Tensor) -> Tensor:
        """Return ``[k, P]``."""
        return torch.cholesky_solve(targets.T, self.factor).T

    def quadratic(self, vectors: Tensor) -> Tensor:
        """Return ``[k]``, by one triangular solve."""
        return torch.linalg.solve_triangular(self.factor, vectors.T, upper=False).square().sum(0)


def eigenvalues(matrix: Tensor) -> Tensor:
    """Return the eigenvalues ``[P]`` of a symmetric matrix, smallest first.

    Raises:
        NumericalProblem: The matrix holds a NaN or an infinity.
    """
    check_finite(matrix)
    return torch.linalg.eigvalsh(matrix)


def check_finite(matrix: Tensor) -> None:
    """Raise ``NumericalProblem`` if a matrix holds a NaN or an infinity."""
    if not bool(matrix.isfinite().all()):
        raise NumericalProblem(
            "The curvature is not a number",
            "Second derivatives of the loss are NaN or infinite on some training row.",
            "Look for extreme values in the data, or use another checkpoint.",
        )


def check_definite(values: Tensor, damping: float, weight_decay: float = 0.0) -> None:
    """Raise ``NumericalProblem`` unless all ``values + damping + weight_decay`` are safely above zero.

    Args:
        values: Eigenvalues ``[P]``, smallest first.
        damping: Added by choice: the message says which would do.
        weight_decay: Added by the objective.
    """
    shift = damping + weight_decay
    scale = max(abs(float(values[0])), abs(float(values[-1])), shift)
    if float(values[0]) + shift <= scale * len(values) * torch.finfo(values.dtype).eps:
        raise _indefinite(values, damping, weight_decay)


def _indefinite(values: Tensor, damping: float, weight_decay: float) -> NumericalProblem:
    enough = sufficient_damping(values, weight_decay)
    return NumericalProblem(
        _INDEFINITE,
        f"Its smallest eigenvalue is {float(values[0]):.3g}; "
        f"damping {damping:g} plus weight decay {weight_decay:g} do not lift it above zero.",
        f"Use damping {enough:g} or more, or curvature 'ggn', which is never negative.",
    )


def sufficient_damping(values: Tensor, weight_decay: float = 0.0) -> float:
    """Return a damping, rounded up to two digits, that makes the smallest eigenvalue as positive as it is negative."""
    lowest, highest = float(values[0]), max(abs(float(values[0])), abs(float(values[-1])))
    needed = max(abs(lowest), 1e-6 * highest) - lowest - weight_decay
    if needed <= 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(needed)) - 1)
    return float(f"{math.ceil(needed / unit - 1e-9) * unit:.2g}")


def cholesky_inverse(matrix: Tensor, damping: float, weight_decay: float = 0.0) -> CholeskyInverse:
    """Return the inverse of ``matrix + (damping + weight_decay) I``.

    Raises:
        NumericalProblem: It is not positive definite; says the smallest eigenvalue and a damping that would do.
    """
    damped = matrix.clone()
    damped.diagonal().add_(damping + weight_decay)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if int(failed) or not bool(factor.diagonal().isfinite().all()):
        raise _indefinite(eigenvalues(matrix), damping, weight_decay)
    return CholeskyInverse(factor)


@final
@dataclass(frozen=True)
class Solve:
    """Where conjugate gradients stand.

    Attributes:
        solution: ``[k, P]``.
        residuals: ``|b - A x| / |b|`` per right-hand side, ``[k]``; exact in the last one yielded.
        iterations: Products done.
        finished: Whether this is the last one yielded.
    """

    solution: Tensor
    residuals: Tensor
    iterations: int
    finished: bool = False


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], targets: Tensor, tolerance: float, max_iterations: int
) -> Iterator[Solve]:
    """Solve ``A x = b`` for several right-hand sides, yielding after every product.

    All right-hand sides share each product, a pass over the data, but keep their own search spaces: methods that share
    those as well break down on dependent right-hand sides, which duplicate queries are. Converged ones drop out.

    Args:
        product: ``[k, P] -> [k, P]``, symmetric positive definite.
        targets: Right-hand sides ``[k, P]``, in float64 wherever the answer matters.
        tolerance: Relative residual at which a right-hand side is done.
        max_iterations: Products at most; the last ``Solve`` says how far that led.

    Raises:
        NumericalProblem: A direction of zero or negative curvature, or a NaN.

    Reference: Hestenes & Stiefel (1952), Methods of Conjugate Gradients for Solving Linear Systems.
    """
    lengths = targets.square().sum(1)
    solution, residual, direction = torch.zeros_like(targets), targets.clone(), targets.clone()
    squared = lengths.clone()
    goal, done = tolerance**2 * lengths, 0
    while done < max_iterations and bool((squared > goal).any()):
        active = (squared > goal).nonzero().squeeze(1)
        ahead = direction[active]
        bent = product(ahead)
        done += 1
        curvature = (ahead * bent).sum(1)
        _check_curvature(curvature, ahead)
        step = (squared[active] / curvature).unsqueeze(1)
        solution[active] += step * ahead
        residual[active] -= step * bent
        left = residual[active].square().sum(1)
        direction[active] = residual[active] + (left / squared[active]).unsqueeze(1) * ahead
        squared[active] = left
        yield Solve(solution, _relative(squared, lengths), done)
    exact = (targets - product(solution)).square().sum(1) if done else squared
    yield Solve(solution, _relative(exact, lengths), done, finished=True)


def _relative(squared: Tensor, lengths: Tensor) -> Tensor:
    return torch.where(lengths > 0, squared / lengths.clamp_min(torch.finfo(lengths.dtype).tiny), 0.0).sqrt()


def _check_curvature(curvature: Tensor, directions: Tensor) -> None:
    if not bool(curvature.isfinite().all()):
        check_finite(curvature)
    if bool((curvature <= 0).any()):
        worst = float((curvature / directions.square().sum(1)).min())
        raise NumericalProblem(
            _INDEFINITE,
            f"Conjugate gradients met a direction of curvature {worst:.3g}, damping included.",
            f"Raise the damping by {max(-2 * worst, 1e-6):.2g} or more, or use curvature 'ggn': it is never negative.",
        )


def lanczos(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Iterator[Tensor]:
    """Yield, after every product, the Ritz values of a symmetric map, smallest first; the ends converge first.

    Args:
        product: ``[P] -> [P]``.
        start: A vector with a part along every eigenvector: a random one.
        steps: Products at most; fewer once the space is exhausted.
    """
    basis = [start / start.norm()]
    diagonal: list[Tensor] = []
    beside: list[Tensor] = []
    for _ in range(min(steps, len(start))):
        bent = product(basis[-1])
        check_finite(bent)
        diagonal.append(bent @ basis[-1])
        spanned = torch.stack(basis)
        for _ in range(2):  # twice is enough: without it, found values come back as ghosts
            bent = bent - spanned.T @ (spanned @ bent)
        matrix = torch.diag(torch.stack(diagonal))
        if beside:
            off = torch.diag(torch.stack(beside), 1)
            matrix = matrix + off + off.T
        values = torch.linalg.eigvalsh(matrix)
        yield values
        length = bent.norm()
        if float(length) <= 1e-10 * float(values.abs().max()):
            return
        beside.append(length)
        basis.append(bent / length)


def filled(steps: Iterator[Step], total: int) -> Iterator[Step]:
    """Repeat the last step up to the total, so that a loop that converges early still completes its progress."""
    count, last = 0, None
    for last in steps:
        count += 1
        yield last
    while last is not None and count < total:
        count += 1
        yield last


def neumann(product: Callable[[Tensor], Tensor], targets: Tensor, scale: float, steps: int) -> Iterator[Tensor]:
    """Yield the partial sums of ``A^-1 b = (1/scale) sum_j (I - A/scale)^j b`` for rows ``[k, P]``.

    Args:
        product: ``[k, P] -> [k, P]``, A or an estimate of it that is drawn anew at every call.
        targets: ``b``.
        scale: Above half the largest eigenvalue of A, or the sum diverges.
        steps: Terms.

    Raises:
        NumericalProblem: It diverges.
    """
    total = targets
    limit = 1e6 * float(targets.abs().max()) + 1.0
    for _ in range(steps):
        total = targets + total - product(total) / scale
        if not float(total.abs().max()) < limit * steps:  # also where it is NaN
            raise NumericalProblem(
                "The recursion diverges", f"The scale {scale:.3g} is below half the largest eigenvalue of a batch.",
                "Use a larger scale, or more sample rows per step.",
            )  # fmt: skip
        yield total / scale


def ritz_pairs(product: Callable[[Tensor], Tensor], start: Tensor, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, after every product, the Ritz values ``[j]`` and vectors ``[P, j]`` of a symmetric map, smallest first.

    With as many steps as dimensions they are its eigenpairs. The basis is made orthogonal again at every step.

    Args:
        product: ``[P] -> [P]``.
        start: A vector with a part along every eigenvector: a random one.
        steps: Products at most; fewer once the space is exhausted.
    """
    basis = (start / start.norm())[None]
    bent = start.new_zeros(0, len(start))
    for step in range(1, min(steps, len(start)) + 1):
        image = product(basis[-1])
        check_finite(image)
        bent = torch.cat([bent, image[None]])
        matrix = basis @ bent.T
        values, turned = torch.linalg.eigh((matrix + matrix.T) / 2)
        yield values, basis.T @ turned
        rest = image
        for _ in range(2):
            rest = rest - basis.T @ (basis @ rest)
        length = rest.norm()
        if step == len(start) or float(length) <= 1e-10 * float(values.abs().max()):
            return
        basis = torch.cat([basis, (rest / length)[None]])
