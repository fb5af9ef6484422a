"""Figures of merit: rank correlations, detection curves, intervals."""

from __future__ import annotations

import numpy as np

_Z95 = 1.959963984540054


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a share; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, z2 = successes / trials, _Z95**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z95 / (1 + z2 / trials) * (share * (1 - share) / trials + z2 / (4 * trials**2)) ** 0.5
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks from 1, tied values sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation; NaN if one side is constant."""
    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    # Scaled first: squares of very large or very small numbers leave the range of floats.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation; NaN if one side is constant."""
    return pearson(mean_ranks(a), mean_ranks(b))


def roc_auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the chance that a positive row outranks a negative one, ties counting half."""
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    return float((mean_ranks(scores)[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the mean over recall of the precision at each threshold; tied scores share a threshold."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision = hits[last_of_tie] / (last_of_tie + 1)
    gained = np.diff(np.append(0, hits[last_of_tie]))
    return float((precision * gained).sum() / hits[-1]) if hits[-1] else float("nan")


def recall_at(scores: np.ndarray, positive: np.ndarray, share: float) -> float:
    """Return the share of positive rows among the top ``share`` of all rows, ties counting in proportion."""
    budget = round(share * len(scores))
    total = positive.sum()
    if total == 0 or budget == 0:
        return float("nan")
    cut = np.sort(scores)[::-1][budget - 1]
    above, tied = scores > cut, scores == cut
    partial = (budget - above.sum()) / tied.sum() * positive[tied].sum()
    return float((positive[above].sum() + partial) / total)
