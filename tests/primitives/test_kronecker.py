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
    Seen,
    batch_seen,
    columns,
    eigenbasis,
    is_factored,
    noise,
    sampled_labels,
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


def mixed_seen() -> tuple[nn.Module, Tensor, Tensor, dict[str, Seen], dict[str, Tensor]]:
    """The model, its data, what its layers saw, and each layer's gradient of every row by autograd ``[n, o, d]``."""
    model, x, y = made(Mixed, 0).eval(), normal(N, 2, 4, 4, seed=1), targets("cross_entropy")
    loss, batch = LOSSES["cross_entropy"], Batch(x, y)
    plan = planned_gradients(model, loss, batch)
    names, rest = split_plan(model, plan)
    assert set(names) == {"conv", "step", "head"} and rest.factored == ("norm",)
    seen = next(iter(batch_seen(model, loss, names, batch, "true", None)))
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for i in range(N):
        model.zero_grad()
        loss(model, Batch(x[i : i + 1], y[i : i + 1])).sum().backward()
        for name in names:
            module = model.get_submodule(name)
            weight = module.weight.grad.flatten(1)  # type: ignore[union-attr]
            parts = [weight] if module.bias is None else [weight, module.bias.grad[:, None]]  # type: ignore[union-attr, index]
            rows[name].append(torch.cat(parts, 1).clone())
    return model, x, y, seen, {name: torch.stack(values) for name, values in rows.items()}


def test_layers_see_the_gradients_of_their_rows() -> None:
    _, _, _, seen, rows = mixed_seen()
    assert seen["conv"].positions == 9 and seen["step"].positions == 2 and seen["head"].positions == 1
    for name, g in rows.items():
        o, d = g.shape[1:]
        left, right = (torch.linalg.qr(normal(k, k, seed=k)).Q for k in (o, d))
        torch.testing.assert_close(seen[name].rotated_squares(None, None), g.square().sum(0), rtol=1e-9, atol=1e-13)
        turned = (left.T @ g @ right).square().sum(0)
        torch.testing.assert_close(seen[name].rotated_squares(left, right), turned, rtol=1e-9, atol=1e-13)


def test_moments_are_sums_over_rows_and_positions() -> None:
    model, x, _, seen, _ = mixed_seen()
    patches = F.unfold(x, 2, 1, 1, 2).transpose(1, 2).reshape(-1, 8)
    a = torch.cat([patches, torch.ones(len(patches), 1).double()], 1)
    torch.testing.assert_close(seen["conv"].input_moment(), a.T @ a)
    e = seen["conv"].errors[0].flatten(2).transpose(1, 2).reshape(-1, 3)
    torch.testing.assert_close(seen["conv"].error_moment(), e.T @ e)
    both = torch.cat([torch.cat([part, torch.ones(N, 1).double()], 1) for part in seen["step"].inputs])
    torch.testing.assert_close(seen["step"].input_moment(), both.T @ both)
    errors = torch.cat(seen["step"].errors)
    torch.testing.assert_close(seen["step"].error_moment(), errors.T @ errors)
    assert model.head.bias is None and seen["head"].input_moment().shape == (27, 27)  # type: ignore[union-attr]


def test_the_factors_of_a_linear_model_under_squared_error_are_its_whole_curvature() -> None:
    model, x, y = made(lambda: nn.Linear(3, D), 0).eval(), normal(N, 3, seed=1), targets("mse")
    loss = LOSSES["mse"]
    seen = list(batch_seen(model, loss, ("",), Batch(x, y), "exact", None))
    assert len(seen) == D
    total_a = seen[0][""].input_moment() / N
    total_g = torch.stack([column[""].error_moment() for column in seen]).sum(0) / N

    def value(flat: Tensor) -> Tensor:
        w = flat.reshape(D, 4)
        return loss.from_outputs(x @ w[:, :3].T + w[:, 3], y).mean()

    flat = torch.cat([model.weight.detach(), model.bias.detach()[:, None]], 1).flatten()  # type: ignore[arg-type, index]
    expected = torch.autograd.functional.hessian(value, flat)
    torch.testing.assert_close(torch.kron(total_g, total_a), expected, rtol=1e-10, atol=1e-12)


def test_an_eigenbasis_has_no_value_below_zero() -> None:
    vector = normal(1, 4, seed=1)
    moment = vector.T @ vector  # of rank one: rounding below zero is cut off
    eigenvalues, vectors = eigenbasis(moment)
    assert float(eigenvalues.min()) >= 0
    torch.testing.assert_close(vectors @ torch.diag(eigenvalues) @ vectors.T, moment, rtol=1e-10, atol=1e-12)


def test_which_layers_have_factors() -> None:
    assert is_factored(nn.Linear(3, 2)) and is_factored(nn.Conv1d(2, 2, 3))
    assert not is_factored(nn.Conv2d(4, 4, 3, groups=2)), "groups are several layers"
    assert not is_factored(nn.Linear(MAX_SIDE, 2)), "with the bias it is one input too many"
    assert is_factored(nn.Linear(MAX_SIDE, 2, bias=False)) and not is_factored(nn.LayerNorm(3))
