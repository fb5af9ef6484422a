"""Per-example gradients of any module equal a loop of plain autograd, row by row and parameter by parameter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from influence_core.errors import BadInput, NumericalProblem
from influence_core.examples import Batch
from influence_core.measurement import Measurement
from influence_core.primitives.gradients import (
    GENERAL,
    named_parameters,
    parameter_vector,
    per_example_gradients,
    planned_gradients,
)
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.sides import Dense, Factored, Tokens
from influence_core.task import Task
from tests.cases import CASES, N_TRAIN, images, integers, made, normal, sentences, vectors
from tests.oracles.gradients import BUILTIN, at, called, loop_gradients

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-11}
CROSS_ENTROPY = LOSSES["cross_entropy"]


def objective(task: Task) -> Any:
    """The oracle's own loss of a task; a custom loss is the user's function itself."""
    if task.loss.name in BUILTIN:
        return BUILTIN[task.loss.name]
    return lambda model, inputs, targets: task.loss(model, Batch(inputs, targets)).sum()


def engine_gradients(model: nn.Module, scalar: Any, batch: Batch, layers: tuple[str, ...] | None = None) -> Any:
    """The plan, and the gradients by parameter name ``[n, *shape]``."""
    plan = planned_gradients(model, scalar, batch, layers)
    sides = per_example_gradients(model, scalar, batch, plan)
    assert [side.rows for side in sides] == [len(batch.targets)] * len(plan.layers)
    assert [side.dense().shape[1] for side in sides] == [plan.sizes[name] for name in plan.layers]
    dense = torch.cat([side.dense() for side in sides], 1)
    rows = [named_parameters(model, plan, vector) for vector in dense]
    return plan, sides, {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def assert_equals_loop(model: nn.Module, batch: Batch, scalar: Any = CROSS_ENTROPY, oracle: Any = None) -> Any:
    """Every parameter's gradient of every row equals the loop's."""
    expected = loop_gradients(model, oracle or BUILTIN["cross_entropy"], batch.inputs, batch.targets)
    plan, sides, found = engine_gradients(model, scalar, batch)
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
    return plan, sides


# -- every case -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_equals_a_loop_over_rows(name: str) -> None:
    task = CASES[name]()
    batch = task.split("train").batch(slice(None), "cpu", F64)
    for checkpoint in range(task.n_checkpoints):
        model = task.model_at(checkpoint, "cpu", F64)
        plan, sides = assert_equals_loop(model, batch, task.loss, objective(task))
        assert plan.n_attributed == plan.n_params == task.n_params
        for side in sides:
            torch.testing.assert_close(side.squared_norms(), side.dense().square().sum(1), **EXACT)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_equals_a_loop_for_any_number_of_rows(name: str, rows: int) -> None:
    """The plan is made on the first rows; it must hold for batches of any size."""
    task = CASES[name]()
    first = task.split("train").batch(slice(0, 3), "cpu", F64)
    model = task.model_at(-1, "cpu", F64)
    plan = planned_gradients(model, task.loss, first)
    batch = task.split("train").batch(slice(2, 2 + rows), "cpu", F64)
    dense = torch.cat([side.dense() for side in per_example_gradients(model, task.loss, batch, plan)], 1)
    expected = loop_gradients(model, objective(task), batch.inputs, batch.targets)
    for i in range(rows):
        vector = parameter_vector(model, plan, {name: value[i] for name, value in expected.items()})
        torch.testing.assert_close(dense[i], vector, **EXACT)


@pytest.mark.parametrize("name", ["mlp", "residual_cnn", "transformer", "tied_weights", "bare_parameters", "binary"])
@pytest.mark.parametrize("kind", ["margin", "probability", "logit"])
def test_measurements_equal_a_loop(name: str, kind: str) -> None:
    task = CASES[name]()

    def oracle(model: nn.Module, inputs: Any, targets: Tensor) -> Tensor:
        f = called(model, inputs)
        if task.loss.name == "bce":
            f = torch.cat([-f / 2, f / 2], 1)
        p = f.softmax(1)[range(len(targets)), targets]
        if kind == "probability":
            return -p.sum()
        if kind == "margin" or task.loss.name == "bce":
            return -(p / (1 - p)).log().sum()
        return -f[range(len(targets)), targets].sum()

    model = task.model_at(-1, "cpu", F64)
    batch = task.split("test").batch(slice(None), "cpu", F64)
    assert_equals_loop(model, batch, Measurement(kind).scalar(task.loss), oracle)


@pytest.mark.parametrize("name", CASES)
def test_parameter_vector_and_named_parameters_are_inverse(name: str) -> None:
    task = CASES[name]()
    model = task.model_at(-1, "cpu", F64)
    plan = planned_gradients(model, task.loss, task.split("train").batch(slice(0, 3), "cpu", F64))
    values = {key: value.detach() for key, value in model.named_parameters()}
    vector = parameter_vector(model, plan, values)
    assert vector.shape == (plan.n_attributed,)
    again = named_parameters(model, plan, vector)
    assert set(again) == set(values)
    for key, value in values.items():
        assert torch.equal(again[key], value)


def test_layers_take_the_route_that_is_meant() -> None:
    def plan(name: str) -> Any:
        task = CASES[name]()
        return planned_gradients(task.model_at(-1, "cpu", F64), task.loss, task.split("train").batch(slice(0, 3)))

    assert plan("mlp").layers == ("0", "2")
    assert plan("cnn_inplace").general == ()
    assert plan("residual_cnn").general == ()
    assert plan("called_twice").factored == ("step", "head")
    assert plan("embedding_twice").factored == ("embedding", "head")
    assert plan("batch_norm_1d").factored == ("0", "1", "4")
    # The shared weight and what nn.MultiheadAttention uses past its modules take the general route.
    assert plan("tied_weights").general == ("embedding.weight",)
    assert "block.self_attn.in_proj_weight" in plan("transformer").general
    assert {"embedding", "norm", "head", "block.linear1", "block.norm1"} <= set(plan("transformer").factored)


# -- a grid of convolutions -------------------------------------------------------------------------------------------

CONV2D = [
    {"kernel_size": 3}, {"kernel_size": 1}, {"kernel_size": 3, "padding": 1}, {"kernel_size": 3, "stride": 2},
    {"kernel_size": 3, "stride": 3, "padding": 1}, {"kernel_size": 2, "dilation": 2},
    {"kernel_size": 3, "dilation": 2, "padding": 2, "stride": 2}, {"kernel_size": (1, 3), "stride": (2, 1)},
    {"kernel_size": (3, 2), "padding": (2, 0), "dilation": (1, 2)}, {"kernel_size": 3, "groups": 2},
    {"kernel_size": 3, "groups": 4, "padding": 1}, {"kernel_size": 3, "padding": "same"},
    {"kernel_size": 2, "padding": "same"}, {"kernel_size": 3, "padding": "valid", "bias": False},
    {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"}, {"kernel_size": 6},
    {"kernel_size": 3, "padding": 1, "padding_mode": "replicate", "stride": 2},
    {"kernel_size": 3, "padding": (1, 2), "padding_mode": "circular", "bias": False, "groups": 2},
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("options", CONV2D, ids=str)
@pytest.mark.parametrize("out", [4, 64])
def test_convolutions_2d(options: dict[str, Any], out: int) -> None:
    """Few output channels keep gradients written out, many keep factors: both are exact."""
    check_convolution(lambda: nn.Conv2d(4, out, **options), normal(5, 4, 7, 6, seed=3))


@pytest.mark.parametrize("options", [
    {"kernel_size": 3}, {"kernel_size": 3, "stride": 2, "padding": 1}, {"kernel_size": 2, "dilation": 3},
    {"kernel_size": 3, "groups": 2, "bias": False}, {"kernel_size": 3, "padding": 2, "padding_mode": "reflect"},
    {"kernel_size": 4, "padding": "same"}, {"kernel_size": 3, "padding": 2, "padding_mode": "circular", "stride": 3},
], ids=str)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("out", [4, 64])
def test_convolutions_1d(options: dict[str, Any], out: int) -> None:
    check_convolution(lambda: nn.Conv1d(4, out, **options), normal(5, 4, 9, seed=4))


def check_convolution(factory: Any, x: Tensor) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = factory()
            self.head = nn.Linear(self.conv.out_channels, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.conv(x)).flatten(2).pow(2).sum(2))

    model = made(Net, 1).eval()
    plan, _ = assert_equals_loop(model, Batch(x, integers(3, len(x), seed=1)))
    assert plan.factored == ("conv", "head")


def test_channels_last_inputs() -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.Flatten(), nn.Linear(36, 3)), 0)
    x, y = images(5, 1)
    assert_equals_loop(model.eval(), Batch(x.to(memory_format=torch.channels_last), y))


def test_linear_on_sequences_is_factored_or_dense_by_size() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.narrow = nn.Linear(6, 64), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.narrow(torch.tanh(self.wide(x))).sum(1)

    model = made(Net, 0).eval()
    _, sides = assert_equals_loop(model, Batch(normal(4, 5, 6, seed=1), integers(2, 4, seed=2)))
    assert isinstance(sides[0], Factored) and isinstance(sides[1], Dense)


def test_embedding_side_holds_tokens_and_ignores_padding() -> None:
    task = CASES["transformer"]()
    model = task.model_at(0, "cpu", F64)
    batch = task.split("train").batch(slice(None), "cpu", F64)
    plan, sides, found = engine_gradients(model, task.loss, batch)
    assert isinstance(sides[plan.layers.index("embedding")], Tokens)
    assert not found["embedding.weight"][:, 0].any()
    assert found["embedding.weight"][:, 1:].any()


# -- named layers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("mlp", ("2",)), ("residual_cnn", ("conv1", "norm2")), ("transformer", ("block",)),
        ("transformer", ("block.self_attn", "head")), ("transformer", ("place",)), ("bare_parameters", ("shift",)),
        ("transformer", ("block.linear1.bias",)), ("tied_weights", ("decoder",)), ("recurrent", ("lstm",)),
    ],
)  # fmt: skip
def test_named_layers(name: str, layers: tuple[str, ...]) -> None:
    task = CASES[name]()
    model = task.model_at(-1, "cpu", F64)
    batch = task.split("train").batch(slice(None), "cpu", F64)
    expected = loop_gradients(model, objective(task), batch.inputs, batch.targets)
    # A shared weight is known by its first name.
    first = {id(value): key for key, value in model.named_parameters()}
    names = {
        first[id(value)]
        for key, value in model.named_parameters(remove_duplicate=False)
        if any(key == layer or key.startswith(layer + ".") for layer in layers)
    }
    plan, _, found = engine_gradients(model, task.loss, batch, layers)
    assert set(found) == names
    assert plan.n_attributed == sum(expected[key][0].numel() for key in names) < plan.n_params
    for key in names:
        torch.testing.assert_close(found[key], expected[key], **EXACT)


def test_an_unknown_layer_is_named_beside_the_known_ones() -> None:
    task = CASES["residual_cnn"]()
    with pytest.raises(BadInput) as error:
        planned_gradients(task.model_at(0), task.loss, task.split("train").batch(slice(0, 3)), ("conv9",))
    assert "conv9" in error.value.why and "conv1" in error.value.fix


def test_a_layer_without_parameters_is_refused() -> None:
    task = CASES["mlp"]()
    with pytest.raises(BadInput, match="none of its own"):
        planned_gradients(task.model_at(0), task.loss, task.split("train").batch(slice(0, 3)), ("1",))


# -- traps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.InstanceNorm2d])
def test_batch_norm_in_batch_mode_is_refused_and_instance_norm_is_not(norm: Any) -> None:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), norm(4, affine=True, track_running_stats=False), nn.Flatten(), nn.Linear(64, 3)
    )
    model = net.double().eval()
    batch = Batch(*images(5, 1))
    if norm is nn.InstanceNorm2d:
        assert_equals_loop(model, batch)
        return
    with pytest.raises(BadInput, match="Rows depend on each other"):
        planned_gradients(model, CROSS_ENTROPY, batch)


def test_batch_norm_1d_in_batch_mode_is_refused_in_words() -> None:
    """PyTorch raises a ValueError of its own on one row."""
    model = (
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double().eval()
    )
    with pytest.raises(BadInput, match="Rows depend on each other"):
        planned_gradients(model, CROSS_ENTROPY, Batch(*vectors(5, 1)))


def test_a_loss_that_mixes_rows_is_refused() -> None:
    def contrast(model: Any, batch: Any) -> Tensor:
        f = model(batch.inputs)
        return (f - f.mean(0)).square().sum(1)

    with pytest.raises(BadInput, match="Rows depend on each other"):
        planned_gradients(nn.Linear(5, 3).double(), contrast, Batch(*vectors(5, 1)))


def test_a_model_random_in_eval_mode_is_refused() -> None:
    class Noisy(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(F.dropout(input, 0.5, training=True))

    with torch.random.fork_rng(devices=[]), pytest.raises(BadInput, match="The model is random"):
        planned_gradients(Noisy(5, 3).double(), CROSS_ENTROPY, Batch(*vectors(5, 1)))


def test_a_mean_loss_is_refused() -> None:
    for mean in (lambda model, batch: F.cross_entropy(model(batch.inputs), batch.targets),
                 lambda model, batch: F.cross_entropy(model(batch.inputs), batch.targets)[None]):  # fmt: skip
        with pytest.raises(BadInput) as error:
            planned_gradients(nn.Linear(5, 3).double(), mean, Batch(*vectors(5, 1)))
        assert "one number per row" in error.value.fix


def test_a_loss_without_gradient_is_refused() -> None:
    def detached(model: Any, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch.inputs).detach(), batch.targets, reduction="none")

    with pytest.raises(BadInput, match="The loss cannot be used"):
        planned_gradients(nn.Linear(5, 3).double(), detached, Batch(*vectors(5, 1)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_a_number_is_said(value: float) -> None:
    x, y = vectors(5, 1)
    x[1, 2] = value
    with pytest.raises(NumericalProblem, match="The loss is not a number"):
        planned_gradients(nn.Linear(5, 3).double(), CROSS_ENTROPY, Batch(x, y))


def test_a_layer_that_the_loss_does_not_reach_has_zero_gradient() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.never, self.cut = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(5, 3)
            self.bare = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x) + 0 * self.cut(x).detach()

    model = made(Unused, 0).eval()
    batch = Batch(*vectors(5, 1))
    assert_equals_loop(model, batch)
    _, _, found = engine_gradients(model, CROSS_ENTROPY, batch)
    assert found["used.weight"].any()
    assert not any(found[name].any() for name in ("never.weight", "cut.bias", "bare"))


def test_a_measurement_that_does_not_move_with_the_model_has_zero_gradient() -> None:
    model = made(lambda: nn.Linear(5, 3), 0).eval()
    batch = Batch(*vectors(5, 1))
    plan = planned_gradients(model, CROSS_ENTROPY, batch)
    for constant in (lambda model, batch: model(batch.inputs).detach().sum(1),
                     lambda model, batch: batch.inputs.sum(1)):  # fmt: skip
        (side,) = per_example_gradients(model, Measurement(constant).scalar(CROSS_ENTROPY), batch, plan)
        assert side.dense().shape == (5, 18) and not side.dense().any()


def test_a_weight_used_outside_its_module_is_demoted_by_the_proof() -> None:
    task = CASES["weight_used_outside"]()
    plan = planned_gradients(task.model_at(0), task.loss, task.split("train").batch(slice(0, 3)))
    assert plan.factored == ("head",) and plan.general == ("first.weight", "first.bias")


def test_a_weight_looked_at_by_the_loss_alone() -> None:
    """An L2 penalty inside a custom loss reaches the weight past the module and past ``forward``."""

    def penalised(model: Any, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch.inputs), batch.targets, reduction="none") + model[0].weight.square().sum()

    model = made(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), 0).eval()
    batch = Batch(*vectors(5, 1))
    oracle = lambda m, x, y: penalised(m, Batch(x, y)).sum()  # noqa: E731
    assert_equals_loop(model, batch, penalised, oracle)


class Aliased(nn.Module):
    """Reaches its weight through a plain list that ``torch.func.functional_call`` does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))
        self.scale = nn.Parameter(torch.ones(3))
        self.held = [self.weight]

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.held[0]) * self.scale


def test_a_weight_reached_through_a_plain_list_is_found_by_the_proof() -> None:
    plan, _ = assert_equals_loop(made(Aliased, 0).eval(), Batch(*vectors(5, 1)))
    assert plan.looped


def test_a_layer_that_sees_another_number_of_rows_later_is_refused_not_zeroed() -> None:
    """With one row, length first and rows first look the same."""
    task = CASES["transformer_sequence_first"]()
    model = task.model_at(0, "cpu", F64)
    one = Batch(sentences(1, 1, length=1)[0], integers(3, 1, seed=1))
    plan = planned_gradients(model, task.loss, one)
    with pytest.raises(BadInput, match="1 rows for 11 rows"):
        per_example_gradients(model, task.loss, Batch(sentences(11, 1, length=1)[0], integers(3, 11, seed=1)), plan)


def test_a_linear_with_a_parameter_of_its_own_added() -> None:
    def factory() -> nn.Module:
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        model[0].gain = nn.Parameter(torch.ones(4))
        return model

    assert_equals_loop(made(factory, 0).eval(), Batch(*vectors(5, 1)))


def test_a_hook_that_changes_a_layers_output() -> None:
    model = made(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), 0).eval()
    model[0].register_forward_hook(lambda module, args, output: output * output)
    assert_equals_loop(model, Batch(*vectors(5, 1)))


def test_a_layer_called_with_a_keyword() -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.first(input=torch.tanh(self.first(x)))))

    assert_equals_loop(made(Keyword, 0).eval(), Batch(*vectors(5, 1)))


class Branches(nn.Module):
    """Python decides by a number of the data: ``vmap`` cannot."""

    def __init__(self, item: bool) -> None:
        super().__init__()
        self.item, self.weight = item, nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        rows = []
        for one in x:
            positive = one.sum().item() > 0 if self.item else one.sum() > 0
            rows.append(torch.tanh(one @ self.weight) if positive else (one @ self.weight) ** 2)
        return torch.stack(rows)


class Squared(torch.autograd.Function):
    """A user's own backward pass in the old style, which ``torch.func`` refuses."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grads[0]


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return Squared.apply(x @ self.weight)  # type: ignore[return-value]


class ThroughNumpy(nn.Module):
    """Reads numbers through NumPy on the way: a table look-up that no transform can see."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.from_numpy(x.detach().numpy().max(1, keepdims=True))
        return scale * (x @ self.weight)


@pytest.mark.parametrize(
    "factory", [lambda: Branches(True), lambda: Branches(False), OwnFunction, ThroughNumpy],
    ids=["item", "branch", "autograd-function", "numpy"],
)  # fmt: skip
def test_a_model_that_cannot_be_vectorised_is_looped_over_and_exact(factory: Any) -> None:
    plan, _ = assert_equals_loop(made(factory, 0).eval(), Batch(*vectors(6, 1)))
    assert plan.layers == (GENERAL,)


def test_a_loss_with_single_precision_constants_works_in_single_precision() -> None:
    table = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))

    def costs(model: Any, batch: Any) -> Tensor:
        return (model(batch.inputs).softmax(1) @ table).square().sum(1)

    model = made(lambda: nn.Linear(5, 3), 0).float().eval()
    x, y = vectors(5, 1)
    _, _, found = engine_gradients(model, costs, Batch(x.float(), y))
    double = at(made(lambda: nn.Linear(5, 3), 0), model.state_dict())
    expected = loop_gradients(double, lambda m, x, y: (m(x).softmax(1) @ table.double()).square().sum(), x, y)
    torch.testing.assert_close(found["weight"].double(), expected["weight"], rtol=1e-4, atol=1e-5)


def test_works_under_no_grad() -> None:
    task = CASES["transformer"]()
    batch = task.split("train").batch(slice(None), "cpu", F64)
    model = task.model_at(0, "cpu", F64)
    expected = torch.cat([s.dense() for s in per_example_gradients(
        model, task.loss, batch, planned_gradients(model, task.loss, batch))], 1)  # fmt: skip
    with torch.no_grad():
        plan = planned_gradients(model, task.loss, batch)
        found = torch.cat([side.dense() for side in per_example_gradients(model, task.loss, batch, plan)], 1)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["residual_cnn", "transformer", "batch_norm_1d", "recurrent"])
def test_model_mode_and_random_state_are_left_alone(name: str) -> None:
    task = CASES[name]()
    model = task.model_at(0, "cpu", F64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert_equals_loop(model, task.split("train").batch(slice(None), "cpu", F64), task.loss, objective(task))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training and all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_many_rows_of_the_general_route_come_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by cutting the batch; the pieces must line up again."""
    from influence_core.primitives import gradients

    task = CASES["bare_parameters"]()
    model = task.model_at(0, "cpu", F64)
    batch = task.split("train").batch(slice(None), "cpu", F64)
    plan = planned_gradients(model, task.loss, batch)
    whole = per_example_gradients(model, task.loss, batch, plan)[0].dense()
    original, sizes = gradients._general_gradients, []

    def counted(model: Any, scalar: Any, part: Any, *rest: Any) -> Any:
        sizes.append(len(part.targets))
        return original(model, scalar, part, *rest)

    monkeypatch.setattr(gradients, "_general_gradients", counted)
    plan.sizes[GENERAL] = (256 << 20) // (4 * 4)  # as if four rows filled the budget
    pieces = per_example_gradients(model, task.loss, batch, plan)[0].dense()
    assert sizes == [4, 4, N_TRAIN - 8]
    torch.testing.assert_close(pieces, whole, rtol=1e-14, atol=0)


def test_sentences_contain_padding() -> None:
    """The embedding cases mean something only if padding occurs."""
    assert (sentences(5, 1)[0] == 0).any(1).all()
