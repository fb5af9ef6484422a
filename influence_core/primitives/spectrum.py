"""A block-diagonal curvature in its eigenbasis, met through the factors of gradients that are never written out.

A block covers one layer of a ``GradientPlan`` and knows its eigenvalues; whatever a method divides by is a function of
them: ``1 / (value + damping)`` for influence, its square for the length of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.primitives.sides import Dense, Factored, Side, without_dust

Function = Callable[[Tensor], Tensor]


class Block(ABC):
    """The curvature of one layer: ``Q diag(values) Q'`` with an orthogonal Q."""

    values: Tensor

    @abstractmethod
    def applied(self, side: Side, function: Function) -> Dense:
        """Return ``Q diag(function(values)) Q' g`` of every row."""

    @abstractmethod
    def quadratic(self, side: Side, function: Function) -> Tensor:
        """Return ``g' Q diag(function(values)) Q' g`` of every row, ``[n]``."""

    def row_numbers(self, side: Side) -> int:
        """Return how many numbers per row ``quadratic`` builds on the way."""
        return 2 * self.values.numel()


@final
@dataclass(frozen=True)
class KroneckerBlock(Block):
    """``values [o, d]`` in the basis ``left [o, o] (x) right [d, d]``; None: the standard basis."""

    values: Tensor
    left: Tensor | None
    right: Tensor | None

    def applied(self, side: Side, function: Function) -> Dense:
        """Return rows ``[n, o * d]``."""
        turned = self._turned(side)
        turned = without_dust(turned * function(self.values).to(turned))
        if self.left is not None and self.right is not None:
            turned = self.left.to(turned) @ turned @ self.right.to(turned).mT
        return Dense(turned.flatten(1))

    def _turned(self, side: Side) -> Tensor:
        """Return the gradients in the basis, ``[n, o, d]``."""
        if isinstance(side, Factored):
            a, e = (without_dust(part) for part in self._positions(side))
            return torch.bmm(e.mT, a)
        table = side.dense().reshape(-1, *self.values.shape)
        if self.left is None or self.right is None:
            return table
        return self.left.to(table).mT @ table @ self.right.to(table)

    def _positions(self, side: Factored) -> tuple[Tensor, Tensor]:
        """Return inputs and errors of every position in the basis."""
        a = F.pad(side.inputs, (0, 1), value=1.0) if side.bias else side.inputs
        if self.left is None or self.right is None:
            return a, side.errors
        return a @ self.right.to(a), side.errors @ self.left.to(a)

    def quadratic(self, side: Side, function: Function) -> Tensor:
        """Return ``[n]``: for one position rotate and square, ``sum_jk e_j^2 w_jk a_k^2``."""
        if isinstance(side, Factored) and side.positions == 1:
            a, e = self._positions(side)
            weights = function(self.values).to(a)
            a, e = a[:, 0].square(), e[:, 0].square()
            if a.shape[1] > e.shape[1]:
                return torch.linalg.vecdot(a @ weights.mT, e)
            return torch.linalg.vecdot(e @ weights, a)
        turned = self._turned(side)
        return turned.square().flatten(1) @ function(self.values).to(turned).flatten()

    def row_numbers(self, side: Side) -> int:
        """Return the inputs and errors for one position, else the gradients."""
        if isinstance(side, Factored) and side.positions == 1:
            return 2 * sum(self.values.shape)
        return 2 * self.values.numel() + (side.positions * sum(self.values.shape) if isinstance(side, Factored) else 0)


@final
@dataclass(frozen=True)
class FullBlock(Block):
    """``values [P]`` with eigenvectors ``vectors [P, P]``."""

    values: Tensor
    vectors: Tensor

    def applied(self, side: Side, function: Function) -> Dense:
        """Return rows ``[n, P]``."""
        g = side.dense()
        vectors = self.vectors.to(g)
        return Dense(((g @ vectors) * function(self.values).to(g)) @ vectors.mT)

    def quadratic(self, side: Side, function: Function) -> Tensor:
        """Return ``[n]``."""
        g = side.dense()
        return (g @ self.vectors.to(g)).square() @ function(self.values).to(g)


@final
@dataclass(frozen=True)
class DiagonalBlock(Block):
    """``values [P]`` in the standard basis."""

    values: Tensor

    def applied(self, side: Side, function: Function) -> Dense:
        """Return rows ``[n, P]``."""
        g = side.dense()
        return Dense(g * function(self.values).to(g))

    def quadratic(self, side: Side, function: Function) -> Tensor:
        """Return ``[n]``."""
        g = side.dense()
        return g.square() @ function(self.values).to(g)


class Spectrum:
    """The blocks of all layers of a plan, in its order."""

    def __init__(self, blocks: list[Block]) -> None:
        """Keep the blocks."""
        self.blocks = blocks

    def applied(self, sides: list[Side], function: Function) -> list[Side]:
        """Return ``function(C) g`` of every row, one written-out side per layer."""
        return [block.applied(side, function) for block, side in zip(self.blocks, sides, strict=True)]

    def quadratic(self, sides: list[Side], function: Function) -> Tensor:
        """Return ``g' function(C) g`` of every row, ``[n]``."""
        parts = [block.quadratic(side, function) for block, side in zip(self.blocks, sides, strict=True)]
        return torch.stack(parts).sum(0)

    def row_numbers(self, sides: list[Side]) -> int:
        """Return how many numbers per row the largest block builds on the way."""
        return max(block.row_numbers(side) for block, side in zip(self.blocks, sides, strict=True))

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest eigenvalue."""
        return (
            min(float(block.values.min()) for block in self.blocks),
            max(float(block.values.max()) for block in self.blocks),
        )


@final
class WholeSpectrum(Spectrum):
    """One full block over all layers together."""

    def __init__(self, block: FullBlock, sizes: list[int]) -> None:
        """Keep the block and the layers' numbers of parameters."""
        super().__init__([block])
        self.sizes = sizes

    def _joined(self, sides: list[Side]) -> Dense:
        return Dense(torch.cat([side.dense() for side in sides], 1).to(self.blocks[0].values.dtype))

    def applied(self, sides: list[Side], function: Function) -> list[Side]:
        """Return one side per layer, in the precision of the gradients."""
        dense, joined = sides[0].dense(), self._joined(sides)
        parts = self.blocks[0].applied(joined, function).values.to(dense.dtype).split(self.sizes, 1)
        return [Dense(part) for part in parts]

    def quadratic(self, sides: list[Side], function: Function) -> Tensor:
        """Return ``[n]``."""
        return self.blocks[0].quadratic(self._joined(sides), function)

    def row_numbers(self, sides: list[Side]) -> int:
        """Return the gradient twice."""
        return 4 * sum(self.sizes)


def damped_inverse(damping: float) -> Function:
    """Return ``v -> 1 / (v + damping)``, of a copy: the kept eigenvalues are never changed."""
    return lambda values: 1 / (values + damping)


def damped_inverse_squared(damping: float) -> Function:
    """Return ``v -> 1 / (v + damping)^2``."""
    return lambda values: 1 / (values + damping).square()
