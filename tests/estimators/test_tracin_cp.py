"""TracIn against brute force, against Captum, and against training itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from influence_core.api import attribute, self_influence
from influence_core.errors import BadInput, Unavailable
from influence_core.examples import Batch
from influence_core.measurement import Measurement
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, images, integers, made, normal, vectors
from tests.oracles.gradients import BUILTIN, at, called, loop_gradients, stacked, tracin

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture
def run(tmp_path: Any) -> Run:
    return Run(device="cpu", dtype=torch.float64, batch_size=4, store=Store(tmp_path / "store"))


def parts(task: Task, split: str) -> tuple[Any, Tensor]:
    batch = task.split(split).batch(slice(None), "cpu", torch.float64)
    return batch.inputs, batch.targets


def brute(task: Task, names: list[str] | None = None) -> Tensor:
    def custom(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        return task.loss(model, Batch(inputs, targets)).sum()

    assert task.learning_rates is not None
    states = [dict(task.state(c)) for c in range(task.n_checkpoints)]
    objective = BUILTIN.get(task.loss.name, custom)
    return tracin(task.module, states, task.learning_rates, objective, parts(task, "test"), parts(task, "train"), names)


def all_rows(task: Task) -> list[Any]:
    return task.ids("test").tolist()


# -- the equation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force(name: str, run: Run) -> None:
    task = CASES[name]()
    found = attribute(task, "tracin_cp", all_rows(task), run=run)
    expected = brute(task)
    torch.testing.assert_close(found.scores, expected, **EXACT)
    assert found.units == "gradient" and found.share == 1.0
    # The other order of test and train rows is another number: the shape alone would not show a transposition.
    assert found.scores.shape == (task.n_test, task.n_train)


@pytest.mark.parametrize(("name", "layers"), [("residual_cnn", ("conv1",)), ("transformer", ("block", "place"))])
def test_named_layers_equal_brute_force_on_their_parameters(name: str, layers: tuple[str, ...], run: Run) -> None:
    task = CASES[name]()
    names = [p for p, _ in task.module.named_parameters() if p.split(".")[0] in layers]
    found = attribute(task, "tracin_cp", all_rows(task), config={"layers": layers}, run=run)
    torch.testing.assert_close(found.scores, brute(task, names), **EXACT)
    n_named = sum(p.numel() for p_name, p in task.module.named_parameters() if p_name in names)
    assert found.share == pytest.approx(n_named / task.n_params)


def test_layers_without_modules_of_their_own_are_not_confused_in_the_store(run: Run) -> None:
    """Both take the general route: their artifacts must not share a key."""
    task = CASES["bare_parameters"]()
    for name in ("weight", "shift", "scale"):
        found = attribute(task, "tracin_cp", all_rows(task), config={"layers": (name,)}, run=run).scores
        torch.testing.assert_close(found, brute(task, [name]), **EXACT)


@pytest.mark.parametrize("kind", ["margin", "probability", "logit"])
def test_other_measurements_equal_brute_force(kind: str, run: Run) -> None:
    task = CASES["cnn_inplace"]()

    def measured(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        f = called(model, inputs)
        p = f.softmax(1)[range(len(targets)), targets]
        own = f[range(len(targets)), targets]
        return {"margin": (p / (1 - p)).log(), "probability": p, "logit": own}[kind].sum()

    expected = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    assert task.learning_rates is not None
    for c, rate in enumerate(task.learning_rates):
        twin = at(task.module, dict(task.state(c)))
        up = stacked(loop_gradients(twin, measured, *parts(task, "test")))
        down = stacked(loop_gradients(twin, BUILTIN["cross_entropy"], *parts(task, "train")))
        expected += rate * up @ -down.T
    found = attribute(task, "tracin_cp", all_rows(task), measurement=Measurement(kind), run=run).scores
    torch.testing.assert_close(found, expected, **EXACT)


def test_a_function_measurement_equals_the_built_in_one(run: Run) -> None:
    task = CASES["mlp"]()

    def minus_loss(model: Any, batch: Any) -> Tensor:
        return -nn.functional.cross_entropy(model(batch.inputs), batch.targets, reduction="none")

    a = attribute(task, "tracin_cp", all_rows(task), measurement=Measurement(minus_loss), run=run).scores
    b = attribute(task, "tracin_cp", all_rows(task), run=run).scores
    torch.testing.assert_close(a, b, **EXACT)


def test_self_influence_is_the_weighted_squared_length(run: Run) -> None:
    task = CASES["transformer"]()
    assert task.learning_rates is not None
    expected = torch.zeros(task.n_train, dtype=torch.float64)
    for c, rate in enumerate(task.learning_rates):
        rows = loop_gradients(at(task.module, dict(task.state(c))), BUILTIN["cross_entropy"], *parts(task, "train"))
        expected += rate * stacked(rows).square().sum(1)
    torch.testing.assert_close(self_influence(task, "tracin_cp", run=run), expected, **EXACT)


def test_single_precision_keeps_six_digits(tmp_path: Any) -> None:
    task = CASES["residual_cnn"]()
    found = attribute(task, "tracin_cp", all_rows(task), run=Run(device="cpu", store=Store(tmp_path))).scores
    expected = brute(task)
    assert found.dtype == torch.float32
    assert float((found - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_learning_rates_are_needed() -> None:
    task = Task(nn.Linear(5, 3), vectors(4, 1), vectors(2, 2))
    with pytest.raises(Unavailable, match="learning rate at each checkpoint"):
        attribute(task, "tracin_cp", [0])


# -- Captum -----------------------------------------------------------------------------------------------------------


class Summed(nn.CrossEntropyLoss):
    """Captum wants to be told the reduction."""

    def __init__(self) -> None:
        super().__init__(reduction="sum")


def captum_parts(task: Task) -> dict[str, Any]:
    assert task.learning_rates is not None

    def load(model: nn.Module, checkpoint: tuple[dict[str, Tensor], float]) -> float:
        model.load_state_dict(checkpoint[0])
        return checkpoint[1]

    return {
        "model": at(task.module, dict(task.state())), "train_dataset": TensorDataset(*parts(task, "train")),
        "checkpoints": [(dict(task.state(c)), rate) for c, rate in enumerate(task.learning_rates)],
        "checkpoints_load_func": load, "loss_fn": Summed(), "batch_size": 3,
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["mlp", "cnn_inplace", "linear_alone"])
def test_equals_captums_tracincp(name: str, run: Run) -> None:
    from captum.influence import TracInCP

    task = net_for_captum(name)
    twin = TracInCP(**captum_parts(task), sample_wise_grads_per_batch=True)
    theirs = twin.influence(tuple(parts(task, "test")), k=None)
    ours = attribute(task, "tracin_cp", all_rows(task), run=run).scores
    assert isinstance(theirs, Tensor) and theirs.shape == ours.shape
    torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=1e-5 * float(theirs.abs().max()))


def net_for_captum(name: str) -> Task:
    """Captum's own hooks do not survive in-place activations, so its twin is the same net without them."""
    if name != "cnn_inplace":
        return CASES[name]()

    def net() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 3)
        )

    states = [made(net, seed).state_dict() for seed in range(2)]
    return Task(lambda: made(net, 0), images(9, 1), images(4, 2), checkpoints=states, learning_rates=[0.1, 0.3])


@pytest.mark.filterwarnings("ignore")
def test_tracin_fast_has_the_bias_that_captums_leaves_out(run: Run) -> None:
    from captum.influence import TracInCPFast

    task = CASES["mlp"]()
    options = captum_parts(task)
    twin = TracInCPFast(**options, final_fc_layer="2")
    theirs = twin.influence(tuple(parts(task, "test")), k=None)
    ours = attribute(task, "tracin_fast", all_rows(task), run=run)
    without, bias = brute(task, ["2.weight"]), brute(task, ["2.bias"])
    torch.testing.assert_close(ours.scores, without + bias, **EXACT)
    assert isinstance(theirs, Tensor)
    torch.testing.assert_close(theirs.double(), without, rtol=1e-5, atol=1e-6)
    assert float(bias.abs().max()) > 0.01 * float(without.abs().max())
    assert ours.config["layers"] == ["last"] and ours.method == "tracin_fast"


@pytest.mark.filterwarnings("ignore")
def test_self_influence_equals_captums(run: Run) -> None:
    from captum.influence import TracInCP

    task = CASES["mlp"]()
    twin = TracInCP(**captum_parts(task), sample_wise_grads_per_batch=True)
    loader = DataLoader(TensorDataset(*parts(task, "train")), batch_size=4)
    theirs = twin.self_influence(loader)
    torch.testing.assert_close(self_influence(task, "tracin_cp", run=run), theirs.double(), rtol=1e-5, atol=1e-6)


# -- the last layer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "cnn_inplace", "linear_alone", "regression", "tied_weights", "dict_input"])
def test_tracin_fast_is_tracin_on_the_last_layer(name: str, run: Run) -> None:
    task = CASES[name]()
    last = task.last_layer
    assert last is not None
    owned = {id(p) for p in (task.module.get_submodule(last) if last else task.module).parameters()}
    names = [p_name for p_name, p in task.module.named_parameters() if id(p) in owned]
    found = attribute(task, "tracin_fast", all_rows(task), run=run).scores
    torch.testing.assert_close(found, brute(task, names), **EXACT)


def test_tracin_fast_is_the_closed_form_of_features_and_residuals(run: Run) -> None:
    """``sum_c eta (f_i . f_t + 1)(r_i . r_t)`` without any backward pass."""
    task = CASES["mlp"]()
    total = torch.zeros(task.n_test, task.n_train, dtype=torch.float64)
    assert task.learning_rates is not None
    for c, rate in enumerate(task.learning_rates):
        state = {k: v.double() for k, v in task.state(c).items()}

        def side(split: str, state: dict[str, Tensor] = state) -> tuple[Tensor, Tensor]:
            x, y = parts(task, split)
            f = torch.tanh(x @ state["0.weight"].T + state["0.bias"])
            p = (f @ state["2.weight"].T + state["2.bias"]).softmax(1)
            return f, p - nn.functional.one_hot(y, 3)

        (ft, rt), (fi, ri) = side("test"), side("train")
        total += rate * (ft @ fi.T + 1) * (rt @ ri.T)
    torch.testing.assert_close(attribute(task, "tracin_fast", all_rows(task), run=run).scores, total, **EXACT)


def test_tracin_fast_needs_a_last_linear_layer() -> None:
    task = CASES["bare_parameters"]()
    with pytest.raises(Unavailable, match="a last Linear layer"):
        attribute(task, "tracin_fast", [0])


# -- projections and half precision -----------------------------------------------------------------------------------


def wide_task() -> Task:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 5))

    states = [made(net, seed).state_dict() for seed in range(2)]
    train, test = ((normal(n, 20, seed=n), integers(5, n, seed=n)) for n in (60, 6))
    return Task(lambda: made(net, 0), train, test, checkpoints=states, learning_rates=[0.1, 0.2])


def test_projections_are_unbiased_and_shrink_with_the_root_of_k(tmp_path: Any) -> None:
    task = wide_task()
    rows = all_rows(task)
    store = Store(tmp_path)

    def projected(k: int, seed: int) -> Tensor:
        run = Run(device="cpu", dtype=torch.float64, seed=seed, store=store)
        return attribute(task, "tracin_cp", rows, config={"projection": k}, run=run).scores

    exact = brute(task)
    errors = {}
    for k in (16, 64, 256):
        draws = torch.stack([projected(k, seed) for seed in range(12)])
        errors[k] = float((draws - exact).square().mean().sqrt())
        # Unbiased: the mean of 12 draws is nearer by the root of 12, up to chance.
        assert float((draws.mean(0) - exact).square().mean().sqrt()) < 1.6 * errors[k] / 12**0.5
    for small, large in ((16, 64), (64, 256)):
        assert 1.6 < errors[small] / errors[large] < 2.5
    # The size that is documented: sqrt(2/k) |g||h| at most, 1/k (|g|^2|h|^2 + <g,h>^2) exactly.
    assert errors[256] < 0.2 * float(exact.abs().max())


def test_projections_depend_on_the_seed_alone(tmp_path: Any) -> None:
    task = wide_task()
    settings = [(0, "a", 7), (0, "b", 60), (1, "c", 7)]
    same, again, other = (
        attribute(
            task, "tracin_cp", [0, 1], config={"projection": 32},
            run=Run(device="cpu", dtype=torch.float64, seed=seed, batch_size=size, store=Store(tmp_path / name)),
        ).scores
        for seed, name, size in settings
    )  # fmt: skip
    torch.testing.assert_close(same, again, **EXACT)
    assert not torch.allclose(same, other, rtol=1e-3)


@pytest.mark.parametrize("options", [{"projection": 8}, {"projection": 10**6}, {"projektion": 32}, {"storage": "tiny"}])
def test_bad_options_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(options))):
        attribute(wide_task(), "tracin_cp", [0], config=options)


def test_a_projection_too_large_for_memory_is_refused() -> None:
    task = Task(nn.Linear(3000, 40), (torch.zeros(2, 3000), torch.zeros(2).long()),
                (torch.zeros(1, 3000), torch.zeros(1).long()), learning_rates=[0.1])  # fmt: skip
    with pytest.raises(BadInput, match="The projection is too large"):
        attribute(task, "tracin_cp", [0], config={"projection": 65_536})


@pytest.mark.parametrize("name", ["transformer", "cnn_inplace", "mlp"])
def test_half_storage_keeps_three_digits(name: str, run: Run) -> None:
    task = CASES[name]()
    exact = attribute(task, "tracin_cp", all_rows(task), run=run).scores
    half = attribute(task, "tracin_cp", all_rows(task), config={"storage": "half"}, run=run).scores
    assert not torch.equal(half, exact)
    assert float((half - exact).abs().max()) < 2e-3 * float(exact.abs().max())


def test_half_storage_keeps_the_top_rows_of_faint_gradients(tmp_path: Any) -> None:
    """Rows learnt by heart have gradients below the range of 16-bit numbers; their scale is kept beside them."""

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4))

    model = made(net, 0)
    with torch.no_grad():
        model[2].weight.mul_(60.0)
    x = normal(400, 20, seed=1)
    y = model(x).argmax(1).detach()
    task = Task(lambda: made(net, 0), (x, y), (x[:20], y[:20]), checkpoints=[model.state_dict()], learning_rates=[1.0])
    run = Run(device="cpu", dtype=torch.float64, store=Store(tmp_path))
    rows = list(range(20))
    exact = attribute(task, "tracin_cp", rows, run=run).proponents(50)
    half = attribute(task, "tracin_cp", rows, config={"storage": "half"}, run=run).proponents(50)
    kept = sum(len(set(a) & set(b)) for a, b in zip(exact.ids, half.ids, strict=True))
    assert kept / sum(len(a) for a in exact.ids) >= 0.99
    lengths = self_influence(task, "tracin_cp", run=run)
    assert int((lengths < 1e-9).sum()) >= 20, "no gradient here is faint: the test shows nothing"


# -- training itself --------------------------------------------------------------------------------------------------


def completeness_gap(rate: float, steps: int) -> float:
    """Replay SGD row by row with every step a checkpoint: what do the scores of the rows used leave unexplained?"""

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))

    model = made(net, 3)
    train, test = vectors(8, 1), vectors(3, 2)
    order = integers(8, steps, seed=9).tolist()
    states = []
    for i in order:
        states.append({key: value.clone() for key, value in model.state_dict().items()})
        loss = nn.functional.cross_entropy(model(train[0][i : i + 1]), train[1][i : i + 1])
        grads = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for p, g in zip(model.parameters(), grads, strict=True):
                p -= rate * g
    start = at(model, states[0])
    drop = [nn.functional.cross_entropy(m(test[0]), test[1], reduction="none").detach() for m in (start, model)]
    total = torch.zeros(3, dtype=torch.float64)
    for state, i in zip(states, order, strict=True):
        task = Task(lambda: made(net, 3), train, test, checkpoints=[state], learning_rates=[rate])
        run = Run(device="cpu", dtype=torch.float64)
        total += attribute(task, "tracin_cp", [0, 1, 2], run=run).scores[:, i]
    return float((total - (drop[0] - drop[1])).abs().max() / (drop[0] - drop[1]).abs().max())


def test_the_scores_of_the_steps_taken_add_up_to_the_drop_in_loss() -> None:
    """To first order in the learning rate: a tenth of the rate leaves a tenth of the gap."""
    gaps = [completeness_gap(rate, 12) for rate in (0.1, 0.01, 0.001)]
    assert gaps[0] < 0.3
    assert 6 < gaps[0] / gaps[1] < 15 and 6 < gaps[1] / gaps[2] < 15
