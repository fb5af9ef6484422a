"""R squared, mean absolute error and their intervals, against scikit-learn, scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import mean_absolute_error as sk_mae
from sklearn.metrics import r2_score

from influence_core.primitives import regression
from influence_core.primitives.regression import DRAWS, bootstrap_intervals, mean_absolute_error, r_squared


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    given = random.gamma(2.0, 50.0, n)
    return given, 0.7 * given + 30 + random.standard_t(4, n) * 20


@pytest.mark.parametrize("n", [2, 3, 50, 5000])
@pytest.mark.parametrize("shift", [0.0, -1e6])
def test_both_figures_are_those_of_scikit_learn(n: int, shift: float) -> None:
    given, predicted = rows(n)
    given, predicted = given + shift, predicted + shift
    assert r_squared(given, predicted) == pytest.approx(r2_score(given, predicted), rel=1e-9, abs=1e-9)
    assert mean_absolute_error(given, predicted) == pytest.approx(sk_mae(given, predicted), rel=1e-12)


def test_a_perfect_and_a_useless_model() -> None:
    given = np.array([1.0, 2.0, 4.0])
    assert r_squared(given, given) == 1.0 and mean_absolute_error(given, given) == 0.0
    assert r_squared(given, np.full(3, given.mean())) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 3.0, 0.1, -1e9])
def test_equal_numbers_have_no_r_squared(value: float) -> None:
    given = np.full(7, value)
    (low, high), (least, most) = bootstrap_intervals(given, given + 1)
    assert np.isnan([r_squared(given, given + 1), low, high]).all()
    assert least == most == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_intervals_are_those_of_a_loop_over_the_same_draws(seed: int) -> None:
    given, predicted = rows(37)
    draws = np.random.default_rng(seed).integers(0, 37, (DRAWS, 37))
    r2 = [r2_score(given[draw], predicted[draw]) for draw in draws]
    mae = [sk_mae(given[draw], predicted[draw]) for draw in draws]
    found = bootstrap_intervals(given, predicted, seed)
    np.testing.assert_allclose(found[0], np.percentile(r2, (2.5, 97.5)), rtol=1e-9)
    np.testing.assert_allclose(found[1], np.percentile(mae, (2.5, 97.5)), rtol=1e-12)
    assert found == bootstrap_intervals(given, predicted, seed) != bootstrap_intervals(given, predicted, seed + 1)


def test_the_intervals_agree_with_scipy() -> None:
    given, predicted = rows(150)
    for found, score in zip(bootstrap_intervals(given, predicted), (r2_score, sk_mae), strict=True):
        expected = bootstrap(
            (given, predicted), score, paired=True, vectorized=False, method="percentile", n_resamples=2000, rng=1
        ).confidence_interval
        width = expected.high - expected.low
        np.testing.assert_allclose(found, (expected.low, expected.high), rtol=0, atol=0.1 * width)


def test_drawing_groups_of_many_rows_is_as_wide_as_drawing_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given, predicted = rows(30_001)
    grouped = bootstrap_intervals(given, predicted)
    monkeypatch.setattr(regression, "GROUPS", 1_000_000)
    monkeypatch.setattr(regression, "DRAWS", 400)
    single = bootstrap_intervals(given, predicted)
    for (low, high), (least, most) in zip(grouped, single, strict=True):
        assert high - low == pytest.approx(most - least, rel=0.2)
        assert (low + high) / 2 == pytest.approx((least + most) / 2, abs=0.2 * (most - least))
    half = 1.96 * np.abs(predicted - given).std() / np.sqrt(len(given))
    assert grouped[1] == pytest.approx((sk_mae(given, predicted) - half, sk_mae(given, predicted) + half), rel=0.005)


def test_order_of_rows_in_the_file_does_not_narrow_the_interval() -> None:
    given, predicted = rows(30_001)
    order = np.argsort(predicted - given)  # neighbours alike, as in a sorted file
    plain, sorted_ = bootstrap_intervals(given, predicted), bootstrap_intervals(given[order], predicted[order])
    for (low, high), (least, most) in zip(plain, sorted_, strict=True):
        assert high - low == pytest.approx(most - least, rel=0.2)
