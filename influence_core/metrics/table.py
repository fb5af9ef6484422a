"""The one table of measured figures: its columns, its options, and a line for what could not be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from influence_core.config import Config
from influence_core.errors import BadInput, NumericalProblem, Unavailable
from influence_core.estimator import Estimator

COLUMNS = ("method", "metric", "figure", "value", "low", "high", "n", "ceiling", "note", "seconds")
TRUTH = "(truth)"  # stands in the column of methods for what retraining says of itself
NOT_MEASURED = "not measured"


class Judging(Config):
    """How much is retrained and looked at when methods are judged."""

    subsets: int = Field(50, ge=3, description="Random halves of the training rows that are retrained, for LDS.")
    seeds: int = Field(3, ge=1, le=100, description="Trainings of each, where training depends on a seed.")
    rows: int = Field(64, ge=1, description="Test rows that are looked at.")
    left_out: int = Field(24, ge=3, description="Training rows left out one at a time, for leave-one-out and PBRF.")
    damping: float = Field(1e-2, gt=0, description="Proximity of the proximal Bregman response, per mean loss.")
    flipped: int = Field(4, ge=1, description="Predictions that are flipped by removing their proponents.")
    removed: float = Field(0.3, gt=0, lt=1, description="Largest share of the training rows that is removed for it.")
    predictions: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="Ids of test rows whose predictions are flipped; empty: drawn by the seed."
    )
    draws: int = Field(1, ge=1, le=200, description="Random removals that stand beside each of them.")
    top: int = Field(10, ge=1, description="Top rows that are compared between two methods.")


def line(method: str, metric: str, figure: str, value: float, n: int, **more: Any) -> dict[str, Any]:
    """Return one line; ``low, high, ceiling, seconds`` default to NaN, ``note`` to nothing."""
    blank = {"low": np.nan, "high": np.nan, "ceiling": np.nan, "note": "", "seconds": np.nan}
    found = {**blank, **more, "method": method, "metric": metric, "figure": figure, "value": value, "n": n}
    return {name: found[name] for name in COLUMNS}


def framed(lines: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return lines as a data frame with the columns in order."""
    return pd.DataFrame(list(lines), columns=list(COLUMNS))


def refused(method: str, metric: str, reason: str) -> dict[str, Any]:
    """Return the line of a method that a metric cannot be measured of."""
    return line(method, metric, NOT_MEASURED, np.nan, 0, note=reason)


def each(
    methods: Sequence[Estimator], metric: str, measured: Callable[[Estimator], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Return the lines of all methods; one that cannot be measured has one line with the reason and stops no other."""
    lines: list[dict[str, Any]] = []
    for estimator in methods:
        try:
            lines += measured(estimator)
        except (BadInput, NumericalProblem, Unavailable) as error:
            lines.append(refused(estimator.named.name, metric, str(error)))
    return lines
