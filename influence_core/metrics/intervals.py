"""Mean rank correlations with intervals, and what the truth's own noise leaves to be reached.

Intervals are bootstrap percentiles (2.5 and 97.5) over both things that were drawn: test rows, and the subsets or
left-out rows that outcomes were taken of. Draws come from a fixed seed: two methods are judged on the same ones.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from influence_core.primitives.statistics import mean_ranks

DRAWS = 1000
_CHUNK = 100


class Figure(NamedTuple):
    """A mean over test rows, its 95% interval, and how many rows had one."""

    value: float
    low: float
    high: float
    n: int


def correlations(a: np.ndarray, b: np.ndarray, *, ranked: bool = True) -> np.ndarray:
    """Return the correlation of each row of ``a [T, S]`` with that of ``b``: ``[T]``, NaN where one is constant."""
    a, b = _standardised(a, ranked), _standardised(b, ranked)
    return np.where(a.any(1) & b.any(1), (a * b).mean(1), np.nan)


def mean_correlation(a: np.ndarray, b: np.ndarray, *, ranked: bool = True, draws: int = DRAWS) -> Figure:
    """Return the mean over rows of the (rank) correlation of ``a`` and ``b`` ``[T, S]``, with its interval.

    A draw of the columns weighs the ranks that were found on all of them.
    """
    a, b = _standardised(a, ranked), _standardised(b, ranked)
    known = a.any(1) & b.any(1)
    a, b = a[known], b[known]
    if not len(a):
        return Figure(np.nan, np.nan, np.nan, 0)
    each = (a * b).mean(1)
    drawn = np.concatenate([_drawn(a, b, start, min(_CHUNK, draws - start)) for start in range(0, draws, _CHUNK)])
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Figure(float(each.mean()), float(low), float(high), len(a))


def mean_of_rows(values: np.ndarray, draws: int = DRAWS) -> Figure:
    """Return the mean of numbers ``[n]`` and its interval over them; NaN are left out."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Figure(np.nan, np.nan, np.nan, 0)
    random = np.random.default_rng(0)
    drawn = values[random.integers(0, len(values), (draws, len(values)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Figure(float(values.mean()), float(low), float(high), len(values))


def t_interval(values: np.ndarray) -> Figure:
    """Return the mean of independent numbers ``[n]`` with Student's 95% interval; it has no bounds for a single one.

    For few numbers, such as differences of paired trainings, of which a bootstrap would draw too narrow an interval.
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        return Figure(float(values[0]) if n else np.nan, np.nan, np.nan, n)
    from scipy.special import stdtrit  # here: every process of the app would wait for it

    mean, reach = float(values.mean()), float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n))
    return Figure(mean, mean - reach, mean + reach, n)


def seeds_agree(truths: np.ndarray, *, ranked: bool = True) -> Figure:
    """Return how well one seed's truth ``[T, S]`` agrees with another's, from truths ``[R, T, S]``."""
    pairs = [mean_correlation(truths[i], truths[j], ranked=ranked) for i, j in combinations(range(len(truths)), 2)]
    if not pairs:
        return Figure(np.nan, np.nan, np.nan, 0)
    value, low, high = (float(np.mean([pair[k] for pair in pairs])) for k in range(3))
    return Figure(value, low, high, pairs[0].n)


def ceiling(agreement: float, n_seeds: int) -> float:
    """Return the correlation that a perfect method could reach with the mean of ``n_seeds`` noisy truths.

    Spearman and Brown: the mean of R truths that agree with ``r`` has the reliability ``R r / (1 + (R - 1) r)``; what
    it measures without noise correlates with it by the square root of that.
    """
    if not np.isfinite(agreement):
        return np.nan
    agreement = max(0.0, agreement)
    return float(np.sqrt(n_seeds * agreement / (1 + (n_seeds - 1) * agreement)))


def _standardised(values: np.ndarray, ranked: bool) -> np.ndarray:
    """Return rows of mean 0 and variance 1, of their ranks where asked; zeros where a row is constant."""
    values = _ranks(np.asarray(values)) if ranked else np.asarray(values, float)
    largest = np.abs(values).max(1, keepdims=True)
    constant = np.ptp(values, axis=1, keepdims=True) == 0
    values = values / np.where(largest == 0, 1, largest)  # squares of very large numbers leave the range of floats
    values = values - values.mean(1, keepdims=True)
    spread = values.std(1, keepdims=True)
    return np.where(constant, 0.0, values / np.where(spread == 0, 1, spread))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks within each row; a row with a NaN has none, its ranks are NaN."""
    ranks = np.array([mean_ranks(row) for row in values], float).reshape(values.shape)
    ranks[np.isnan(values).any(1)] = np.nan
    return ranks


def _drawn(a: np.ndarray, b: np.ndarray, start: int, size: int) -> np.ndarray:
    """Return the mean correlation ``[size]`` in draws of columns and rows, numbered from ``start``."""
    random = np.random.default_rng([0, start])
    t, s = a.shape
    columns = random.multinomial(s, np.full(s, 1 / s), size) / s
    rows = random.multinomial(t, np.full(t, 1 / t), size).astype(float)
    mean_a, mean_b = columns @ a.T, columns @ b.T
    spread = (columns @ (a * a).T - mean_a**2) * (columns @ (b * b).T - mean_b**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (columns @ (a * b).T - mean_a * mean_b) / np.sqrt(spread)
        known = np.isfinite(found) & (spread > 1e-20)
        return (np.where(known, found, 0) * rows).sum(1) / (known * rows).sum(1)
