"""Critical samples of a linear model against the closed form, and Gini coefficients with known answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from influence_core.errors import BadInput, Unavailable
from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.diagnostics.memorization import (
    critical_sample_ratio,
    gini_coefficient,
    loss_sensitivity,
)
from tests.cases import CASES, integers, made, normal

RUN = Run(device="cpu", dtype=torch.float64)


def binary(n: int = 2000) -> Task:
    x, y = normal(n, 6, seed=1), integers(2, n, seed=2).double()[:, None]
    state = made(lambda: nn.Linear(6, 1), 3).state_dict()
    return Task(lambda: made(lambda: nn.Linear(6, 1), 0), (x, y), (x[:3], y[:3]), "bce", checkpoints=[state])


@pytest.mark.parametrize("radius", [0.1, 0.4])
def test_a_linear_model_is_decided_exactly(radius: float) -> None:
    task = binary()
    state = task.state()
    w, b = state["weight"][0].double(), state["bias"].double()
    x = task.split("train").raw(slice(None)).inputs
    expected = (x @ w + b).abs() < radius * w.abs().sum()
    found = critical_sample_ratio(task, RUN, radius=radius, n_rows=2000)
    assert found.ids == list(range(2000))
    assert bool((found.critical == expected).all())
    assert 0.05 < found.ratio < 0.95
    assert found.ratio == pytest.approx(float(expected.double().mean()))


def test_a_larger_box_holds_more_and_classes_are_those_of_the_model() -> None:
    task = CASES["mlp"]()
    ratios = [critical_sample_ratio(task, RUN, split="test", radius=radius).ratio for radius in (1e-6, 0.5, 50.0)]
    assert ratios == sorted(ratios)
    assert ratios[0] == 0.0 and ratios[2] == 1.0


def test_sensitivity_is_the_mean_of_input_gradients() -> None:
    task = CASES["mlp"]()
    batch = task.split("train").batch(slice(None), "cpu", torch.float64)
    rows = []
    for c in range(task.n_checkpoints):
        model = task.model_at(c, "cpu", torch.float64)
        for i in range(task.n_train):
            x = batch.inputs[i : i + 1].clone().requires_grad_(True)
            loss = nn.functional.cross_entropy(model(x), batch.targets[i : i + 1])
            rows.append(torch.autograd.grad(loss, x)[0].abs().sum())
    expected = torch.stack(rows).reshape(task.n_checkpoints, task.n_train)
    found = loss_sensitivity(task, RUN)
    torch.testing.assert_close(found.by_checkpoint, expected)
    torch.testing.assert_close(found.values, expected.mean(0))
    assert found.gini == pytest.approx(gini_coefficient(expected.mean(0)))


def test_gini_coefficients_with_known_answers() -> None:
    assert gini_coefficient(torch.ones(7)) == pytest.approx(0.0, abs=1e-15)
    assert gini_coefficient(torch.zeros(7)) == 0.0
    one = torch.zeros(10)
    one[3] = 5.0
    assert gini_coefficient(one) == pytest.approx(0.9)
    values = normal(30, seed=1).abs()
    pairs = (values[:, None] - values[None, :]).abs().sum() / (2 * 30**2 * values.mean())
    assert gini_coefficient(values) == pytest.approx(float(pairs))


def test_what_has_no_neighbourhood_is_refused() -> None:
    with pytest.raises(Unavailable, match="one tensor of real numbers"):
        critical_sample_ratio(CASES["transformer"](), RUN)
    with pytest.raises(Unavailable, match="one tensor of real numbers"):
        loss_sensitivity(CASES["transformer"](), RUN)
    with pytest.raises(Unavailable, match="does not predict classes"):
        critical_sample_ratio(CASES["regression"](), RUN)
    with pytest.raises(BadInput, match="Nothing to search"):
        critical_sample_ratio(binary(10), RUN, radius=0.0)
