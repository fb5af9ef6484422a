"""One step of every optimiser: against ``torch.optim``, its derivative against autodiff, forwards against backwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from influence_core.primitives.steps import Rule
from influence_core.recipe import Recipe
from tests.cases import normal

P, RATES = 7, (0.3, 0.2, 0.05)
DECAY, SCALE = normal(P, seed=8).abs(), normal(P, seed=9).abs()
RULES: dict[str, tuple[Rule, Any, dict[str, Any]]] = {
    "plain": (Rule(), torch.optim.SGD, {}),
    "momentum": (Rule(momentum=0.9), torch.optim.SGD, {"momentum": 0.9}),
    "dampened": (Rule(momentum=0.9, dampening=0.3), torch.optim.SGD, {"momentum": 0.9, "dampening": 0.3}),
    "nesterov": (Rule(momentum=0.7, nesterov=True), torch.optim.SGD, {"momentum": 0.7, "nesterov": True}),
    "adam": (Rule("adam"), torch.optim.Adam, {}),
    "betas": (Rule("adam", betas=(0.5, 0.7), eps=1e-3), torch.optim.Adam, {"betas": (0.5, 0.7), "eps": 1e-3}),
    "adamw": (Rule("adam", decay=0.2, decoupled=True), torch.optim.AdamW, {"weight_decay": 0.2}),
}  # fmt: skip


def gradients() -> list[Tensor]:
    """One per step; the last weight never has any."""
    return [normal(P, seed=10 + k) * torch.tensor([1.0] * (P - 1) + [0.0]).double() for k in range(len(RATES))]


def start() -> tuple[Tensor, Tensor, Tensor]:
    return normal(P, seed=1), torch.zeros(P).double(), torch.zeros(P).double()


@pytest.mark.parametrize("name", RULES)
def test_the_step_is_that_of_torch(name: str) -> None:
    rule, kind, options = RULES[name]
    weights = start()[0].requires_grad_(True)
    optimizer, state = kind([weights], lr=1.0, **options), start()
    for number, (gradient, rate) in enumerate(zip(gradients(), RATES, strict=True)):
        optimizer.param_groups[0]["lr"] = rate
        weights.grad = gradient.clone()
        optimizer.step()
        before = [part.clone() for part in state]
        moved = rule.moved(state, gradient, rate, number)
        assert all(torch.equal(part, kept) for part, kept in zip(state, before, strict=True)), "it was changed in place"
        state = moved
        torch.testing.assert_close(state[0], weights.detach(), rtol=1e-13, atol=1e-15)


def written_out(rule: Rule, state: Any, g: Tensor, rate: float, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """The step as its formula says, differentiable in everything."""
    w, first, second = state
    lr, s = rate * rule.scale, number + rule.taken + 1
    if rule.decoupled:
        w = w * (1 - lr * rule.decay)
    if rule.kind == "sgd":
        first = g if s == 1 else rule.momentum * first + (1 - rule.dampening) * g
        return w - lr * (g + rule.momentum * first if rule.nesterov else first), first, second
    b1, b2 = rule.betas
    first, second = b1 * first + (1 - b1) * g, b2 * second + (1 - b2) * g * g
    return w - lr * (first / (1 - b1**s)) / ((second / (1 - b2**s)).sqrt() + rule.eps), first, second


def cases() -> list[tuple[Rule, int]]:
    """Every rule at its first step and at a later one, with one setting for all weights and with one for each."""
    found = []
    for rule, _, _ in RULES.values():
        decay = DECAY if rule.decoupled else 0.0
        each = Rule(
            rule.kind, rule.momentum, rule.dampening, rule.nesterov, rule.betas, rule.eps, decay, rule.decoupled, SCALE
        )
        found += [(rule, 0), (rule, 3), (each, 0), (each, 3)]
    return found


@pytest.mark.parametrize(("rule", "number"), cases())
def test_backwards_is_autodiff_of_the_step(rule: Rule, number: int) -> None:
    state = [normal(P, seed=1), normal(P, seed=2), normal(P, seed=3).abs()]
    if number == 0:
        state[1:] = [torch.zeros(P).double(), torch.zeros(P).double()]
    leaves = [part.requires_grad_(True) for part in state]
    gradient = normal(P, seed=4).requires_grad_(True)
    after = written_out(rule, leaves, gradient, 0.2, number)
    moved = rule.moved(tuple(part.detach() for part in leaves), gradient.detach(), 0.2, number)  # type: ignore[arg-type]
    for ours, theirs in zip(moved, after, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-14)
    sums = tuple(normal(2, P, seed=20 + k) for k in range(3))
    own, before = rule.pulled(moved, sums, gradient.detach(), 0.2, number)  # type: ignore[arg-type]
    for k in range(2):
        total = sum((part * sums[j][k]).sum() for j, part in enumerate(after))
        expected = torch.autograd.grad(
            total, [gradient, *leaves], retain_graph=True, allow_unused=True, materialize_grads=True
        )  # type: ignore[arg-type]
        for ours, theirs in zip((own, *before), expected, strict=True):
            torch.testing.assert_close(ours[k], theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("rule", "number"), [case for case in cases() if case[0].kind == "sgd"])
def test_forwards_is_the_transpose_of_backwards(rule: Rule, number: int) -> None:
    changes, speeds, bent = (normal(1, P, seed=30 + k) for k in range(3))
    state = tuple(normal(P, seed=k) for k in range(3))
    gradient = normal(P, seed=4)
    ahead = rule.pushed(changes, speeds, bent, 0.2, number)
    sums = (normal(1, P, seed=40), normal(1, P, seed=41), torch.zeros(1, P).double())
    moved = rule.moved(state, gradient, 0.2, number)  # type: ignore[arg-type]
    own, before = rule.pulled(moved, sums, gradient, 0.2, number)
    left = (ahead[0] * sums[0]).sum() + (ahead[1] * sums[1]).sum()
    right = (bent * own).sum() + (changes * before[0]).sum() + (speeds * before[1]).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-13)


def test_a_weight_without_any_gradient_stays_and_has_no_derivative() -> None:
    rule = Rule("adam")
    state = start()
    gradient = torch.zeros(P).double()
    moved = rule.moved(state, gradient, 0.2, 0)
    assert torch.equal(moved[0], state[0])
    own, before = rule.pulled(moved, (torch.ones(1, P).double(),) * 3, gradient, 0.2, 0)
    assert bool(own.isfinite().all()) and all(bool(part.isfinite().all()) for part in before)


def test_the_rule_of_a_recipe() -> None:
    assert Rule.of(Recipe(momentum=0.5, weight_decay=0.1)) == Rule(momentum=0.5, decay=0.1)  # type: ignore[call-arg]
    adam = Rule.of(Recipe(optimizer="adam", momentum=0.5, weight_decay=0.1))  # type: ignore[call-arg]
    assert adam == Rule("adam", decay=0.1), "a recipe's momentum is that of descent"
