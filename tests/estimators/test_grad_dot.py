"""Gradient dot product and cosine: identities with TracIn and with the loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core.api import attribute, self_influence
from influence_core.errors import Unavailable
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, made, vectors
from tests.oracles.gradients import BUILTIN, at, loop_gradients, stacked

EXACT = {"rtol": 1e-10, "atol": 1e-11}


@pytest.fixture
def run(tmp_path: Any) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


def rows(task: Task) -> list[Any]:
    return task.ids("test").tolist()


def gradients(task: Task, split: str) -> Tensor:
    """Gradients of the loss at the last checkpoint, by the loop."""
    batch = task.split(split).batch(slice(None), "cpu", torch.float64)
    model = at(task.module, dict(task.state(-1)))
    return stacked(loop_gradients(model, BUILTIN[task.loss.name], batch.inputs, batch.targets))


@pytest.mark.parametrize("name", ["mlp", "residual_cnn", "transformer", "tied_weights", "binary", "regression"])
def test_grad_dot_is_the_product_at_the_last_checkpoint(name: str, run: Run) -> None:
    task = CASES[name]()
    expected = gradients(task, "test") @ gradients(task, "train").T
    torch.testing.assert_close(attribute(task, "grad_dot", rows(task), run=run).scores, expected, **EXACT)
    length = gradients(task, "train").square().sum(1)
    torch.testing.assert_close(self_influence(task, "grad_dot", run=run), length, **EXACT)


@pytest.mark.parametrize("name", ["mlp", "cnn_inplace", "transformer"])
@pytest.mark.parametrize("options", [{}, {"projection": 32}, {"storage": "half"}, {"layers": ("last",)}])
def test_grad_dot_is_tracin_with_one_checkpoint_and_rate_one(name: str, options: dict[str, Any], run: Run) -> None:
    task = CASES[name]()
    train, test = (tuple(task.split(s).batch(slice(None), "cpu", torch.float64)) for s in ("train", "test"))
    last = Task(task.factory, train, test, checkpoints=[task.state(-1)], learning_rates=[1.0])  # type: ignore[arg-type]
    dot = attribute(task, "grad_dot", rows(task), config=options, run=run).scores
    assert torch.equal(dot, attribute(last, "grad_dot", rows(task), config=options, run=run).scores)
    assert torch.equal(dot, attribute(last, "tracin_cp", rows(task), config=options, run=run).scores)


@pytest.mark.parametrize("name", ["mlp", "residual_cnn", "transformer", "regression"])
def test_grad_cos_is_the_cosine(name: str, run: Run) -> None:
    task = CASES[name]()
    unit = [nn.functional.normalize(gradients(task, split), dim=1) for split in ("test", "train")]
    found = attribute(task, "grad_cos", rows(task), run=run)
    torch.testing.assert_close(found.scores, unit[0] @ unit[1].T, **EXACT)
    assert found.units == "rank"
    assert float(found.scores.abs().max()) <= 1 + 1e-12


def weighted(factor: float) -> Any:
    def loss(model: Any, batch: Any) -> Tensor:
        # Every row at its own volume, and all of them louder by the factor.
        volume = factor * (1 + batch.inputs[:, 0].abs())
        return volume * nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")

    return loss


def test_grad_cos_ignores_how_loud_a_row_is_and_grad_dot_does_not(run: Run) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))

    def scores(method: str, loss: Any) -> Tensor:
        task = Task(made(net, 0), vectors(9, 1), vectors(4, 2), loss)
        return attribute(task, method, [0, 1, 2, 3], run=run).scores

    plain = scores("grad_cos", "cross_entropy")
    torch.testing.assert_close(scores("grad_cos", weighted(1.0)), plain, **EXACT)
    torch.testing.assert_close(scores("grad_cos", weighted(1e4)), plain, **EXACT)
    torch.testing.assert_close(scores("grad_dot", weighted(3.0)), 9 * scores("grad_dot", weighted(1.0)), **EXACT)
    assert not torch.allclose(scores("grad_dot", weighted(1.0)), scores("grad_dot", "cross_entropy"))


def test_a_row_without_gradient_has_cosine_zero(run: Run) -> None:
    def ramp(model: Any, batch: Any) -> Tensor:
        return torch.relu(model(batch.inputs).sum(1) + batch.targets)

    x, _ = vectors(6, 1)
    y = torch.tensor([9.0, -99.0, 9.0, 9.0, -99.0, 9.0], dtype=torch.float64)  # rows 1 and 4 sit where the ramp is flat
    task = Task(made(lambda: nn.Linear(5, 2), 0), (x, y), (x, y), ramp)
    scores = attribute(task, "grad_cos", list(range(6)), run=run).scores
    assert bool(scores.isfinite().all())
    assert not scores[[1, 4]].any() and not scores[:, [1, 4]].any()
    torch.testing.assert_close(scores.diagonal()[[0, 2, 3, 5]], torch.ones(4, dtype=torch.float64), **EXACT)


def test_grad_cos_has_no_self_influence() -> None:
    with pytest.raises(Unavailable, match="no self-influence"):
        self_influence(CASES["mlp"](), "grad_cos")


def test_one_cache_serves_grad_dot_grad_cos_and_influence(run: Run) -> None:
    """The gradients are the artifact, not the method: a second method at the same checkpoint adds its record alone."""
    task = CASES["mlp"]()
    attribute(task, "grad_dot", rows(task), run=run)
    before = set(run.artifacts.keys())
    attribute(CASES["mlp"](), "grad_cos", rows(task), run=run)
    added = set(run.artifacts.keys()) - before
    assert len(added) == 1
    assert run.artifacts.find(added.pop()).names() == ["fitted"]  # type: ignore[union-attr]
