"""Figures of merit against scikit-learn, scipy and brute force."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, pearsonr, rankdata, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from influence_core.primitives.statistics import (
    average_precision,
    mean_ranks,
    pearson,
    recall_at,
    roc_auc,
    spearman,
    wilson_interval,
)

few_values = st.lists(st.integers(-3, 3), min_size=2, max_size=30)


@pytest.mark.parametrize("trials", [1, 2, 7, 40, 1000])
def test_wilson_interval_is_scipys(trials: int) -> None:
    for successes in sorted({0, 1, trials // 3, trials - 1, trials}):
        expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
        low, high = wilson_interval(successes, trials)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-14)
        assert 0 <= low <= successes / trials <= high <= 1


def test_wilson_interval_of_nothing_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


@settings(max_examples=60, deadline=None)
@given(few_values)
def test_ranks_are_scipys(values: list[int]) -> None:
    assert mean_ranks(np.asarray(values, dtype=float)).tolist() == rankdata(values).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 40), st.booleans())
def test_correlations_are_scipys(seed: int, n: int, tied: bool) -> None:
    random = np.random.default_rng(seed)
    a, b = random.normal(size=n), random.normal(size=n)
    if tied:
        a, b = np.append(np.round(a), [9.0, -9.0]), np.append(np.round(b), [-9.0, 9.0])
    assert pearson(a, b) == pytest.approx(pearsonr(a, b).statistic, abs=1e-12)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, -7.7, 1e-300, 1e20])
@pytest.mark.parametrize("n", [3, 10, 24])
def test_a_constant_side_has_no_correlation(constant: float, n: int) -> None:
    other = np.linspace(-1, 1, n) ** 3
    for correlation in (pearson, spearman):
        assert np.isnan(correlation(np.full(n, constant), other)) and np.isnan(correlation(other, np.full(n, constant)))


@pytest.mark.parametrize("scale", [1e-200, 1e-90, 1e-20, 1e20, 1e90, 1e200])
def test_correlation_does_not_depend_on_the_unit(scale: float) -> None:
    random = np.random.default_rng(0)
    a, b = random.normal(size=20), random.normal(size=20)
    assert pearson(scale * a, b / scale) == pytest.approx(pearson(a, b), abs=1e-12)
    assert pearson(scale * a, scale * b) == pytest.approx(pearson(a, b), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(few_values, st.integers(0, 2**30 - 1))
def test_detection_curves_are_scikit_learns_ties_included(values: list[int], bits: int) -> None:
    scores = np.asarray(values, dtype=float)
    positive = np.asarray([bool(bits >> i & 1) for i in range(len(values))])
    if positive.all() or not positive.any():
        assert np.isnan(roc_auc(scores, positive))
        return
    assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    assert average_precision(scores, positive) == pytest.approx(average_precision_score(positive, scores), abs=1e-12)


def test_a_perfect_and_a_reversed_order() -> None:
    positive = np.asarray([True, True, False, False, False])
    best = np.asarray([5.0, 4, 3, 2, 1])
    assert (roc_auc(best, positive), roc_auc(-best, positive)) == (1.0, 0.0)
    assert (average_precision(best, positive), recall_at(best, positive, 0.4)) == (1.0, 1.0)
    assert recall_at(-best, positive, 0.4) == 0.0
    assert average_precision(-best, positive) == pytest.approx((1 / 4 + 2 / 5) / 2)


def test_without_positive_rows_there_is_no_figure() -> None:
    scores, nothing = np.arange(5.0), np.zeros(5, dtype=bool)
    for figure in (roc_auc, average_precision, lambda s, p: recall_at(s, p, 0.2)):
        assert np.isnan(figure(scores, nothing))
    assert np.isnan(recall_at(scores, ~nothing, 0.01))  # a budget of no row


@pytest.mark.parametrize("share", [0.2, 0.4, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("scores", [[1, 1, 1, 1, 1], [2, 1, 1, 0, 0], [3, 3, 2, 2, 2], [5, 4, 3, 2, 1]])
def test_recall_is_the_expectation_over_all_orders_of_tied_rows(scores: list[int], share: float) -> None:
    values = np.asarray(scores, dtype=float)
    budget = round(share * len(values))
    for bits in range(1, 32):
        positive = np.asarray([bool(bits >> i & 1) for i in range(5)])
        recalls = [
            positive[sorted(order, key=lambda i: -values[i])[:budget]].sum() / positive.sum()
            for order in permutations(range(5))
        ]  # a stable sort of every permutation: every order of the ties, equally often
        assert recall_at(values, positive, share) == pytest.approx(np.mean(recalls), abs=1e-12)
