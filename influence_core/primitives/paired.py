"""Paired differences of several models on the same rows, with intervals over both."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

_CHUNK = 50
_DRAWS = 1000


class Paired(NamedTuple):
    """A mean before and after, the change and its 95% interval, and the number of rows."""

    before: float
    after: float
    change: float
    low: float
    high: float
    n: int


def paired_changes(
    before: np.ndarray, after: np.ndarray, groups: np.ndarray | None = None, n_groups: int = 1, draws: int = _DRAWS
) -> list[Paired]:
    """Return the change of a mean in every group of rows, by a bootstrap over pairs of models and over rows.

    Every draw takes as many models and as many rows as there are, with replacement, and looks at the mean difference:
    the interval (percentiles 2.5 and 97.5) says what other seeds and other rows of the same kind might have shown. With
    a single pair it covers the rows alone.

    Args:
        before: A value per model and row ``[k, n]``.
        after: The same after the change, models paired.
        groups: Group of each row ``[n]``, -1 for none; None: all rows are one group.
        n_groups: How many groups there are.
        draws: Of the bootstrap.

    Returns:
        A result per group; NaN where a group has no row.
    """
    k, n = before.shape
    groups = np.zeros(n, np.int64) if groups is None else groups
    inside = groups >= 0
    member = sparse.csr_matrix((inside.astype(float), (np.arange(n), np.where(inside, groups, 0))), (n, n_groups))
    counts = np.asarray(member.sum(0)).ravel()
    with np.errstate(invalid="ignore", divide="ignore"):
        first = np.asarray(before.mean(0) @ member).ravel() / counts
        then = np.asarray(after.mean(0) @ member).ravel() / counts
        drawn = _drawn(after - before, member, draws)
    spread = [np.nanpercentile(drawn[:, g], [2.5, 97.5]) if counts[g] else np.full(2, np.nan) for g in range(n_groups)]
    return [
        Paired(
            float(first[g]),
            float(then[g]),
            float(then[g] - first[g]),
            float(spread[g][0]),
            float(spread[g][1]),
            int(counts[g]),
        )
        for g in range(n_groups)
    ]


def _drawn(difference: np.ndarray, member: sparse.csr_matrix, draws: int) -> np.ndarray:
    random = np.random.default_rng(0)
    k, n = difference.shape
    parts = []
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        models = random.multinomial(k, np.full(k, 1 / k), size) / k
        rows = random.multinomial(n, np.full(n, 1 / n), size).astype(float)
        parts.append((((models @ difference) * rows) @ member) / (rows @ member))
    return np.concatenate(parts)
