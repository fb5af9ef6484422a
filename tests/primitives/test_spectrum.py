"""Blocks in their eigenbasis against the matrices that they stand for, for every form of gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from influence_core.primitives.sides import Dense, Factored, Side
from influence_core.primitives.spectrum import (
    Block,
    DiagonalBlock,
    FullBlock,
    KroneckerBlock,
    Spectrum,
    WholeSpectrum,
    damped_inverse,
    damped_inverse_squared,
)
from tests.cases import normal

N, D, O = 5, 4, 3  # noqa: E741
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "inverse": damped_inverse(0.3), "squared": damped_inverse_squared(0.3), "other": lambda values: values.exp(),
}  # fmt: skip


def orthogonal(size: int, seed: int) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=seed)).Q


def factored(positions: int, bias: bool) -> Factored:
    return Factored(normal(N, positions, D - bias, seed=1), normal(N, positions, O, seed=2), bias)


SIDES: dict[str, Callable[[], Side]] = {
    "written out": lambda: Dense(normal(N, O * D, seed=3)), "one position": lambda: factored(1, False),
    "with a bias": lambda: factored(1, True), "positions": lambda: factored(6, True),
}  # fmt: skip


def kronecker(rotated: bool) -> tuple[Block, Tensor, Tensor]:
    """A block, the eigenvectors as columns and the eigenvalues that it stands for."""
    values = normal(O, D, seed=5).abs()
    left, right = (orthogonal(O, 6), orthogonal(D, 7)) if rotated else (torch.eye(O).double(), torch.eye(D).double())
    block = KroneckerBlock(values, left if rotated else None, right if rotated else None)
    return block, torch.kron(left, right), values.flatten()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("rotated", [True, False])
def test_a_kronecker_block_is_its_matrix(side: str, function: str, rotated: bool) -> None:
    block, vectors, values = kronecker(rotated)
    check(block, SIDES[side](), FUNCTIONS[function], vectors, values)


def check(block: Block, side: Side, f: Callable[[Tensor], Tensor], vectors: Tensor, values: Tensor) -> None:
    matrix, g = vectors @ torch.diag(f(values)) @ vectors.T, side.dense()
    kept = block.values.clone()
    torch.testing.assert_close(block.applied(side, f).dense(), g @ matrix, rtol=1e-12, atol=1e-13)
    expected = torch.einsum("np,pq,nq->n", g, matrix, g)
    torch.testing.assert_close(block.quadratic(side, f), expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(block.values, kept), "the eigenvalues were changed"
    assert block.row_numbers(side) > 0


@pytest.mark.parametrize("wide", [True, False])
def test_rotate_and_square_goes_along_the_shorter_side(wide: bool) -> None:
    o, d = (2, 9) if wide else (9, 2)
    values, left, right = normal(o, d, seed=5).abs(), orthogonal(o, 6), orthogonal(d, 7)
    side = Factored(normal(N, 1, d, seed=1), normal(N, 1, o, seed=2), False)
    check(KroneckerBlock(values, left, right), side, damped_inverse(0.1), torch.kron(left, right), values.flatten())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_full_and_diagonal_blocks_are_their_matrices(function: str) -> None:
    values, vectors, side = normal(O * D, seed=5).abs(), orthogonal(O * D, 6), SIDES["positions"]()
    check(FullBlock(values, vectors), side, FUNCTIONS[function], vectors, values)
    check(DiagonalBlock(values), side, FUNCTIONS[function], torch.eye(O * D).double(), values)


def test_layers_stand_side_by_side() -> None:
    block, vectors, values = kronecker(True)
    other, f = DiagonalBlock(normal(6, seed=8).abs()), damped_inverse(0.2)
    spectrum = Spectrum([block, other])
    sides: list[Side] = [SIDES["positions"](), Dense(normal(N, 6, seed=9))]
    first, second = spectrum.applied(sides, f)
    torch.testing.assert_close(first.dense(), block.applied(sides[0], f).dense())
    torch.testing.assert_close(second.dense(), sides[1].dense() / (other.values + 0.2))
    matrix = torch.block_diag(vectors @ torch.diag(f(values)) @ vectors.T, torch.diag(f(other.values)))
    g = torch.cat([side.dense() for side in sides], 1)
    torch.testing.assert_close(spectrum.quadratic(sides, f), torch.einsum("np,pq,nq->n", g, matrix, g))
    both = torch.cat([values, other.values])
    assert spectrum.extremes() == (float(both.min()), float(both.max()))
    assert spectrum.row_numbers(sides) == max(block.row_numbers(sides[0]), other.row_numbers(sides[1]))


def test_one_block_over_all_layers_is_cut_by_layer() -> None:
    sizes, f = [5, 7], damped_inverse(0.2)
    values, vectors = normal(12, seed=1).abs(), orthogonal(12, 2)
    spectrum = WholeSpectrum(FullBlock(values, vectors), sizes)
    sides: list[Side] = [Dense(normal(N, 5, seed=3)), Dense(normal(N, 7, seed=4))]
    g = torch.cat([side.dense() for side in sides], 1)
    matrix = vectors @ torch.diag(f(values)) @ vectors.T
    found = spectrum.applied(sides, f)
    assert [side.dense().shape[1] for side in found] == sizes
    torch.testing.assert_close(torch.cat([side.dense() for side in found], 1), g @ matrix)
    torch.testing.assert_close(spectrum.quadratic(sides, f), torch.einsum("np,pq,nq->n", g, matrix, g))
    half: list[Side] = [Dense(side.dense().float()) for side in sides]
    assert spectrum.applied(half, f)[0].dense().dtype == torch.float32, "not the precision of the gradients"
