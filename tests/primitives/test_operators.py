"""Curvature products and matrices equal explicit J'HJ, second derivatives and curvlinops, on every kind of model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core.examples import Batch
from influence_core.primitives.gradients import GradientPlan, parameter_vector, planned_gradients
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.operators import ggn_product, ggn_roots, hessian_product, identity_blocks
from tests.cases import CASES, integers, made, normal
from tests.oracles.curvature import ggn, ggn_jacrev, hessian_func, hessian_times
from tests.oracles.gradients import called

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-11}
# Forward-mode derivatives and curvlinops compile some of their functions in a way that this torch announces the end of.
scripted = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
BUILTIN = [name for name in CASES if CASES[name]().loss.name in LOSSES]


class Prepared:
    """A case at its last checkpoint: model, all training rows, plan, and where the plan puts each parameter."""

    def __init__(self, name: str, layers: tuple[str, ...] | None = None) -> None:
        self.task = CASES[name]()
        self.model = self.task.model_at(-1, "cpu", F64)
        self.batch = self.task.split("train").batch(slice(None), "cpu", F64)
        self.loss: Any = self.task.loss
        self.plan = planned_gradients(self.model, self.loss, self.batch, layers)
        self.order = layout(self.model, self.plan)


def layout(model: nn.Module, plan: GradientPlan) -> Tensor:
    """Positions within all parameters, one after another, of the entries of a plan's vector."""
    named, start = {}, 0
    for name, parameter in model.named_parameters():
        named[name] = torch.arange(start, start + parameter.numel()).reshape(parameter.shape)
        start += parameter.numel()
    return parameter_vector(model, plan, named)


def written_out(product: Callable[[Tensor], Tensor], size: int) -> Tensor:
    return torch.cat([product(rows) for _, rows in identity_blocks(size, 50, torch.zeros(1, dtype=F64))])


def summed_roots(case: Prepared) -> Tensor:
    return sum((root.T @ root for root in ggn_roots(case.model, case.loss, case.batch, case.plan)), torch.zeros(1))


@pytest.mark.parametrize("name", BUILTIN)
def test_ggn_equals_the_explicit_one(name: str) -> None:
    case = Prepared(name)
    expected = ggn(case.model, called(case.model, case.batch.inputs), case.batch.targets, case.loss.name)
    expected = expected[case.order][:, case.order]
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(summed_roots(case), expected, **EXACT)
    product = ggn_product(case.model, case.loss, case.batch, case.plan)
    torch.testing.assert_close(written_out(product, len(expected)), expected, **EXACT)


@pytest.mark.parametrize("name", [name for name in CASES if name != "weight_norm"])
def test_hessian_equals_second_derivatives(name: str) -> None:
    # torch's own second derivatives of weight_norm are wrong and not symmetric: test_influence.py shows them refused.
    case = Prepared(name)
    vectors = normal(4, len(case.order), seed=3)
    given = torch.empty_like(vectors)
    given[:, case.order] = vectors
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        expected = hessian_times(case.model, case.loss(case.model, case.batch).sum(), given)[:, case.order]
    found = hessian_product(case.model, case.loss, case.batch, case.plan)(vectors)
    torch.testing.assert_close(found, expected, **EXACT)
    symmetric = vectors @ found.T
    torch.testing.assert_close(symmetric, symmetric.T, **EXACT)


@scripted
@pytest.mark.parametrize("name", ["mlp", "binary", "regression_two_outputs"])
def test_torch_func_agrees(name: str) -> None:
    case = Prepared(name)
    x, y = case.batch.inputs, case.batch.targets

    def one(f: Tensor, target: Tensor) -> Tensor:
        return case.loss.from_outputs(f.unsqueeze(0), target.unsqueeze(0)).squeeze(0)

    expected = ggn_jacrev(case.model, x, one, y)[case.order][:, case.order]
    torch.testing.assert_close(summed_roots(case), expected, **EXACT)
    expected = hessian_func(case.model, lambda model: case.loss.from_outputs(model(x), y).sum())
    product = hessian_product(case.model, case.loss, case.batch, case.plan)
    torch.testing.assert_close(written_out(product, len(expected)), expected[case.order][:, case.order], **EXACT)


@scripted
@pytest.mark.parametrize("kind", ["ggn", "hessian"])
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_curvlinops_agrees(kind: str, loss: str) -> None:
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    model = made(lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)), 0).eval()
    x = normal(12, 5, seed=1)
    y = integers(3, 12, seed=2) if loss == "cross_entropy" else normal(12, 3, seed=2)
    reference = nn.CrossEntropyLoss() if loss == "cross_entropy" else nn.MSELoss()
    operator = GGNLinearOperator if kind == "ggn" else HessianLinearOperator
    parameters = list(model.parameters())
    expected = operator(model, reference, parameters, [(x, y)]) @ torch.eye(66, dtype=F64)
    batch = Batch(x, y)
    plan = planned_gradients(model, LOSSES[loss], batch)
    order = layout(model, plan)
    make: Any = ggn_product if kind == "ggn" else hessian_product
    found = written_out(make(model, LOSSES[loss], batch, plan), 66) / len(x)
    torch.testing.assert_close(found, expected[order][:, order], rtol=1e-8, atol=1e-10)


def test_only_the_planned_layers_enter() -> None:
    whole, part = Prepared("mlp"), Prepared("mlp", ("2",))
    within = torch.tensor([whole.order.tolist().index(place) for place in part.order.tolist()])
    for make in (ggn_product, hessian_product):
        every = written_out(make(whole.model, whole.loss, whole.batch, whole.plan), len(whole.order))
        some = written_out(make(part.model, part.loss, part.batch, part.plan), len(part.order))
        torch.testing.assert_close(some, every[within][:, within], **EXACT)


def test_a_layer_without_influence_on_the_loss_has_no_curvature() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = made(Idle, 0).eval()
    batch = Batch(normal(6, 3, seed=1), integers(2, 6, seed=2))
    plan = planned_gradients(model, LOSSES["cross_entropy"], batch)
    for make in (ggn_product, hessian_product):
        matrix = written_out(make(model, LOSSES["cross_entropy"], batch, plan), 16)
        assert bool((matrix[8:] == 0).all()) and bool((matrix[:, 8:] == 0).all())
        assert float(matrix[:8].abs().max()) > 0.01


def test_an_operator_that_cannot_be_vectorised_is_looped() -> None:
    class Square(torch.autograd.Function):
        """No vmap rule and no forward-mode derivative; its backward pass is differentiable."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, *errors: Tensor) -> Tensor:
            return Backward.apply(ctx.saved_tensors[0], errors[0])

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, error: Tensor) -> Tensor:
            ctx.save_for_backward(x, error)
            return 2 * x * error

        @staticmethod
        def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, Tensor]:
            x, error = ctx.saved_tensors
            looped.append(float(errors[0].detach().sum()))  # vmap refuses to turn a batched tensor into a number
            return 2 * error * errors[0], 2 * x * errors[0]

    class Squaring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(Square.apply(self.inner(x)))

    looped: list[float] = []
    model = made(Squaring, 0).eval()
    batch = Batch(normal(6, 3, seed=1), integers(2, 6, seed=2))
    plan = planned_gradients(model, LOSSES["cross_entropy"], batch)
    order = layout(model, plan)
    f = model(batch.inputs)
    expected = ggn(model, f, batch.targets, "cross_entropy")[order][:, order]
    product = ggn_product(model, LOSSES["cross_entropy"], batch, plan)
    torch.testing.assert_close(written_out(product, 26), expected, **EXACT)
    assert len(looped) >= 26


def test_many_vectors_are_cut_into_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Prepared("mlp")
    vectors = normal(9, len(case.order), seed=3)
    whole = ggn_product(case.model, case.loss, case.batch, case.plan)(vectors)
    monkeypatch.setattr("influence_core.primitives.operators._VECTOR_ROWS", 2 * len(case.batch.targets))
    torch.testing.assert_close(ggn_product(case.model, case.loss, case.batch, case.plan)(vectors), whole, **EXACT)


def test_products_leave_no_trace() -> None:
    case = Prepared("mlp")
    before, state = [p.detach().clone() for p in case.model.parameters()], torch.get_rng_state()
    ggn_product(case.model, case.loss, case.batch, case.plan)(normal(2, len(case.order), seed=3))
    hessian_product(case.model, case.loss, case.batch, case.plan)(normal(2, len(case.order), seed=3))
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(before, case.model.parameters(), strict=True))
    assert torch.equal(state, torch.get_rng_state())
