"""One-step leave-one-out of the last layer against brute refits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from influence_core.task import Task
from tests.cases import made, normal
from tests.estimators.heads import D, N, fitted, left_out, linear, regression, rows, with_one


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
