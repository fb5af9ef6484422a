"""The deletion diagnostics against brute refits and dense formulas, in float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import hessian

from influence_core.errors import Unavailable
from influence_core.measurement import Measurement
from influence_core.task import Task
from tests.cases import made, normal
from tests.estimators.heads import D, N, classifier, fitted, left_out, linear, regression, rows, with_one


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
