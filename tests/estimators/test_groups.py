"""Groups of rows against exact refits of a ridge regression and dense Newton steps of a net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import CASES, made, normal
from tests.oracles.gradients import BUILTIN, at, loop_gradients, stacked

N, D, DECAY = 40, 5, 0.02
GROUPS = [[3, 9], [0, 1, 2, 5], [7, 8, 11, 20, 21, 22, 30, 39]]
ROWS = Rows("test", (0, 1, 2))


def fitted(task: Task, method: str, folder: Path, **options: Any) -> Any:
    return fit(task, registry.made(method, options), Run(device="cpu", dtype=torch.float64, store=Store(folder)))


def ridge() -> tuple[Task, Tensor, Tensor, Tensor]:
    x, y = normal(N, D, seed=1), normal(N, seed=2)
    w = refit(x, y, torch.ones(N, dtype=torch.float64))
    recipe = Recipe(optimizer="lbfgs", weight_decay=DECAY, dtype="float64")  # type: ignore[call-arg]
    test = (normal(3, D, seed=3), normal(3, 1, seed=4))
    task = Task(lambda: made(lambda: nn.Linear(D, 1, bias=False), 0), (x, y[:, None]), test, "mse",
                checkpoints=[{"weight": w[None]}], recipe=recipe)  # fmt: skip
    return task, x, y, w


def refit(x: Tensor, y: Tensor, keep: Tensor) -> Tensor:
    """Divisor and L2 stay when rows leave."""
    a = 2 * (x.T * keep) @ x / N + DECAY * torch.eye(D, dtype=torch.float64)
    return torch.linalg.solve(a, 2 * (x.T * keep) @ y / N)


def test_a_newton_step_of_a_ridge_regression_is_exact_and_second_order_beats_first(tmp_path: Path) -> None:
    task, x, y, w = ridge()
    errors: dict[str, list[float]] = {}
    for method in ("group_newton", "group_if_second_order", "group_if"):
        one = fitted(task, method, tmp_path, damping=0.0)
        for group in GROUPS:
            keep = torch.ones(N, dtype=torch.float64)
            keep[group] = 0
            change = one.moved(torch.tensor(group))
            errors.setdefault(method, []).append(float((refit(x, y, keep) - w - change).norm()))
    assert max(errors["group_newton"]) < 1e-13
    for second, first in zip(errors["group_if_second_order"], errors["group_if"], strict=True):
        assert second < 0.6 * first


def predicted(model: Any, batch: Any) -> Tensor:
    return model(batch.inputs)[:, 0]


def test_scores_of_a_group_are_the_change_of_the_answer(tmp_path: Path) -> None:
    task, x, y, w = ridge()
    xt = task.split("test").raw(slice(None)).inputs
    columns = []
    for group in GROUPS:
        keep = torch.ones(N, dtype=torch.float64)
        keep[group] = 0
        columns.append(xt @ (w - refit(x, y, keep)))
    one = fitted(task, "group_newton", tmp_path, damping=0.0)
    found = one.group(ROWS, GROUPS, Measurement(predicted))
    torch.testing.assert_close(found, torch.stack(columns, 1), rtol=1e-9, atol=1e-13)
    mean = one.group(Rows("test", (0, 1, 2), "mean"), GROUPS, Measurement(predicted))
    torch.testing.assert_close(mean, found.mean(0, keepdim=True))


def test_first_order_is_the_influence_function_and_adds_up(tmp_path: Path) -> None:
    task, *_ = ridge()
    exact = fitted(task, "if_exact", tmp_path, damping=0.0).scores(ROWS)
    one = fitted(task, "group_if", tmp_path, damping=0.0)
    torch.testing.assert_close(one.scores(ROWS), exact, rtol=1e-10, atol=1e-14)
    sums = torch.stack([exact[:, group].sum(1) for group in GROUPS], 1)
    torch.testing.assert_close(one.group(ROWS, GROUPS), sums, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", ["group_newton", "group_if_second_order"])
def test_a_nets_groups_are_dense_formulas(method: str, tmp_path: Path) -> None:
    task = CASES["mlp"]()
    model = at(task.module, dict(task.state()))
    batches = [task.split(s).batch(slice(None), "cpu", torch.float64) for s in ("train", "test")]
    train, test = (stacked(loop_gradients(model, BUILTIN["cross_entropy"], b.inputs, b.targets)) for b in batches)
    n = len(train)
    ggns = []
    for x in batches[0].inputs:
        f = model(x[None])[0]
        rows = [torch.autograd.grad(one, list(model.parameters()), retain_graph=True) for one in f]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        p = f.detach().softmax(0)
        ggns.append(jacobian.T @ (torch.diag(p) - p[:, None] * p) @ jacobian)
    a = torch.stack(ggns).mean(0) + 0.05 * torch.eye(train.shape[1], dtype=torch.float64)
    one = fitted(task, method, tmp_path, damping=0.05)
    ids = task.ids("train").tolist()
    for group in ([1, 4, 6, 9], [2]):
        g, c = train[group].sum(0) / n, torch.stack([ggns[i] for i in group]).sum(0) / n
        if method == "group_newton":
            change = torch.linalg.solve(a - c, g)
        else:
            first = torch.linalg.solve(a, g)
            change = first + torch.linalg.solve(a, c @ first)
        rows = Rows("test", tuple(task.ids("test").tolist()))
        found = one.group(rows, [[ids[i] for i in group]])[:, 0]
        torch.testing.assert_close(found, test @ change, rtol=1e-8, atol=1e-11)
        if len(group) == 1:
            torch.testing.assert_close(one.scores(rows)[:, group[0]], found, rtol=1e-8, atol=1e-11)


def test_a_model_too_large_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, *_ = ridge()
    monkeypatch.setattr("influence_core.estimators.curvature.groups.MAX_BYTES", 100)
    with pytest.raises(Unavailable, match="if_ekfac"):
        fitted(task, "group_newton", tmp_path)
