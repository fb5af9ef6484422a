"""Kronecker factors: columns of the Hessian in the outputs, what layers see, and where ``G (x) A`` is exact."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.examples import Batch
from influence_core.primitives.gradients import planned_gradients
from influence_core.primitives.kronecker import (
    MAX_SIDE,
    Positions,
    batch_positions,
    columns,
    eigenbasis,
    is_factored,
    noise,
    rotated_squares,
    sampled_labels,
    second_moment,
    split_plan,
)
from influence_core.primitives.losses import LOSSES, BuiltinLoss
from tests.cases import integers, made, normal

N, D = 6, 4


def targets(name: str) -> Tensor:
    if name == "cross_entropy":
        return integers(D, N, seed=2)
    return integers(2, N, D, seed=2).double() if name == "bce" else normal(N, D, seed=2)


def hessians(loss: BuiltinLoss, f: Tensor, y: Tensor) -> Tensor:
    """The Hessian of each row's loss in its outputs, by autodiff."""
    rows = []
    for row, label in zip(f, y, strict=True):
        rows.append(torch.autograd.functional.hessian(lambda v, t=label: loss.from_outputs(v[None], t[None])[0], row))
    return torch.stack(rows)  # type: ignore[arg-type]


# -- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse"])
def test_exact_columns_are_a_root_of_the_hessian(name: str) -> None:
    loss, f, y = LOSSES[name], normal(N, D, seed=1), targets(name)
    v = columns(loss, f, "exact", y, None)
    torch.testing.assert_close(v @ v.mT, hessians(loss, f, y), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse"])
def test_sampled_columns_have_it_as_their_mean(name: str) -> None:
    """Within five standard errors of 40,000 draws, entry by entry."""
    loss, f, y = LOSSES[name], normal(1, D, seed=1), targets(name)[:1]
    count = 40_000
    uniform = noise(count, D, 1, seed=3)
    v = columns(loss, f.expand(count, D), "sampled", y.expand(count, *y.shape[1:]), uniform)[:, :, 0]
    products = v[:, :, None] * v[:, None, :]
    spread = 5 * products.std(0) / count**0.5 + 1e-12
    assert bool(((products.mean(0) - hessians(loss, f, y)[0]).abs() <= spread).all())
    several = columns(loss, f, "sampled", y, noise(1, D, 7, seed=3))
    assert several.shape == (1, D, 7)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse"])
def test_true_columns_are_the_gradient_at_the_labels(name: str) -> None:
    loss, f, y = LOSSES[name], normal(N, D, seed=1), targets(name)
    leaf = f.clone().requires_grad_(True)
    expected = torch.autograd.grad(loss.from_outputs(leaf, y).sum(), leaf)[0]
    torch.testing.assert_close(columns(loss, f, "true", y, None)[:, :, 0], expected)


def test_labels_are_drawn_with_the_models_own_chances() -> None:
    f, count = normal(1, D, seed=1), 40_000
    uniform, many = noise(count, D, 1, seed=4)[:, :, 0], f.expand(40_000, D)
    drawn = sampled_labels(LOSSES["cross_entropy"], many, uniform)
    shares, p = torch.bincount(drawn, minlength=D) / count, F.softmax(f[0], 0)
    assert bool(((shares - p).abs() < 5 * (p * (1 - p) / count).sqrt()).all())
    coins, q = sampled_labels(LOSSES["bce"], many, uniform).mean(0), torch.sigmoid(f[0])
    assert bool(((coins - q).abs() < 5 * (q * (1 - q) / count).sqrt()).all())
    numbers = sampled_labels(LOSSES["mse"], many, uniform)
    assert bool(((numbers.mean(0) - f[0]).abs() < 5 * (D / 2 / count) ** 0.5).all())
    torch.testing.assert_close(numbers.var(0), torch.full((D,), D / 2).double(), rtol=0.05, atol=0)


def test_noise_does_not_depend_on_the_batch_and_touches_nothing() -> None:
    before = torch.random.get_rng_state()
    first = noise(3, 2, 2, seed=5)
    assert torch.equal(first, noise(3, 2, 2, seed=5)) and not torch.equal(first, noise(3, 2, 2, seed=6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert 0 < float(first.min()) and float(first.max()) < 1


# -- what layers see --------------------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """A convolution, a Linear called twice, and a norm that has no Kronecker factors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2, stride=2, padding=1)
        self.norm = nn.LayerNorm(27)
        self.step = nn.Linear(27, 27)
        self.head = nn.Linear(27, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(torch.tanh(self.conv(x)).flatten(1))
        return self.head(torch.tanh(self.step(torch.tanh(self.step(h)))))


def test_positions_hold_the_gradients_of_their_layers() -> None:
    model, x, y = made(Mixed, 0).eval(), normal(N, 2, 4, 4, seed=1), targets("cross_entropy")
    loss, batch = LOSSES["cross_entropy"], Batch(x, y)
    plan = planned_gradients(model, loss, batch)
    names, rest = split_plan(model, plan)
    assert set(names) == {"conv", "step", "head"} and rest.factored == ("norm",)
    seen = next(iter(batch_positions(model, loss, names, batch, "true", None)))
    assert seen["step"].inputs.shape == (N, 2, 28) and seen["conv"].inputs.shape == (N, 9, 9)
    for i in range(N):
        model.zero_grad()
        loss(model, Batch(x[i : i + 1], y[i : i + 1])).sum().backward()
        for name in names:
            module = model.get_submodule(name)
            own = torch.einsum("to,td->od", seen[name].errors[i], seen[name].inputs[i])
            weight = module.weight.grad.flatten(1)  # type: ignore[union-attr]
            parts = [weight] if module.bias is None else [weight, module.bias.grad[:, None]]  # type: ignore[union-attr, index]
            torch.testing.assert_close(own, torch.cat(parts, 1), rtol=1e-10, atol=1e-12)


def test_the_factors_of_a_linear_model_under_squared_error_are_its_whole_curvature() -> None:
    model, x, y = made(lambda: nn.Linear(3, D), 0).eval(), normal(N, 3, seed=1), targets("mse")
    loss = LOSSES["mse"]
    total_a, total_g = torch.zeros(4, 4).double(), torch.zeros(D, D).double()
    seen = list(batch_positions(model, loss, ("",), Batch(x, y), "exact", None))
    assert len(seen) == D
    for column in seen:
        total_g += second_moment(column[""].errors) / N
    total_a = second_moment(seen[0][""].inputs) / N

    def value(flat: Tensor) -> Tensor:
        w = flat.reshape(D, 4)
        return loss.from_outputs(x @ w[:, :3].T + w[:, 3], y).mean()

    flat = torch.cat([model.weight.detach(), model.bias.detach()[:, None]], 1).flatten()  # type: ignore[arg-type, index]
    expected = torch.autograd.functional.hessian(value, flat)
    torch.testing.assert_close(torch.kron(total_g, total_a), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positions", [1, 5])
def test_rotated_squares_are_those_of_the_gradients(positions: int) -> None:
    seen = Positions(normal(N, positions, 4, seed=1), normal(N, positions, 3, seed=2))
    left, right = (torch.linalg.qr(normal(k, k, seed=k)).Q for k in (3, 4))
    g = torch.einsum("nto,ntd->nod", seen.errors, seen.inputs)
    torch.testing.assert_close(rotated_squares(seen, None, None), g.square().sum(0))
    torch.testing.assert_close(rotated_squares(seen, left, right), (left.T @ g @ right).square().sum(0))


def test_moments_and_eigenbases() -> None:
    values = normal(N, 3, 4, seed=1)
    moment = second_moment(values.float())
    assert moment.dtype == torch.float64
    torch.testing.assert_close(moment, torch.einsum("ntd,nte->de", values, values), rtol=1e-5, atol=1e-5)
    exact = second_moment(values[:1, :1])  # of rank one: rounding below zero is cut off
    eigenvalues, vectors = eigenbasis(exact)
    assert float(eigenvalues.min()) >= 0
    torch.testing.assert_close(vectors @ torch.diag(eigenvalues) @ vectors.T, exact, rtol=1e-10, atol=1e-12)


def test_which_layers_have_factors() -> None:
    assert is_factored(nn.Linear(3, 2)) and is_factored(nn.Conv1d(2, 2, 3))
    assert not is_factored(nn.Conv2d(4, 4, 3, groups=2)), "groups are several layers"
    assert not is_factored(nn.Linear(MAX_SIDE, 2)), "with the bias it is one input too many"
    assert is_factored(nn.Linear(MAX_SIDE, 2, bias=False)) and not is_factored(nn.LayerNorm(3))
