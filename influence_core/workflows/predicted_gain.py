"""What influence expects of changed rows, before anything is trained again.

To first order, the mean measurement ``m`` of the test rows (minus the loss unless told otherwise) moves by ``-S_i`` if
row i is dropped, by ``-(1 - w) S_i`` if its weight becomes w, and by ``S'_i - S_i`` if it gets another label, where
``S_i`` is what leaving the row out would cost (positive: proponent) and ``S'_i`` the same of the row with its new
label: ``S'_i = (1/n) g_V' (C + damping I)^-1 g'_i``. The sum over all changes ignores that rows explain each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core import registry
from influence_core.estimators.inverse_curvature import InfluenceFitted
from influence_core.examples import Batch, moved
from influence_core.fitting import fit
from influence_core.gradient_cache import query_gradients
from influence_core.measurement import Measurement
from influence_core.outcomes import Correction
from influence_core.primitives.sides import Dense, Side, dot
from influence_core.run import Run
from influence_core.task import Task

_WRITTEN_OUT = 2_000  # parameters up to which the curvature is factorised
_ITERATIONS = 60
_ROWS = 512


@dataclass(frozen=True)
class PredictedGain:
    """How much the mean log-probability of the test labels is expected to rise.

    Attributes:
        method: Id of the influence method; empty where none can run.
        relabelled, dropped, downweighted: Sums over the rows with this change.
        why_not: Why there is no prediction; empty where there is one.
    """

    method: str = ""
    relabelled: float = 0.0
    dropped: float = 0.0
    downweighted: float = 0.0
    why_not: str = ""

    @property
    def total(self) -> float:
        """Return the sum over all changes."""
        return self.relabelled + self.dropped + self.downweighted


def influence_method(task: Task) -> tuple[str, dict[str, object]]:
    """Return the influence method for a task's size, with its options."""
    return ("if_ggn", {}) if task.n_params <= _WRITTEN_OUT else ("if_cg", {"max_iterations": _ITERATIONS})


def predicted_gain(
    task: Task, correction: Correction, test: Batch, run: Run, measurement: Measurement | None = None
) -> PredictedGain:
    """Return what the changes are expected to do for test rows.

    Args:
        task: The original one.
        correction: Changes of its training rows. A row with a label that the model has no output for counts as dropped.
        test: The test rows with the labels that are right.
        run: Device, precision, store, progress.
        measurement: Of which the mean over the test rows is taken; None: minus the loss.
    """
    name, options = influence_method(task)
    if reason := registry.missing(registry.found(name).info, task):
        return PredictedGain(why_not=f"Influence {reason}.")
    fitted = fit(task, registry.made(name, options, task), run)
    assert isinstance(fitted, InfluenceFitted)
    return gain_by(fitted, correction, test, measurement)


def gain_by(
    fitted: InfluenceFitted, correction: Correction, test: Batch, measurement: Measurement | None = None
) -> PredictedGain:
    """Return what a fitted influence method expects of the changes; arguments as those of ``predicted_gain``."""
    direction = _direction(fitted, test, measurement or Measurement())
    effects = fitted.cache.products(direction)[0].double().cpu()  # of leaving each row out
    outputs = fitted.task.n_classes or 0
    new = {row: label for row, label in correction.labels.items() if not outputs or label < outputs}
    gone = [*correction.removed, *(row for row in correction.labels if row not in new)]
    relabelled = _with_labels(fitted, direction, new) - effects[list(new)] if new else torch.zeros(1)
    lighter = [(1 - weight) * float(effects[row]) for row, weight in correction.weights.items()]
    name = fitted.info.name
    return PredictedGain(name, float(relabelled.sum()), -float(effects[gone].sum()), -sum(lighter))


def _gradients(fitted: InfluenceFitted, batch: Batch, measurement: Measurement) -> list[Side]:
    """Return the gradients of the negated measurement at rows with the labels that the batch gives them."""
    task, run = fitted.task, fitted.run
    batch = Batch(*moved(batch, run.device, run.dtype))
    return query_gradients(fitted.cache, batch, measurement.scalar(task.loss), run.batch_size)


def _direction(fitted: InfluenceFitted, test: Batch, measurement: Measurement) -> list[Side]:
    """Return ``(1/n) (C + damping I)^-1 g_V`` of the mean over the test rows, as one row per layer."""
    parts = [side.mean().dense() for side in _gradients(fitted, test, measurement)]
    solved = fitted.solved(torch.cat(parts, 1).to(fitted.curvature.dtype)) / fitted.task.n_train
    return [Dense(part) for part in solved.to(fitted.run.dtype).split([part.shape[1] for part in parts], 1)]


def _with_labels(fitted: InfluenceFitted, direction: list[Side], labels: Mapping[int, float]) -> Tensor:
    """Return what leaving out each of these rows would cost if it carried its new label ``[rows]``."""
    train, rows, parts = fitted.task.split("train"), list(labels), []
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        batch = train.raw(torch.tensor(some))
        wanted = torch.tensor([labels[row] for row in some], dtype=torch.float64)
        targets = wanted.to(batch.targets.dtype).reshape(batch.targets.shape)
        sides = _gradients(fitted, Batch(batch.inputs, targets), Measurement())
        parts.append(sum(dot(one, side)[0] for one, side in zip(direction, sides, strict=True)))
    return torch.cat(parts).double().cpu()
