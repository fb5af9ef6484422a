"""The derivative of training against automatic differentiation through all of it, and against true removal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from influence_core import registry
from influence_core.errors import Unavailable
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.outcomes import Outcomes
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.replay import Replay, recorded_steps
from influence_core.primitives.steps import Rule
from influence_core.primitives.training import new_model, training
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import vectors
from tests.oracles.unrolled import trained

TRAIN, TEST = vectors(12, 1), vectors(3, 2)
ROWS = Rows("test", (0, 1, 2))
OPTIMISERS = {
    "sgd": {"optimizer": "sgd", "learning_rate": 0.3},
    "momentum": {"optimizer": "sgd", "learning_rate": 0.2, "momentum": 0.9, "schedule": "cosine"},
    "adam": {"optimizer": "adam", "learning_rate": 0.05, "schedule": "linear"},
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def recipe_of(name: str, **more: Any) -> Recipe:
    options = {"batch_size": 4, "epochs": 3, "weight_decay": 0.01, "seed": 3, "dtype": "float64"}
    return Recipe(**{**options, **OPTIMISERS[name], **more})


def task_of(recipe: Recipe, factory: Any = net, train: Any = TRAIN, test: Any = TEST) -> Task:
    model = new_model(factory, recipe)
    task = Task(factory, train, test, checkpoints=[model.state_dict()], recipe=recipe)
    for _ in training(model, task.split("train"), task.loss, recipe):
        pass
    return Task(factory, train, test, checkpoints=[model.state_dict()], recipe=recipe)


def run_in(folder: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder), **more)


def scores(task: Task, method: str, folder: Path, kind: str = "loss", **options: Any) -> Tensor:
    return fit(task, registry.made(method, options), run_in(folder)).scores(ROWS, Measurement(kind))


def unrolled(recipe: Recipe) -> Tensor:
    """``d (-loss_t) / d w_i`` by automatic differentiation through training."""
    weights = torch.ones(12, dtype=torch.float64, requires_grad=True)

    def loss(f: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(f, y, reduction="none")

    model = new_model(net, recipe)
    theta = trained(
        model, loss, *TRAIN, weights, optimizer=recipe.optimizer, rate=recipe.learning_rate, momentum=recipe.momentum,
        decay=recipe.weight_decay, size=recipe.batch_size, epochs=recipe.epochs, seed=recipe.seed,
        schedule=recipe.schedule,
    )  # fmt: skip
    losses = loss(functional_call(model, theta, (TEST[0],)), TEST[1])
    return torch.stack([-torch.autograd.grad(one, weights, retain_graph=True)[0] for one in losses])


@pytest.mark.parametrize("name", OPTIMISERS)
def test_magic_is_autodiff_through_training(name: str, tmp_path: Path) -> None:
    recipe = recipe_of(name)
    expected = unrolled(recipe)
    found = scores(task_of(recipe), "magic", tmp_path)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


def test_sgd_influence_is_the_same_number_for_sgd_and_refuses_adam(tmp_path: Path) -> None:
    recipe = recipe_of("sgd")
    torch.testing.assert_close(
        scores(task_of(recipe), "sgd_influence", tmp_path), unrolled(recipe), rtol=1e-10, atol=1e-14
    )
    with pytest.raises(Unavailable, match="method='magic'"):
        scores(task_of(recipe_of("adam")), "sgd_influence", tmp_path)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_replayed_training_is_training(name: str, tmp_path: Path) -> None:
    """Dropout, batch statistics and all: the states that are replayed end in the same weights, up to rounding."""

    def droppy() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.Tanh(), nn.Linear(6, 3)).double()

    recipe = recipe_of(name)
    task = task_of(recipe, droppy)
    fitted: Any = fit(task, registry.made("magic"), run_in(tmp_path))
    assert fitted.recorded.distance < 1e-12
    state = fitted.recorded.final()
    known = task.state()
    for key, value in state.buffers.items():
        torch.testing.assert_close(value, known[key])
    assert "away from" not in fitted.notes[0]


@pytest.mark.parametrize("name", OPTIMISERS)
def test_dropout_and_batch_statistics_are_those_of_the_step(name: str, tmp_path: Path) -> None:
    """The derivative equals a finite difference of real trainings, masks and batch statistics included."""

    def droppy() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.Dropout(0.3), nn.Tanh(),
                             nn.Linear(6, 3)).double()  # fmt: skip

    recipe = recipe_of(name, learning_rate=0.02)
    task = task_of(recipe, droppy)
    found = scores(task, "magic", tmp_path)
    for i in (0, 5):
        values = []
        for eps in (1e-5, -1e-5):
            weights = torch.ones(12, dtype=torch.float64)
            weights[i] += eps
            model = new_model(droppy, recipe)
            for _ in training(model, task.split("train"), task.loss, recipe, weights):
                pass
            with torch.no_grad():
                values.append(-nn.functional.cross_entropy(model(TEST[0]), TEST[1], reduction="none"))
        torch.testing.assert_close(found[:, i], (values[0] - values[1]) / 2e-5, rtol=2e-4, atol=1e-7)


def test_it_tracks_true_removal(tmp_path: Path) -> None:
    recipe = recipe_of("sgd", epochs=8)
    task, run = task_of(recipe), run_in(tmp_path)
    found = scores(task, "sgd_influence", tmp_path)
    outcomes = Outcomes(task, run)
    full = outcomes.without([], recipe.seed).outputs["test"].double()
    losses = [nn.functional.cross_entropy(full, TEST[1], reduction="none")]
    for i in range(12):
        f = outcomes.without([i], recipe.seed).outputs["test"].double()
        losses.append(nn.functional.cross_entropy(f, TEST[1], reduction="none"))
    truth = torch.stack(losses[1:], 1) - losses[0][:, None]
    correlation = torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1]
    assert float(correlation) > 0.9  # of 12 rows, each is a lot
    assert 0.6 < float((found * truth).sum() / truth.square().sum()) < 1.3


def test_the_last_epochs_alone(tmp_path: Path) -> None:
    """Tracing back one epoch takes the weights before it as given."""
    recipe = recipe_of("sgd")
    task = task_of(recipe)
    whole = scores(task, "magic", tmp_path)
    last = scores(task, "magic", tmp_path, last_epochs=1)
    torch.testing.assert_close(scores(task, "magic", tmp_path, last_epochs=3), whole)
    assert not torch.allclose(last, whole)
    model = new_model(net, recipe)
    replay = Replay(model, task.split("train"), LOSSES["cross_entropy"], Rule.of(recipe))
    state, steps = replay.start(), list(recorded_steps(recipe, 12))
    for step in steps[:6]:
        state, _ = replay.forward(state, step)
    weights = torch.ones(12, dtype=torch.float64, requires_grad=True)
    theta = dict(zip([n for n, _ in model.named_parameters()], state.weights.split(replay.sizes), strict=True))
    theta = {n: v.reshape(dict(model.named_parameters())[n].shape).requires_grad_(True) for n, v in theta.items()}
    for step in steps[6:]:
        x, y = TRAIN[0][step.index], TRAIN[1][step.index]
        losses = nn.functional.cross_entropy(functional_call(model, theta, (x,)), y, reduction="none")
        grads = torch.autograd.grad((losses * weights[step.index]).sum() / 4, list(theta.values()), create_graph=True)
        theta = {n: p - step.rate * (g + 0.01 * p) for (n, p), g in zip(theta.items(), grads, strict=True)}
    losses = nn.functional.cross_entropy(functional_call(model, theta, (TEST[0],)), TEST[1], reduction="none")
    expected = torch.stack([-torch.autograd.grad(one, weights, retain_graph=True)[0] for one in losses])
    torch.testing.assert_close(last, expected, rtol=1e-10, atol=1e-14)


def test_another_recipe_is_said(tmp_path: Path) -> None:
    recipe = recipe_of("sgd")
    other = Task(net, TRAIN, TEST, checkpoints=[new_model(net, recipe_of("adam", seed=9)).state_dict()], recipe=recipe)
    fitted = fit(other, registry.made("magic"), run_in(tmp_path))
    assert "away from the model's weights" in fitted.notes[0]


def test_memory_grows_with_the_root_of_the_steps(tmp_path: Path) -> None:
    task = task_of(recipe_of("sgd", epochs=48))
    fitted: Any = fit(task, registry.made("magic"), run_in(tmp_path))
    recorded = fitted.recorded
    assert len(recorded.steps) == 144
    assert recorded.segment == 12 and len(recorded.artifact.tensor("weights")) == 13


def test_a_model_that_converged_has_no_steps() -> None:
    recipe = Recipe(optimizer="lbfgs", dtype="float64")  # type: ignore[call-arg]
    task = Task(net, TRAIN, TEST, checkpoints=[new_model(net, recipe).state_dict()], recipe=recipe)
    with pytest.raises(Unavailable, match="a recipe of gradient steps"):
        fit(task, registry.made("magic"), Run(device="cpu"))


@pytest.mark.parametrize("name", OPTIMISERS)
def test_what_has_no_gradient_is_left_alone_by_the_weight_decay(name: str, tmp_path: Path) -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(5, 3).double(), nn.Linear(4, 4).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    task = task_of(recipe_of(name, weight_decay=0.1), Spare)
    fitted: Any = fit(task, registry.made("magic"), run_in(tmp_path))
    assert fitted.recorded.distance < 1e-12
