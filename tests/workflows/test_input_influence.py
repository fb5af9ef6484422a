"""The gradient in a training input against refits with that input moved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from influence_core import registry
from influence_core.errors import BadInput, Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from influence_core.workflows.input_influence import input_influence
from tests.cases import CASES, made, normal

N, D, DECAY = 25, 4, 0.05
X, Y, XT, YT = normal(N, D, seed=1), normal(N, seed=2), normal(2, D, seed=3), normal(2, 1, seed=4)


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def refit(x: Tensor) -> Tensor:
    return torch.linalg.solve(2 * x.T @ x / N + DECAY * torch.eye(D, dtype=torch.float64), 2 * x.T @ Y / N)


def predicted(model: object, batch: object) -> Tensor:
    return model(batch.inputs)[:, 0]  # type: ignore[operator, attr-defined]


@pytest.mark.parametrize("measured", [True, False])
def test_it_is_the_change_of_a_refit_with_the_input_moved(measured: bool, tmp_path: Path) -> None:
    recipe = Recipe(optimizer="lbfgs", weight_decay=DECAY, dtype="float64")  # type: ignore[call-arg]
    task = Task(lambda: made(lambda: nn.Linear(D, 1, bias=False), 0), (X, Y[:, None]), (XT, YT), "mse",
                checkpoints=[{"weight": refit(X)[None]}], recipe=recipe)  # fmt: skip
    fitted = fit(task, registry.made("if_exact", {"damping": 0.0, "curvature": "hessian"}), run_in(tmp_path))
    measurement = Measurement(predicted) if measured else Measurement()
    found = input_influence(fitted, Rows("test", (1,)), Rows("train", (3, 7)), measurement)

    def value(x: Tensor) -> Tensor:
        f = XT[1] @ refit(x)
        return f if measured else -(f - YT[1, 0]).square()

    for place, row in enumerate((3, 7)):
        for j in range(D):
            values = []
            for eps in (1e-6, -1e-6):
                moved = X.clone()
                moved[row, j] += eps
                values.append(value(moved))
            assert float(found[place, j]) == pytest.approx(float(values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-9)


def test_what_has_no_input_gradient_is_refused(tmp_path: Path) -> None:
    task, run = CASES["convex"](), run_in(tmp_path)
    dots = fit(task, registry.made("grad_dot"), run)
    with pytest.raises(BadInput, match="solves no system"):
        input_influence(dots, Rows("test", (0,)), Rows("train", (0,)))
    exact = fit(task, registry.made("if_exact"), run)
    with pytest.raises(BadInput, match="several queries"):
        input_influence(exact, Rows("test", (0, 1)), Rows("train", (0,)))
    assert input_influence(exact, Rows("test", (0, 1), "mean"), Rows("train", (0, 1))).shape == (2, 4)
    words = CASES["transformer"]()
    with pytest.raises(Unavailable, match="tracin_we"):
        input_influence(fit(words, registry.made("if_cg"), run), Rows("test", (0,)), Rows("train", (0,)))
