"""Hampel's influence curve of a statistic: what one more observation at x does to it, per unit of its weight.

::

    IC(x; T, F) = lim_{e -> 0} [ T((1 - e) F + e delta_x) - T(F) ] / e
    SC_n(x)     = (n + 1) [ T(x, z_1 .. z_n) - T(z_1 .. z_n) ]        (the sensitivity curve, its finite form)

For an M-estimator ``sum_i psi(z_i; T) = 0`` it is ``IC = -psi(x; T) / mean(psi')``. The gross-error sensitivity is
``sup |IC|``: finite for robust statistics, infinite for the mean. The sensitivity curve of the median hangs on the gaps
between its neighbours and has no pointwise limit; its influence curve needs a density and is not offered.

Reference: Hampel, The Influence Curve and its Role in Robust Estimation, JASA 1974.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
import torch
from pydantic import Field

from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.workflows.diagnostics.catalogue import Answer, Findings, diagnostic

Statistic = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class InfluenceCurve:
    """The curves at points ``x`` ``[k]``.

    Attributes:
        x: Where one more observation is put.
        influence: ``IC`` ``[k]`` in units of the statistic, or None where it is not known in closed form.
        sensitivity: ``SC_n`` ``[k]``.
        estimate: The statistic itself.
    """

    x: np.ndarray
    influence: np.ndarray | None
    sensitivity: np.ndarray
    estimate: float

    @property
    def gross_error_sensitivity(self) -> float:
        """Return the largest ``|IC|`` (or ``|SC|``) over the points: how much one observation can do, per weight."""
        return float(np.abs(self.sensitivity if self.influence is None else self.influence).max())


def influence_curve(
    values: np.ndarray, statistic: Literal["mean", "median", "huber"] | Statistic = "mean", *,
    x: np.ndarray | None = None, bend: float = 1.345,
) -> InfluenceCurve:  # fmt: skip
    """Return the influence curve and the sensitivity curve of a statistic of one column.

    Args:
        values: Observations ``[n]``.
        statistic: One by name, or a function of the observations.
        x: Points; default 201 between three ranges below and above.
        bend: Where Huber's psi bends, in the units of the values.

    Raises:
        BadInput: Fewer than three values, one that is not a number, or an unknown statistic.
    """
    values = np.asarray(values, dtype=np.float64).ravel()
    if len(values) < 3 or not np.isfinite(values).all():
        raise BadInput(
            "No influence curve", f"There are {len(values)} values, {int(np.isfinite(values).sum())} of them numbers.",
            "Give three or more numbers.",
        )  # fmt: skip
    known: Mapping[str, Statistic] = {
        "mean": lambda v: float(v.mean()), "median": lambda v: float(np.median(v)), "huber": lambda v: huber(v, bend),
    }  # fmt: skip
    if isinstance(statistic, str) and statistic not in known:
        raise BadInput("Unknown statistic", f"'{statistic}' is none of {', '.join(known)}.", "Use one, or a function.")
    function = known[statistic] if isinstance(statistic, str) else statistic
    spread = float(np.ptp(values)) or 1.0
    points = np.linspace(values.min() - spread, values.max() + spread, 201) if x is None else np.asarray(x, float)
    estimate, n = float(function(values)), len(values)
    sensitivity = np.asarray([(n + 1) * (function(np.append(values, point)) - estimate) for point in points])
    influence = None
    if statistic == "mean":
        influence = points - estimate
    elif statistic == "huber":
        within = float(np.mean(np.abs(values - estimate) <= bend))
        influence = np.clip(points - estimate, -bend, bend) / max(within, 1 / n)
    return InfluenceCurve(points, influence, sensitivity, estimate)


def huber(values: np.ndarray, bend: float) -> float:
    """Return Huber's location estimate: the root of ``sum_i clip(z_i - T, -bend, bend)``, by bisection."""
    low, high = float(values.min()), float(values.max())
    for _ in range(200):
        middle = (low + high) / 2
        if np.clip(values - middle, -bend, bend).sum() > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


# -- by id ------------------------------------------------------------------------------------------------------------


class CurveConfig(Config):
    """Of which numbers, and of what about them."""

    column: str = Field("", description="A column of numbers of the training rows; empty: their losses.")
    statistic: Literal["mean", "median", "huber"] = Field("mean", description="What is computed of the column.")
    bend: float = Field(1.345, gt=0, description="Where Huber's psi bends, in the units of the values.")
    points: tuple[float, ...] | None = Field(None, description="Where one more value is put; empty: a range around.")


@diagnostic(
    "influence_curve", "Influence curve of a statistic",
    "What one more value would do to the mean, the median or Huber's estimate of a column.",
    "Hampel, The Influence Curve and its Role in Robust Estimation, JASA 1974", CurveConfig,
)  # fmt: skip
def _curve(findings: Findings, config: CurveConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``x``, where a value is added; ``influence``, the limit (empty for the median); ``sensitivity``, ``SC_n``.
    """
    values = _numbers(findings, config.column)
    x = None if config.points is None else np.asarray(config.points)
    found = influence_curve(values, config.statistic, x=x, bend=config.bend)
    influence = np.full(len(found.x), np.nan) if found.influence is None else found.influence
    table = pd.DataFrame({"x": found.x, "influence": influence, "sensitivity": found.sensitivity})
    name = config.column or "the training losses"
    said = [
        f"{config.statistic} of {name} over {len(values):,} rows: {found.estimate:.6g}.",
        f"Gross-error sensitivity over the points: {found.gross_error_sensitivity:.4g}.",
    ]
    if found.influence is None:
        said.append("The median's influence curve needs a density and is not given; see the sensitivity curve.")
    return table, tuple(said)


def _numbers(findings: Findings, column: str) -> np.ndarray:
    """Return a column of the training rows as numbers, or their losses under the explained model."""
    task, run = findings.task, findings.run
    if not column:
        model = task.model_at(-1, run.device, run.dtype)
        batches = task.split("train").batches(run.batch_size, run.device, run.dtype)
        with torch.no_grad():
            return torch.cat([task.loss(model, batch).double().cpu() for _, batch in batches]).numpy()
    if findings.study is None:
        why = f"A task in memory has no column '{column}'."
        raise BadInput("There is no such column", why, "Leave column empty, or call influence_curve(values).")
    names = findings.study.column_names("train")
    if column not in names:
        why = f"'{column}' is not among {', '.join(names[:12])}."
        raise BadInput("There is no such column", why, "Name a column of the train split.")
    try:
        return findings.study.column("train", column).astype(np.float64)
    except (TypeError, ValueError):
        raise BadInput("A column of numbers is needed", f"'{column}' holds something else.", "Name another.") from None
