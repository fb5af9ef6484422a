"""The infinitesimal jackknife against the sandwich and the jackknife."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.estimators.heads import fitted, regression, rows, with_one


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
