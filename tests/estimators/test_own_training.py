"""Methods that follow every step, on trainings of somebody's own code: against autodiff, and against retraining."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from influence_core import Measurement, Recipe, Recorder, Rows, Run, Task, load_recording, registry
from influence_core.errors import BadInput, Cancelled, Unavailable
from influence_core.fitting import fit
from influence_core.store import Store
from tests.cases import vectors

N, EPOCHS, SIZE = 14, 4, 4
(X, Y), (XT, YT) = vectors(N, 1), vectors(3, 2)
ROWS = Rows("test", (0, 1, 2))
Optimiser = Callable[[nn.Module], torch.optim.Optimizer]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def grouped(kind: Any, **options: Any) -> Optimiser:
    """Two groups, as people have them: no weight decay of biases, another rate for the last layer's weight."""

    def make(model: nn.Module) -> torch.optim.Optimizer:
        named = dict(model.named_parameters())
        biases = [named["0.bias"], named["2.bias"]]
        groups = [
            {"params": [named["0.weight"]], "weight_decay": 0.05}, {"params": biases, "weight_decay": 0.0},
            {"params": [named["2.weight"]], "weight_decay": 0.05, "lr": 0.5 * options["lr"]},
        ]  # fmt: skip
        return kind(groups, **options)

    return make


OPTIMISERS: dict[str, Optimiser] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.3, weight_decay=0.01),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, dampening=0.2),
    "nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.8, nesterov=True, weight_decay=0.02),
    "groups": grouped(torch.optim.SGD, lr=0.2, momentum=0.5),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.03, betas=(0.8, 0.95), weight_decay=0.01),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.03, weight_decay=0.1),
    "adamw groups": grouped(torch.optim.AdamW, lr=0.03),
}
DESCENTS = ("sgd", "momentum", "nesterov", "groups")


def batches(seed: int = 5) -> Iterator[list[int]]:
    """Batches of the user's own order, unlike any recipe's: drawn with replacement, of other sizes."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(EPOCHS * 4):
        yield torch.randint(N, (SIZE + step % 2,), generator=generator).tolist()


def own_loop(
    folder: Path | None, optimiser: Optimiser, *, left: int | None = None, weights: Tensor | None = None,
    make: Callable[[], nn.Module] = net, spoilt: Callable[[nn.Module, Tensor], Tensor] | None = None, **options: Any,
) -> nn.Module:  # fmt: skip
    """A training loop as somebody would write it, with a scheduler; two lines are the Recorder's."""
    torch.manual_seed(11)
    model = make()
    optimizer = optimiser(model)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.97**step)
    recorder = Recorder(folder, model, optimizer, **options) if folder is not None else None
    model.train()
    for ids in batches():
        x = X[ids] if spoilt is None else spoilt(model, X[ids])
        losses = nn.functional.cross_entropy(model(x), Y[ids], reduction="none")
        kept = torch.tensor([1.0 if i != left else 0.0 for i in ids], dtype=losses.dtype)
        row = kept if weights is None else weights[ids]
        optimizer.zero_grad()
        ((losses * row).sum() / len(ids)).backward()
        optimizer.step()
        if recorder is not None:
            recorder.step(ids)
        scheduler.step()
    if recorder is not None:
        recorder.close()
    return model.eval()


def task_of(folder: Path, make: Any = net, **more: Any) -> Task:
    recording = load_recording(folder)
    return Task(
        make, (X, Y), (XT, YT), checkpoints=recording.checkpoints, learning_rates=recording.learning_rates,
        recorded=recording.training, **more,
    )  # fmt: skip


def run_in(folder: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder), **more)


def scores(task: Task, method: str, folder: Path, **options: Any) -> Tensor:
    return fit(task, registry.made(method, options), run_in(folder)).scores(ROWS, Measurement("loss"))


def measured(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return -nn.functional.cross_entropy(model(XT), YT, reduction="none")


def unrolled(name: str) -> Tensor:
    """``d (-loss_t) / d w_i`` by automatic differentiation through the loop, each optimiser written out."""
    torch.manual_seed(11)
    model = net()
    optimizer = OPTIMISERS[name](model)
    named = dict(model.named_parameters())
    settings = {
        key: group for group in optimizer.param_groups for key, p in named.items()
        if any(p is one for one in group["params"])
    }  # fmt: skip
    weights = torch.ones(N, dtype=torch.float64, requires_grad=True)
    theta = {key: p.detach().clone().requires_grad_(True) for key, p in named.items()}
    first = {key: torch.zeros_like(p) for key, p in theta.items()}
    second = {key: torch.zeros_like(p) for key, p in theta.items()}
    adam, decoupled = "adam" in name, "adamw" in name
    for t, ids in enumerate(batches()):
        losses = nn.functional.cross_entropy(functional_call(model, theta, (X[ids],)), Y[ids], reduction="none")
        grads = torch.autograd.grad((losses * weights[ids]).sum() / len(ids), list(theta.values()), create_graph=True)
        for (key, p), g in zip(list(theta.items()), grads, strict=True):
            s = settings[key]
            lr = s["lr"] * 0.97**t
            if decoupled:
                p = p * (1 - lr * s["weight_decay"])
            else:
                g = g + s["weight_decay"] * p
            if adam:
                b1, b2 = s["betas"]
                first[key] = b1 * first[key] + (1 - b1) * g
                second[key] = b2 * second[key] + (1 - b2) * g * g
                spread = (second[key] / (1 - b2 ** (t + 1))).sqrt() + s["eps"]
                theta[key] = p - lr * first[key] / (1 - b1 ** (t + 1)) / spread
                continue
            first[key] = g if t == 0 else s["momentum"] * first[key] + (1 - s["dampening"]) * g
            theta[key] = p - lr * (g + s["momentum"] * first[key] if s["nesterov"] else first[key])
    losses = nn.functional.cross_entropy(functional_call(model, theta, (XT,)), YT, reduction="none")
    return torch.stack([-torch.autograd.grad(one, weights, retain_graph=True)[0] for one in losses])


# -- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMISERS)
def test_magic_is_autodiff_through_the_users_own_loop(name: str, tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS[name])
    expected, task = unrolled(name), task_of(tmp_path / "r")
    fitted: Any = fit(task, registry.made("magic"), run_in(tmp_path / "s"))
    torch.testing.assert_close(
        fitted.scores(ROWS, Measurement("loss")), expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max())
    )
    assert fitted.recorded.distance < 1e-10 and "of their way from the recorded weights" in fitted.notes[0]


@pytest.mark.parametrize("name", DESCENTS)
def test_hydra_and_sgd_influence_are_the_same_number(name: str, tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS[name])
    task = task_of(tmp_path / "r")
    magic = scores(task, "magic", tmp_path / "s")
    for method in ("sgd_influence", "hydra"):
        torch.testing.assert_close(scores(task, method, tmp_path / "s"), magic, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_it_is_the_users_own_loop_with_a_row_weighing_less(name: str, tmp_path: Path) -> None:
    """Brute force: the same code, run again with the weight of a row moved."""
    own_loop(tmp_path / "r", OPTIMISERS[name])
    found = scores(task_of(tmp_path / "r"), "magic", tmp_path / "s")
    for row in (2, 9):
        values = []
        for eps in (1e-5, -1e-5):
            weights = torch.ones(N, dtype=torch.float64)
            weights[row] += eps
            values.append(measured(own_loop(None, OPTIMISERS[name], weights=weights)))
        torch.testing.assert_close(found[:, row], (values[0] - values[1]) / 2e-5, rtol=1e-5, atol=1e-9)


def test_it_tracks_leaving_rows_out_of_the_users_own_loop(tmp_path: Path) -> None:
    whole = measured(own_loop(tmp_path / "r", OPTIMISERS["sgd"]))
    found = scores(task_of(tmp_path / "r"), "sgd_influence", tmp_path / "s")
    truth = torch.stack([whole - measured(own_loop(None, OPTIMISERS["sgd"], left=i)) for i in range(N)], 1)
    assert float(torch.corrcoef(torch.stack([found.flatten(), truth.flatten()]))[0, 1]) > 0.9


def test_tracin_ideal_adds_up_the_users_own_steps(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["sgd"])
    found = scores(task_of(tmp_path / "r"), "tracin_ideal", tmp_path / "s")
    torch.manual_seed(11)
    model, expected = net(), torch.zeros(3, N, dtype=torch.float64)
    for t, ids in enumerate(batches()):
        parameters, lr = list(model.parameters()), 0.3 * 0.97**t

        def slopes(x: Tensor, y: Tensor, parameters: list[Tensor] = parameters) -> Tensor:
            losses = nn.functional.cross_entropy(model(x), y, reduction="none")
            rows = [torch.autograd.grad(one, parameters, retain_graph=True) for one in losses]
            return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])

        own = slopes(X[ids], Y[ids])
        expected.index_add_(1, torch.tensor(ids), lr / len(ids) * slopes(XT, YT) @ own.T)
        step = own.mean(0).split([p.numel() for p in parameters])
        with torch.no_grad():
            for p, g in zip(parameters, step, strict=True):
                p -= lr * (g.reshape(p.shape) + 0.01 * p)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-13)


def test_source_takes_its_segments_from_the_recording(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["momentum"], at=[6, 16])
    fitted: Any = fit(task_of(tmp_path / "r"), registry.made("source"), run_in(tmp_path / "s"))
    rates = [0.1 * 0.97**t / 0.1 for t in range(16)]  # over 1 - momentum
    assert fitted.lengths == pytest.approx([sum(rates[:6]), sum(rates[6:])]) and fitted.known
    assert bool(fitted.scores(ROWS).isfinite().all())


# -- what else a recording may hold -----------------------------------------------------------------------------------


def test_batch_statistics_and_frozen_layers_are_gone_through_again(tmp_path: Path) -> None:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
        return model

    def head_and_norm(model: nn.Module) -> torch.optim.Optimizer:
        for p in model[0].parameters():  # type: ignore[index]
            p.requires_grad_(False)
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.2, momentum=0.9)

    own_loop(tmp_path / "r", head_and_norm, make=make)
    fitted: Any = fit(task_of(tmp_path / "r", make), registry.made("magic"), run_in(tmp_path / "s"))
    assert fitted.recorded.n_params == 6 + 6 + 18 + 3 and fitted.recorded.distance < 1e-10
    known = fitted.task.state()
    for name, value in fitted.recorded.final().buffers.items():
        torch.testing.assert_close(value, known[name])


def test_an_optimiser_that_had_taken_steps_before_goes_on(tmp_path: Path) -> None:
    def warmed(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X), Y).backward()
            optimizer.step()
        return optimizer

    own_loop(tmp_path / "r", warmed)
    fitted: Any = fit(task_of(tmp_path / "r"), registry.made("magic"), run_in(tmp_path / "s"))
    assert fitted.recorded.replay.rule.taken == 3 and fitted.recorded.distance < 1e-10


def test_steps_that_moved_nothing_are_passed_over(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with Recorder(tmp_path / "r", model, optimizer, every=3) as recorder:
        for number, ids in enumerate(batches()):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X[ids]), Y[ids]).backward()
            if number not in (0, 4):  # as a gradient scaler does
                optimizer.step()
            recorder.step(ids)
    fitted: Any = fit(task_of(tmp_path / "r"), registry.made("magic"), run_in(tmp_path / "s"))
    assert len(fitted.recorded.steps) == 14 and fitted.recorded.distance < 1e-10


def test_a_trained_module_will_do_and_a_recipe_stays_for_retraining(tmp_path: Path) -> None:
    model = own_loop(tmp_path / "r", OPTIMISERS["sgd"])
    expected = scores(task_of(tmp_path / "r"), "magic", tmp_path / "s")
    torch.testing.assert_close(scores(task_of(tmp_path / "r", model), "magic", tmp_path / "t"), expected)
    recipe = Recipe(optimizer="adam", learning_rate=0.5)  # type: ignore[call-arg]
    both = task_of(tmp_path / "r", recipe=recipe)
    torch.testing.assert_close(scores(both, "sgd_influence", tmp_path / "s"), expected)
    assert both.optimizer == "sgd" and both.recipe == recipe


def test_the_last_epochs_alone(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["adam"])
    task = task_of(tmp_path / "r")
    whole = scores(task, "magic", tmp_path / "s")
    torch.testing.assert_close(scores(task, "magic", tmp_path / "s", last_epochs=100), whole)
    assert not torch.allclose(scores(task, "magic", tmp_path / "s", last_epochs=1), whole)


# -- what is refused --------------------------------------------------------------------------------------------------


def droppy() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.4), nn.Tanh(), nn.Linear(6, 3)).double()


def refused(task: Task, folder: Path, method: str = "magic") -> Unavailable:
    with pytest.raises(Unavailable) as error:
        fit(task, registry.made(method), run_in(folder))
    return error.value


@pytest.mark.parametrize("method", ["magic", "tracin_ideal", "hydra", "sgd_influence"])
def test_a_replay_that_goes_astray_is_refused_with_how_far(method: str, tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["sgd"], make=droppy)
    error = refused(task_of(tmp_path / "r", droppy), tmp_path / "s", method)
    assert "cannot be gone through again" in error.what and "dropout, whose random numbers" in error.why
    assert "% of their way from the recorded weights (at most 5% are allowed)" in error.why
    again = refused(task_of(tmp_path / "r", droppy), tmp_path / "s", method)  # known now, and not computed again
    assert again.why == error.why and "tracin_cp" in error.fix


def test_augmentations_clipping_and_another_loss_are_noticed(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)

    def jittered(model: nn.Module, x: Tensor) -> Tensor:
        return x + torch.randn(x.shape, generator=generator, dtype=x.dtype)

    own_loop(tmp_path / "r", OPTIMISERS["sgd"], spoilt=jittered)
    assert "dropout" not in refused(task_of(tmp_path / "r"), tmp_path / "s").why
    own_loop(tmp_path / "l", OPTIMISERS["sgd"], weights=torch.full((N,), 0.5, dtype=torch.float64))
    assert "% of their way" in refused(task_of(tmp_path / "l"), tmp_path / "s").why


def test_an_unknown_optimiser_or_setting_is_named(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01))
    assert "RMSprop took the steps" in refused(task_of(tmp_path / "r"), tmp_path / "s").why
    own_loop(tmp_path / "a", lambda m: torch.optim.Adam(m.parameters(), lr=0.01, amsgrad=True))
    assert "amsgrad" in refused(task_of(tmp_path / "a"), tmp_path / "s").why
    own_loop(tmp_path / "b", OPTIMISERS["adam"])
    assert "trained by adam" in refused(task_of(tmp_path / "b"), tmp_path / "s", "hydra").why


def test_rows_that_are_not_known_are_named(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["sgd"])
    ids = [f"row {i}" for i in range(N)]
    assert "is not among the training rows" in refused(task_of(tmp_path / "r", train_ids=ids), tmp_path / "s").why
    torch.manual_seed(3)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recorder(tmp_path / "n", model, optimizer, every=1) as recorder:
        for ids in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(X[ids]), Y[ids]).backward()
            optimizer.step()
            recorder.step()
    assert "the rows of step 1 were not recorded" in refused(task_of(tmp_path / "n"), tmp_path / "s").why


def test_a_recording_without_its_start_says_so(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["sgd"], start=False)
    error = refused(task_of(tmp_path / "r"), tmp_path / "s")
    assert "weights before the first step" in error.why and "Record again" in error.fix
    own_loop(tmp_path / "d", OPTIMISERS["sgd"])
    (tmp_path / "d" / "start.safetensors").write_bytes(b"none")
    with pytest.raises(BadInput, match="damaged"):
        fit(task_of(tmp_path / "d"), registry.made("magic"), run_in(tmp_path / "s"))


def test_checkpoints_and_recording_belong_together(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["sgd"])
    recording = load_recording(tmp_path / "r")
    with pytest.raises(BadInput, match="does not match the checkpoints"):
        Task(net, (X, Y), (XT, YT), checkpoints=recording.checkpoints[-1:], recorded=recording.training)


# -- going on ---------------------------------------------------------------------------------------------------------


def test_a_killed_replay_goes_on_at_its_last_segment(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["adam"])
    expected = scores(task_of(tmp_path / "r"), "magic", tmp_path / "whole")
    asked = [0]

    def cancel() -> bool:
        asked[0] += 1
        return asked[0] > 11  # of 16 steps, in segments of 4

    with pytest.raises(Cancelled):
        fit(task_of(tmp_path / "r"), registry.made("magic"), run_in(tmp_path / "part", cancel=cancel))
    reports: list[tuple[str, float, float]] = []
    run = run_in(tmp_path / "part", progress=lambda *report: reports.append(report))
    fitted = fit(task_of(tmp_path / "r"), registry.made("magic"), run)
    taken = [report for report in reports if report[0].startswith("going through the training")]
    assert taken[-1][1:] == (8, 8), "it began again from the first step"
    torch.testing.assert_close(fitted.scores(ROWS, Measurement("loss")), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("method", "name"), [("magic", "adam"), ("magic", "momentum"), ("tracin_ideal", "sgd")])
def test_a_killed_query_goes_on_too(
    method: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("influence_core.estimators.kept_sweep.KEEP_SECONDS", 0.0)
    own_loop(tmp_path / "r", OPTIMISERS[name])
    expected = scores(task_of(tmp_path / "r"), method, tmp_path / "whole")
    asked = [0]

    def cancel() -> bool:
        asked[0] += 1
        return asked[0] > 16 + 10  # 16 steps to fit, and 10 of the 16 of the query, in segments of 4

    with pytest.raises(Cancelled):
        fit(task_of(tmp_path / "r"), registry.made(method), run_in(tmp_path / "part", cancel=cancel)).scores(ROWS)
    reports: list[tuple[str, float, float]] = []
    run = run_in(tmp_path / "part", progress=lambda *report: reports.append(report))
    found = fit(task_of(tmp_path / "r"), registry.made(method), run).scores(ROWS)
    assert reports[-1][1:] == (8, 8) and reports[-1][0].startswith("training, "), "it began again from the first step"
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    held = [path.name for path in (tmp_path / "part").rglob("found.npy")]
    assert not held, "what was of use on the way only stays"


def test_a_measurement_without_a_source_is_measured_all_the_same(tmp_path: Path) -> None:
    own_loop(tmp_path / "r", OPTIMISERS["sgd"])
    space: dict[str, Any] = {}
    exec("def logit(model, batch): return model(batch.inputs)[:, 0]", space)  # as at a prompt
    fitted = fit(task_of(tmp_path / "r"), registry.made("tracin_ideal"), run_in(tmp_path / "s"))
    here = Measurement(lambda model, batch: model(batch.inputs)[:, 0])
    torch.testing.assert_close(fitted.scores(ROWS, Measurement(space["logit"])), fitted.scores(ROWS, here))
