"""What looking for label errors will cost on this machine, said before it starts."""

from __future__ import annotations

from collections.abc import Sequence

from influence_core import registry
from influence_core.costs import cost, sizes
from influence_core.estimator import Cost
from influence_core.primitives.features import flat_inputs
from influence_core.workflows.suspects.detectors import Detector
from influence_core.workflows.suspects.held_out import N_FOLDS, source_of
from influence_core.workflows.suspects.predictions import MAX_POINTS, Search

_COMPARED = 3e10  # multiplications a second of the distances between rows, on one core
_PICKED = 8e8  # distances a second of which the smallest are picked
_RANKED = 8e6  # distances a second that are sorted in full, for the values of rows to all test rows
_LINEAR = 2e7  # numbers a second that the linear model reads, over all its steps
_STEPS = 1.5  # a training step over a forward and backward pass


def suspects_cost(search: Search, chosen: Sequence[Detector]) -> Cost:
    """Return the estimate for a list of suspects; what is computed already is not taken off."""
    task, run = search.task, search.run
    known = sizes(task, run)
    seconds = known.pass_seconds * known.n_checkpoints / 2
    width = flat_inputs(task.split("train").batch(slice(0, 1)).inputs).shape[1]
    if any(detector.name == "neighbour_votes" for detector in chosen):
        pairs = (task.n_train + task.n_test) * min(task.n_train, MAX_POINTS)
        seconds += pairs * (width / _COMPARED + 1 / _PICKED)
    if any(detector.name == "knn_shapley" for detector in chosen):
        seconds += task.n_test * task.n_train / _RANKED
    kept = 8.0 * task.n_train * (len(chosen) + 2 * known.n_classes)
    for method in {detector.method for detector in chosen if detector.method}:
        part = cost(task, registry.made(method, None, task), run)
        seconds, kept = seconds + part.seconds, kept + part.bytes
    if any(detector.trains(search) for detector in chosen):
        if source_of(search) == "recipe" and task.recipe is not None:
            seconds += N_FOLDS * task.recipe.epochs * known.pass_seconds * _STEPS
        else:
            seconds += N_FOLDS * task.n_train * width * known.n_classes / _LINEAR
    return Cost(seconds, kept)
