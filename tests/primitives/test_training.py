"""Training: repeatable to the bit, and a row of weight 0 leaves everything else as it was."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from influence_core.errors import NumericalProblem
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.primitives.training import Epoch, new_model, seeded, training
from influence_core.recipe import Recipe
from tests.oracles.refits import softmax_fit
from tests.oracles.training import ridge, sgd_without

N, D, C = 23, 4, 3


def data(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    return x, torch.randint(C, (N,), generator=generator)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, C))


def with_dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(D, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, C))


def run(factory, recipe: Recipe, weights: Tensor | None = None, loss: str = "cross_entropy", rows=None):
    model = new_model(factory, recipe)
    epochs = list(training(model, Examples(rows or data()), LOSSES[loss], recipe, weights))
    return model, epochs


def weights_of(model: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def without(*rows: int) -> Tensor:
    weights = torch.ones(N)
    weights[list(rows)] = 0
    return weights


def cross_entropies(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="none")


SGD = {"learning_rate": 0.1, "momentum": 0.7, "weight_decay": 0.02, "batch_size": 5, "epochs": 4, "dtype": "float64"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lbfgs"])
def test_the_same_recipe_gives_the_same_bits_whatever_was_drawn_before(optimizer: str, dtype: str) -> None:
    recipe = Recipe(optimizer=optimizer, learning_rate=0.05, batch_size=5, epochs=3, seed=4, dtype=dtype)
    factory = net if optimizer == "lbfgs" else with_dropout
    first, epochs = run(factory, recipe)
    torch.rand(17)
    second, again = run(factory, recipe)
    assert epochs == again
    for a, b in zip(weights_of(first), weights_of(second), strict=True):
        assert torch.equal(a, b) and a.dtype == getattr(torch, dtype)


def test_another_seed_gives_another_model() -> None:
    recipe = Recipe(**SGD)
    first, second = run(net, recipe)[0], run(net, recipe.changed(seed=1))[0]
    assert not torch.equal(weights_of(first)[0], weights_of(second)[0])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("removed", [(), (3,), (0, 7, 22)])
def test_a_row_of_weight_0_is_a_row_that_is_not_there(removed: tuple[int, ...], schedule: str) -> None:
    recipe = Recipe(**SGD, schedule=schedule, seed=2)
    model, _ = run(net, recipe, without(*removed))
    oracle = new_model(net, recipe)
    sgd_without(
        oracle, cross_entropies, *data(), removed=removed, rate=0.1, momentum=0.7, decay=0.02, batch_size=5, epochs=4,
        seed=2, schedule=schedule,
    )  # fmt: skip
    for ours, theirs in zip(weights_of(model), weights_of(oracle), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_a_batch_that_has_lost_all_its_rows_still_takes_its_step() -> None:
    """Momentum and weight decay go on: the others' steps must not move."""
    recipe = Recipe(**{**SGD, "batch_size": 1})
    model, _ = run(net, recipe, without(4))
    oracle = new_model(net, recipe)
    sgd_without(
        oracle,
        cross_entropies,
        *data(),
        removed=(4,),
        rate=0.1,
        momentum=0.7,
        decay=0.02,
        batch_size=1,
        epochs=4,
        seed=0,
    )
    for ours, theirs in zip(weights_of(model), weights_of(oracle), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_fractional_weights_scale_a_rows_gradient() -> None:
    recipe = Recipe(**{**SGD, "batch_size": N, "epochs": 1, "momentum": 0.0, "weight_decay": 0.0})
    start = weights_of(new_model(net, recipe))
    steps = []
    for value in (0.0, 0.5, 1.0):
        weights = torch.zeros(N)
        weights[6] = value
        steps.append(weights_of(run(net, recipe, weights)[0])[0] - start[0])
    assert torch.equal(steps[0], torch.zeros_like(start[0]))
    assert_close(2 * steps[1], steps[2], rtol=0, atol=1e-15)
    assert float(steps[2].abs().max()) > 0


def test_dropout_draws_from_the_runs_own_stream() -> None:
    """The masks are those of one stream from seed + 1 that goes on over the epochs, whatever the caller draws."""
    recipe = Recipe(learning_rate=0.1, batch_size=N, epochs=2, seed=9, dtype="float64")
    model = new_model(with_dropout, recipe)
    drawn = []
    model[2].register_forward_hook(lambda _, x, y: drawn.append((y == 0) & (x[0] != 0)))
    for _ in training(model, Examples(data()), LOSSES["cross_entropy"], recipe):
        torch.rand(5)
        torch.manual_seed(123)
    twin = new_model(with_dropout, recipe)
    order = torch.Generator().manual_seed(9)
    expected = []
    with torch.random.fork_rng():
        torch.manual_seed(10)
        twin.train()
        twin[2].register_forward_hook(lambda _, x, y: expected.append((y == 0) & (x[0] != 0)))
        for _ in range(2):
            index = torch.randperm(N, generator=order)
            loss = cross_entropies(twin, data()[0][index], data()[1][index]).mean()
            gradients = torch.autograd.grad(loss, list(twin.parameters()))
            with torch.no_grad():
                for p, g in zip(twin.parameters(), gradients, strict=True):
                    p.sub_(0.1 * g)
    assert len(drawn) == 2 and drawn[0].any() and not torch.equal(drawn[0], drawn[1])
    for a, b in zip(drawn, expected, strict=True):
        assert torch.equal(a, b)


def test_dropout_masks_do_not_depend_on_who_is_left_out() -> None:
    recipe = Recipe(learning_rate=0.1, batch_size=6, epochs=1, dtype="float64")
    masks = []
    for weights in (None, without(3)):
        model = new_model(with_dropout, recipe)
        drawn: list[Tensor] = []
        model[2].register_forward_hook(lambda _, x, y, kept=drawn: kept.append((y == 0) & (x[0] != 0)))
        list(training(model, Examples(data()), LOSSES["cross_entropy"], recipe, weights))
        masks.append(drawn)
    assert torch.equal(masks[0][0], masks[1][0]) and bool(masks[0][0].any())


def test_global_random_numbers_and_modes_are_left_alone() -> None:
    recipe = Recipe(learning_rate=0.1, batch_size=6, epochs=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model = new_model(with_dropout, recipe)
    for epoch in training(model, Examples(data()), LOSSES["cross_entropy"], recipe):
        assert not model.training and torch.equal(torch.get_rng_state(), state), epoch
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(RuntimeError), seeded(3):
        torch.rand(3)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), state)


def test_a_block_from_a_seed_draws_what_torch_draws_from_it() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    with seeded(3):
        assert torch.equal(torch.rand(4), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_block_from_a_seed_holds_on_a_gpu_and_leaves_its_random_state() -> None:
    torch.rand(1, device="cuda")
    state = torch.cuda.get_rng_state()
    drawn = []
    for _ in range(2):
        with seeded(3):
            drawn.append(torch.rand(4, device="cuda"))
    assert torch.equal(*drawn)
    assert torch.equal(torch.cuda.get_rng_state(), state)


def test_epochs_report_number_rate_and_the_mean_loss_over_all_rows() -> None:
    recipe = Recipe(**{**SGD, "batch_size": 10, "epochs": 3, "momentum": 0.0}, schedule="linear")
    model = new_model(net, recipe)
    losses: list[float] = []

    def recorded(m: nn.Module, batch) -> Tensor:
        values = cross_entropies(m, batch.inputs, batch.targets)
        losses.extend(values.tolist())
        return values

    epochs = list(training(model, Examples(data()), recorded, recipe))  # type: ignore[arg-type]
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    # Three steps per epoch, so the last step of epoch e is step 3 e - 1 of 9.
    assert [epoch.learning_rate for epoch in epochs] == pytest.approx([0.1 * (1 - s / 9) for s in (2, 5, 8)])
    assert [epoch.loss for epoch in epochs] == pytest.approx([sum(losses[e * N : e * N + N]) / N for e in range(3)])


def test_adam_is_torchs_adam_with_l2_in_the_gradient() -> None:
    recipe = Recipe(optimizer="adam", learning_rate=0.05, weight_decay=0.1, batch_size=N, epochs=3, dtype="float64")
    model, _ = run(net, recipe)
    twin = new_model(net, recipe)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in twin.parameters()]
    for t in range(1, 4):
        loss = cross_entropies(twin, *data()).mean() + 0.05 * sum(p.square().sum() for p in twin.parameters())
        gradients = torch.autograd.grad(loss, list(twin.parameters()))
        with torch.no_grad():
            for p, g, (m, v) in zip(twin.parameters(), gradients, moments, strict=True):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                p.sub_(0.05 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8))
    for ours, theirs in zip(weights_of(model), weights_of(twin), strict=True):
        assert_close(ours, theirs, rtol=0, atol=1e-10)


@pytest.mark.parametrize("removed", [(), (2,), (5, 9, 11)])
def test_lbfgs_reaches_the_ridge_optimum(removed: tuple[int, ...]) -> None:
    x, _ = data()
    y = x @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64) + 0.3 * data(2)[0][:, 0] + 1
    recipe = Recipe(optimizer="lbfgs", weight_decay=0.03, epochs=200, dtype="float64")
    model, epochs = run(lambda: nn.Linear(D, 1), recipe, without(*removed), "mse", (x, y))
    best = ridge(x, y, without(*removed).double() / N, 0.03)
    assert_close(torch.cat([p.flatten() for p in weights_of(model)]), best, rtol=0, atol=1e-10)
    a = torch.cat([x, torch.ones(N, 1, dtype=x.dtype)], 1)
    value = (without(*removed) * (a @ best - y).square()).sum() / N + 0.015 * best.square().sum()
    assert epochs == [Epoch(1, 1.0, pytest.approx(float(value), abs=1e-12))]


@pytest.mark.parametrize("removed", [(), (2,), (5, 9, 11)])
@pytest.mark.parametrize("decay", [1e-3, 0.1])
def test_lbfgs_reaches_the_logistic_optimum(removed: tuple[int, ...], decay: float) -> None:
    recipe = Recipe(optimizer="lbfgs", weight_decay=decay, epochs=500, dtype="float64")
    model, _ = run(lambda: nn.Linear(D, C), recipe, without(*removed))
    start = torch.zeros(C, D + 1, dtype=torch.float64)
    best = softmax_fit(*data(), without(*removed).double() / N, decay, C, start)
    weight, bias = weights_of(model)
    assert_close(torch.cat([weight, bias[:, None]], 1), best, rtol=0, atol=1e-10)


def test_lbfgs_leaves_a_model_that_is_not_convex_where_the_line_search_stopped() -> None:
    recipe = Recipe(optimizer="lbfgs", epochs=100, dtype="float64")
    model, epochs = run(net, recipe)
    assert epochs[0].loss < 0.5 and all(bool(p.isfinite().all()) for p in weights_of(model))
    loss = cross_entropies(model, *data()).mean()
    assert float(loss.detach()) == pytest.approx(epochs[0].loss, abs=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "lbfgs"])
def test_a_diverging_run_says_so(optimizer: str) -> None:
    x, _ = data()
    if optimizer == "lbfgs":
        x[3, 1] = torch.nan
    recipe = Recipe(optimizer=optimizer, learning_rate=1e100, batch_size=5, epochs=3, dtype="float64")
    words = r"^Training diverged: The (loss is (nan|inf) in epoch 1|objective is nan)\. .*(learning rate|NaN)"
    with pytest.raises(NumericalProblem, match=words):
        run(lambda: nn.Linear(D, 1), recipe, loss="mse", rows=(x, x[:, 0].clone()))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("factory", [net, with_dropout])
@pytest.mark.parametrize("done", [1, 3])
def test_a_training_goes_on_from_any_epoch_as_if_it_had_never_stopped(factory, optimizer: str, done: int) -> None:
    recipe = Recipe(**{**SGD, "optimizer": optimizer, "learning_rate": 0.01, "schedule": "cosine"})
    whole, epochs = run(factory, recipe)
    first = new_model(factory, recipe)
    for epoch in training(first, Examples(data()), LOSSES["cross_entropy"], recipe):
        if epoch.number == done:
            assert epoch.state is not None
            kept = {name: value.clone() for name, value in epoch.state().items()}
            break
    second = new_model(factory, recipe)
    rest = list(training(second, Examples(data()), LOSSES["cross_entropy"], recipe, start=kept))
    assert rest == epochs[done:]
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(second), strict=True))
