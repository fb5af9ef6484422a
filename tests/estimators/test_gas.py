"""GAS: sums of cosines over checkpoints, blind to how loud a row is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from influence_core.api import attribute, self_influence
from influence_core.errors import Unavailable
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, made, vectors
from tests.oracles.gradients import BUILTIN, at, loop_gradients, stacked

EXACT = {"rtol": 1e-10, "atol": 1e-11}
RATES = [0.1, 0.05, 0.3]


@pytest.fixture
def run(tmp_path: Any) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def three_checkpoints(loss: Any = "cross_entropy", train: Any = None, test: Any = None) -> Task:
    states = [made(net, seed).state_dict() for seed in range(3)]
    return Task(
        lambda: made(net, 0), train or vectors(9, 1), test or vectors(4, 2), loss, checkpoints=states,
        learning_rates=RATES,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["mlp", "residual_cnn", "transformer", "tied_weights", "regression"])
@pytest.mark.parametrize("weights", ["learning_rate", "uniform"])
def test_equals_brute_force(name: str, weights: str, run: Run) -> None:
    task = CASES[name]()
    assert task.learning_rates is not None
    expected = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    for c, rate in enumerate(task.learning_rates):
        model = at(task.module, dict(task.state(c)))
        units = []
        for split in ("test", "train"):
            batch = task.split(split).batch(slice(None), "cpu", torch.float64)
            rows = stacked(loop_gradients(model, BUILTIN[task.loss.name], batch.inputs, batch.targets))
            units.append(nn.functional.normalize(rows, dim=1))
        expected += (rate if weights == "learning_rate" else 1.0) * units[0] @ units[1].T
    found = attribute(task, "gas", task.ids("test").tolist(), config={"weights": weights}, run=run)
    torch.testing.assert_close(found.scores, expected, **EXACT)
    assert found.units == "rank"


def test_scaling_the_loss_of_rows_changes_nothing(run: Run) -> None:
    def loud(model: Any, batch: Any) -> Tensor:
        volume = torch.exp(5 * batch.inputs[:, 0])
        return volume * nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")

    plain = attribute(three_checkpoints(), "gas", [0, 1, 2, 3], run=run).scores
    torch.testing.assert_close(attribute(three_checkpoints(loud), "gas", [0, 1, 2, 3], run=run).scores, plain, **EXACT)


@pytest.mark.parametrize(("weights", "total"), [("learning_rate", sum(RATES)), ("uniform", 3.0)])
def test_a_copy_of_the_test_row_gets_exactly_the_sum_of_weights(weights: str, total: float, run: Run) -> None:
    (x, y), (xt, yt) = vectors(9, 1), vectors(4, 2)
    x[5], y[5] = xt[2], yt[2]
    task = three_checkpoints(train=(x, y), test=(xt, yt))
    scores = attribute(task, "gas", [2], config={"weights": weights}, run=run).scores[0]
    assert float(scores[5]) == pytest.approx(total, rel=1e-12)
    assert int(scores.argmax()) == 5
    assert float(scores.abs().max()) <= total * (1 + 1e-12)
    # The same row with another label in a two-class sense points elsewhere.
    y2 = y.clone()
    y2[5] = (y[5] + 1) % 3
    other = attribute(three_checkpoints(train=(x, y2), test=(xt, yt)), "gas", [2], config={"weights": weights}, run=run)
    assert float(other.scores[0, 5]) < total - 1e-3


def test_a_zero_gradient_gives_zero_and_not_nan(run: Run) -> None:
    def ramp(model: Any, batch: Any) -> Tensor:
        return torch.relu(model(batch.inputs).sum(1) + batch.targets)

    x, _ = vectors(6, 1)
    y = torch.tensor([9.0, -99.0, 9.0, 9.0, -99.0, 9.0], dtype=torch.float64)
    scores = attribute(three_checkpoints(ramp, (x, y), (x, y)), "gas", list(range(6)), run=run).scores
    assert bool(scores.isfinite().all())
    assert not scores[[1, 4]].any() and not scores[:, [1, 4]].any()
    assert float(scores[0, 0]) == pytest.approx(sum(RATES), rel=1e-12)


def test_a_set_of_rows_is_the_mean_of_their_scores(run: Run) -> None:
    task = three_checkpoints()
    apart = attribute(task, "gas", [0, 2, 3], run=run).scores
    together = attribute(task, "gas", Rows("test", (0, 2, 3), "mean"), run=run)
    torch.testing.assert_close(together.scores, apart.mean(0, keepdim=True), **EXACT)
    assert together.test_ids == ("mean of 3 rows",)


def test_it_has_no_self_influence() -> None:
    with pytest.raises(Unavailable, match="no self-influence"):
        self_influence(three_checkpoints(), "gas")


def test_layerwise_equals_brute_force_by_layer(run: Run) -> None:
    task = CASES["mlp"]()
    expected = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    for c, rate in enumerate(task.learning_rates or ()):
        model = at(task.module, dict(task.state(c)))
        found = {}
        for split in ("test", "train"):
            batch = task.split(split).batch(slice(None), "cpu", torch.float64)
            found[split] = loop_gradients(model, BUILTIN[task.loss.name], batch.inputs, batch.targets)
        layers = {name.rsplit(".", 1)[0] for name in found["test"]}
        assert len(layers) > 1
        for layer in layers:
            names = [name for name in found["test"] if name.rsplit(".", 1)[0] == layer]
            units = [nn.functional.normalize(stacked(found[split], names), dim=1) for split in ("test", "train")]
            expected += rate / len(layers) * units[0] @ units[1].T
    layerwise = attribute(task, "gas_layerwise", task.ids("test").tolist(), run=run).scores
    torch.testing.assert_close(layerwise, expected, **EXACT)
    whole = attribute(task, "gas", task.ids("test").tolist(), run=run).scores
    assert not torch.allclose(layerwise, whole, rtol=1e-3)  # another order, not another name


def test_cosin_counts_checkpoints_alike(run: Run) -> None:
    task = three_checkpoints()
    uniform = attribute(task, "gas", [0, 1], config={"weights": "uniform"}, run=run).scores
    torch.testing.assert_close(attribute(task, "cosin", [0, 1], run=run).scores, uniform, **EXACT)
