"""Leave-one-out by retraining: closed form on ridge regression, pairing of seeds, what is not computed stays NaN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from influence_core import Recipe, Rows, Run, Store, Study, Task, attribute, registry, self_influence
from influence_core.errors import BadInput, Unavailable
from influence_core.fitting import fit, is_fitted
from influence_core.measurement import Measurement
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
        task.query(Rows("test", (0,)), fitted.own_measurement, torch.float64),
        fitted.own_measurement,
        Rows("test", (0,)),
    )  # type: ignore[attr-defined]  # noqa: E501
    error = fitted.standard_errors(Rows("test", (0,)))[0, 1]  # type: ignore[attr-defined]
    assert differences.shape == (3, 1, 1)
    assert abs(float(error) - float(differences.std() / 3**0.5)) < 1e-12
    known = set(run.artifacts.keys())
    fit(task, registry.made("loo", {"rows": (1,), "n_seeds": 2}), run)
    assert len(set(run.artifacts.keys()) - known) == 1  # the record of the new fit, and no retrained model


SGD = {"optimizer": "sgd", "learning_rate": 0.05, "batch_size": 7, "epochs": 2}


def test_a_full_run_again_from_nothing_is_bit_identical(tmp_path: Path) -> None:
    runs = [Run(dtype=torch.float64, store=Store(tmp_path / name)) for name in "ab"]
    first, second = (
        attribute(ridge_task(**SGD)[0], "loo", [0, 3], config={"rows": (2, 9), "n_seeds": 2}, run=run).scores
        for run in runs
    )
    assert torch.equal(first[:, [2, 9]], second[:, [2, 9]])
    assert set(runs[0].artifacts.keys()) == set(runs[1].artifacts.keys())


def test_models_are_trained_once_per_row_and_seed_whoever_asks(tmp_path: Path) -> None:
    task, *_ = ridge_task(**SGD)
    store = Store(tmp_path)
    trained = []

    def models() -> int:
        return sum(store.find(key).meta["inputs"]["kind"] == "outcome" for key in store.keys())  # type: ignore[union-attr]

    for config in (
        {"rows": (1, 2)}, {"rows": (2, 1)}, {"rows": (2, 3), "n_seeds": 2}, {"n_rows": 3}, {"n_rows": N, "n_seeds": 2},
    ):  # fmt: skip
        estimator = registry.made("loo", config)
        assert not is_fitted(task, estimator, Run(store=store))
        fit(task, estimator, Run(store=store))
        trained.append(models())
    # 2 rows and the full run; nothing new; row 3 and the second seed's three; at most three more; everything.
    assert trained[:3] == [3, 3, 7] and trained[2] <= trained[3] <= 10 and trained[4] == 2 * (N + 1)
    again = task.recipe.changed(seed=1)  # type: ignore[union-attr]
    assert len(Outcomes(task, Run(store=store)).without((5,), again.seed).outputs["test"]) == 4 and models() == 2 * (
        N + 1
    )


def test_another_recipe_shares_nothing(tmp_path: Path) -> None:
    one, two = ridge_task(**SGD)[0], ridge_task(**{**SGD, "epochs": 3})[0]
    run = Run(store=Store(tmp_path))
    assert Outcomes(one, run).known((1,), 0) is None
    first = Outcomes(one, run).without((1,), 0)
    known = Outcomes(one, run).known((1,), 0)
    assert known is not None and torch.equal(known.outputs["train"], first.outputs["train"])
    assert Outcomes(two, run).known((1,), 0) is None and Outcomes(one, run).known((1,), 1) is None


def test_errors_are_those_of_the_mean_over_paired_seeds(tmp_path: Path) -> None:
    task, *_ = ridge_task(**SGD)
    run = Run(dtype=torch.float64, store=Store(tmp_path))
    estimator = registry.made("loo", {"rows": (4, 11), "n_seeds": 4})
    fitted = fit(task, estimator, run)
    query = Rows("test", (0, 1, 3))
    losses = {}
    for seed in range(4):
        for removed in ((), (4,), (11,)):
            outputs = Outcomes(task, run).without(removed, seed).outputs["test"].double()
            losses[seed, removed] = (outputs - task.split("test").batch(slice(None), dtype=torch.float64).targets)[
                :, 0
            ] ** 2
    differences = torch.stack([
        torch.stack([losses[s, (row,)] - losses[s, ()] for row in (4, 11)], 1) for s in range(4)
    ])[:, [0, 1, 3]]  # fmt: skip
    torch.testing.assert_close(fitted.scores(query)[:, [4, 11]], differences.mean(0), rtol=0, atol=1e-14)
    errors = fitted.standard_errors(query)  # type: ignore[attr-defined]
    torch.testing.assert_close(errors[:, [4, 11]], differences.std(0, correction=1) / 2, rtol=0, atol=1e-14)
    assert errors.shape == (3, N) and int(errors.isnan().sum()) == 3 * (N - 2)
    mean = fitted.standard_errors(Rows("test", (0, 1, 3), "mean"))  # type: ignore[attr-defined]
    torch.testing.assert_close(mean[:, [4, 11]], differences.mean(1).std(0)[None] / 2, rtol=0, atol=1e-14)


def test_a_single_seed_has_no_error(tmp_path: Path) -> None:
    task, *_ = ridge_task(**SGD)
    fitted = fit(task, registry.made("loo", {"rows": (4,)}), Run(store=Store(tmp_path)))
    errors = fitted.standard_errors(Rows("test", (0, 1)))  # type: ignore[attr-defined]
    assert errors.shape == (2, N) and bool(errors.isnan().all())


def test_rows_may_come_as_the_text_of_a_form(studies: Path) -> None:
    study = Study(studies / "table")
    ids = study.task.ids("train")[[3, 8]].tolist()
    query = study.task.ids("test")[:2].tolist()
    numbers = attribute(study, "loo", query, config={"rows": ids}).scores
    texts = attribute(study, "loo", query, config={"rows": [str(value) for value in ids]}).scores
    assert torch.equal(numbers[:, [3, 8]], texts[:, [3, 8]]) and bool(numbers[:, [3, 8]].isfinite().all())
    with pytest.raises(BadInput, match="Unknown row id: 'seven'"):
        attribute(study, "loo", query, config={"rows": ["seven"]})
    named = Study(studies / "linear")
    scores = attribute(named, "loo", ["row 030"], config={"rows": ["=1+1", "row 002"]}).scores
    assert scores.isfinite().nonzero()[:, 1].tolist() == [0, 2]


def test_locked_rows_can_be_asked_about(studies: Path) -> None:
    study = Study(studies / "table")
    locked = study.task.ids("locked")[:2].tolist()
    rows = study.task.ids("train")[[3, 8]].tolist()
    scores = attribute(study, "loo", Rows("locked", tuple(locked)), config={"rows": rows}).scores
    fitted = fit(study.task, registry.made("loo", {"rows": rows}), Run(store=study.store))
    assert torch.equal(fitted.scores(Rows("locked", tuple(locked)))[:, [3, 8]], scores[:, [3, 8]])
    assert bool((scores[:, [3, 8]] != 0).any())


def test_what_cannot_be_asked_is_refused() -> None:
    task, *_ = ridge_task(**SGD)
    with pytest.raises(BadInput, match="'rows'.*at least 1 item"):
        registry.made("loo", {"rows": []})
    with pytest.raises(BadInput, match="Unknown row id"):
        attribute(task, "loo", [0], config={"rows": (N,)})
    with pytest.raises(BadInput, match="'margin' cannot be measured|needs the model itself"):
        attribute(task, "loo", [0], config={"rows": (1,)}, measurement=Measurement("margin"))
    bare = Task(nn.Linear(D, 1), (torch.zeros(4, D), torch.zeros(4, 1)), (torch.zeros(2, D), torch.zeros(2, 1)), "mse")
    with pytest.raises(Unavailable, match="Leave-one-out retraining cannot run here: It needs a training recipe"):
        attribute(bare, "loo", [0])
