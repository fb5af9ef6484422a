"""Every form of a layer's gradients answers as if it were written out, in every pairing of forms."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from influence_core.primitives.layers import cheapest
from influence_core.primitives.sides import Dense, Factored, Side, Tokens, concatenated, dot
from tests.cases import integers, normal

CLOSE = {"rtol": 1e-12, "atol": 1e-12}
N_TOKENS = 7


def written_out(side: Side) -> Tensor:
    """The gradients by a loop over rows and positions."""
    if isinstance(side, Dense):
        return side.values
    rows = []
    for i in range(side.rows):
        if isinstance(side, Factored):
            d = side.inputs.shape[2]
            total = torch.zeros(side.errors.shape[2], d + side.bias, dtype=torch.float64)
            for a, e in zip(side.inputs[i], side.errors[i], strict=True):
                total[:, :d] += e[:, None] * a[None, :]
                if side.bias:
                    total[:, d] += e
        else:
            assert isinstance(side, Tokens)
            total = torch.zeros(side.n_tokens, side.errors.shape[2], dtype=torch.float64)
            for token, e in zip(side.tokens[i].tolist(), side.errors[i], strict=True):
                if token >= 0:
                    total[token] += e
        rows.append(total.flatten())
    return torch.stack(rows)


def factored(n: int, seed: int, t: int, d: int, o: int, bias: bool) -> Factored:
    return Factored(normal(n, t, d, seed=seed), normal(n, t, o, seed=seed + 50), bias)


def tokens(n: int, seed: int, t: int = 5) -> Tokens:
    return Tokens(integers(N_TOKENS + 1, n, t, seed=seed) - 1, normal(n, t, 3, seed=seed + 50), N_TOKENS)


# Forms of one layer, by layer: any of a group may meet any other of it.
LINEAR = {
    f"{t} positions{' with bias' if bias else ''}": lambda n, seed, t=t, bias=bias: factored(n, seed, t, 4, 3, bias)
    for t in (1, 2, 9)
    for bias in (False, True)
}
WIDE = {f"{t} positions": lambda n, seed, t=t: factored(n, seed, t, 40, 30, True) for t in (1, 2, 3)}
TABLE: dict[str, Callable[[int, int], Side]] = {
    "tokens": tokens,
    "one token": lambda n, seed: tokens(n, seed, 1),
    "dense": lambda n, seed: Dense(normal(n, N_TOKENS * 3, seed=seed)),
}


def groups() -> dict[str, dict[str, Callable[[int, int], Side]]]:
    def dense(width: int) -> Callable[[int, int], Side]:
        return lambda n, seed: Dense(normal(n, width, seed=seed))

    plain = {name: make for name, make in LINEAR.items() if "bias" not in name}
    biased = {name: make for name, make in LINEAR.items() if "bias" in name}
    return {
        "linear": {**plain, "dense": dense(12)},
        "linear with bias": {**biased, "dense": dense(15)},
        "wide": {**WIDE, "dense": dense(30 * 41)},
        "table": TABLE,
    }


FORMS = [pytest.param(make, id=f"{group}: {name}") for group, forms in groups().items() for name, make in forms.items()]
PAIRS = [
    pytest.param(a, b, id=f"{group}: {left} x {right}")
    for group, forms in groups().items()
    for left, a in forms.items()
    for right, b in forms.items()
]


@pytest.mark.parametrize("make", FORMS)
def test_dense_is_the_sum_over_positions(make: Callable[[int, int], Side]) -> None:
    side = make(6, 1)
    torch.testing.assert_close(side.dense(), written_out(side), **CLOSE)


@pytest.mark.parametrize(("left", "right"), PAIRS)
@pytest.mark.parametrize(("m", "n"), [(1, 6), (2, 1), (5, 6), (40, 3), (1, 1)])
def test_dot_of_every_pair_of_forms(left: Callable, right: Callable, m: int, n: int) -> None:
    query, train = left(m, 1), right(n, 2)
    copies = [tensor.clone() for side in (query, train) for tensor in side.tensors().values()]
    torch.testing.assert_close(dot(query, train), written_out(query) @ written_out(train).T, **CLOSE)
    after = [tensor for side in (query, train) for tensor in side.tensors().values()]
    assert all(torch.equal(a, b) for a, b in zip(copies, after, strict=True)), "an argument was changed"


@pytest.mark.parametrize("make", FORMS)
def test_squared_norms_take_scaled_and_mean(make: Callable[[int, int], Side]) -> None:
    side = make(6, 3)
    dense = written_out(side)
    torch.testing.assert_close(side.squared_norms(), dense.square().sum(1), **CLOSE)
    torch.testing.assert_close(side.squared_norms(), dot(side, side).diagonal(), **CLOSE)
    for index in (slice(1, 4), slice(0, 1), torch.tensor([5, 0, 0, 2])):
        part = side.take(index)
        assert type(part) is type(side) and part.rows == len(dense[index])
        torch.testing.assert_close(part.dense(), dense[index], **CLOSE)
    factors = torch.tensor([2.0, -1.0, 0.0, 0.5, 1.0, -3.0], dtype=torch.float64)
    torch.testing.assert_close(side.scaled(factors).dense(), factors[:, None] * dense, **CLOSE)
    torch.testing.assert_close(side.mean().dense(), dense.mean(0, keepdim=True), **CLOSE)
    assert side.rows == 6 and all(len(tensor) == 6 for tensor in side.tensors().values())


@pytest.mark.parametrize("make", FORMS)
def test_concatenated_lines_rows_up(make: Callable[[int, int], Side]) -> None:
    first, second = make(2, 1), make(3, 2)
    joined = concatenated([first, second])
    assert type(joined) is type(first) and joined.rows == 5
    torch.testing.assert_close(joined.dense(), torch.cat([first.dense(), second.dense()]), **CLOSE)


@pytest.mark.parametrize(
    ("t", "d", "o", "form"), [(1, 8, 8, Factored), (3, 1, 5, Dense), (9, 4, 3, Dense), (2, 40, 30, Factored)]
)
def test_the_cheaper_form_is_kept(t: int, d: int, o: int, form: type) -> None:
    side = factored(4, 1, t, d, o, True)
    kept = cheapest(side)
    assert type(kept) is form
    assert sum(x.numel() for x in kept.tensors().values()) <= sum(x.numel() for x in side.tensors().values())
    torch.testing.assert_close(kept.dense(), side.dense(), **CLOSE)


def test_padding_tokens_have_no_gradient() -> None:
    side = Tokens(torch.tensor([[-1, 2, -1], [-1, -1, -1]]), torch.ones(2, 3, 2, dtype=torch.float64), N_TOKENS)
    assert side.squared_norms().tolist() == [2.0, 0.0]
    table = side.dense().reshape(2, N_TOKENS, 2)
    assert table[0, 2].tolist() == [1.0, 1.0] and table.sum() == 2.0
    assert dot(side, side).tolist() == [[2.0, 0.0], [0.0, 0.0]]
