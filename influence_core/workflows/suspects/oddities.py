"""Rows that are odd for another reason than their label: near-duplicates, test rows that are in train, outliers.

All three read the distances between encoded inputs that the neighbours' votes have computed already. The unit is the
typical distance: the median over train rows of the distance to the nearest other row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from influence_core.run import Run
from influence_core.task import Task
from influence_core.workflows.suspects.predictions import MAX_POINTS, neighbour_votes, not_numbers

KINDS = ("duplicates", "leakage", "outliers")
NEARLY = 0.1  # of the typical distance: below, rows count as the same
FAR = 2.0  # times the usual distance to the k-th neighbour: above, a row counts as an outlier


class Oddities(NamedTuple):
    """One list, the oddest first.

    Attributes:
        split: Which split the rows are in.
        positions: The rows ``[m]``.
        others: Positions in train of the rows that they resemble ``[m]``, -1 for none.
        measures: How odd ``[m]``.
        measured: What that number means.
    """

    split: str
    positions: np.ndarray
    others: np.ndarray
    measures: np.ndarray
    measured: str


def unavailable(task: Task) -> str:
    """Return why there are no such lists; empty if there are."""
    if reason := not_numbers(task):
        return f"It {reason}."
    return "" if task.n_train > 2 else "It needs more rows."


def oddities(task: Task, run: Run, kind: str) -> Oddities:
    """Return one of the lists, of ``KINDS``; each pair of near-duplicates stands there once."""
    votes = neighbour_votes(task, run)
    distances, neighbours = votes.distances.double().numpy(), votes.neighbours.numpy()
    nearest = distances[:, 0]
    apart = nearest[nearest > 0]
    typical = float(np.median(apart)) if len(apart) else 1.0
    if kind == "outliers":
        far = distances[:, -1]
        usual = float(np.median(far)) or 1.0
        found = np.flatnonzero(far > FAR * usual)
        found = found[np.argsort(-far[found], kind="stable")]
        words = f"distance to the {distances.shape[1]}th nearest train row, over the usual one"
        return Oddities("train", found, np.full(len(found), -1), far[found] / usual, words)
    sample = f", among a sample of {MAX_POINTS:,} train rows" if task.n_train > MAX_POINTS else ""
    words = f"distance over the typical one between nearest rows; 0 is identical{sample}"
    if kind == "leakage":
        twins, apart = votes.twins.numpy(), votes.twin_distances.double().numpy() / typical
        found = np.flatnonzero(apart <= NEARLY)
        found = found[np.argsort(apart[found], kind="stable")]
        return Oddities("test", found, twins[found], apart[found], words)
    rows, places = np.nonzero(distances <= NEARLY * typical)
    others, close = neighbours[rows, places], distances[rows, places] / typical
    pairs = np.stack([np.minimum(rows, others), np.maximum(rows, others)])
    _, once = np.unique(pairs, axis=1, return_index=True)
    once = once[np.argsort(close[once], kind="stable")]
    return Oddities("train", pairs[0, once], pairs[1, once], close[once], words)
