"""Influence and sensitivity curves with textbook answers."""

from __future__ import annotations

import numpy as np
import pytest

from influence_core.errors import BadInput
from influence_core.workflows.diagnostics.influence_curves import huber, influence_curve


def sample(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


def test_the_mean_is_linear_and_its_sensitivity_curve_equals_it() -> None:
    values = sample(50)
    curve = influence_curve(values, "mean")
    assert curve.influence is not None
    np.testing.assert_allclose(curve.influence, curve.x - values.mean(), rtol=1e-12)
    np.testing.assert_allclose(curve.sensitivity, curve.x - values.mean(), rtol=0, atol=1e-12)


def test_huber_is_bounded_and_its_sensitivity_converges() -> None:
    points = np.linspace(-6, 6, 25)
    gaps = []
    for n in (200, 2_000, 20_000):
        curve = influence_curve(sample(n), "huber", x=points)
        assert curve.influence is not None
        gaps.append(np.abs(curve.sensitivity - curve.influence).max())
        within = np.mean(np.abs(sample(n) - curve.estimate) <= 1.345)
        assert curve.gross_error_sensitivity == pytest.approx(1.345 / within)
    assert gaps[2] < gaps[1] < gaps[0] and gaps[2] < 1e-3


def test_huber_with_a_wide_bend_is_the_mean_and_with_a_narrow_one_the_median() -> None:
    values = sample(101)
    assert huber(values, 1e3) == pytest.approx(values.mean())
    assert huber(values, 1e-6) == pytest.approx(np.median(values), abs=1e-5)


def test_the_median_has_no_pointwise_limit() -> None:
    """The negative control: the curve hangs on the gaps next to the median and differs between samples."""
    slopes = [influence_curve(sample(2001, seed), "median", x=np.asarray([3.0])).sensitivity[0] for seed in range(8)]
    assert max(slopes) > 1.5 * min(slopes) > 0
    assert influence_curve(sample(20), "median").influence is None


def test_a_function_of_the_users_own_and_bad_input() -> None:
    values = sample(30)
    found = influence_curve(values, lambda v: float(np.var(v)), x=np.asarray([0.0, 5.0]))
    np.testing.assert_allclose(
        found.sensitivity, [31 * (np.var(np.append(values, p)) - np.var(values)) for p in (0, 5)]
    )
    assert found.influence is None and found.gross_error_sensitivity == np.abs(found.sensitivity).max()
    with pytest.raises(BadInput, match="Unknown statistic"):
        influence_curve(values, "mode")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="three or more"):
        influence_curve(np.asarray([1.0, np.nan, 2.0]))
