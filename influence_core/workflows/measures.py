"""Influence on something else than the loss that was trained on: a margin between two classes, a gap between groups.

Any differentiable number per row is a measurement (``Measurement(function)``), and influence functions carry it back to
the training rows through the curvature of the loss that was trained: the cross-loss influence of Silva, Chopra &
Gombolay (AISTATS 2022). Two that people ask for:

- ``class_margin``: how much rather class a than class b, ``f_a - f_b``.
- ``gap_influence``: the difference of a measurement's mean between two groups of rows, such as the mean chance of being
  let off among women and among men. It is linear in the rows, so that it is the difference of two queries.

Higher is better of every measurement: a training row with a positive score keeps the margin, or the gap, as large as it
is; of a gap that ought to vanish, those are the rows to look at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from influence_core.errors import BadInput
from influence_core.estimator import Fitted
from influence_core.measurement import Measurement, Rows
from influence_core.primitives.losses import outputs


def class_margin(a: int, b: int) -> Callable[[Any, Any], Tensor]:
    """Return the measurement ``f_a - f_b`` of a classifier with a logit per class.

    Raises:
        BadInput: The same class twice.
    """
    if a == b:
        raise BadInput("There is no margin", f"Both classes are {a}.", "Give two classes.")

    def margin(model: Any, batch: Any) -> Tensor:
        f = outputs(model, batch.inputs)
        return f[:, a] - f[:, b]

    return margin


def gap_influence(fitted: Fitted, one: Rows, other: Rows, measurement: Measurement) -> Tensor:
    """Return the influence ``[n_train]`` on the mean of a measurement in one group minus that in another.

    Args:
        fitted: A fitted method with pairwise scores.
        one: Rows of a group.
        other: Rows of the other group.
        measurement: What is averaged, such as ``Measurement("probability", target=1)``.

    Raises:
        BadInput: A group is empty, or a row is in both.
    """
    both = set(one.ids) & set(other.ids) if one.split == other.split else set()
    if not one.ids or not other.ids or both:
        why = f"{len(both)} rows are in both groups." if both else "A group has no row."
        raise BadInput("There is no gap", why, "Give two groups of other rows.")
    means = [fitted.scores(Rows(rows.split, rows.ids, "mean"), measurement)[0] for rows in (one, other)]
    return torch.sub(*means)
