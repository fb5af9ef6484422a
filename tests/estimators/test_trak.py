"""TRAK against its formula written out, and against refits of a logistic regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.ensembles import member_rows, trained_members
from influence_core.errors import Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import integers, made, normal

N, M, D = 60, 6, 4
DECAY = 0.01
LBFGS = Recipe(optimizer="lbfgs", weight_decay=DECAY, dtype="float64")  # type: ignore[call-arg]


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def scores(task: Task, folder: Path, kind: str = "margin", **options: Any) -> Tensor:
    fitted = fit(task, registry.made("trak", options), run_in(folder))
    return fitted.scores(Rows("test", tuple(range(task.n_test))), Measurement(kind))


def logistic() -> tuple[Task, Tensor, Tensor]:
    x, xt = normal(N, D, seed=1), normal(M, D, seed=2)
    truth = normal(D, seed=3)
    y = (x @ truth + normal(N, seed=4) > 0).double()[:, None]
    yt = (xt @ truth > 0).double()[:, None]
    w = refit(x, y[:, 0], torch.ones(N).double())
    state = {"weight": w[None, :-1].clone(), "bias": w[None, -1].clone()}
    task = Task(lambda: made(lambda: nn.Linear(D, 1), 0), (x, y), (xt, yt), "bce", checkpoints=[state], recipe=LBFGS)
    return task, w, torch.cat([x, torch.ones(N, 1).double()], 1)


def refit(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    a = torch.cat([x, torch.ones(len(x), 1).double()], 1)
    w = torch.zeros(a.shape[1], dtype=torch.float64)
    for _ in range(50):
        p = torch.sigmoid(a @ w)
        gradient = a.T @ (weights * (p - y)) + N * DECAY * w
        hessian = (a.T * (weights * p * (1 - p))) @ a + N * DECAY * torch.eye(len(w), dtype=torch.float64)
        w = w - torch.linalg.solve(hessian, gradient)
    return w


def test_without_projection_it_is_its_formula(tmp_path: Path) -> None:
    task, w, a = logistic()
    sign = 2 * task.split("train").targets[:, 0] - 1
    p = torch.sigmoid(sign * (a @ w))
    at = torch.cat([task.split("test").raw(slice(None)).inputs, torch.ones(M, 1).double()], 1)
    st = 2 * task.split("test").targets[:, 0] - 1
    phi, phi_t = sign[:, None] * a, st[:, None] * at
    for ridge in (0.0, 0.7):
        kernel = phi_t @ torch.linalg.inv(phi.T @ phi + ridge * torch.eye(D + 1, dtype=torch.float64)) @ phi.T
        found = scores(task, tmp_path, projection=None, ridge=ridge)
        torch.testing.assert_close(found, kernel * (1 - p), rtol=1e-9, atol=1e-12)


def test_weighted_it_is_leave_one_out_to_first_order(tmp_path: Path) -> None:
    task, w, _ = logistic()
    x, y = task.split("train").raw(slice(None)).inputs, task.split("train").targets[:, 0]
    at = torch.cat([task.split("test").raw(slice(None)).inputs, torch.ones(M, 1).double()], 1)
    st = 2 * task.split("test").targets[:, 0] - 1
    columns = []
    for i in range(N):
        weights = torch.ones(N).double()
        weights[i] = 0
        columns.append(st * (at @ (w - refit(x, y, weights))))
    truth = torch.stack(columns, 1)
    for options, least in (({"weighted": True}, 0.99), ({}, 0.95)):
        found = scores(task, tmp_path, projection=None, **options)
        assert float(torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1]) > least
    found = scores(task, tmp_path, projection=None, weighted=True)
    slope = float((found * truth).sum() / truth.square().sum())
    assert 0.8 < slope < 1.0  # calibrated, up to the leverage
    hat = scores(task, tmp_path, projection=None, weighted=True, ridge=0.0)
    assert not torch.allclose(hat, found)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_form_over_rows_is_the_form_over_parameters(weighted: bool, tmp_path: Path) -> None:
    """More parameters than rows: the kernel form; written out densely here."""
    x, y, xt, yt = normal(9, 5, seed=1), integers(3, 9, seed=2), normal(M, 5, seed=3), integers(3, M, seed=4)

    def net() -> nn.Module:
        return made(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)), 0)

    task = Task(net, (x, y), (xt, yt), checkpoints=[net().state_dict()])
    model = net()
    names = [name for name, _ in model.named_parameters()]

    def margins(inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        rows, values = [], []
        for one, label in zip(inputs, labels, strict=True):
            f = model(one[None])[0]
            margin = f[label] - torch.cat([f[:label], f[label + 1 :]]).logsumexp(0)
            parts = torch.autograd.grad(margin, [dict(model.named_parameters())[name] for name in names])
            rows.append(torch.cat([part.flatten() for part in parts]))
            values.append(torch.sigmoid(margin.detach()))
        return torch.stack(rows), torch.stack(values)

    (phi, p), (phi_t, _) = margins(x, y), margins(xt, yt)
    weights = p * (1 - p) if weighted else torch.ones_like(p)
    dense = (phi.T * weights) @ phi + 0.3 * torch.eye(phi.shape[1], dtype=torch.float64)
    expected = phi_t @ torch.linalg.inv(dense) @ phi.T * (1 - p)
    found = scores(task, tmp_path, projection=None, ridge=0.3, weighted=weighted)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_a_linear_regression_is_the_jackknife(tmp_path: Path) -> None:
    x, y = normal(30, D, seed=1), normal(30, 1, seed=2)
    a = torch.cat([x, torch.ones(30, 1).double()], 1)
    hessian = 2 * a.T @ a + 30 * DECAY * torch.eye(D + 1, dtype=torch.float64)
    w = torch.linalg.solve(hessian, 2 * a.T @ y[:, 0])
    state = {"weight": w[None, :-1].clone(), "bias": w[None, -1].clone()}
    task = Task(
        lambda: made(lambda: nn.Linear(D, 1), 0), (x, y), (x[:3], y[:3]), "mse", checkpoints=[state], recipe=LBFGS
    )
    residuals = y[:, 0] - a @ w
    expected = (2 * residuals[:3, None] * a[:3]) @ torch.linalg.inv(hessian) @ (2 * residuals[:, None] * a).T
    found = scores(task, tmp_path, "loss", projection=None, weighted=True)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_models_average_kernel_and_slope_apart(tmp_path: Path) -> None:
    task, _, a = logistic()
    run = run_in(tmp_path)
    members = trained_members(task, run, [1, 2], 0.5)
    at = torch.cat([task.split("test").raw(slice(None)).inputs, torch.ones(M, 1).double()], 1)
    sign, st = (2 * task.split(name).targets[:, 0] - 1 for name in ("train", "test"))
    phi, phi_t = sign[:, None] * a, st[:, None] * at
    kernel = phi_t @ torch.linalg.inv(phi.T @ phi + 0.1 * torch.eye(D + 1, dtype=torch.float64)) @ phi.T
    slopes = []
    for member in members:
        state = member.state()
        w = torch.cat([state["weight"][0], state["bias"]]).double()
        slopes.append(1 - torch.sigmoid(sign * (a @ w)))
    assert not torch.allclose(slopes[0], slopes[1])
    found = scores(task, tmp_path, models=2, projection=None, ridge=0.1)
    torch.testing.assert_close(found, kernel * torch.stack(slopes).mean(0), rtol=1e-8, atol=1e-12)


def test_members_see_the_share_of_rows_that_was_asked_for() -> None:
    import numpy as np

    ids = np.arange(1000)
    one, two = member_rows(ids, 1, 0.5), member_rows(ids, 2, 0.5)
    assert int(one.sum()) == int(two.sum()) == 500
    assert 180 < int((one * two).sum()) < 320  # drawn apart
    order = np.random.default_rng(0).permutation(1000)
    assert torch.equal(member_rows(ids[order], 1, 0.5), one[order.tolist()])
    assert bool((member_rows(ids, 1, 1.0) == 1).all())


def test_a_projection_keeps_the_order(tmp_path: Path) -> None:
    task, *_ = logistic()
    exact = scores(task, tmp_path, projection=None, ridge=1.0)
    sketched = scores(task, tmp_path, projection=1024, ridge=1.0)
    assert float(torch.corrcoef(torch.stack([exact.flatten(), sketched.flatten()]))[0, 1]) > 0.95


def test_what_cannot_run_says_so(tmp_path: Path) -> None:
    x = normal(8, 3, seed=1)
    two = Task(lambda: made(lambda: nn.Linear(3, 2), 0), (x, x[:, :2]), (x[:2], x[:2, :2]), "mse",
               checkpoints=[made(lambda: nn.Linear(3, 2), 0).state_dict()])  # fmt: skip
    with pytest.raises(Unavailable, match="several outputs"):
        fit(two, registry.made("trak"), run_in(tmp_path))
    plain = Task(made(lambda: nn.Linear(3, 2), 0), (x, integers(2, 8, seed=1)), (x[:2], integers(2, 2, seed=2)))
    with pytest.raises(Unavailable, match="cannot be retrained"):
        fit(plain, registry.made("trak", {"models": 3}), run_in(tmp_path))
