"""Fitting a method once: the step between the catalogue and every use of a method."""

from __future__ import annotations

import copy

import torch

from influence_core import registry
from influence_core.estimator import Estimator, Fitted
from influence_core.measurement import Measurement
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task


def fit(task: Task, estimator: Estimator, run: Run) -> Fitted:
    """Return the fitted method, doing what train-side work is not done yet.

    A small artifact records that the work is complete: it is how the app knows that an answer will be instant.
    """
    registry.check_available(estimator.named, task)
    key = estimator.key(task, run)
    memo = f"fitted/{key}/{estimator.named.name}/{run.device}/{run.artifacts.root}"
    if memo not in task.memo:
        fitted = estimator.fit(task, run)

        def record(writer: Writer) -> None:
            writer.save("fitted", torch.ones(1))

        run.artifacts.obtain(key, estimator.identity(task, run), record, run.waiting)
        task.memo[memo] = fitted
    # A copy: what is computed later reports to this caller's run, not to the one that fitted and has ended.
    answer = copy.copy(task.memo[memo])
    answer.run = run
    return answer


def is_fitted(task: Task, estimator: Estimator, run: Run) -> bool:
    """Tell whether the train-side work of a method is done."""
    return run.artifacts.find(estimator.key(task, run)) is not None


def default_measurement(estimator: Estimator) -> Measurement:
    """Return what a method explains unless told otherwise."""
    kinds = estimator.named.measurements
    return Measurement("loss" if not kinds or "loss" in kinds else kinds[0])
