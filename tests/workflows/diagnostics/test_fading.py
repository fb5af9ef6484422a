"""Further training against closed forms: one step, many steps of a ridge regression, and the paper's finding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from influence_core import registry
from influence_core.errors import BadInput
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from influence_core.workflows.diagnostics.fading import finetune_check, influence_fading
from tests.cases import CASES, made, normal

N, D = 20, 3
DECAY = 0.1
TRAIN, TEST = Rows("train", tuple(range(6))), Rows("test", (0, 1))


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def ridge() -> Task:
    x, y = normal(N, D, seed=1), normal(N, 1, seed=2)
    hessian = 2 * x.T @ x / N + DECAY * torch.eye(D, dtype=torch.float64)
    w = torch.linalg.solve(hessian, 2 * x.T @ y / N)
    recipe = Recipe(optimizer="lbfgs", weight_decay=DECAY, dtype="float64")  # type: ignore[call-arg]
    return Task(
        lambda: made(lambda: nn.Linear(D, 1, bias=False), 0), (x, y), (normal(2, D, seed=3), normal(2, 1, seed=4)),
        "mse", checkpoints=[{"weight": w.T.clone()}], recipe=recipe,
    )  # fmt: skip


def prediction(model: nn.Module, batch: object) -> torch.Tensor:
    return model(batch.inputs)[:, 0]  # type: ignore[attr-defined]


def test_one_step_moves_a_linear_measurement_by_the_gradients_product(tmp_path: Path) -> None:
    task, run = ridge(), run_in(tmp_path)
    fitted = fit(task, registry.made("grad_dot"), run)
    measurement = Measurement(prediction)
    found = influence_fading(fitted, TRAIN, TEST, run, measurement=measurement, horizons=(1,), learning_rate=0.05)
    torch.testing.assert_close(found.actual[0], 0.05 / N * found.predicted, rtol=1e-8, atol=1e-14)
    assert found.correlations[0] == pytest.approx(1.0)


def test_a_long_training_of_a_convex_model_reaches_the_influence_function(tmp_path: Path) -> None:
    task, run = ridge(), run_in(tmp_path)
    fitted = fit(task, registry.made("if_exact", {"damping": 0.0}), run)
    measurement = Measurement(prediction)
    found = influence_fading(
        fitted, TRAIN, TEST, run, measurement=measurement, horizons=(1, 2000), learning_rate=0.2, eps=1e-6
    )
    torch.testing.assert_close(found.actual[1], found.predicted, rtol=1e-4, atol=1e-9)
    short = float((found.actual[0] - found.predicted).abs().max())
    assert short > 10 * float((found.actual[1] - found.predicted).abs().max())


def test_batches_are_paired_between_rows(tmp_path: Path) -> None:
    """Without a weight nothing changes, whatever the batches: the two paths take the same ones."""
    task, run = CASES["mlp"](), run_in(tmp_path)
    fitted = fit(task, registry.made("grad_dot"), run)
    rows = Rows("train", tuple(task.ids("train").tolist()[:2]))
    test = Rows("test", tuple(task.ids("test").tolist()))
    options = {"horizons": (3,), "learning_rate": 0.1, "batch_size": 4}
    tiny = influence_fading(fitted, rows, test, run, eps=1e-9, **options)  # type: ignore[arg-type]
    small = influence_fading(fitted, rows, test, run, eps=1e-5, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(tiny.actual, small.actual, rtol=1e-2, atol=1e-6)  # a derivative, not noise


def test_steps_on_proponents_mend_a_prediction_and_report_the_price(tmp_path: Path) -> None:
    task, run = CASES["mlp"](), run_in(tmp_path)
    fitted = fit(task, registry.made("grad_dot"), run)
    wrong = [
        i
        for i in range(task.n_test)
        if int(task.predicted("test", torch.tensor([i]))) != int(task.split("test").targets[i])
    ]  # noqa: E501
    row = Rows("test", (task.ids("test").tolist()[wrong[0]],))
    found = finetune_check(fitted, row, run, k=2, steps=40, learning_rate=0.1)
    assert found.measured[1] > found.measured[0]  # the first step goes uphill for the query
    assert found.corrected_after is not None and found.corrected_after > 0
    assert len(found.measured) == len(found.accuracy) == len(found.loss) == 41
    expected = np.mean(
        [
            int(task.predicted("test", torch.tensor([i]))) == int(task.split("test").targets[i])
            for i in range(task.n_test)
        ]
    )  # noqa: E501
    assert found.accuracy[0] == pytest.approx(expected)


def test_bad_input_is_named(tmp_path: Path) -> None:
    task, run = ridge(), run_in(tmp_path)
    fitted = fit(task, registry.made("grad_dot"), run)
    with pytest.raises(BadInput, match="Nothing to compare"):
        influence_fading(fitted, TRAIN, TEST, run, horizons=(0,))
    with pytest.raises(BadInput, match="one test row"):
        finetune_check(fitted, TEST, run)
