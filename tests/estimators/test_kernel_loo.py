"""Leave-one-out of kernel ridge regression against brute refits, on features, inputs and tangents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES
from tests.oracles.gradients import at


def fitted(task: Task, method: str, folder: Path, **options: Any) -> Any:
    run = Run(device="cpu", dtype=torch.float64, store=Store(folder))
    return fit(task, registry.made(method, options), run)


def rows(task: Task) -> Rows:
    return Rows("test", tuple(task.ids("test").tolist()))


def tangents(task: Task, split: str) -> Tensor:
    model = at(task.module, dict(task.state()))
    found = []
    for x in task.split(split).batch(slice(None), "cpu", torch.float64).inputs:
        f = model(x[None])[0]
        parts = torch.autograd.grad(f.sum() / len(f) ** 0.5, list(model.parameters()))
        found.append(torch.cat([part.flatten() for part in parts]))
    return torch.stack(found)


def refit(k: Tensor, kt: Tensor, y: Tensor, lam: float, left: int | None) -> Tensor:
    keep = [i for i in range(len(k)) if i != left]
    a = torch.linalg.solve(k[keep][:, keep] + lam * torch.eye(len(keep), dtype=k.dtype), y[keep])
    return kt[:, keep] @ a


@pytest.mark.parametrize("kernel", ["tangent", "input", "penultimate"])
def test_it_is_a_brute_refit_without_each_row(kernel: str, tmp_path: Path) -> None:
    task = CASES["mlp"]()
    if kernel == "tangent":
        x, xt = tangents(task, "train"), tangents(task, "test")
        k, kt = x @ x.T, xt @ x.T
    else:
        model = at(task.module, dict(task.state()))
        inputs = [task.split(s).batch(slice(None), "cpu", torch.float64).inputs for s in ("train", "test")]
        x, xt = (i if kernel == "input" else model[:-1](i).detach() for i in inputs)
        x, xt = x.flatten(1), xt.flatten(1)
        k, kt = x @ x.T + 1, xt @ x.T + 1
    y = torch.nn.functional.one_hot(task.split("train").targets, 3).double()
    lam, labels = 0.05 * float(k.diagonal().mean()), task.split("test").targets[:, None]
    whole = refit(k, kt, y, lam, None)
    expected = torch.stack([(whole - refit(k, kt, y, lam, i)).gather(1, labels)[:, 0] for i in range(len(k))], 1)
    one = fitted(task, "kernel_loo", tmp_path, kernel=kernel, ridge=0.05)
    torch.testing.assert_close(one.scores(rows(task), Measurement("logit")), expected, rtol=1e-8, atol=1e-11)
    # The influence function is smaller by what the leverage leaves.
    left = lam * torch.linalg.inv(k + lam * torch.eye(len(k), dtype=k.dtype)).diagonal()
    first = fitted(task, "kernel_loo", tmp_path, kernel=kernel, ridge=0.05, exact=False)
    found = first.scores(rows(task), Measurement("logit"))
    torch.testing.assert_close(found, expected * left, rtol=1e-8, atol=1e-11)


def test_a_regression_is_measured_at_the_new_prediction(tmp_path: Path) -> None:
    task = CASES["regression"]()
    x, xt = (task.split(s).batch(slice(None), "cpu", torch.float64).inputs.flatten(1) for s in ("train", "test"))
    k, kt = x @ x.T + 1, xt @ x.T + 1
    y, yt = (task.split(s).targets.reshape(len(task.split(s)), -1).double() for s in ("train", "test"))
    lam = 0.1 * float(k.diagonal().mean())

    def loss(f: Tensor) -> Tensor:
        return (f - yt).square().mean(1)

    whole = loss(refit(k, kt, y, lam, None))
    expected = torch.stack([loss(refit(k, kt, y, lam, i)) - whole for i in range(len(k))], 1)
    found = fitted(task, "kernel_loo", tmp_path, kernel="input", ridge=0.1).scores(rows(task))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-11)


def test_too_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("influence_core.estimators.classical.kernel_loo.MAX_ROWS", 5)
    with pytest.raises(Unavailable, match="infinitesimal_jackknife"):
        fitted(CASES["mlp"](), "kernel_loo", tmp_path)
