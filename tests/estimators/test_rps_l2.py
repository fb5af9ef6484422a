"""Representer points: the shares add up to the refit logit, and equal those of a plain Newton fit in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from influence_core import registry
from influence_core.api import attribute, fit, self_influence
from influence_core.errors import BadInput, Unavailable
from influence_core.estimators.classical.rps_l2 import RepresenterFitted
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.task import Task
from tests.cases import CASES, made, vectors
from tests.oracles.representer import fitted_weights, probabilities, representer_values

EXACT = Run(device="cpu", dtype=torch.float64, batch_size=4)
TRAIN, TEST = vectors(20, 1), vectors(4, 2)
LOGIT = Measurement("logit")


def network(outputs: int = 3, bias: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, outputs, bias=bias))


def model(outputs: int = 3, bias: bool = True) -> nn.Sequential:
    found = made(lambda: network(outputs, bias), 0)
    assert isinstance(found, nn.Sequential)
    with torch.no_grad():
        found[2].weight *= 5  # so that the predictions are not all near chance
    return found


def features(x: Tensor, bias: bool = True) -> np.ndarray:
    with torch.no_grad():
        f = model(bias=bias)[:2](x).numpy()
    return np.concatenate([f, np.ones((len(f), 1))], 1) if bias else f


def one_hot(labels: Tensor, classes: int = 3) -> np.ndarray:
    return np.eye(classes)[labels.numpy()]


def learnt(x: Tensor, y: Tensor, targets: str, bias: bool = True) -> np.ndarray:
    with torch.no_grad():
        return probabilities(model(bias=bias)(x).numpy()) if targets == "predicted" else one_hot(y)


def fitted(task: Task, **options: Any) -> RepresenterFitted:
    found = fit(task, registry.made("rps_l2", options, task), EXACT)
    assert isinstance(found, RepresenterFitted)
    return found


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("targets", ("predicted", "true"))
@pytest.mark.parametrize("lam", (0.003, 0.1))
def test_shares_equal_numpy_and_add_up_to_the_refit_logit(targets: str, lam: float, bias: bool) -> None:
    task = Task(model(bias=bias), TRAIN, TEST)
    found = attribute(task, "rps_l2", [0, 1, 2, 3], config={"lam": lam, "targets": targets}, run=EXACT)
    f, ft, t = features(TRAIN[0], bias), features(TEST[0], bias), learnt(*TRAIN, targets, bias)
    expected = representer_values(f, ft, t, lam, TEST[1].numpy())
    assert_close(found.scores, torch.tensor(expected), rtol=1e-9, atol=1e-11)
    logits = torch.tensor(ft @ fitted_weights(f, t, lam).T)
    assert_close(found.scores.sum(1), logits.gather(1, TEST[1][:, None])[:, 0], rtol=0, atol=1e-10)
    assert found.measurement["kind"] == "logit"


def test_every_class_is_explained_and_the_representer_identity_holds() -> None:
    task = Task(model(), TRAIN, TEST)
    kept = fitted(task)
    f = torch.tensor(features(TRAIN[0]))
    assert_close(kept.alpha.T @ f, kept.weights, rtol=0, atol=1e-12)
    assert kept.stationarity < 1e-13
    logits = torch.tensor(features(TEST[0])) @ kept.weights.T
    rows = Rows("test", (0, 1, 2, 3))
    for label in range(3):
        total = kept.scores(rows, Measurement("logit", label)).sum(1)
        assert_close(total, logits[:, label], rtol=0, atol=1e-10)


def test_the_predicted_class_can_be_the_target() -> None:
    task = Task(model(), TRAIN, TEST)
    with torch.no_grad():
        predicted = model()(TEST[0]).argmax(1)
    assert not torch.equal(predicted, TEST[1])
    found = attribute(task, "rps_l2", [0, 1, 2, 3], measurement=Measurement("logit", "predicted"), run=EXACT)
    t = learnt(*TRAIN, "predicted")
    expected = representer_values(features(TRAIN[0]), features(TEST[0]), t, 0.003, predicted.numpy())
    assert_close(found.scores, torch.tensor(expected), rtol=1e-9, atol=1e-11)


def test_with_true_labels_own_class_excites_and_others_inhibit() -> None:
    kept = fitted(Task(model(), TRAIN, TEST), targets="true")
    own = torch.tensor(one_hot(TRAIN[1])).bool()
    assert bool((kept.alpha[own] > 0).all()) and bool((kept.alpha[~own] < 0).all())
    assert_close(kept.global_importance, kept.alpha[own].abs(), rtol=0, atol=0)


@pytest.mark.parametrize("targets", ("predicted", "true"))
def test_self_influence_is_the_diagonal(targets: str) -> None:
    task = Task(model(), TRAIN, TEST)
    own = self_influence(task, "rps_l2", config={"targets": targets}, run=EXACT)
    rows = Rows("train", tuple(range(20)))
    pairs = attribute(task, "rps_l2", rows, config={"targets": targets}, run=EXACT).scores
    assert_close(own, pairs.diagonal(), rtol=0, atol=1e-13)


def test_duplicates_get_the_same_share_and_groups_add_up() -> None:
    x, y = torch.cat([TRAIN[0], TRAIN[0][:2]]), torch.cat([TRAIN[1], TRAIN[1][:2]])
    kept = fitted(Task(model(), (x, y), TEST), targets="true")
    rows = Rows("test", (0, 1, 2, 3))
    scores = kept.scores(rows, LOGIT)
    assert_close(scores[:, :2], scores[:, 20:], rtol=0, atol=1e-12)
    groups = kept.group(rows, [[0, 20], list(range(22))], LOGIT)
    assert_close(groups, torch.stack([2 * scores[:, 0], scores.sum(1)], 1), rtol=0, atol=1e-11)


def test_distilling_follows_the_model_the_closer_the_smaller_lam() -> None:
    task = Task(model(), TRAIN, TEST)
    with torch.no_grad():
        answers = torch.softmax(model()(TRAIN[0]), 1)
    gaps = []
    for lam in (1e-1, 1e-3, 1e-5):
        kept = fitted(task, lam=lam)
        refit = torch.softmax(torch.tensor(features(TRAIN[0])) @ kept.weights.T, 1)
        gaps.append(float((refit - answers).abs().max()))
        agreement = (refit.argmax(1) == answers.argmax(1)).double().mean()
        assert kept.agreement == pytest.approx(float(agreement), abs=1e-12)
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
    assert gaps[2] < 0.01 and kept.agreement == 1.0
    assert "100.0% of the training rows" in kept.notes[0] and f"{kept.stationarity:.1e}" in kept.notes[0]


@pytest.mark.parametrize("shape", ((-1,), (-1, 1)))
@pytest.mark.parametrize("targets", ("predicted", "true"))
def test_a_single_logit_has_two_classes(shape: tuple[int, ...], targets: str) -> None:
    y, yt = (TRAIN[1] > 0).double(), (TEST[1] > 0).double()
    net = model(1)
    task = Task(net, (TRAIN[0], y.reshape(shape)), (TEST[0], yt.reshape(shape)), loss="bce")
    with torch.no_grad():
        f, ft = (np.concatenate([net[:2](x).numpy(), np.ones((len(x), 1))], 1) for x in (TRAIN[0], TEST[0]))
        t = probabilities(net(TRAIN[0]).numpy()) if targets == "predicted" else y.numpy()[:, None]
    one = representer_values(f, ft, t, 0.003, np.zeros(4, int))
    found = attribute(task, "rps_l2", [0, 1, 2, 3], config={"targets": targets}, run=EXACT).scores
    sign = 2 * yt[:, None] - 1
    assert_close(found, sign * torch.tensor(one), rtol=1e-9, atol=1e-11)
    own = self_influence(task, "rps_l2", config={"targets": targets}, run=EXACT)
    pairs = attribute(task, "rps_l2", Rows("train", tuple(range(20))), config={"targets": targets}, run=EXACT).scores
    assert_close(own, pairs.diagonal(), rtol=0, atol=1e-13)


def test_one_linear_layer_alone_is_the_whole_model() -> None:
    alone = CASES["linear_alone"]()
    kept = fitted(alone)
    assert kept.share == 1.0
    x = alone.split("train").batch(slice(0, 99), dtype=torch.float64).inputs
    f = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    assert_close(kept.alpha.T @ f, kept.weights, rtol=0, atol=1e-12)


def test_single_precision_agrees() -> None:
    task = Task(model(), TRAIN, TEST)
    exact = attribute(task, "rps_l2", [0, 1], config={"targets": "true"}, run=EXACT).scores
    single = attribute(task, "rps_l2", [0, 1], config={"targets": "true"}, run=Run(device="cpu")).scores
    assert single.dtype == torch.float32
    assert float((single - exact).abs().max()) < 1e-4 * float(exact.abs().max())


def test_progress_ends_at_its_total() -> None:
    seen: list[tuple[str, float, float]] = []
    run = Run(device="cpu", progress=lambda *report: seen.append(report))
    attribute(Task(model(), TRAIN, TEST), "rps_l2", [0], config={"lam": 0.0421}, run=run)
    last = {stage: done / total for stage, done, total in seen}
    assert last["refit of the last layer"] == 1.0


def test_what_it_cannot_explain_is_named() -> None:
    with pytest.raises(Unavailable, match="needs class labels"):
        attribute(CASES["regression"](), "rps_l2", [0], run=EXACT)
    with pytest.raises(Unavailable, match="needs a last Linear layer"):
        attribute(CASES["bare_parameters"](), "rps_l2", [0], run=EXACT)
    with pytest.raises(Unavailable, match="Use measurement 'logit'"):
        attribute(Task(model(), TRAIN, TEST), "rps_l2", [0], measurement=Measurement("loss"), run=EXACT)
    with pytest.raises(BadInput, match="lam"):
        attribute(Task(model(), TRAIN, TEST), "rps_l2", [0], config={"lam": 0}, run=EXACT)
