"""Figures of merit of predicted numbers, with bootstrap intervals."""

from __future__ import annotations

import numpy as np

DRAWS = 1000
GROUPS = 2000


def r_squared(given: np.ndarray, predicted: np.ndarray) -> float:
    """Return 1 minus the squared errors over those of the mean of ``given``; NaN where all given numbers are equal."""
    return float(_r_squared(*_sums(given, predicted).sum(0)))


def mean_absolute_error(given: np.ndarray, predicted: np.ndarray) -> float:
    """Return the mean of ``|predicted - given|``."""
    return float(np.abs(predicted - given).mean())


def bootstrap_intervals(
    given: np.ndarray, predicted: np.ndarray, seed: int = 0
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the 95% percentile bootstrap intervals of R squared and of the mean absolute error.

    Rows are drawn with replacement ``DRAWS`` times. More than ``GROUPS`` rows are first dealt at random into ``GROUPS``
    groups, and whole groups are drawn: sums over random groups vary from draw to draw as sums over rows do, so that a
    million rows cost no more than two thousand.

    Args:
        given: Numbers in the data ``[n]``, n at least 1.
        predicted: The model's numbers ``[n]``.
        seed: Of the draws.

    Returns:
        ``((low, high), (low, high))``; NaN where no draw had a value.
    """
    random = np.random.default_rng(seed)
    sums = _sums(given, predicted)
    if len(sums) > GROUPS:
        edges = np.linspace(0, len(sums), GROUPS + 1).astype(int)[:-1]
        sums = np.add.reduceat(sums[random.permutation(len(sums))], edges)
    draws = random.integers(0, len(sums), (DRAWS, len(sums)))
    n, *rest = np.moveaxis(np.stack([sums[draw].sum(0) for draw in draws]), 1, 0)
    return _middle(_r_squared(n, *rest)), _middle(rest[3] / n)


def _sums(given: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return per row what both figures are made of: count, squared error, centred number, its square, |error|."""
    # Centred, so that the difference of two large sums does not cancel the digits of the variance.
    centred, error = given.astype(np.float64) - given.mean(dtype=np.float64), predicted.astype(np.float64) - given
    return np.stack([np.ones(len(given)), error**2, centred, centred**2, np.abs(error)], 1)


def _r_squared(n: np.ndarray, squared: np.ndarray, total: np.ndarray, squares: np.ndarray, _: np.ndarray) -> np.ndarray:
    spread = squares - total**2 / n
    # What is left of a constant after rounding is no spread.
    constant = spread <= 1e-12 * squares
    return np.where(constant, np.nan, 1 - squared / np.where(constant, 1.0, spread))


def _middle(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, (2.5, 97.5))
    return float(low), float(high)
