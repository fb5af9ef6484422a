"""Leave-one-out by retraining: closed form on ridge regression, pairing of seeds, what is not computed stays NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from influence_core import Recipe, Rows, Run, Store, Task, attribute, registry, self_influence
from influence_core.fitting import fit
from influence_core.outcomes import Outcomes

N, D, DECAY = 24, 3, 0.1


def ridge_task(**recipe: object) -> tuple[Task, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a linear regression task of the loss (f - y)^2 with its data as arrays, the constant column included."""
    random = np.random.default_rng(3)
    x, xt = random.standard_normal((N, D)), random.standard_normal((4, D))
    y, yt = random.standard_normal((N, 1)), random.standard_normal((4, 1))
    options = {"optimizer": "lbfgs", "weight_decay": DECAY, "epochs": 500, "dtype": "float64", **recipe}
    rows = [torch.from_numpy(part) for part in (x, y, xt, yt)]
    task = Task(lambda: nn.Linear(D, 1), tuple(rows[:2]), tuple(rows[2:]), "mse", recipe=Recipe.checked(options))
    return task, np.c_[x, np.ones(N)], y[:, 0], np.c_[xt, np.ones(4)], yt[:, 0]


def ridge(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the minimiser of sum w (f - y)^2 / n + decay / 2 |theta|^2, the divisor being all rows."""
    return np.linalg.solve(2 * (x.T * weights) @ x / N + DECAY * np.eye(D + 1), 2 * (x.T * weights) @ y / N)


def test_equals_the_closed_form_on_ridge_regression(tmp_path: Path) -> None:
    task, x, y, xt, yt = ridge_task()
    run = Run(dtype=torch.float64, store=Store(tmp_path))
    scores = attribute(task, "loo", [0, 1, 2, 3], config={"n_rows": N}, run=run).scores.numpy()
    full = ridge(x, y, np.ones(N))
    expected = np.empty((4, N))
    for i in range(N):
        without = ridge(x, y, (np.arange(N) != i).astype(float))
        expected[:, i] = (xt @ without - yt) ** 2 - (xt @ full - yt) ** 2
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-10)


def test_self_influence_is_that_of_the_own_row(tmp_path: Path) -> None:
    task, x, y, _, _ = ridge_task()
    run = Run(dtype=torch.float64, store=Store(tmp_path))
    found = self_influence(task, "loo", config={"rows": (5,)}, run=run).numpy()
    full, without = ridge(x, y, np.ones(N)), ridge(x, y, (np.arange(N) != 5).astype(float))
    assert abs(found[5] - ((x[5] @ without - y[5]) ** 2 - (x[5] @ full - y[5]) ** 2)) < 1e-10
    assert np.isnan(np.delete(found, 5)).all()


def test_a_repeat_is_bit_identical_and_rows_not_left_out_are_nan(tmp_path: Path) -> None:
    settings = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 7, "epochs": 3}
    first, *_ = ridge_task(**settings)
    one = Outcomes(first, Run(store=Store(tmp_path / "a"))).without((), 4).outputs["test"]
    two = Outcomes(first, Run(store=Store(tmp_path / "b"))).without((), 4).outputs["test"]
    assert torch.equal(one, two)
    scores = attribute(first, "loo", [0], config={"rows": (2, 9)}, run=Run(store=Store(tmp_path / "a"))).scores[0]
    assert torch.isfinite(scores[[2, 9]]).all() and int(scores.isnan().sum()) == N - 2


def test_seeds_are_paired_and_outcomes_shared_between_configs(tmp_path: Path) -> None:
    settings = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 7, "epochs": 2}
    task, *_ = ridge_task(**settings)
    run = Run(dtype=torch.float64, store=Store(tmp_path))
    fitted = fit(task, registry.made("loo", {"rows": (1,), "n_seeds": 3}), run)
    differences = fitted.differences(
        task.query(Rows("test", (0,)), fitted.own_measurement), fitted.own_measurement, Rows("test", (0,))
    )  # type: ignore[attr-defined]  # noqa: E501
    error = fitted.standard_errors(Rows("test", (0,)))[0, 1]  # type: ignore[attr-defined]
    assert differences.shape == (3, 1, 1)
    assert abs(float(error) - float(differences.std() / 3**0.5)) < 1e-12
    known = set(run.artifacts.keys())
    fit(task, registry.made("loo", {"rows": (1,), "n_seeds": 2}), run)
    assert len(set(run.artifacts.keys()) - known) == 1  # the record of the new fit, and no retrained model
