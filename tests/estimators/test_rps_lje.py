"""The local expansion: exact for a quadratic, second order in the step otherwise, and last-layer influence at 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from influence_core import registry
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import integers, made, normal
from tests.oracles.refits import softmax_fit

N, M, D, C = 40, 5, 4, 3
DECAY = 0.02
ROWS = Rows("test", tuple(range(M)))
LBFGS = Recipe(optimizer="lbfgs", weight_decay=DECAY, dtype="float64")  # type: ignore[call-arg]


def softmax_task() -> tuple[Task, Tensor, Tensor]:
    x, y = normal(N, D, seed=1), integers(C, N, seed=2)
    even = torch.full((N,), 1 / N, dtype=torch.float64)
    w = softmax_fit(x, y, even, DECAY, C, torch.zeros(C, D + 1, dtype=torch.float64))
    state = {"weight": w[:, :-1].clone(), "bias": w[:, -1].clone()}
    test = (normal(M, D, seed=3), integers(C, M, seed=4))
    task = Task(lambda: made(lambda: nn.Linear(D, C), 0), (x, y), test, checkpoints=[state], recipe=LBFGS)
    return task, w, torch.cat([x, torch.ones(N, 1).double()], 1)


def fitted(task: Task, folder: Path, **options: Any) -> Any:
    run = Run(device="cpu", dtype=torch.float64, store=Store(folder))
    return fit(task, registry.made("rps_lje", options), run)


def test_scores_are_the_formula_written_out(tmp_path: Path) -> None:
    task, w, a = softmax_task()
    y = task.split("train").targets

    def losses(flat: Tensor) -> Tensor:
        return nn.functional.cross_entropy(a @ flat.reshape(C, D + 1).T, y, reduction="none")

    start = w.flatten()
    # At the minimum a step up goes nowhere: expand somewhere else, to see that the point matters.
    moved = w + 0.1 * normal(C, D + 1, seed=9)
    state = {"weight": moved[:, :-1].clone(), "bias": moved[:, -1].clone()}
    rows = [tuple(task.split(s).raw(slice(None)))[:2] for s in ("train", "test")]
    task = Task(lambda: made(lambda: nn.Linear(D, C), 0), rows[0], rows[1], checkpoints=[state], recipe=LBFGS)
    flat = moved.flatten()
    slope = torch.func.grad(lambda v: losses(v).mean() + DECAY / 2 * v @ v)(flat)
    point = flat + 0.3 * slope
    dense = hessian(lambda v: losses(v).mean(), point) + DECAY * torch.eye(len(start), dtype=torch.float64)
    gradients = torch.func.jacrev(losses)(point)
    steps = torch.linalg.solve(dense, gradients.T).reshape(C, D + 1, N)
    at = torch.cat([task.split("test").raw(slice(None)).inputs, torch.ones(M, 1).double()], 1)
    labels = task.split("test").targets
    expected = -torch.einsum("md,mdn->mn", at, steps[labels]) / N
    found = fitted(task, tmp_path, ascent=0.3).scores(ROWS, Measurement("logit"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_shares_add_up_to_the_logit_with_an_error_of_second_order(tmp_path: Path) -> None:
    _, w, a = softmax_task()
    task, *_ = softmax_task()
    at = torch.cat([task.split("test").raw(slice(None)).inputs, torch.ones(M, 1).double()], 1)
    logits = (at @ w.T).gather(1, task.split("test").targets[:, None])[:, 0]
    rows = [tuple(task.split(s).raw(slice(None)))[:2] for s in ("train", "test")]
    errors = []
    for size in (0.2, 0.1, 0.05):
        moved = w + size * normal(C, D + 1, seed=5)
        state = {"weight": moved[:, :-1].clone(), "bias": moved[:, -1].clone()}
        near = Task(lambda: made(lambda: nn.Linear(D, C), 0), rows[0], rows[1], checkpoints=[state], recipe=LBFGS)
        method = fitted(near, tmp_path, ascent=0.0)
        total = method.scores(ROWS, Measurement("logit")).sum(1) + method.constant(ROWS, Measurement("logit"))
        errors.append(float((total - logits).abs().max()))
    assert errors[0] < 0.2
    assert errors[1] < 0.35 * errors[0] and errors[2] < 0.35 * errors[1]
    exact = fitted(task, tmp_path, ascent=0.0)
    total = exact.scores(ROWS, Measurement("logit")).sum(1) + exact.constant(ROWS, Measurement("logit"))
    torch.testing.assert_close(total, logits, rtol=1e-9, atol=1e-10)


def test_without_a_step_it_is_the_jackknife_on_the_logit(tmp_path: Path) -> None:
    task, *_ = softmax_task()
    run = Run(device="cpu", dtype=torch.float64, store=Store(tmp_path))
    jackknife = fit(task, registry.made("infinitesimal_jackknife"), run).scores(ROWS, Measurement("logit"))
    torch.testing.assert_close(fitted(task, tmp_path, ascent=0.0).scores(ROWS, Measurement("logit")), jackknife)


@pytest.mark.parametrize("ascent", [0.0, 0.5])
def test_a_binary_logit_speaks_for_both_classes(ascent: float, tmp_path: Path) -> None:
    x, y = normal(N, D, seed=1), integers(2, N, seed=2).double()[:, None]
    state = made(lambda: nn.Linear(D, 1), 3).state_dict()
    task = Task(lambda: made(lambda: nn.Linear(D, 1), 0), (x, y), (x[:2], y[:2]), "bce", checkpoints=[state],
                recipe=LBFGS)  # fmt: skip
    method = fitted(task, tmp_path, ascent=ascent)
    both = [method.scores(Rows("test", (0, 1)), Measurement("logit", target)) for target in (0, 1)]
    torch.testing.assert_close(both[0], -both[1])
    assert bool((both[1] != 0).all())
