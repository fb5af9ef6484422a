"""The classics against brute refits and dense formulas, in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import integers, made, normal

N, D, M = 30, 4, 5


def fitted(task: Task, method: str, folder: Path, **options: Any) -> Any:
    run = Run(device="cpu", dtype=torch.float64, store=Store(folder))
    return fit(task, registry.made(method, options, task), run)


def rows(task: Task) -> Rows:
    return Rows("test", tuple(task.ids("test").tolist()))


def linear(weights: Tensor) -> dict[str, Tensor]:
    """State of ``nn.Linear`` from ``[C, d + 1]``, the intercept last."""
    return {"weight": weights[:, :-1].clone(), "bias": weights[:, -1].clone()}


def with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], 1)


def ridge(x: Tensor, y: Tensor, keep: Tensor, penalty: float) -> Tensor:
    """Return the minimiser of ``sum_keep (f - y)^2 + penalty/2 |w|^2``, ``[d]``."""
    a, b = x[keep], y[keep]
    return torch.linalg.solve(2 * a.T @ a + penalty * torch.eye(x.shape[1], dtype=x.dtype), 2 * a.T @ b)


def regression(decay: float = 0.0) -> tuple[Task, Tensor, Tensor, Tensor]:
    x, xt = normal(N, D, seed=1), normal(M, D, seed=2)
    y = x @ normal(D, seed=3) + 0.5 * normal(N, seed=4)
    yt = xt @ normal(D, seed=3)
    a = with_one(x)
    w = ridge(a, y, torch.arange(N), N * decay)
    recipe = Recipe(optimizer="lbfgs", weight_decay=decay, dtype="float64")
    task = Task(
        lambda: made(lambda: nn.Linear(D, 1), 0), (x, y[:, None]), (xt, yt[:, None]), "mse",
        checkpoints=[linear(w[None])], recipe=recipe,
    )  # fmt: skip
    return task, a, y, w


def left_out(a: Tensor, y: Tensor, decay: float = 0.0) -> list[Tensor]:
    keep = [torch.tensor([j for j in range(N) if j != i]) for i in range(N)]
    return [ridge(a, y, rest, N * decay) for rest in keep]


def test_least_squares_diagnostics_are_those_of_brute_refits(tmp_path: Path) -> None:
    task, a, y, w = regression()
    p = D + 1
    s2 = (a @ w - y).square().sum() / (N - p)
    gram = a.T @ a
    h = ((a @ torch.linalg.inv(gram)) * a).sum(1)
    cook, dffits, covratio, displacement = [], [], [], []
    for i, v in enumerate(left_out(a, y)):
        rest = torch.tensor([j for j in range(N) if j != i])
        s2_i = (a[rest] @ v - y[rest]).square().sum() / (N - 1 - p)
        cook.append((w - v) @ gram @ (w - v) / (p * s2))
        dffits.append((a[i] @ (w - v)).abs() / (s2_i * h[i]).sqrt())
        ratio = torch.linalg.det(s2_i * torch.linalg.inv(a[rest].T @ a[rest])) / torch.linalg.det(
            s2 * torch.linalg.inv(gram)
        )
        covratio.append(ratio)
        displacement.append(((a @ v - y).square().sum() - (a @ w - y).square().sum()) / s2)
    for method, expected in (("cook_distance", cook), ("dffits", dffits), ("likelihood_displacement", displacement)):
        found = fitted(task, method, tmp_path / method).self_influence()
        torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-12)
    found = fitted(task, "covratio", tmp_path / "covratio")
    torch.testing.assert_close(found.ratios, torch.stack(covratio), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.self_influence(), (torch.stack(covratio) - 1).abs(), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_dfbeta_of_a_linear_regression_is_leave_one_out(decay: float, tmp_path: Path) -> None:
    task, a, y, w = regression(decay)
    method = fitted(task, "dfbeta", tmp_path)
    without = torch.stack(left_out(a, y, decay))
    torch.testing.assert_close(method.changes()[:, 0], w - without, rtol=1e-9, atol=1e-12)
    xt, yt = with_one(task.split("test").raw(slice(None)).inputs), task.split("test").targets[:, 0]
    losses = (xt @ without.T - yt[:, None]).square()
    expected = losses - (xt @ w - yt).square()[:, None]
    torch.testing.assert_close(method.scores(rows(task)), expected, rtol=1e-9, atol=1e-12)


def test_dfbetas_are_changes_over_standard_errors_without_the_row(tmp_path: Path) -> None:
    task, a, y, w = regression()
    expected = []
    for i, v in enumerate(left_out(a, y)):
        rest = torch.tensor([j for j in range(N) if j != i])
        s2_i = (a[rest] @ v - y[rest]).square().sum() / (N - 1 - D - 1)
        expected.append((w - v) / (s2_i * torch.linalg.inv(a.T @ a).diagonal()).sqrt())
    found = fitted(task, "dfbeta", tmp_path).standardised()[:, 0]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-12)


def test_the_jackknife_is_the_sandwich_and_differs_by_the_leverage(tmp_path: Path) -> None:
    task, a, y, w = regression()
    method = fitted(task, "infinitesimal_jackknife", tmp_path)
    xt, yt = with_one(task.split("test").raw(slice(None)).inputs), task.split("test").targets[:, 0]
    inverse = torch.linalg.inv(a.T @ a)
    residuals = y - a @ w
    sandwich = inverse @ (a.T * residuals.square()) @ a @ inverse
    slope = -2 * (xt @ w - yt)
    expected = ((xt @ sandwich) * xt).sum(1).sqrt() * slope.abs()
    torch.testing.assert_close(method.standard_errors(rows(task)), expected, rtol=1e-9, atol=1e-12)
    h = ((a @ inverse) * a).sum(1)
    changes = fitted(task, "dfbeta", tmp_path).changes()[:, 0]
    linear_part = slope[:, None] * (xt @ (changes * (1 - h)[:, None]).T)
    torch.testing.assert_close(method.scores(rows(task)), linear_part, rtol=1e-9, atol=1e-12)


def classifier(decay: float, loss: str) -> tuple[Task, Tensor, Tensor, Tensor]:
    x, xt = normal(N, D, seed=5), normal(M, D, seed=6)
    classes = 2 if loss == "bce" else 3
    y, yt = integers(classes, N, seed=7), integers(classes, M, seed=8)
    outputs = 1 if loss == "bce" else 3
    w = 0.3 * normal(outputs, D + 1, seed=9)
    targets = (y[:, None].double(), yt[:, None].double()) if loss == "bce" else (y, yt)
    recipe = Recipe(optimizer="lbfgs", weight_decay=decay, dtype="float64")
    task = Task(
        lambda: made(lambda: nn.Linear(D, outputs), 0), (x, targets[0]), (xt, targets[1]), loss,
        checkpoints=[linear(w)], recipe=recipe,
    )  # fmt: skip
    return task, with_one(x), y, w


@pytest.mark.parametrize("loss", ["bce", "cross_entropy"])
def test_one_step_deletions_of_classifiers_are_newton_steps(loss: str, tmp_path: Path) -> None:
    decay = 0.02
    task, a, y, w = classifier(decay, loss)
    batch = task.split("train").batch(slice(None), "cpu", torch.float64)

    def losses(flat: Tensor, i: int | None) -> Tensor:
        f = a @ flat.reshape(w.shape).T
        each = task.loss.from_outputs(f, batch.targets)  # type: ignore[union-attr]
        return each.sum() if i is None else each[i]

    size = w.numel()
    full = hessian(lambda v: losses(v, None), w.flatten()) + N * decay * torch.eye(size, dtype=w.dtype)
    moved, lengths, volumes = [], [], []
    for i in range(N):
        own = hessian(lambda v, i=i: losses(v, i), w.flatten())
        gradient = torch.func.grad(lambda v, i=i: losses(v, i))(w.flatten())
        step = torch.linalg.solve(full - own, gradient)
        moved.append(-step.reshape(w.shape))
        lengths.append(step @ full @ step)
        volumes.append(torch.linalg.slogdet(full)[1] - torch.linalg.slogdet(full - own)[1])
    method = fitted(task, "dfbeta", tmp_path)
    torch.testing.assert_close(method.changes(), torch.stack(moved), rtol=1e-8, atol=1e-12)
    n_effective = method.head.n_effective
    found = fitted(task, "cook_distance", tmp_path).self_influence()
    torch.testing.assert_close(found, torch.stack(lengths) / n_effective, rtol=1e-8, atol=1e-12)
    found = fitted(task, "covratio", tmp_path).ratios
    torch.testing.assert_close(found, torch.stack(volumes).exp(), rtol=1e-8, atol=1e-12)
    rises = []
    for change in moved:
        v = (w - change).flatten()
        rises.append(2 * (losses(v, None) - losses(w.flatten(), None) + N * decay / 2 * (v @ v - w.square().sum())))
    found = fitted(task, "likelihood_displacement", tmp_path).self_influence()
    torch.testing.assert_close(found, torch.stack(rises), rtol=1e-8, atol=1e-11)
    found = method.scores(rows(task), Measurement("margin"))
    xt = with_one(task.split("test").raw(slice(None)).inputs)
    targets = task.split("test").targets
    for i in (0, 7):
        f, g = xt @ w.T, xt @ (w - moved[i]).T
        if loss == "bce":
            sign = 2 * targets[:, 0] - 1
            expected = sign * (f - g)[:, 0]
        else:
            others = [
                torch.cat([u[:, :0], u], 1).masked_fill(nn.functional.one_hot(targets, 3).bool(), -torch.inf)
                for u in (f, g)
            ]  # noqa: E501
            own = [u.gather(1, targets[:, None])[:, 0] - o.logsumexp(1) for u, o in zip((f, g), others, strict=True)]
            expected = own[0] - own[1]
        torch.testing.assert_close(found[:, i], expected, rtol=1e-8, atol=1e-12)


def test_a_sketch_of_all_directions_is_cooks_distance_and_fewer_keep_the_order(tmp_path: Path) -> None:
    x = normal(200, 60, seed=1)
    y = (x @ normal(60, seed=2) + normal(200, seed=3))[:, None]
    w = ridge(with_one(x), y[:, 0], torch.arange(200), 200 * 0.1)
    recipe = Recipe(optimizer="lbfgs", weight_decay=0.1, dtype="float64")
    task = Task(
        lambda: made(lambda: nn.Linear(60, 1), 0), (x, y), (x[:3], y[:3]), "mse", checkpoints=[linear(w[None])],
        recipe=recipe,
    )  # fmt: skip
    exact = fitted(task, "cook_distance", tmp_path).self_influence()
    whole = fitted(task, "influence_sketching", tmp_path, directions=61).self_influence()
    torch.testing.assert_close(whole, exact, rtol=1e-8, atol=1e-14)
    few = fitted(task, "influence_sketching", tmp_path, directions=20).self_influence()
    ranks = torch.stack([values.argsort().argsort().double() for values in (few, exact)])
    assert float(torch.corrcoef(ranks)[0, 1]) > 0.9
    assert not torch.allclose(few, exact, rtol=0.01)


def test_a_row_that_alone_determines_a_direction_is_said_and_stays_finite(tmp_path: Path) -> None:
    x = torch.zeros(N, D, dtype=torch.float64)
    x[:, :-1] = normal(N, D - 1, seed=1)
    x[4, -1] = 1.0  # no other row has the last feature
    y = normal(N, 1, seed=2)
    w = torch.linalg.lstsq(with_one(x), y).solution[:, 0]
    task = Task(lambda: made(lambda: nn.Linear(D, 1), 0), (x, y), (x[:3], y[:3]), "mse", checkpoints=[linear(w[None])])
    method = fitted(task, "dfbeta", tmp_path)
    assert method.head.deletions.alone.nonzero().flatten().tolist() == [4]
    assert any("1 rows determine" in note for note in method.notes)
    assert bool(method.changes().isfinite().all())
    rest = torch.tensor([j for j in range(N) if j != 4])
    refit = torch.linalg.lstsq(with_one(x)[rest][:, [0, 1, 2, 4]], y[rest, 0]).solution
    torch.testing.assert_close((w - method.changes()[4, 0])[[0, 1, 2, 4]], refit, rtol=1e-8, atol=1e-10)


def test_a_layer_too_wide_is_refused_with_the_sketch_as_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, *_ = regression()
    monkeypatch.setattr("influence_core.estimators.linear_head.LinearHead.max_parameters", 3)
    with pytest.raises(Unavailable, match="influence_sketching"):
        fitted(task, "cook_distance", tmp_path)
    assert len(fitted(task, "influence_sketching", tmp_path).self_influence()) == N


def test_as_many_parameters_as_rows_leave_no_variance(tmp_path: Path) -> None:
    x, y = normal(D + 1, D, seed=1), normal(D + 1, 1, seed=2)
    w = torch.linalg.solve(with_one(x), y)[:, 0]
    task = Task(lambda: made(lambda: nn.Linear(D, 1), 0), (x, y), (x[:2], y[:2]), "mse", checkpoints=[linear(w[None])])
    with pytest.raises(Unavailable, match="as many parameters"):
        fitted(task, "cook_distance", tmp_path).self_influence()
    assert bool(fitted(task, "cook_distance", tmp_path, weight_decay=0.1).self_influence().isfinite().all())
