"""The stored curvature: two factorisations, resumed after a cancel, one for all dampings, refused where it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.api import attribute, self_influence
from influence_core.errors import Cancelled, NumericalProblem
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, normal, task_of, vectors

F64 = torch.float64
RUN = Run(device="cpu", dtype=F64)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def scores(task: Task, method: str, test: Any, run: Run = RUN, **options: Any) -> Tensor:
    return attribute(task, method, test, config=options, run=run).scores


def fresh(tmp_path: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(tmp_path), **more)


def test_a_large_curvature_is_factorised_by_cholesky(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = CASES["mlp"]()
    pairs, own = scores(task, "if_exact", range(4)), self_influence(task, "if_exact", run=RUN)
    monkeypatch.setattr("influence_core.curvature_cache.MAX_EIGEN", 10)
    run, task = fresh(tmp_path), CASES["mlp"]()
    torch.testing.assert_close(scores(task, "if_exact", range(4), run=run), pairs, **EXACT)
    torch.testing.assert_close(self_influence(task, "if_exact", run=run), own, **EXACT)
    assert "matrix" in artifacts(run, "curvature")[0].names()
    with pytest.raises(NumericalProblem, match="smallest eigenvalue"):
        scores(task, "if_exact", [0], run=run, curvature="hessian", damping=0)


def artifacts(run: Run, kind: str) -> list[Any]:
    found = [run.artifacts.find(key) for key in run.artifacts.keys()]
    return [artifact for artifact in found if artifact is not None and artifact.meta["inputs"]["kind"] == kind]


def test_another_damping_needs_no_pass_over_the_data(tmp_path: Path) -> None:
    run, task = fresh(tmp_path), CASES["mlp"]()
    first = scores(task, "if_exact", [0], run=run, damping=0.01)
    second = scores(task, "if_exact", [0], run=run, damping=1.0)
    assert float(second.norm()) < float(first.norm())
    assert len(artifacts(run, "curvature")) == 1
    scores(task, "if_exact", [0], run=run, curvature="hessian", damping=8.0)
    assert len(artifacts(run, "curvature")) == 2


def test_a_cancelled_fit_resumes_to_equal_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("influence_core.curvature_cache.MAX_EIGEN", 10)
    expected = scores(CASES["mlp"](), "if_exact", [0], run=fresh(tmp_path / "whole"))
    for stop in range(1, 14):
        asked = []

        def cancel(asked: list[int] = asked, stop: int = stop) -> bool:
            asked.append(1)
            return len(asked) > stop

        try:
            run = fresh(tmp_path / "parts", cancel=cancel, batch_size=3)
            found = scores(CASES["mlp"](), "if_exact", [0], run=run)
        except Cancelled:
            continue
        break
    torch.testing.assert_close(found, expected, **EXACT)
    assert stop > 3


def test_a_loss_that_refuses_float64_is_computed_in_the_precision_of_the_run(tmp_path: Path) -> None:
    table = torch.eye(3)

    def single_loss(model: Any, batch: Any) -> Tensor:
        return (F.log_softmax(model(batch.inputs), 1) @ table)[range(len(batch.targets)), batch.targets].neg()

    task = task_of(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), vectors, single_loss)
    builtin = task_of(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), vectors)
    single = Run(device="cpu", dtype=torch.float32, store=Store(tmp_path))
    expected = scores(builtin, "if_exact", [0], curvature="hessian", damping=8.0)
    found = scores(task, "if_exact", [0], run=single, curvature="hessian", damping=8.0)
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-6)


class Product(torch.autograd.Function):
    """x * y whose first derivatives are right and whose second derivatives forget that one of them depends on y."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, y)
        return x * y

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor, Tensor]:
        x, y = ctx.saved_tensors
        return y.detach() * errors[0], x * errors[0]


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.head = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Product.apply(self.value(x), self.gate(x)))  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["if_exact", "if_cg"])
def test_wrong_second_derivatives_are_refused(method: str) -> None:
    task = task_of(Gated, vectors)
    with pytest.raises(NumericalProblem, match="not symmetric.*curvature='ggn'"):
        scores(task, method, [0], curvature="hessian", damping=100)
    assert bool(scores(task, method, [0]).isfinite().all())


def test_the_hessian_of_weight_norm_is_right_or_refused() -> None:
    """torch 2.13 differentiates ``torch._weight_norm`` wrongly at second order, without saying so."""
    v, g = normal(3, 4, seed=1).requires_grad_(), normal(3, 1, seed=2).requires_grad_()
    if torch.autograd.gradgradcheck(lambda v, g: torch._weight_norm(v, g, 0), (v, g), raise_exception=False):
        assert bool(scores(CASES["weight_norm"](), "if_exact", [0], curvature="hessian", damping=100).isfinite().all())
    else:
        with pytest.raises(NumericalProblem, match="not symmetric"):
            scores(CASES["weight_norm"](), "if_exact", [0], curvature="hessian", damping=100)
