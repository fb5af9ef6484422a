"""Solvers against ``torch.linalg.solve``; every refusal names the eigenvalue and a damping that works."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from influence_core.errors import NumericalProblem
from influence_core.primitives.solvers import (
    CholeskyInverse,
    EigenInverse,
    Solve,
    check_definite,
    cholesky_inverse,
    conjugate_gradients,
    eigenvalues,
    sufficient_damping,
)
from tests.cases import normal

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def symmetric(values: Tensor, seed: int = 0) -> Tensor:
    """A matrix with these eigenvalues."""
    q, _ = torch.linalg.qr(normal(len(values), len(values), seed=seed))
    return q @ torch.diag(values) @ q.T


def last_of(matrix: Tensor, targets: Tensor, tolerance: float = 1e-12, cap: int = 500) -> Solve:
    return list(conjugate_gradients(lambda v: v @ matrix, targets, tolerance, cap))[-1]


def test_inverses_equal_a_dense_solve() -> None:
    matrix = symmetric(torch.linspace(0, 3, 20, dtype=F64))
    targets = normal(7, 20, seed=1)
    expected = torch.linalg.solve(matrix + 0.1 * torch.eye(20, dtype=F64), targets.T).T
    values, vectors = torch.linalg.eigh(matrix)
    for inverse in (EigenInverse(values, vectors, 0.1), cholesky_inverse(matrix, 0.06, 0.04)):
        torch.testing.assert_close(inverse.solved(targets), expected, **EXACT)
        torch.testing.assert_close(inverse.quadratic(targets), (targets * expected).sum(1), **EXACT)
    assert isinstance(inverse, CholeskyInverse)
    torch.testing.assert_close(values, eigenvalues(matrix), **EXACT)


def test_conjugate_gradients_equal_a_dense_solve() -> None:
    matrix = symmetric(torch.logspace(-2, 2, 40, dtype=F64))
    targets = normal(6, 40, seed=1)
    targets[3] = targets[2]  # dependent right-hand sides
    targets[4] = 0
    targets[5] *= 1e-6
    found = last_of(matrix, targets)
    assert found.finished and float(found.residuals.max()) < 1e-11
    expected = torch.linalg.solve(matrix, targets.T).T
    torch.testing.assert_close(found.solution, expected, rtol=1e-8, atol=1e-14)
    assert bool((found.solution[4] == 0).all()) and torch.equal(found.solution[2], found.solution[3])


def test_conjugate_gradients_need_one_product_per_distinct_eigenvalue() -> None:
    matrix = symmetric(torch.tensor([1.0] * 10 + [5.0] * 10 + [9.0] * 10, dtype=F64))
    assert last_of(matrix, normal(2, 30, seed=1), tolerance=1e-10).iterations == 3


def test_conjugate_gradients_stop_at_their_limit_and_say_how_far_they_came() -> None:
    matrix, targets = symmetric(torch.logspace(-4, 2, 60, dtype=F64)), normal(3, 60, seed=1)
    steps = list(conjugate_gradients(lambda v: v @ matrix, targets, 1e-12, 5))
    assert [step.iterations for step in steps] == [1, 2, 3, 4, 5, 5] and steps[-1].finished
    exact = (targets - steps[-1].solution @ matrix).norm(dim=1) / targets.norm(dim=1)
    torch.testing.assert_close(steps[-1].residuals, exact, rtol=1e-9, atol=0)
    assert float(exact.max()) > 1e-4


def test_converged_right_hand_sides_drop_out() -> None:
    matrix, seen = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=F64)), []

    def product(vectors: Tensor) -> Tensor:
        seen.append(len(vectors))
        return vectors @ matrix

    targets = torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 1]], dtype=F64)  # the first is an eigenvector
    list(conjugate_gradients(product, targets, 1e-12, 100))
    assert seen == [2, 1, 1, 1, 2]  # the last one measures the residual of both


def test_a_shrinking_residual_is_reported_at_every_step() -> None:
    steps = list(
        conjugate_gradients(lambda v: v * torch.linspace(1, 2, 30, dtype=F64), normal(1, 30, seed=1), 1e-9, 99)
    )
    residuals = [float(step.residuals) for step in steps[:-1]]
    assert residuals == sorted(residuals, reverse=True) and residuals[-1] <= 1e-9


def test_negative_curvature_is_refused() -> None:
    matrix = symmetric(torch.tensor([-0.5, 1, 2, 3, 4], dtype=F64))
    with pytest.raises(NumericalProblem, match="not positive definite.*curvature -0"):
        last_of(matrix, normal(1, 5, seed=1))
    with pytest.raises(NumericalProblem, match="smallest eigenvalue is -0.5") as raised:
        cholesky_inverse(matrix, 0.3, 0.1)
    advised = float(re.search(r"Use damping ([\d.e-]+)", str(raised.value)).group(1))  # type: ignore[union-attr]
    assert advised == pytest.approx(0.9)
    cholesky_inverse(matrix, advised, 0.1)
    check_definite(eigenvalues(matrix), advised, 0.1)


@pytest.mark.parametrize(
    ("lowest", "damping", "refused"), [(0.0, 0.0, True), (-1e-15, 0.0, True), (0.0, 1e-6, False), (-1.0, 1.01, False)]
)
def test_what_is_definite(lowest: float, damping: float, refused: bool) -> None:
    values = torch.tensor([lowest, 1.0, 10.0], dtype=F64)
    if refused:
        with pytest.raises(NumericalProblem):
            check_definite(values, damping)
        check_definite(values, sufficient_damping(values))
    else:
        check_definite(values, damping)


def test_no_damping_is_asked_for_where_none_is_needed() -> None:
    assert sufficient_damping(torch.tensor([1.0, 2.0], dtype=F64)) == 0
    assert sufficient_damping(torch.tensor([-0.0313, 2.0], dtype=F64)) == pytest.approx(0.063)


def test_a_nan_is_refused() -> None:
    broken = torch.full((3, 3), torch.nan, dtype=F64)
    for compute in (lambda: eigenvalues(broken), lambda: last_of(broken, torch.ones(1, 3, dtype=F64))):
        with pytest.raises(NumericalProblem, match="not a number"):
            compute()
