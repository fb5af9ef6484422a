"""Averages over seeds: synthetic draws with known answers, and real trainings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from influence_core import registry
from influence_core.ensembles import trained_members
from influence_core.estimators.wrapper.seed_average import normalised
from influence_core.fitting import fit
from tests.cases import normal
from tests.estimators.test_bayes_tda import ROWS, run_in, sgd_task


def test_one_loud_seed_does_not_decide() -> None:
    quiet = normal(1, 1, 200, seed=1).expand(4, -1, -1)
    loud = 1000 * normal(1, 1, 200, seed=2)
    samples = torch.cat([quiet, loud])
    for how, agrees in (("spread", True), ("rank", True), ("none", False)):
        mean = normalised(samples, how).mean(0)[0]
        correlation = float(torch.corrcoef(torch.stack([mean, quiet[0, 0]]))[0, 1])
        assert (correlation > 0.9) is agrees, how
    assert bool((normalised(torch.ones(2, 1, 5), "spread") == 0).all())


def test_the_variance_of_an_average_falls_with_the_number_of_seeds() -> None:
    truth = normal(1, 1, 50, seed=1)
    spreads = []
    for count in (4, 16):
        means = [normalised(truth + normal(count, 1, 50, seed=100 + k), "spread").mean(0) for k in range(200)]
        spreads.append(float(torch.stack(means).var(0).mean()))
    assert spreads[0] / spreads[1] == pytest.approx(4.0, rel=0.25)


def test_scores_are_the_average_of_the_members_own(tmp_path: Path) -> None:
    task, run = sgd_task(), run_in(tmp_path)
    members = trained_members(task, run, [0, 1, 2])
    assert [member.n_checkpoints for member in members] == [3, 3, 3]
    apart = torch.stack([fit(member, registry.made("tracin_cp"), run).scores(ROWS) for member in members])
    assert not torch.allclose(apart[0], apart[1])
    plain = fit(task, registry.made("seed_average", {"seeds": 3, "normalise": "none"}), run).scores(ROWS)
    torch.testing.assert_close(plain, apart.mean(0))
    usual = fit(task, registry.made("seed_average", {"seeds": 3}), run).scores(ROWS)
    torch.testing.assert_close(usual, (apart / apart.std(-1, keepdim=True, correction=0)).mean(0))
