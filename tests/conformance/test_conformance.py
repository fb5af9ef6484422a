"""Every registered method keeps the contract, whatever its equation. Checks are switched off only by ``Info``."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from influence_core import registry
from influence_core.api import attribute, self_influence
from influence_core.errors import Cancelled, InfluenceError, Unavailable
from influence_core.estimator import Fitted, Sizes
from influence_core.fitting import default_measurement
from influence_core.measurement import KINDS, Measurement, Rows
from influence_core.registry import NEEDS_IN_WORDS
from influence_core.run import stage_name
from influence_core.task import Needs, Task
from tests.cases import CASES, WEIGHT_DECAY, made, vectors
from tests.conformance.subjects import (
    CORE,
    FORMS,
    SMALL,
    STEPS,
    Answer,
    answer,
    asked,
    assert_answers,
    assert_same,
    fitted_on,
    pairs,
    permuted,
    rows_of,
    run_in,
    scoring,
    through_json,
    usual,
    variants,
    whole,
)
from tests.oracles.refits import leave_one_out

METHODS = pytest.mark.parametrize("method", registry.entries())


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    ranks = [values.argsort().argsort().double() for values in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


# -- what a method says of itself -------------------------------------------------------------------------------------


@METHODS
def test_info_is_complete(method: str) -> None:
    entry = registry.entries()[method]
    info = entry.info
    assert info.name == method
    for text in (info.title, info.family, info.summary, info.estimand, info.reference):
        assert text.strip()
    assert info.summary.endswith(".")
    assert info.scores or info.self_influence
    assert set(info.measurements) <= set(KINDS)
    if info.scores and not info.measurements:
        assert info.utility
    for name, field in entry.cls.Config.model_fields.items():
        assert field.description, f"the option {name} has no help text"


@METHODS
def test_config_survives_json(method: str) -> None:
    entry = registry.entries()[method]
    defaults = entry.defaults
    for config in (defaults, *variants(defaults).values()):
        again = type(config).checked(through_json(config.to_json()))
        assert again == config and again.key() == config.key()
        assert entry.make(through_json(config.to_json())).config == config
    keys = {config.key() for config in (defaults, *variants(defaults).values())}
    assert len(keys) == 1 + len(variants(defaults))


@METHODS
def test_every_need_is_put_into_words(method: str) -> None:
    info = registry.entries()[method].info
    for need in info.needs:
        assert need in NEEDS_IN_WORDS


@METHODS
def test_a_missing_capability_is_named(method: str, tmp_path: Path) -> None:
    def plain(model: Any, batch: Any) -> torch.Tensor:
        return model(batch.inputs).square().sum(1)

    info = registry.entries()[method].info
    bare = Task(lambda: made(lambda: nn.Linear(5, 3), 0), vectors(6, 1), vectors(2, 2), plain)
    assert bare.provides == Needs.NONE
    reason = registry.missing(info, bare)
    for need in info.needs:
        absent, remedy = NEEDS_IN_WORDS[need]
        assert absent in reason and remedy in reason
    if info.needs:
        ask = (lambda: attribute(bare, method, [0], run=run_in(tmp_path))) if info.scores else (
            lambda: self_influence(bare, method, run=run_in(tmp_path)))  # fmt: skip
        with pytest.raises(Unavailable) as error:
            ask()
        assert info.title in str(error.value)
        for need in info.needs:
            assert NEEDS_IN_WORDS[need][0] in str(error.value)


@pytest.mark.parametrize("case", ["custom_loss", "tied_weights", "bare_parameters", "tuple_input", "binary"])
@METHODS
def test_an_odd_task_is_answered_or_refused_with_a_way_out(method: str, case: str, tmp_path: Path) -> None:
    """A method available by its flags may still find its default options unusable: it names the option then."""
    task = CASES[case]()
    info = registry.entries()[method].info
    try:
        found = answer(task, method, run_in(tmp_path))
    except Unavailable as error:
        assert registry.missing(info, task) or "=" in error.fix, str(error)
        return
    assert not registry.missing(info, task)
    for values in found:
        assert values is None or info.partial or bool(values.isfinite().all())


# -- numbers ----------------------------------------------------------------------------------------------------------


@pairs()
def test_shape_dtype_and_finite(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    for dtype in (torch.float64, torch.float32):
        run = run_in(tmp_path, dtype=dtype)
        fitted = fitted_on(task, method, run)
        found = answer(task, method, run)
        if fitted.info.scores:
            assert found.scores is not None and found.scores.shape == (task.n_test, task.n_train)
        if fitted.info.self_influence:
            assert found.self_influence is not None and found.self_influence.shape == (task.n_train,)
        for values in found:
            assert values is None or (values.dtype == dtype and values.device.type == "cpu")
            assert values is None or not values.requires_grad
            assert values is None or bool((values.isfinite() if not fitted.info.partial else values == values).any())
            assert values is None or fitted.info.partial or bool(values.isfinite().all())
        assert fitted.share is None or 0 < fitted.share <= 1
        assert all(isinstance(note, str) and note.endswith(".") for note in fitted.notes)


@pairs(cases=CORE)
def test_single_precision_says_the_same(method: str, case: str, tmp_path: Path) -> None:
    info = registry.entries()[method].info
    double = usual(method, case)
    single = answer(CASES[case](), method, run_in(tmp_path / "32", dtype=torch.float32))
    for a, b in zip(single, double, strict=True):
        if a is not None and b is not None:
            scale = float(b.nan_to_num(0).abs().max())
            torch.testing.assert_close(a.double(), b, rtol=0, atol=2e-3 * scale, equal_nan=info.partial)


@pairs(cases=FORMS)
def test_same_seed_same_numbers_and_the_global_random_state_is_left_alone(
    method: str, case: str, tmp_path: Path
) -> None:
    first = usual(method, case)
    torch.rand(3)  # the global random state must not matter
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    second = answer(CASES[case](), method, run_in(tmp_path))
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


@pairs()
def test_batch_size_changes_nothing(method: str, case: str, tmp_path: Path) -> None:
    info = registry.entries()[method].info
    for size in {"regression": (3, 7, 1), "convex": (7, 17, 33)}.get(case, (3,)):
        other = answer(CASES[case](), method, run_in(tmp_path / str(size), batch_size=size))
        assert_answers(other, usual(method, case), info)


@pairs(scoring, cases=FORMS)
def test_one_query_at_a_time_is_all_at_once(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    fitted = fitted_on(task, method, run_in(tmp_path))
    rows = rows_of(task)
    together = fitted.scores(rows, asked(fitted))
    apart = torch.cat([fitted.scores(Rows("test", (one,)), asked(fitted)) for one in rows.ids])
    assert_same(apart, together, fitted.info)
    backwards = fitted.scores(Rows("test", rows.ids[::-1]), asked(fitted))
    assert_same(backwards.flip(0), together, fitted.info)
    mean = fitted.scores(Rows("test", rows.ids, "mean"), asked(fitted))
    assert_same(mean, together.mean(0, keepdim=True), fitted.info)


@pairs()
def test_permuting_train_permutes_the_columns(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    info = registry.entries()[method].info
    order = torch.randperm(task.n_train, generator=torch.Generator().manual_seed(1))
    before = usual(method, case)
    after = answer(permuted(task, train=order), method, run_in(tmp_path))
    if before.scores is not None:
        assert_same(after.scores, before.scores[:, order], info, overlap=True)
    if before.self_influence is not None:
        assert_same(after.self_influence, before.self_influence[order], info, overlap=True)


@pairs(scoring, cases=CORE)
def test_permuting_test_permutes_the_rows(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    info = registry.entries()[method].info
    order = torch.arange(task.n_test).flip(0)
    before = usual(method, case).scores
    assert before is not None
    assert_same(answer(permuted(task, test=order), method, run_in(tmp_path)).scores, before[order], info)


@pairs(lambda info: info.scores and info.self_influence)
def test_self_influence_is_the_diagonal(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    fitted = fitted_on(task, method, run_in(tmp_path))
    square = fitted.scores(rows_of(task, "train"), fitted.own_measurement)
    assert_same(fitted.self_influence(), square.diagonal(), fitted.info)


@pairs(lambda info: not info.self_influence, cases=CORE)
def test_no_self_influence_is_said(method: str, case: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="has no self-influence"):
        self_influence(CASES[case](), method, run=run_in(tmp_path))


@pairs(lambda info: not info.scores, cases=CORE)
def test_no_pairwise_form_is_said(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    with pytest.raises(Unavailable, match="does not score pairs"):
        attribute(task, method, rows_of(task), run=run_in(tmp_path))


@pairs(scoring, cases=CORE)
def test_a_group_is_the_sum_of_its_members(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    fitted = fitted_on(task, method, run_in(tmp_path))
    ids = task.ids("train").tolist()
    groups = [ids[:3], ids[4:5], ids, []]
    if type(fitted).group is not Fitted.group:  # a whole group is more than its members, but one row is itself
        single = fitted.group(rows_of(task), [[one] for one in ids], asked(fitted))
        assert_same(single, fitted.scores(rows_of(task), asked(fitted)), fitted.info)
        assert not fitted.group(rows_of(task), [[]], asked(fitted)).any()
        return
    if not fitted.info.additive:
        with pytest.raises(Unavailable, match="has no group influence"):
            fitted.group(rows_of(task), groups, asked(fitted))
        return
    scores = fitted.scores(rows_of(task), asked(fitted))
    columns = [scores[:, :3].sum(1), scores[:, 4], scores.sum(1), torch.zeros(task.n_test)]
    expected = torch.stack([column.to(scores.dtype) for column in columns], 1)
    assert_same(fitted.group(rows_of(task), groups, asked(fitted)), expected, fitted.info)


@pairs(lambda info: info.scores and info.units == "measurement" and Needs.STEPS not in info.needs, cases=("convex",))
def test_rank_agreement_with_leave_one_out(method: str, case: str) -> None:
    """A method in units of the measurement predicts what brute refits find: the order and the amount."""
    task = CASES[case]()
    found = usual(method, case).scores
    assert found is not None
    truth = leave_one_out(tuple(whole(task, "train")), tuple(whole(task, "test")), WEIGHT_DECAY, 3)
    assert truth.shape == found.shape
    known = found.isfinite()
    assert bool((known == known[:1]).all()) and int(known[0].sum()) >= 10
    columns = known[0]
    ranks = [spearman(a, b) for a, b in zip(found[:, columns], truth[:, columns], strict=True)]
    slope = float((found[:, columns] * truth[:, columns]).sum() / truth[:, columns].square().sum())
    assert 1 / 3 < slope < 3
    if registry.entries()[method].info.approximate:
        assert sum(ranks) / len(ranks) > 0.5, ranks
    else:
        assert min(ranks) > 0.9, ranks


@pairs(scoring, cases=("convex", "regression"))
def test_measurements_are_those_declared(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    fitted = fitted_on(task, method, run_in(tmp_path))
    info = fitted.info
    for kind in KINDS:
        declared = kind in info.measurements or (not info.measurements and kind == "loss")
        measurement = Measurement(kind)
        if not declared:
            with pytest.raises(Unavailable):
                fitted.scores(rows_of(task), measurement)
        elif kind != "loss" and not task.loss.classifies:
            with pytest.raises(InfluenceError, match="does not classify|needs the model itself"):
                fitted.scores(rows_of(task), measurement)
        else:
            scores = fitted.scores(rows_of(task), measurement)
            assert scores.shape == (task.n_test, task.n_train)
            assert info.partial or bool(scores.isfinite().all())

    def squared(model: Any, batch: Any) -> torch.Tensor:
        return model(batch.inputs).square().sum(1)

    if info.functions:
        assert bool(fitted.scores(rows_of(task), Measurement(squared)).isfinite().all())
    else:
        with pytest.raises(Unavailable):
            fitted.scores(rows_of(task), Measurement(squared))


@pairs(scoring, cases=("convex",))
def test_target_labels_are_honoured(method: str, case: str, tmp_path: Path) -> None:
    """A query at label c equals the query of a test row that carries c."""
    task = CASES[case]()
    kind = default_measurement(registry.entries()[method].make()).kind
    for target in (2, "predicted"):
        wanted = task.predicted("test", torch.arange(task.n_test)) if target == "predicted" else target
        twin = relabelled(task, wanted)
        found = fitted_on(task, method, run_in(tmp_path / "a")).scores(rows_of(task), Measurement(kind, target))
        expected = fitted_on(twin, method, run_in(tmp_path / f"b{target}")).scores(rows_of(task), Measurement(kind))
        assert_same(found, expected, registry.entries()[method].info)


def relabelled(task: Task, labels: Any) -> Task:
    test = whole(task, "test")
    assert task.factory is not None
    return Task(
        task.factory, tuple(whole(task, "train")), (test.inputs, torch.zeros_like(test.targets) + labels),
        checkpoints=[task.state()], learning_rates=task.learning_rates, recipe=task.recipe,
    )  # fmt: skip


# -- the store --------------------------------------------------------------------------------------------------------


@pairs(cases=CORE)
def test_a_second_call_makes_no_artifact(method: str, case: str, tmp_path: Path) -> None:
    info = registry.entries()[method].info
    run = run_in(tmp_path)
    first = answer(CASES[case](), method, run)
    keys = run.artifacts.keys()
    assert keys, "fitting left nothing in the store"
    second = answer(CASES[case](), method, run)  # another Task of the same content: nothing memoised
    assert run.artifacts.keys() == keys
    assert_answers(second, first, info)


@pairs(cases=("convex",))
def test_any_change_of_options_makes_an_artifact(method: str, case: str, tmp_path: Path) -> None:
    run = run_in(tmp_path)
    task = CASES[case]()
    defaults = registry.entries()[method].defaults
    answer(task, method, run)
    for name, config in variants(defaults).items():
        before = set(run.artifacts.keys())
        answer(task, method, run, config.to_json())
        assert set(run.artifacts.keys()) > before, f"{name} changed and nothing was computed"


@pairs(cases=("convex",))
def test_changed_data_makes_artifacts(method: str, case: str, tmp_path: Path) -> None:
    run = run_in(tmp_path)
    task = CASES[case]()
    answer(task, method, run)
    before = set(run.artifacts.keys())
    answer(permuted(task, train=torch.arange(task.n_train).flip(0)), method, run)
    assert set(run.artifacts.keys()) > before


# -- progress and cancellation ----------------------------------------------------------------------------------------


class Watch:
    """Records progress, and asks to stop at the n-th report."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.reports: list[tuple[str, float, float]] = []
        self.stop_at = stop_at

    def progress(self, stage: str, done: float, total: float) -> None:
        self.reports.append((stage, done, total))

    def cancel(self) -> bool:
        return self.stop_at is not None and len(self.reports) >= self.stop_at


@pairs(cases=CORE)
def test_progress_reaches_the_end_of_every_stage(method: str, case: str, tmp_path: Path) -> None:
    watch = Watch()
    answer(CASES[case](), method, run_in(tmp_path, batch_size=5, progress=watch.progress))
    assert watch.reports, "no progress was reported"
    ended: dict[str, tuple[float, float]] = {}
    for said, done, total in watch.reports:
        stage = stage_name(said)
        assert stage.strip() and 0 <= done <= total and total > 0
        before, of = ended.get(stage, (total, total))
        if before == of:
            assert done == 0, f"'{stage}' does not start at 0"
        else:
            assert total == of and done > before
        ended[stage] = done, total
    assert all(done == total for done, total in ended.values()), ended


@cache
def watched(method: str, case: str) -> tuple[Answer, int]:
    """The answer of an undisturbed run, and how many reports it made."""
    watch = Watch()
    with TemporaryDirectory() as folder:
        found = answer(CASES[case](), method, run_in(Path(folder), batch_size=5, progress=watch.progress))
        return Answer(*(None if values is None else values.clone() for values in found)), len(watch.reports)


@pairs(cases=CORE)
@pytest.mark.parametrize("part", [0.4, *(pytest.param(part, marks=pytest.mark.slow) for part in (0.0, 0.8))])
def test_cancelled_within_a_step_and_resumed_with_equal_numbers(
    method: str, case: str, part: float, tmp_path: Path
) -> None:
    info = registry.entries()[method].info
    expected, reports = watched(method, case)
    stop = max(1, int(part * reports))
    watch = Watch(stop)
    task = CASES[case]()
    run = run_in(tmp_path, batch_size=5, progress=watch.progress, cancel=watch.cancel)
    with pytest.raises(Cancelled):
        answer(task, method, run)
    # One more stage may be announced; no step of it is done.
    assert sum(done > 0 for _, done, _ in watch.reports[stop:]) == 0
    for again in (task, CASES[case]()):  # in the same process, then as after a restart
        assert_answers(answer(again, method, run_in(tmp_path, batch_size=5)), expected, info)


# -- what must not be touched -----------------------------------------------------------------------------------------


@METHODS
def test_the_users_module_is_left_alone(method: str, tmp_path: Path) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.4), nn.ReLU(), nn.Linear(6, 3))

    model = made(net, 0).train()
    nn.functional.cross_entropy(model(vectors(9, 1)[0]), vectors(9, 1)[1]).backward()
    model[0].bias.requires_grad_(False)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    needs = [p.requires_grad for p in model.parameters()]
    train, test = vectors(9, 1), vectors(3, 2)
    data = [part.clone() for part in (*train, *test)]
    task = Task(model, train, test, learning_rates=[0.1])
    if not registry.missing(registry.entries()[method].info, task):
        answer(task, method, run_in(tmp_path))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert [p.requires_grad for p in model.parameters()] == needs
    for key, value in model.state_dict().items():
        assert torch.equal(value, weights[key])
    for p, grad in zip(model.parameters(), grads, strict=True):
        assert (p.grad is None) == (grad is None) and (grad is None or torch.equal(p.grad, grad))  # type: ignore[arg-type]
    for part, copy in zip((*train, *test), data, strict=True):
        assert torch.equal(part, copy)


@pairs(cases=("transformer",))
def test_a_training_mode_module_is_explained_in_eval_mode(method: str, case: str, tmp_path: Path) -> None:
    """Cases hold dropout and normalisation: two answers are equal only if neither is in training mode."""
    task = CASES[case]()
    assert not task.model_at(-1).training
    task.module.train()
    assert not any(module.training for module in task.model_at(-1).modules())
    assert_answers(answer(task, method, run_in(tmp_path)), usual(method, case), registry.entries()[method].info)


# -- costs and devices ------------------------------------------------------------------------------------------------


@pairs(cases=CORE)
def test_cost_is_a_finite_amount(method: str, case: str) -> None:
    task = CASES[case]()
    entry = registry.entries()[method]
    costs = [
        entry.make().cost(task, Sizes(n, task.n_test, task.n_params, task.n_checkpoints, task.n_classes or 1, n / 1e4))
        for n in (1_000, 100_000)
    ]
    for cost in costs:
        assert 0 <= cost.seconds < float("inf") and 0 <= cost.bytes < float("inf")
    assert costs[1].seconds >= costs[0].seconds and costs[1].bytes >= costs[0].bytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pairs()
def test_a_gpu_says_the_same(method: str, case: str, tmp_path: Path) -> None:
    info = registry.entries()[method].info
    expected = answer(CASES[case](), method, run_in(tmp_path / "cpu"))
    found = answer(CASES[case](), method, run_in(tmp_path / "cuda", device="cuda"))
    for a, b in zip(found, expected, strict=True):
        assert a is None or a.device.type == "cuda"
        assert_same(None if a is None else a.cpu(), b, info)


# -- the suite itself -------------------------------------------------------------------------------------------------


def test_every_method_is_checked_somewhere() -> None:
    """A method that is available on none of the small cases would pass by absence."""
    for method in registry.entries():
        assert any(not registry.available(CASES[case]())[method] for case in (*SMALL, *STEPS)), method


def test_wrong_scores_would_be_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The checks can fail: a method with its rows mixed up is caught by three of them."""
    from influence_core.estimators.bilinear import BilinearFitted

    original: Callable[..., torch.Tensor] = BilinearFitted._scores

    def mixed(self: Any, batch: Any, measurement: Any, rows: Any) -> torch.Tensor:
        return original(self, batch, measurement, rows).roll(len(batch.targets), 0).roll(1, 1)

    monkeypatch.setattr(BilinearFitted, "_scores", mixed)
    for check in (test_self_influence_is_the_diagonal, test_permuting_train_permutes_the_columns):
        with pytest.raises(AssertionError):
            check("grad_dot", "regression", tmp_path / check.__name__)
    monkeypatch.setattr(BilinearFitted, "_scores", lambda *args: -original(*args))
    with pytest.raises(AssertionError):
        test_self_influence_is_the_diagonal("tracin_cp", "regression", tmp_path / "sign")
