"""Significance of scores: synthetic draws with known answers, and real trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import nn

from influence_core import registry
from influence_core.ensembles import trained_members
from influence_core.estimators.wrapper.bayes_tda import uncertainty
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Recipe, Task
from tests.cases import CASES, made, normal, vectors

ROWS = Rows("test", (0, 1, 2))


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def sgd_task() -> Task:
    recipe = Recipe(  # type: ignore[call-arg]
        optimizer="sgd", learning_rate=0.2, batch_size=4, epochs=4, checkpoints=(2, 3, 4), dtype="float64"
    )
    states = [made(net, seed).state_dict() for seed in range(2)]
    return Task(net, vectors(12, 1), vectors(3, 2), checkpoints=states, learning_rates=[0.2, 0.2], recipe=recipe)


def test_p_values_of_pure_noise_are_uniform_and_of_a_signal_are_small() -> None:
    noise = uncertainty(normal(8, 1, 1, 4000, seed=1))
    assert kstest(noise.p_values("error").flatten().numpy(), "uniform").pvalue > 0.01
    signal = uncertainty(normal(40, 1, 1, 50, seed=2) + 8.0)
    assert float(signal.p_values("deviation").max()) < 1e-5
    assert float(signal.p_values("error").max()) < 1e-20
    # Deviation and error ask different questions: a weak mean is significant, a single draw is not.
    weak = uncertainty(normal(400, 1, 1, 50, seed=3) + 0.5)
    assert float(weak.p_values("error").max()) < 1e-3 < 0.4 < float(weak.p_values("deviation").min())


def test_the_deviation_form_is_the_papers() -> None:
    samples = normal(5, 3, 2, 4, seed=4)
    flat = samples.reshape(15, 2, 4)
    z = flat.mean(0) / flat.std(0)
    expected = 2 * (1 - torch.distributions.Normal(0.0, 1.0).cdf(z.abs()))
    torch.testing.assert_close(uncertainty(samples).p_values("deviation"), expected, rtol=1e-9, atol=1e-12)


def test_what_does_not_vary_has_no_p_value() -> None:
    still = uncertainty(torch.ones(4, 2, 1, 3, dtype=torch.float64))
    assert bool((still.deviation == 0).all())
    assert bool(still.p_values("deviation").isnan().all()) and bool(still.p_values("error").isnan().all())


def test_the_two_parts_of_the_variance_are_told_apart() -> None:
    seeds, draws = normal(3000, 1, 1, 1, seed=5), normal(3000, 4, 1, 1, seed=6)
    found = uncertainty(2 * seeds + 0.5 * draws)
    assert float(found.within_seeds) == pytest.approx(0.25, rel=0.05)
    assert float(found.between_seeds) == pytest.approx(4 + 0.25 / 4, rel=0.06)
    torch.testing.assert_close(found.error, found.between_seeds.sqrt() / 3000**0.5)


def test_uncertainty_over_seeds_and_checkpoints(tmp_path: Path) -> None:
    task, run = sgd_task(), run_in(tmp_path)
    options = {"seeds": 3, "last_checkpoints": 2, "method": "grad_dot"}
    method: Any = fit(task, registry.made("bayes_tda", options), run)
    draws = []
    for member in trained_members(task, run, [0, 1, 2]):
        for c in (-1, -2):
            one = Task(net, vectors(12, 1), vectors(3, 2), checkpoints=[member.state(c)])
            draws.append(fit(one, registry.made("grad_dot"), run).scores(ROWS))
    found = method.uncertainty(ROWS)
    torch.testing.assert_close(found.mean, torch.stack(draws).mean(0))
    torch.testing.assert_close(found.deviation, torch.stack(draws).std(0))
    torch.testing.assert_close(method.scores(ROWS), found.mean)
    shown = fit(task, registry.made("bayes_tda", {**options, "shown": "signal_to_noise"}), run).scores(ROWS)
    torch.testing.assert_close(shown, found.mean / found.deviation)


def test_a_deterministic_training_has_no_noise(tmp_path: Path) -> None:
    """Full-batch convergence to one minimum: the seeds agree, and p says that it cannot tell."""
    method: Any = fit(CASES["convex"](), registry.made("bayes_tda", {"seeds": 2}), run_in(tmp_path))
    found = method.uncertainty(ROWS)
    assert float(found.deviation.max()) < 1e-6 * float(found.mean.abs().max())


def test_the_wrapped_method_decides_what_can_be_measured(tmp_path: Path) -> None:
    task, run = sgd_task(), run_in(tmp_path)
    margin = fit(task, registry.made("bayes_tda", {"seeds": 2, "method": "if_ggn"}), run)
    assert margin.info.units == "rank"
    assert bool(margin.scores(ROWS, Measurement("margin")).isfinite().all())
    few: Any = fit(task, registry.made("bayes_tda", {"seeds": 2, "last_checkpoints": 9}), run)
    assert any("Only 3 of the 9" in note for note in few.notes)
