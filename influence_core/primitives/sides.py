"""Per-example gradients of one layer, in the cheapest exact form.

A Linear layer's gradient for a row is ``E' A`` (``E`` output errors, ``A`` inputs, over the row's positions). It is
hardly ever built: ``<E'A, e'a>`` for one position is ``(A.a)(E.e)``. Three exact forms share one interface:

==========  =======================================  ==========================================
form        held for n rows                          gradient of a row
==========  =======================================  ==========================================
Dense       ``values [n, P]``                        itself
Factored    ``inputs [n, T, d]``, ``errors [n, T, o]``  ``sum_t e_t (a_t, 1)'``  (the 1: bias)
Tokens      ``tokens [n, T]``, ``errors [n, T, d]``  ``e_t`` added to row ``token_t``
==========  =======================================  ==========================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.primitives.matvec import matrix_vector


class Side(ABC):
    """Gradients of one layer for n rows."""

    @property
    @abstractmethod
    def rows(self) -> int:
        """Return n."""

    @abstractmethod
    def dense(self) -> Tensor:
        """Return the gradients written out, ``[n, P]``: weights row by row, each followed by its bias."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """Return ``|g_i|^2``, ``[n]``."""

    @abstractmethod
    def take(self, index: slice | Tensor) -> Side:
        """Return some rows."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored, by a short name; each has n rows."""

    @abstractmethod
    def scaled(self, factors: Tensor) -> Side:
        """Return the gradients times a factor per row ``[n]``."""

    @abstractmethod
    def mean(self) -> Side:
        """Return the mean gradient as one row."""


@final
@dataclass(frozen=True)
class Dense(Side):
    """Gradients written out: ``values [n, P]``."""

    values: Tensor

    @property
    def rows(self) -> int:
        """Return n."""
        return len(self.values)

    def dense(self) -> Tensor:
        """Return ``[n, P]``."""
        return self.values

    def squared_norms(self) -> Tensor:
        """Return ``[n]``."""
        return torch.linalg.vecdot(self.values, self.values)

    def take(self, index: slice | Tensor) -> Dense:
        """Return some rows."""
        return Dense(self.values[index])

    def tensors(self) -> dict[str, Tensor]:
        """Return ``{"g": [n, P]}``."""
        return {"g": self.values}

    def scaled(self, factors: Tensor) -> Dense:
        """Return the rows times ``[n]``."""
        return Dense(self.values * factors.unsqueeze(1))

    def mean(self) -> Dense:
        """Return one row."""
        return Dense(self.values.mean(0, keepdim=True))


@final
@dataclass(frozen=True)
class Factored(Side):
    """Inputs ``[n, T, d]`` and output errors ``[n, T, o]`` of an affine map at T positions."""

    inputs: Tensor
    errors: Tensor
    bias: bool

    @property
    def rows(self) -> int:
        """Return n."""
        return len(self.inputs)

    @property
    def positions(self) -> int:
        """Return T."""
        return self.inputs.shape[1]

    def dense(self) -> Tensor:
        """Return ``[n, o * (d + bias)]``."""
        inputs = F.pad(self.inputs, (0, 1), value=1.0) if self.bias else self.inputs
        return torch.bmm(self.errors.transpose(1, 2), inputs).flatten(1)

    def squared_norms(self) -> Tensor:
        """Return ``[n]``, from Gram matrices over positions or from the gradients, whichever is smaller."""
        if self.positions == 1:
            a, e = self.inputs[:, 0], self.errors[:, 0]
            return (torch.linalg.vecdot(a, a) + self.bias) * torch.linalg.vecdot(e, e)
        if self.positions * (self.inputs.shape[2] + self.errors.shape[2]) < self.inputs.shape[2] * self.errors.shape[2]:
            gram = torch.bmm(self.inputs, self.inputs.transpose(1, 2)) + float(self.bias)
            return (gram * torch.bmm(self.errors, self.errors.transpose(1, 2))).sum((1, 2))
        return Dense(self.dense()).squared_norms()

    def take(self, index: slice | Tensor) -> Factored:
        """Return some rows."""
        return Factored(self.inputs[index], self.errors[index], self.bias)

    def tensors(self) -> dict[str, Tensor]:
        """Return ``{"a": inputs, "e": errors}``."""
        return {"a": self.inputs, "e": self.errors}

    def scaled(self, factors: Tensor) -> Factored:
        """Return the rows times ``[n]``."""
        return Factored(self.inputs, self.errors * factors[:, None, None], self.bias)

    def mean(self) -> Dense:
        """Return one row, written out."""
        rows = self.rows * self.positions
        inputs = F.pad(self.inputs, (0, 1), value=1.0) if self.bias else self.inputs
        total = self.errors.reshape(rows, -1).T @ inputs.reshape(rows, -1)
        return Dense(total.reshape(1, -1) / self.rows)


@final
@dataclass(frozen=True)
class Tokens(Side):
    """Token ids ``[n, T]`` (-1: no gradient) and output errors ``[n, T, d]`` of an embedding of ``n_tokens`` rows."""

    tokens: Tensor
    errors: Tensor
    n_tokens: int

    @property
    def rows(self) -> int:
        """Return n."""
        return len(self.tokens)

    def dense(self) -> Tensor:
        """Return ``[n, n_tokens * d]``."""
        n, _, d = self.errors.shape
        table = self.errors.new_zeros(n, self.n_tokens + 1, d)
        index = self.tokens.remainder(self.n_tokens + 1).unsqueeze(2).expand(-1, -1, d)
        return table.scatter_add_(1, index, self.errors)[:, : self.n_tokens].reshape(n, -1)

    def squared_norms(self) -> Tensor:
        """Return ``[n]``: positions that share a token share its row of the table."""
        same = (self.tokens.unsqueeze(1) == self.tokens.unsqueeze(2)) & (self.tokens >= 0).unsqueeze(1)
        return (torch.bmm(self.errors, self.errors.transpose(1, 2)) * same).sum((1, 2))

    def take(self, index: slice | Tensor) -> Tokens:
        """Return some rows."""
        return Tokens(self.tokens[index], self.errors[index], self.n_tokens)

    def tensors(self) -> dict[str, Tensor]:
        """Return ``{"t": tokens, "e": errors}``."""
        return {"t": self.tokens, "e": self.errors}

    def scaled(self, factors: Tensor) -> Tokens:
        """Return the rows times ``[n]``."""
        return Tokens(self.tokens, self.errors * factors[:, None, None], self.n_tokens)

    def mean(self) -> Dense:
        """Return one row, written out."""
        d = self.errors.shape[2]
        table = self.errors.new_zeros(self.n_tokens + 1, d)
        table.index_add_(0, self.tokens.remainder(self.n_tokens + 1).flatten(), self.errors.reshape(-1, d))
        return Dense(table[: self.n_tokens].reshape(1, -1) / self.rows)


def dot(query: Side, train: Side) -> Tensor:
    """Return all inner products ``[m, n]`` of two sides of one layer, by the cheapest exact route."""
    if isinstance(train, Dense):
        vectors = query.dense()
        # One query is a matrix-vector product, which reads the rows once at the speed of memory.
        return matrix_vector(train.values, vectors[0]).unsqueeze(0) if len(vectors) == 1 else vectors @ train.values.T
    if isinstance(train, Tokens):
        tables = query.dense().reshape(query.rows, train.n_tokens, -1)
        return torch.stack([_token_products(table, train) for table in tables])
    assert isinstance(train, Factored)
    if isinstance(query, Factored) and query.positions == train.positions == 1:
        errors = dot(Dense(query.errors[:, 0]), Dense(train.errors[:, 0]))
        return errors.mul_(dot(Dense(query.inputs[:, 0]), Dense(train.inputs[:, 0])).add_(float(query.bias)))
    d, o = train.inputs.shape[2], train.errors.shape[2]
    if isinstance(query, Factored) and _gram_is_cheaper(query, train):
        return _gram_products(query, train)
    if train.positions > 1:
        return query.dense() @ train.dense().T
    # One position and few queries: (a' V') . e per query, without writing the train gradients out.
    matrices = query.dense().reshape(query.rows, o, d + train.bias)
    return torch.stack([_matrix_products(matrix, train) for matrix in matrices])


def _gram_is_cheaper(query: Factored, train: Factored) -> bool:
    """Compare, per train row, position-by-position products with writing its gradient out."""
    m, s, t = query.rows, query.positions, train.positions
    d, o = train.inputs.shape[2], train.errors.shape[2]
    return m * s * t * (d + o) < (t + m) * d * o


def temporary_numbers(query: Side, train: Side) -> int:
    """Return how many numbers per train row ``dot`` builds on the way to its result and has to keep in cache."""
    if isinstance(train, Tokens):
        return train.errors[0].numel()
    if isinstance(train, Dense):
        return 0
    assert isinstance(train, Factored)
    if train.positions == 1:
        # Built once per query and read once: it may be larger than what is used again and again.
        return 0 if isinstance(query, Factored) and query.positions == 1 else -(-train.errors.shape[2] // 4)
    if isinstance(query, Factored) and _gram_is_cheaper(query, train):
        return 2 * query.rows * query.positions * train.positions
    return train.inputs.shape[2] * train.errors.shape[2]


def _token_products(table: Tensor, train: Tokens) -> Tensor:
    found = F.embedding(train.tokens.clamp_min(0), table)
    return (found * train.errors).sum(2).masked_fill(train.tokens < 0, 0.0).sum(1)


def _matrix_products(matrix: Tensor, train: Factored) -> Tensor:
    a, e = train.inputs[:, 0], train.errors[:, 0]
    d = a.shape[1]
    # The vectors in the order that the product reads them, and the bias apart: a tenth of the time.
    scores = (a @ matrix[:, :d].T.contiguous()).mul_(e).sum(1)
    return scores.addmv_(e, matrix[:, d]) if train.bias else scores


def _gram_products(query: Factored, train: Factored) -> Tensor:
    m, s, n, t = query.rows, query.positions, train.rows, train.positions
    inputs = query.inputs.reshape(m * s, -1) @ train.inputs.reshape(n * t, -1).T
    errors = query.errors.reshape(m * s, -1) @ train.errors.reshape(n * t, -1).T
    return inputs.add_(float(query.bias)).mul_(errors).reshape(m, s, n, t).sum((1, 3))


def without_dust(values: Tensor) -> Tensor:
    """Return a copy with 0 for numbers below the squared rounding error of the largest one of their row ``[n, ...]``.

    They are too small for any sum to see, and products of them are denormal, a hundred times slower to multiply: a
    query that the model is certain of is full of them.
    """
    flat = values.flatten(1)
    least = flat.abs().amax(1, keepdim=True) * torch.finfo(values.dtype).eps ** 2
    return flat.masked_fill(flat.abs() < least, 0.0).reshape(values.shape)


def concatenated(parts: list[Side]) -> Side:
    """Return the rows of several sides of one layer, one after another."""
    first = parts[0]
    if isinstance(first, Dense):
        return Dense(torch.cat([part.dense() for part in parts]))
    if isinstance(first, Factored):
        pairs = [part for part in parts if isinstance(part, Factored)]
        return Factored(torch.cat([p.inputs for p in pairs]), torch.cat([p.errors for p in pairs]), first.bias)
    assert isinstance(first, Tokens)
    tokens = [part for part in parts if isinstance(part, Tokens)]
    return Tokens(torch.cat([p.tokens for p in tokens]), torch.cat([p.errors for p in tokens]), first.n_tokens)
