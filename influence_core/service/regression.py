"""The figures of a regression's overview."""

from __future__ import annotations

import numpy as np

from influence_core.primitives.regression import bootstrap_intervals, mean_absolute_error, r_squared
from influence_core.service import data as rows
from influence_core.service.opened import OpenStudy
from influence_core.service.views import Interval, RegressionFigures

_BINS = (8, 40)  # fewest and most
_POINTS = 2000
_LARGEST = 8


def regression_figures(held: OpenStudy) -> RegressionFigures:
    """Return how well the model predicts the numbers of every split, and the test rows behind it."""
    return held.remembered(("regression figures",), lambda: _figures(held))


def _figures(held: OpenStudy) -> RegressionFigures:
    r2, mae = {}, {}
    for split in held.study.splits:
        given, predicted = rows.given_numbers(held, split), rows.predicted_numbers(held, split)
        squared, absolute = bootstrap_intervals(given, predicted)
        r2[split] = Interval(r_squared(given, predicted), *squared, len(given))
        mae[split] = Interval(mean_absolute_error(given, predicted), *absolute, len(given))
    given, predicted = rows.given_numbers(held, "test"), rows.predicted_numbers(held, "test")
    shown = np.arange(len(given))
    if len(shown) > _POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(shown), _POINTS, replace=False))
    ids = held.study.task.ids("test")[shown].tolist()
    worst = rows.data(held, "test", rows.worst_first(held, "test")[:_LARGEST].tolist())
    return RegressionFigures(r2, mae, *_histogram(predicted - given), tuple(ids), given[shown], predicted[shown], worst)


def _histogram(residuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = float(residuals.min()), float(residuals.max())
    # Floats cannot hold the edges of bins far narrower than the numbers themselves.
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return np.histogram(residuals, bins=1)
    return np.histogram(residuals, bins=int(np.clip(2 * len(residuals) ** 0.5, *_BINS)))
