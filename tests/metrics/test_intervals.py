"""Intervals and ceilings against SciPy, against a simulation with known truth, and at the ends."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr, ttest_1samp

from influence_core.metrics.intervals import (
    _ranks,
    ceiling,
    correlations,
    mean_correlation,
    mean_of_rows,
    seeds_agree,
    t_interval,
)


def test_correlations_are_scipys_and_missing_where_a_row_is_constant() -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=(6, 20)), random.normal(size=(6, 20))
    a[2, :5] = a[2, 0]  # ties
    a[4] = 0.1
    for ranked, scipys in ((True, spearmanr), (False, pearsonr)):
        found = correlations(a, b, ranked=ranked)
        each = [scipys(a[i], b[i]).statistic for i in range(6) if i != 4]
        np.testing.assert_allclose(np.delete(found, 4), each, rtol=0, atol=1e-12)
        assert np.isnan(found[4])
        figure = mean_correlation(a, b, ranked=ranked)
        assert figure.value == pytest.approx(np.mean(each), abs=1e-12) and figure.n == 5


def test_a_perfect_predictor_scores_one_and_noise_about_zero() -> None:
    random = np.random.default_rng(1)
    weights, kept = random.normal(size=(30, 200)), random.random((60, 200)) < 0.5
    outcomes = weights @ kept.T
    perfect = mean_correlation(np.exp(outcomes / 10), outcomes)
    assert (perfect.value, perfect.low, perfect.high) == pytest.approx((1.0, 1.0, 1.0), abs=1e-9)
    assert mean_correlation(-outcomes, outcomes).value == pytest.approx(-1.0, abs=1e-12)
    noise = mean_correlation(random.normal(size=(30, 200)) @ kept.T, outcomes)
    assert abs(noise.value) < 0.08 and noise.low < 0 < noise.high


def test_nothing_to_compare_is_missing() -> None:
    figure = mean_correlation(np.ones((3, 5)), np.ones((3, 5)))
    assert np.isnan([figure.value, figure.low, figure.high]).all() and figure.n == 0
    assert np.isnan(mean_of_rows(np.array([np.nan])).value)


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_the_interval_covers_the_truth_as_often_as_it_says(shared: float) -> None:
    """Test rows and columns are drawn anew each time; errors of the method may be shared between test rows."""
    random, covered, trials, rho = np.random.default_rng(2), 0, 200, 0.6
    for _ in range(trials):
        truth = random.normal(size=(20, 40))
        common = random.normal(size=(1, 40))
        error = np.sqrt(shared) * common + np.sqrt(1 - shared) * random.normal(size=(20, 40))
        figure = mean_correlation(rho * truth + np.sqrt(1 - rho**2) * error, truth, ranked=False, draws=200)
        covered += figure.low <= rho <= figure.high
    assert covered / trials >= 0.9  # at least what it says; it may be wider, as two things are drawn


def test_the_interval_of_a_mean_covers_it() -> None:
    random = np.random.default_rng(3)
    inside = [(lambda f: f.low <= 2 <= f.high)(mean_of_rows(random.normal(2, 1, 40), 300)) for _ in range(300)]
    assert 0.9 <= np.mean(inside) <= 0.98


def test_the_ceiling_is_what_the_noiseless_truth_reaches() -> None:
    random = np.random.default_rng(4)
    clean = random.normal(size=(60, 400))
    for spread, seeds in ((0.5, 3), (1.0, 5), (2.0, 2)):
        truths = clean + spread * random.normal(size=(seeds, 60, 400))
        agree = seeds_agree(truths, ranked=False)
        assert agree.value == pytest.approx(1 / (1 + spread**2), abs=0.02) and agree.low < agree.value < agree.high
        reached = correlations(clean, truths.mean(0), ranked=False).mean()
        assert ceiling(agree.value, seeds) == pytest.approx(reached, abs=0.02)
    assert ceiling(1.0, 3) == 1.0 and ceiling(-0.2, 3) == 0.0 and np.isnan(ceiling(np.nan, 3))
    assert np.isnan(seeds_agree(truths[:1]).value)


def test_ranks_are_scipys_and_a_row_with_a_nan_has_none() -> None:
    values = np.random.default_rng(3).integers(0, 6, (7, 15)).astype(float)
    other = np.random.default_rng(4).normal(size=(7, 15))
    np.testing.assert_array_equal(_ranks(values), rankdata(values, axis=1))
    np.testing.assert_array_equal(_ranks(values[:0]), values[:0])
    values[2, 3] = np.nan
    np.testing.assert_array_equal(_ranks(values), rankdata(values, axis=1))
    found = correlations(values, other)
    assert np.isnan(found[2]) and np.isfinite(np.delete(found, 2)).all()


@pytest.mark.parametrize("n", [2, 3, 5, 30, 1000])
def test_the_interval_of_few_numbers_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).normal(2, 3, n)
    found, scipys = t_interval(values), ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((scipys.low, scipys.high), rel=1e-12)
    assert found.value == pytest.approx(values.mean(), rel=1e-14) and found.n == n
