"""The panel: flat where a model is strongly convex, not flat of a small network, and its truths against plain loops."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.architectures import mlp
from influence_core.errors import BadInput, Unavailable
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import new_model, training
from influence_core.recipe import Recipe
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from influence_core.workflows.diagnostics.fragility import FragilityConfig, fragility_suite
from influence_core.workflows.diagnostics.warm_start import warm_differences
from tests.cases import integers, normal

N, D, CLASSES = 24, 3, 3


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def trained(
    factory: object, recipe: Recipe, data: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], loss: str
) -> Task:
    task = Task(factory, data, test, loss, recipe=recipe, checkpoints=[], fingerprint="untrained")  # type: ignore[arg-type]
    model = new_model(factory, recipe)  # type: ignore[arg-type]
    for _ in training(model, task.split("train"), LOSSES[loss], recipe):
        pass
    return Task(factory, data, test, loss, recipe=recipe, checkpoints=[model.state_dict()])  # type: ignore[arg-type]


def convex() -> Task:
    recipe = Recipe(optimizer="lbfgs", weight_decay=0.1, dtype="float64")  # type: ignore[call-arg]
    data, test = (normal(80, D, seed=1), integers(2, 80, seed=2)), (normal(6, D, seed=3), integers(2, 6, seed=4))
    return trained(partial(mlp, n_inputs=D, n_classes=2, hidden=()), recipe, data, test, "cross_entropy")


def network(**options: object) -> Task:
    recipe = Recipe(learning_rate=0.3, batch_size=8, epochs=20, weight_decay=1e-3, dtype="float64", **options)  # type: ignore[arg-type]
    data = normal(N, D, seed=1), integers(CLASSES, N, seed=2)
    test = normal(6, D, seed=3), integers(CLASSES, 6, seed=4)
    factory = partial(mlp, n_inputs=D, n_classes=CLASSES, hidden=(6,), activation="tanh")
    return trained(factory, recipe, data, test, "cross_entropy")


def test_a_strongly_convex_model_is_not_fragile(tmp_path: Path) -> None:
    config = FragilityConfig(
        solvers=("if_ggn", "if_cg"), weight_decays=(0.05, 0.2), left_out=8, rows=6, dampings=(), warm_epochs=None
    )  # type: ignore[call-arg]
    table, notes = fragility_suite(convex(), run_in(tmp_path), config)
    assert table["changed"].tolist() == ["nothing", "solver", "solver", "weight decay", "weight decay"]
    assert (table[["spearman_cold", "spearman_warm"]] > 0.99).all(axis=None), table.to_string()
    assert (table["top_shared"] > 0.75).all()
    np.testing.assert_allclose(table["spearman_cold"], table["spearman_warm"], atol=1e-9)  # one minimum: one truth
    assert (table["smallest"] > -1e-12).all() and (table["note"] == "").all()
    assert any("whatever the seed" in note for note in notes) and any("no hidden layer" in note for note in notes)


def test_a_small_network_is_fragile_and_every_setting_is_tried(tmp_path: Path) -> None:
    config = FragilityConfig(
        seeds=1, widths=(2.0,), depths=(1, -1), left_out=6, rows=4, solvers=("if_cg", "loss"), dampings=(100.0,)
    )  # type: ignore[call-arg]
    task = network()
    table, notes = fragility_suite(task, run_in(tmp_path), config)
    settings = dict(zip(table["setting"], table["changed"], strict=True))
    assert settings == {
        "as it is": "nothing", "100 times": "damping", "if_cg": "solver", "loss": "solver", "1": "seed",
        "0": "weight decay", "0.01": "weight decay", "2 times": "width", "2 hidden layers": "depth",
    }  # fmt: skip
    lines = table.set_index("setting")
    refused = lines.loc["loss"]
    assert "own measurement" in refused["note"] and np.isnan(refused["spearman_cold"])
    own = lines.loc["as it is"]
    assert own["top_shared"] == 1.0 and lines.loc["if_cg", "top_shared"] == 1.0
    assert lines.loc["100 times", "damping"] == pytest.approx(100 * (own["damping"] - 1e-3) + 1e-3, rel=1e-4)
    assert lines.loc["2 times", "n_params"] == D * 12 + 12 + 12 * 3 + 3
    assert lines.loc["2 hidden layers", "n_params"] == D * 6 + 6 + 42 + 6 * 3 + 3
    measured = table["spearman_cold"].dropna()
    assert np.ptp(measured) > 0.1, "a network that has not converged is not flat"
    assert any("Depth -1 was left out" in note for note in notes)
    assert (lines.loc["as it is", ["smallest"]] < own["largest"]).all()
    assert any(note.startswith("Spearman with leave-one-out from the start") for note in notes)


def test_what_is_not_built_in_is_changed_by_the_models_that_are_given(tmp_path: Path) -> None:
    task = network()
    plain = Task(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, CLASSES)),
        (task.split("train").raw(slice(None)).inputs, task.split("train").targets),
        (task.split("test").raw(slice(None)).inputs, task.split("test").targets), recipe=task.recipe,
        checkpoints=[task.state()],
    )  # fmt: skip
    config = FragilityConfig(seeds=0, weight_decays=(), solvers=(), dampings=(), left_out=3, rows=2, warm_epochs=2)  # type: ignore[call-arg]
    wider = {"twelve": lambda: nn.Sequential(nn.Flatten(), nn.Linear(D, 12), nn.Tanh(), nn.Linear(12, CLASSES))}
    table, notes = fragility_suite(plain, run_in(tmp_path), config, wider)
    assert table["setting"].tolist() == ["as it is", "twelve"] and (table["note"] == "").all()
    assert any("built-in mlp and cnn only" in note for note in notes)


def test_warm_leave_one_out_is_a_plain_loop_from_the_explained_weights(tmp_path: Path) -> None:
    task = network(momentum=0.5)
    recipe, rows = task.recipe, Rows("test", (0, 3))
    assert recipe is not None
    found = warm_differences(task, [4, 7], rows, Measurement("loss"), run_in(tmp_path), epochs=3)

    def loss_after(left: int | None) -> Tensor:
        weights = {name: value.clone().requires_grad_() for name, value in task.state().items()}
        speed = {name: torch.zeros_like(value) for name, value in weights.items()}
        x, y = task.split("train").raw(slice(None)).inputs, task.split("train").targets
        order = torch.Generator().manual_seed(recipe.seed)

        def logits(inputs: Tensor) -> Tensor:
            hidden = torch.tanh(inputs @ weights["1.weight"].T + weights["1.bias"])
            return hidden @ weights["3.weight"].T + weights["3.bias"]

        for _ in range(3):
            for batch in torch.randperm(N, generator=order).split(8):
                kept = batch[batch != left] if left is not None else batch
                mean = F.cross_entropy(logits(x[kept]), y[kept], reduction="sum") / len(batch)
                slopes = torch.autograd.grad(mean, list(weights.values()))
                for (name, value), slope in zip(list(weights.items()), slopes, strict=True):
                    speed[name] = 0.5 * speed[name] + slope + 1e-3 * value.detach()
                    weights[name] = (value.detach() - 0.3 * speed[name]).requires_grad_()
        xt, yt = task.split("test").raw(slice(None)).inputs[[0, 3]], task.split("test").targets[[0, 3]]
        return F.cross_entropy(logits(xt), yt, reduction="none").detach()

    base = loss_after(None)
    expected = torch.stack([loss_after(4) - base, loss_after(7) - base], 1)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_bad_input_is_named(tmp_path: Path) -> None:
    task = network()
    with pytest.raises(BadInput, match="no score for a pair"):
        fragility_suite(task, run_in(tmp_path), FragilityConfig(method="loss"))  # type: ignore[call-arg]
    bare = Task(
        nn.Linear(D, CLASSES).double(),
        (normal(N, D, seed=1), integers(3, N, seed=2)),
        (normal(2, D, seed=3), integers(3, 2, seed=4)),
    )  # noqa: E501
    with pytest.raises(Unavailable, match="recipe"):
        fragility_suite(bare, run_in(tmp_path))
