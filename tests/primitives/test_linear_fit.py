from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from influence_core.errors import BadInput, Cancelled, NumericalProblem
from influence_core.primitives import linear_fit
from influence_core.primitives.linear_fit import fitted_linear, loss_gradients, loss_values, mean_outputs
from influence_core.primitives.losses import LOSSES
from tests.oracles.representer import fitted_weights, gradient


def plain(steps: Iterable[int], stage: str, total: float) -> Iterator[int]:
    yield from steps


def problem(n: int, d: int, c: int, seed: int = 0, soft: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    f = torch.cat([torch.randn(n, d, generator=generator, dtype=torch.float64), torch.ones(n, 1).double()], 1)
    if soft:
        logits = torch.randn(n, c, generator=generator, dtype=torch.float64)
        return f, torch.softmax(logits, 1) if c > 1 else torch.sigmoid(logits)
    if c == 1:
        return f, torch.randint(2, (n, 1), generator=generator).double()
    return f, F.one_hot(torch.randint(c, (n,), generator=generator), c).double()


@pytest.mark.parametrize("soft", (False, True))
@pytest.mark.parametrize(("loss", "c"), (("cross_entropy", 3), ("bce", 1)))
@pytest.mark.parametrize("lam", (1e-4, 0.003, 10.0))
def test_equals_newton_on_the_whole_hessian(loss: str, c: int, lam: float, soft: bool) -> None:
    f, targets = problem(25, 4, c, soft=soft)
    found = fitted_linear(f, targets, LOSSES[loss], lam, plain)
    expected = fitted_weights(f.numpy(), targets.numpy(), lam)
    assert_close(found.weights, torch.tensor(expected), rtol=1e-8, atol=1e-10)
    length = abs(gradient(found.weights.numpy(), f.numpy(), targets.numpy(), lam)).max()
    assert length < 1e-13 and found.gradient < 1e-13


@pytest.mark.parametrize(("loss", "c"), (("cross_entropy", 4), ("bce", 1), ("bce", 3)))
def test_gradients_are_those_of_the_loss(loss: str, c: int) -> None:
    f = torch.randn(6, c, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    _, targets = problem(6, 2, c, soft=True)
    (expected,) = torch.autograd.grad(loss_values(f, targets, LOSSES[loss]).sum(), f)
    assert_close(loss_gradients(f.detach(), targets, LOSSES[loss]), expected, rtol=0, atol=1e-14)
    _, hard = problem(6, 2, c)
    if c == 1 or loss == "cross_entropy":
        given = hard.argmax(1) if c > 1 else hard
        assert_close(loss_values(f, hard, LOSSES[loss]), LOSSES[loss].from_outputs(f, given), rtol=0, atol=1e-14)


def test_separable_rows_and_long_features_converge() -> None:
    f, targets = problem(60, 8, 3)
    f[:, :8] = targets.argmax(1, keepdim=True).double() * 100 + f[:, :8] * 30
    found = fitted_linear(f, targets, LOSSES["cross_entropy"], 1e-5, plain)
    length = max(1.0, float(f.square().sum(1).mean().sqrt()))
    assert abs(gradient(found.weights.numpy(), f.numpy(), targets.numpy(), 1e-5)).max() < 1e-10 * length


def test_the_diagonal_preconditioner_of_wide_features_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    f, targets = problem(30, 6, 3)
    expected = fitted_linear(f, targets, LOSSES["cross_entropy"], 0.003, plain)
    monkeypatch.setattr(linear_fit, "_BLOCK_WIDTH", 3)
    found = fitted_linear(f, targets, LOSSES["cross_entropy"], 0.003, plain)
    assert_close(found.weights, expected.weights, rtol=0, atol=1e-11)


def test_too_few_steps_are_not_passed_off_as_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_fit, "_STEPS", 2)
    f, targets = problem(30, 6, 3)
    with pytest.raises(NumericalProblem, match="after 2 steps"):
        fitted_linear(f, targets, LOSSES["cross_entropy"], 1e-5, plain)


def test_every_step_can_be_cancelled() -> None:
    def cancelled(steps: Iterable[int], stage: str, total: float) -> Iterator[int]:
        raise Cancelled
        yield 0

    f, targets = problem(30, 6, 3)
    with pytest.raises(Cancelled):
        fitted_linear(f, targets, LOSSES["cross_entropy"], 1e-5, cancelled)


def test_a_regression_is_refused() -> None:
    with pytest.raises(BadInput, match="The loss is 'mse'"):
        mean_outputs(torch.zeros(2, 1), LOSSES["mse"])
