"""Removal: how many top proponents must go before a prediction flips, and what each removal does to it.

For each of some test rows the explained prediction is the class that the trained model gives it. The rows with the
highest scores are removed, the model is trained again, and the margin of that class is looked at; random rows stand
beside. The smallest removal that flips the prediction is found by a search between the sizes of a grid, which takes
the answer to be monotone there (removing more never flips back). Where random rows are drawn several times, what 95% of
the draws do stands beside their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from influence_core.errors import Unavailable
from influence_core.estimator import Estimator
from influence_core.measurement import Measurement, Rows
from influence_core.metrics.intervals import mean_of_rows
from influence_core.metrics.scoring import chosen_rows, judged_measurement, scored
from influence_core.metrics.table import Judging, each, framed, line
from influence_core.metrics.truth import seeds_of, values_of
from influence_core.outcomes import Outcomes
from influence_core.run import Run
from influence_core.task import Task

RANDOM = "(random)"
_Key = tuple[str, int]  # of a curve: whose order, and which draw of it
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Curve:
    """What removing does to some predictions.

    Attributes:
        ids: Ids of the test rows.
        counts: How many rows were removed ``[K]``, from 0.
        margins: Margin of the explained class after that ``[draws, n_test, K]``; a method has one draw.
        flips: Fewest removed rows that flip each prediction ``[draws, n_test]``; NaN: none up to the largest count.
        seconds: Of the method's fitting and scoring.
    """

    ids: tuple[Any, ...]
    counts: np.ndarray
    margins: np.ndarray
    flips: np.ndarray
    seconds: float = np.nan

    def to_json(self) -> list[dict[str, Any]]:
        """Return one record per prediction: mean margin, what 95% of the draws lie between, and the flip.

        The flip is the median of the draws, None where most of them do not flip; ``flipped`` is the share that does.
        """
        low, high = np.percentile(self.margins, [2.5, 97.5], axis=0)
        flips = np.median(np.where(np.isnan(self.flips), np.inf, self.flips), axis=0)
        return [
            {
                "id": self.ids[t], "counts": self.counts.tolist(), "margins": self.margins[:, t].mean(0).tolist(),
                "low": low[t].tolist(), "high": high[t].tolist(), "draws": len(self.margins),
                "flip": float(flips[t]) if np.isfinite(flips[t]) else None,
                "flipped": float(np.isfinite(self.flips[:, t]).mean()),
            }
            for t in range(len(self.ids))
        ]  # fmt: skip


class _Removals:
    """Removes the first rows of orders, and looks at the predictions."""

    def __init__(self, task: Task, run: Run, rows: Rows) -> None:
        self.task, self.rows, self.outcomes = task, rows, Outcomes(task, run)
        self.seeds = seeds_of(task, 1)

    def trained(self, removed: Sequence[np.ndarray], stage: str) -> None:
        self.outcomes.many([rows.tolist() for rows in removed], self.seeds, stage)

    def margin(self, place: int, removed: np.ndarray) -> float:
        row, kind = Rows("test", (self.rows.ids[place],)), Measurement("margin", "predicted")
        left = sorted(removed.tolist())
        return float(np.mean([values_of(self.task, self.outcomes, left, s, row, kind)[0] for s in self.seeds]))


def followed_rows(task: Task, run: Run, options: Judging) -> Rows:
    """Return the test rows whose predictions are flipped: the named ones, or some drawn by the run's seed.

    Raises:
        BadInput: A named one is not in the test split.
    """
    if options.predictions is None:
        return chosen_rows(task, run, options.flipped)
    rows = Rows("test", tuple(dict.fromkeys(options.predictions)))
    task.positions(rows)
    return rows


def removal_curves(task: Task, methods: Sequence[Estimator], run: Run, options: Judging) -> dict[str, Curve]:
    """Return a curve per method, and that of random rows; methods without a score for every row raise.

    Raises:
        BadInput: A named prediction is not in the test split.
        Unavailable: The task cannot be retrained, or does not classify.
    """
    rows = followed_rows(task, run, options)
    orders = {(RANDOM, draw): order for draw, order in enumerate(_random_orders(task, run, rows, options))}
    seconds = {RANDOM: np.nan}
    for estimator in methods:
        name = estimator.named.name
        orders[name, 0], seconds[name] = _orders(task, estimator, rows, run)
    removals, counts = _Removals(task, run, rows), _counts(task.n_train, options.removed)
    places = range(len(rows.ids))
    grid = [order[place, :k] for order in orders.values() for place in places for k in counts]
    removals.trained(grid, "retraining without proponents")
    margins = {
        key: np.asarray([[removals.margin(t, order[t, :k]) for k in counts] for t in places])
        for key, order in orders.items()
    }
    flips = _searched(removals, orders, counts, margins)

    def drawn(found: dict[tuple[str, int], np.ndarray], name: str) -> np.ndarray:
        return np.stack([values for (whose, _), values in found.items() if whose == name])

    return {
        name: Curve(rows.ids, counts, drawn(margins, name), drawn(flips, name), spent)
        for name, spent in seconds.items()
    }


def _counts(n_train: int, largest: float) -> np.ndarray:
    """Return how many rows are removed: none, then shares of the training rows up to the largest."""
    shares = [share for share in _SHARES if share < largest] + [largest]
    return np.unique([0, *(max(1, round(share * n_train)) for share in shares)])


def _random_orders(task: Task, run: Run, rows: Rows, options: Judging) -> list[np.ndarray]:
    """Return random orders of the training rows ``[n_test, n_train]``, one per draw.

    Those of a named prediction belong to it, whichever others are asked about.
    """
    named = options.predictions is not None
    places = task.positions(rows).tolist() if named else list(range(len(rows.ids)))
    seeds = [
        [run.seed, 2, draw] if named else [run.seed, 1, *([draw] if draw else [])] for draw in range(options.draws)
    ]
    return [
        np.stack([np.random.default_rng([*seed, place]).permutation(task.n_train) for place in places])
        for seed in seeds
    ]


def _orders(task: Task, estimator: Estimator, rows: Rows, run: Run) -> tuple[np.ndarray, float]:
    """Return the training rows by falling score for each test row ``[n_test, n_train]``, and the seconds."""
    if not task.loss.classifies:
        raise Unavailable(
            "No prediction can flip", "The model predicts a number.", "Use this metric on a classification task."
        )
    measurement = Measurement(judged_measurement(task, estimator).kind, "predicted")
    found = scored(task, estimator, rows, measurement, run)
    if not np.isfinite(found.values).all():
        raise Unavailable(
            f"{estimator.named.title} does not score every row", "Rows without a score have no place in the order.",
            "Leave it out of this metric.",
        )  # fmt: skip
    return np.argsort(-found.values, axis=1, kind="stable"), found.seconds


def _searched(
    removals: _Removals, orders: dict[_Key, np.ndarray], counts: np.ndarray, margins: dict[_Key, np.ndarray]
) -> dict[_Key, np.ndarray]:
    """Return the fewest removed rows that flip each prediction, all searches one step at a time side by side."""
    flips = {name: np.full(len(order), np.nan) for name, order in orders.items()}
    open_: dict[tuple[_Key, int], tuple[int, int]] = {}
    for name, values in margins.items():
        for place, row in enumerate(values):
            flipped = np.flatnonzero(row < 0)
            if len(flipped) and flipped[0] == 0:
                flips[name][place] = 0
            elif len(flipped):
                open_[name, place] = int(counts[flipped[0] - 1]), int(counts[flipped[0]])
    while open_:
        middles = {key: (low + high) // 2 for key, (low, high) in open_.items() if high - low > 1}
        for (name, place), (low, high) in open_.items():
            if high - low <= 1:
                flips[name][place] = high
        removals.trained([orders[name][t, :k] for (name, t), k in middles.items()], "searching for the flip")
        open_ = {
            key: (open_[key][0], k) if removals.margin(key[1], orders[key[0]][key[1], :k]) < 0 else (k, open_[key][1])
            for key, k in middles.items()
        }
    return flips


def removal(
    task: Task, methods: Sequence[Estimator], run: Run, planted: np.ndarray | None = None,
    options: Judging | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Return how many proponents must go before predictions flip, and how far the margin falls on the way.

    Args:
        task: A classification with a recipe.
        methods: Estimators that score every row.
        run: Device, store, progress; its seed draws the test rows and the random orders.
        planted: Not used.
        options: How many predictions or which, and the largest share that is removed.

    Returns:
        Per method and for random rows: ``rows to flip`` (median; a prediction that did not flip counts as the largest
        removal, said in the note), ``flipped`` (share of the predictions), ``drop at k`` (mean fall of the margin).

    Raises:
        Unavailable: The task cannot be retrained, or does not classify.
    """
    options = options or Judging.checked({})
    rows = followed_rows(task, run, options)
    _Removals(task, run, rows)  # says at once if nothing can be retrained
    able: list[Estimator] = []

    def asked(estimator: Estimator) -> list[dict[str, Any]]:
        _orders(task, estimator, rows, run)
        able.append(estimator)
        return []

    lines = each(methods, "removal", asked)
    if able:
        for name, curve in removal_curves(task, able, run, options).items():
            lines += _of_curve(name, curve)
    return framed(lines)


def _of_curve(name: str, curve: Curve) -> list[dict[str, Any]]:
    flips, largest = curve.flips.reshape(-1), int(curve.counts[-1])
    margins = curve.margins.reshape(-1, len(curve.counts))
    flipped = np.isfinite(flips)
    counted = np.where(flipped, flips, largest)
    random = np.random.default_rng(0)
    drawn = np.median(counted[random.integers(0, len(counted), (1000, len(counted)))], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    n, note = len(counted), f"{int(flipped.sum())} of {len(counted)} flipped within {largest} rows"
    share = mean_of_rows(flipped.astype(float))
    lines = [
        line(name, "removal", "rows to flip", float(np.median(counted)), n, low=float(low), high=float(high),
             note=note, seconds=curve.seconds),
        line(name, "removal", "flipped", share.value, n, low=share.low, high=share.high, note=note,
             seconds=curve.seconds),
    ]  # fmt: skip
    for place, count in enumerate(curve.counts[1:], 1):
        fall = mean_of_rows(margins[:, 0] - margins[:, place])
        lines.append(line(
            name, "removal", f"drop at {count}", fall.value, n, low=fall.low, high=fall.high,
            note="margin of the predicted class", seconds=curve.seconds,
        ))  # fmt: skip
    return lines
