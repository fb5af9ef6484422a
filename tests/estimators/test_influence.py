"""Influence functions against leave-one-out: exact on ridge, close on logistic regression, in range on a small net."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from influence_core import registry
from influence_core.api import attribute, fit, self_influence
from influence_core.errors import Cancelled, NumericalProblem, Unavailable
from influence_core.estimator import Sizes
from influence_core.measurement import Measurement
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Rows, Task
from tests.cases import CASES, integers, made, normal, smooth_loss, task_of, vectors
from tests.oracles.curvature import ggn
from tests.oracles.gradients import BUILTIN, loop_gradients, stacked
from tests.oracles.influence import Net, logistic, ridge, sgd_runs

F64 = torch.float64
RUN = Run(device="cpu", dtype=F64)
EXACT = {"rtol": 1e-10, "atol": 1e-12}
DECAY = 0.02


def scores(task: Task, method: str, test: Any, run: Run = RUN, **options: Any) -> Tensor:
    measurement = options.pop("measurement", None)
    return attribute(task, method, test, config=options, measurement=measurement, run=run).scores


def fresh(tmp_path: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(tmp_path), **more)


# -- leave-one-out -------------------------------------------------------------------------------------------------


def output(model: Any, batch: Any) -> Tensor:
    return model(batch.inputs).squeeze(1)


@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_ridge_is_exact_up_to_leverage(curvature: str) -> None:
    n, d, decay = 30, 4, 0.1
    x, y, xt, yt = normal(n, d, seed=1), normal(n, seed=2), normal(5, d, seed=3), normal(5, seed=4)
    everything = torch.ones(n, dtype=F64)
    theta = ridge(x, y, decay, everything)
    task = Task(
        lambda: nn.Linear(d, 1, bias=False).double(), (x, y), (xt, yt), "mse",
        checkpoints=[{"weight": theta.unsqueeze(0)}], recipe=Recipe(weight_decay=decay),
    )  # fmt: skip
    found = scores(task, "if_exact", range(5), measurement=Measurement(output), curvature=curvature, damping=0)
    moments = 2 / n * x.T @ x + decay * torch.eye(d, dtype=F64)
    leverage = 2 / n * (x @ torch.linalg.inv(moments) * x).sum(1)
    assert float(leverage.min()) > 0.01
    left_out = torch.stack([ridge(x, y, decay, everything.index_fill(0, torch.tensor([i]), 0)) for i in range(n)])
    drop = xt @ (theta - left_out).T
    torch.testing.assert_close(found / (1 - leverage), drop, **EXACT)


@pytest.fixture(scope="module")
def convex() -> tuple[Task, Tensor]:
    """Logistic regression at its optimum, and how the loss of every test row rises without each training row."""
    n, d, classes = 150, 4, 3
    centres, y, yt = normal(classes, d, seed=5), integers(classes, n, seed=6), integers(classes, 8, seed=7)
    x, xt = centres[y] + normal(n, d, seed=8), centres[yt] + normal(8, d, seed=9)

    def theta(weights: Tensor) -> Tensor:
        return logistic(x, y, classes, DECAY, weights)

    everything = torch.ones(n, dtype=F64)
    optimum = theta(everything)
    task = Task(
        lambda: nn.Linear(d, classes).double(), (x, y), (xt, yt), recipe=Recipe(weight_decay=DECAY),
        checkpoints=[{"weight": optimum[:, :-1], "bias": optimum[:, -1]}],
    )  # fmt: skip
    before = losses_of_test_rows(task, optimum)
    refits = [theta(everything.index_fill(0, torch.tensor([i]), 0)) for i in range(n)]
    return task, torch.stack([losses_of_test_rows(task, refit) - before for refit in refits], 1)


def losses_of_test_rows(task: Task, theta: Tensor) -> Tensor:
    xt, yt = parts(task, "test")
    return F.cross_entropy(xt @ theta[:, :-1].T + theta[:, -1], yt, reduction="none")


def parts(task: Task, split: str) -> tuple[Tensor, Tensor]:
    batch = task.split(split).batch(slice(None), "cpu", F64)
    return batch.inputs, batch.targets


@pytest.mark.parametrize("method", ["if_exact", "if_ggn", "if_cg"])
def test_logistic_regression_agrees_with_refits(method: str, convex: tuple[Task, Tensor]) -> None:
    task, truth = convex
    found = scores(task, method, range(task.n_test), damping=0)
    each = [pearsonr(row, expected).statistic for row, expected in zip(found, truth, strict=True)]
    assert min(each) > 0.95 and sorted(each)[4] > 0.99
    mean, expected = found.mean(0), truth.mean(0)
    assert pearsonr(mean, expected).statistic > 0.99
    assert 0.9 < float(mean @ expected / (mean @ mean)) < 1.2  # the amount too, not only the order
    # What is missing is of second order: one in n, so it concerns the most influential rows.
    assert float((mean - expected).abs().max()) < 0.2 * float(expected.abs().max())


def test_the_score_is_the_derivative_of_a_reweighted_refit(convex: tuple[Task, Tensor]) -> None:
    task, _ = convex
    x, y = parts(task, "train")
    found = scores(task, "if_exact", range(task.n_test), damping=0, curvature="hessian")
    step = 1e-4
    for i in (0, 7, 23):
        ends = []
        for sign in (1, -1):
            weights = torch.ones(len(x), dtype=F64)
            weights[i] += sign * step
            ends.append(losses_of_test_rows(task, logistic(x, y, 3, DECAY, weights)))
        # Leaving out takes the weight from 1 to 0: the first-order rise of the loss is minus the derivative.
        torch.testing.assert_close(found[:, i], (ends[1] - ends[0]) / (2 * step), rtol=1e-6, atol=1e-10)


# -- the equation, written out -------------------------------------------------------------------------------------


def expected_scores(task: Task, damping: float, names: tuple[str, ...] | None = None) -> tuple[Tensor, Tensor]:
    """Scores of all test rows and self-influence from loop gradients and the explicit Gauss-Newton matrix."""
    model = task.model_at(-1, "cpu", F64)
    (x, y), (xt, yt) = parts(task, "train"), parts(task, "test")
    objective = BUILTIN[task.loss.name]
    train, test = (stacked(loop_gradients(model, objective, *data), names) for data in ((x, y), (xt, yt)))
    matrix = ggn(model, model(x), y, task.loss.name) / len(y)
    kept, start = [], 0
    for name, parameter in model.named_parameters():
        kept += list(range(start, start + parameter.numel())) if names is None or name in names else []
        start += parameter.numel()
    matrix = matrix[kept][:, kept] + damping * torch.eye(len(kept), dtype=F64)
    solved = torch.linalg.solve(matrix, train.T) / len(y)
    return test @ solved, (train * solved.T).sum(1)


@pytest.mark.parametrize("name", ["mlp", "cnn_inplace", "regression", "binary", "weight_norm"])
def test_exact_equals_the_equation(name: str) -> None:
    task = CASES[name]()
    pairs, own = expected_scores(task, 0.05)
    torch.testing.assert_close(scores(task, "if_exact", range(task.n_test), damping=0.05), pairs, **EXACT)
    torch.testing.assert_close(self_influence(task, "if_exact", config={"damping": 0.05}, run=RUN), own, **EXACT)


@pytest.mark.parametrize("name", ["mlp", "cnn_inplace", "transformer", "dict_input", "tied_weights", "dataset"])
@pytest.mark.parametrize("curvature", ["ggn", "hessian"])
def test_conjugate_gradients_equal_exact(name: str, curvature: str) -> None:
    task = CASES[name]()
    options: dict[str, Any] = {"curvature": curvature, "damping": 0.1 if curvature == "ggn" else 8.0}
    solver = {"tolerance": 1e-12, "max_iterations": 2000}
    close = {"rtol": 1e-8, "atol": 1e-11}
    exact = scores(task, "if_exact", range(task.n_test), **options)
    assert float(exact.abs().max()) > 1e-5
    torch.testing.assert_close(scores(task, "if_cg", range(task.n_test), **options, **solver), exact, **close)
    own = self_influence(task, "if_exact", config=options, run=RUN)
    torch.testing.assert_close(self_influence(task, "if_cg", config={**options, **solver}, run=RUN), own, **close)


def test_weight_decay_adds_to_the_damping() -> None:
    plain, decayed = CASES["mlp"](), CASES["mlp"]()
    decayed.recipe = Recipe(weight_decay=0.03)
    found = scores(decayed, "if_exact", [0], damping=0.02)
    torch.testing.assert_close(found, scores(plain, "if_exact", [0], damping=0.05), **EXACT)


def test_only_the_named_layers_are_looked_at() -> None:
    task = CASES["mlp"]()
    last = task.last_layer
    pairs, own = expected_scores(task, 0.05, (f"{last}.weight", f"{last}.bias"))
    found = attribute(task, "if_exact", range(task.n_test), config={"damping": 0.05, "layers": ("last",)}, run=RUN)
    torch.testing.assert_close(found.scores, pairs, **EXACT)
    assert found.share is not None and 0 < found.share < 1
    config = {"damping": 0.05, "layers": (f"{last}.bias",)}  # one parameter, not a module: kept apart in the store
    bias, _ = expected_scores(task, 0.05, (f"{last}.bias",))
    torch.testing.assert_close(attribute(task, "if_exact", [0], config=config, run=RUN).scores, bias[:1], **EXACT)


# -- solvers, stores and runs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["if_exact", "if_cg"])
def test_self_influence_is_the_diagonal_and_is_kept(method: str, tmp_path: Path) -> None:
    run, task = fresh(tmp_path), CASES["mlp"]()
    own = self_influence(task, method, run=run)
    every = scores(task, method, Rows("train", tuple(range(task.n_train))), run=run)
    torch.testing.assert_close(own, every.diagonal(), rtol=1e-7, atol=1e-12)
    keys = run.artifacts.keys()
    torch.testing.assert_close(self_influence(CASES["mlp"](), method, run=run), own, rtol=0, atol=0)
    assert run.artifacts.keys() == keys


@pytest.mark.parametrize("method", ["if_exact", "if_cg"])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_scores_do_not_depend_on_the_batch_size(method: str, size: int, tmp_path: Path) -> None:
    task = CASES["cnn_inplace"]()
    expected = scores(task, method, range(4), damping=0.1)
    found = scores(CASES["cnn_inplace"](), method, range(4), run=fresh(tmp_path, batch_size=size), damping=0.1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("method", ["if_exact", "if_cg"])
def test_a_set_of_rows_is_the_mean_of_its_rows(method: str) -> None:
    task = CASES["mlp"]()
    rows = Rows("test", (0, 2, 3), "mean")
    expected = scores(task, method, [0, 2, 3]).mean(0, keepdim=True)
    torch.testing.assert_close(scores(task, method, rows), expected, rtol=1e-7, atol=1e-12)


def test_a_solve_can_be_cancelled_within_a_pass_and_completes_its_progress(tmp_path: Path) -> None:
    task, reports = CASES["mlp"](), []
    run = fresh(tmp_path, batch_size=2, progress=lambda *report: reports.append(report))
    scores(task, "if_cg", [0], run=run)
    ends = {stage: (done, total) for stage, done, total in reports}
    assert "conjugate gradients" in ends and all(done == total for done, total in ends.values())
    asked: list[int] = []

    def cancel() -> bool:
        asked.append(1)
        return len(asked) > 3  # within the first product of six batches

    with pytest.raises(Cancelled):
        scores(task, "if_cg", [0], run=replace(run, cancel=cancel))  # fitted by a run that has ended
    assert len(asked) == 4


def test_single_precision_and_half_storage_keep_three_digits(tmp_path: Path) -> None:
    task = CASES["mlp"]()
    exact = scores(task, "if_exact", range(4), damping=0.1)
    single = Run(device="cpu", dtype=torch.float32, store=Store(tmp_path))
    found = scores(task, "if_exact", range(4), run=single, damping=0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-5 * float(exact.abs().max()))
    half = scores(task, "if_exact", range(4), damping=0.1, storage="half")
    torch.testing.assert_close(half, exact, rtol=3e-3, atol=3e-3 * float(exact.abs().max()))


# -- what is said --------------------------------------------------------------------------------------------------


def number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found.group(1))


def test_notes_say_damping_eigenvalues_and_residual() -> None:
    task = CASES["convex"]()
    notes = " ".join(attribute(task, "if_exact", [0], config={"damping": 0.01}, run=RUN).notes)
    assert "Effective damping 0.03: damping 0.01 plus weight decay 0.02." in notes
    lowest = number(r"Gauss-Newton matrix before damping: smallest (\S+),", notes)
    assert abs(lowest) < 1e-12  # softmax does not see a shift of all logits
    assert "chosen automatically" in attribute(task, "if_exact", [0], run=RUN).notes[0]
    done = " ".join(attribute(task, "if_cg", [0], run=RUN).notes)
    assert number(r"relative residual (\S+)\.$", done) <= 1e-7
    cut = attribute(task, "if_cg", [0], config={"max_iterations": 2}, run=RUN)
    assert "2 iterations" in cut.notes[-1] and "short of the tolerance" in cut.notes[-1]


def test_an_indefinite_hessian_is_refused_with_a_damping_that_works() -> None:
    task = CASES["mlp"]()
    with pytest.raises(NumericalProblem, match="smallest eigenvalue is -") as raised:
        scores(task, "if_exact", [0], curvature="hessian", damping=0.001)
    advised = number(r"damping ([\d.e-]+) or more", raised.value.fix)
    assert bool(scores(task, "if_exact", [0], curvature="hessian", damping=advised).isfinite().all())
    with pytest.raises(NumericalProblem, match="not positive definite"):
        scores(task, "if_exact", [0], curvature="hessian", damping=0.4 * advised)
    with pytest.raises(NumericalProblem, match="direction of curvature -"):
        scores(task, "if_cg", range(4), curvature="hessian", damping=0.001)
    with pytest.raises(NumericalProblem, match="not positive definite"):  # a rank-deficient one without any damping
        scores(task, "if_exact", [0], damping=0)


def test_a_custom_loss_has_a_hessian_and_no_gauss_newton_matrix() -> None:
    model = lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))  # noqa: E731
    task = task_of(model, vectors, smooth_loss)
    for method in ("if_exact", "if_cg"):
        with pytest.raises(Unavailable, match="custom loss.*curvature='hessian'"):
            scores(task, method, [0])
    assert "built-in loss" in registry.available(task)["if_ggn"]
    exact = scores(task, "if_exact", [0], curvature="hessian", damping=10.0)
    found = scores(task, "if_cg", [0], curvature="hessian", damping=10.0, tolerance=1e-12)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-12)


def test_a_curvature_that_does_not_fit_is_refused_before_any_work(tmp_path: Path) -> None:
    wide = lambda: nn.Sequential(nn.Linear(100, 150), nn.Tanh(), nn.Linear(150, 3))  # noqa: E731
    run = fresh(tmp_path)
    task = task_of(wide, lambda n, seed: (normal(n, 100, seed=seed), integers(3, n, seed=seed)))
    with pytest.raises(Unavailable, match=r"15,603 parameters need 1\.9 GB.*if_cg.*layers=\('last',\)"):
        scores(task, "if_exact", [0], run=run)
    assert run.artifacts.keys() == []
    assert scores(task, "if_exact", [0], run=run, layers=("last",)).shape == (1, task.n_train)


def test_cost_follows_the_attributed_parameters() -> None:
    task = CASES["mlp"]()
    sizes = Sizes(n_train=1000, n_test=10, n_params=2000, n_checkpoints=1, n_classes=10, pass_seconds=0.01)

    def seconds(method: str, n_params: int = 2000, **options: Any) -> float:
        return registry.made(method, options, task).cost(task, replace(sizes, n_params=n_params)).seconds

    assert seconds("if_exact", 4000) > 3 * seconds("if_exact")
    assert seconds("if_exact", layers=("last",)) < seconds("if_exact")
    assert seconds("if_cg") < seconds("if_exact")
    assert registry.made("if_exact", {}, task).cost(task, sizes).bytes >= 8 * 2000**2


def test_the_fitted_method_is_instant_or_a_solve() -> None:
    assert registry.entries()["if_exact"].info.query == "instant"
    assert registry.entries()["if_cg"].info.query == "solve"
    task = CASES["mlp"]()
    assert fit(task, registry.made("if_ggn", {}, task), RUN).info.name == "if_ggn"


# -- a net trained by SGD against leaving rows out of the same training run ----------------------------------------


def digits(seed: int) -> tuple[Task, Tensor]:
    """Digits, MLP 64-16-10, 25 epochs of SGD; the rise of the mean test loss in 200 runs without one row each."""
    from sklearn.datasets import load_digits

    data = load_digits()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(data.target), generator=generator)[:230]
    x, y = torch.tensor(data.data, dtype=F64)[order] / 16, torch.tensor(data.target)[order]
    x, xt, y, yt = x[:200], x[200:], y[:200], y[200:]
    make = lambda: made(lambda: nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10)), seed)  # noqa: E731
    state = make().state_dict()
    batches = [batch for _ in range(25) for batch in torch.randperm(200, generator=generator).split(20)]
    weights = torch.cat([torch.ones(1, 200, dtype=F64), 1 - torch.eye(200, dtype=F64)])
    steps = sgd_runs(Net(*state.values()), x, y, weights, batches, 0.3, 1e-3)
    logits = steps[-1].logits(xt).flatten(0, 1)
    losses = F.cross_entropy(logits, yt.repeat(201), reduction="none").reshape(201, -1).mean(1)
    states = [
        dict(zip(state, [part[0] for part in steps[10 * epoch - 1].tensors()], strict=True))
        for epoch in (1, 5, 9, 13, 17, 21, 25)
    ]
    recipe = Recipe(learning_rate=0.3, weight_decay=1e-3, batch_size=20, epochs=25, dtype="float64")
    task = Task(make, (x, y), (xt, yt), checkpoints=states, learning_rates=[0.3] * 7, recipe=recipe)
    return task, losses[1:] - losses[0]


def test_fidelity_to_seeded_leave_one_out() -> None:
    # One draw of data, weights and batches moves a rank correlation by .1: the ranges hold for the mean of three.
    query = Rows("test", tuple(range(30)), "mean")
    found: dict[str, list[float]] = {"if_exact": [], "tracin_cp": [], "hessian": [], "automatic": []}
    for seed in range(3):
        task, truth = digits(seed)
        for method in ("if_exact", "tracin_cp"):
            given = {"damping": 0.01} if method == "if_exact" else {}
            found[method].append(spearmanr(scores(task, method, query, **given)[0], truth).statistic)
        found["automatic"].append(spearmanr(scores(task, "if_exact", query)[0], truth).statistic)
        with pytest.raises(NumericalProblem, match="smallest eigenvalue is -"):  # SGD has not converged
            scores(task, "if_exact", query, curvature="hessian", damping=0.001)
        damped = scores(task, "if_exact", query, curvature="hessian", damping=0.1)[0]
        found["hessian"].append(spearmanr(damped, truth).statistic)
    means = {method: sum(values) / 3 for method, values in found.items()}
    assert 0.6 <= means["if_exact"] <= 0.8
    assert 0.25 <= means["tracin_cp"] <= 0.45
    assert 0.6 <= means["automatic"] <= 0.8
    assert means["tracin_cp"] < means["hessian"] < means["if_exact"]
    exact = scores(task, "if_exact", query)
    torch.testing.assert_close(scores(task, "if_cg", query), exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max()))
