"""Do two methods say the same? Rank correlation of their scores, and how many of their top rows they share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from influence_core.errors import BadInput
from influence_core.estimator import Estimator
from influence_core.metrics.intervals import mean_correlation, mean_of_rows
from influence_core.metrics.scoring import Scored, chosen_rows, judged_measurement, scored
from influence_core.metrics.table import Judging, each, framed, line
from influence_core.run import Run
from influence_core.task import Task

SPEARMAN, OVERLAP = "spearman with ", "top rows shared with "


def overlaps(a: np.ndarray, b: np.ndarray, top: int) -> np.ndarray:
    """Return the share ``[T]`` of the ``top`` highest columns that two tables ``[T, n]`` have in common."""
    top = min(top, a.shape[1])
    first, second = (np.argsort(-values, axis=1, kind="stable")[:, :top] for values in (a, b))
    return np.asarray([len(np.intersect1d(x, y)) / top for x, y in zip(first, second, strict=True)])


def agreement(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None,
    options: Judging | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return, for every pair of methods, the mean rank correlation over test rows and the share of top rows in common.

    Nothing is retrained: two methods that agree may both be wrong. Rows that either has not scored are left out.

    Args:
        task: Any.
        methods: Estimators with pairwise scores, two or more.
        run: Device, store, progress.
        planted: Not used.
        options: Test rows, top rows.

    Raises:
        BadInput: There are not two methods.
    """
    options = options or Judging.checked({})
    if len(methods) < 2:
        raise BadInput("Agreement cannot be measured", "It compares methods, and one is given.", "Give two or more.")
    rows = chosen_rows(task, run, options.rows)
    said: dict[str, Scored] = {}

    def asked(estimator: Estimator) -> list[dict[str, Any]]:
        said[estimator.named.name] = scored(task, estimator, rows, judged_measurement(task, estimator), run)
        return []

    lines = each(methods, "agreement", asked)
    for one, other in combinations(said, 2):
        lines += _pair(one, other, said, options.top)
    return framed(lines)


def _pair(one: str, other: str, said: dict[str, Scored], top: int) -> list[dict[str, Any]]:
    a, b = said[one].values, said[other].values
    known = np.isfinite(a[0]) & np.isfinite(b[0])
    a, b = a[:, known], b[:, known]
    if a.shape[1] < 3:
        return []
    ranks, shared = mean_correlation(a, b), mean_of_rows(overlaps(a, b, top))
    note = f"{int(known.sum())} training rows"
    return [
        line(one, "agreement", SPEARMAN + other, ranks.value, ranks.n, low=ranks.low, high=ranks.high, note=note),
        line(
            one, "agreement", OVERLAP + other, shared.value, shared.n, low=shared.low, high=shared.high,
            note=f"top {min(top, a.shape[1])} proponents; {note}",
        ),
    ]  # fmt: skip


def matrix(table: pd.DataFrame, figure: str = SPEARMAN) -> pd.DataFrame:
    """Return the square table of one figure between methods, 1 on the diagonal, NaN where a pair was not compared."""
    found = table[(table["metric"] == "agreement") & table["figure"].str.startswith(figure)]
    pairs = [
        (a, text.removeprefix(figure), value)
        for a, text, value in zip(found["method"], found["figure"], found["value"], strict=True)
    ]
    names = list(dict.fromkeys(name for a, b, _ in pairs for name in (a, b)))
    square = pd.DataFrame(np.where(np.eye(len(names)) > 0, 1.0, np.nan), index=names, columns=names)
    for a, b, value in pairs:
        square.loc[a, b] = square.loc[b, a] = value
    return square
