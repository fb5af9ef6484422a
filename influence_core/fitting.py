"""Fitting a method once: the step between the catalogue and every use of a method."""

from __future__ import annotations

import copy

import torch

from influence_core import registry
from influence_core.estimator import Estimator, Fitted
from influence_core.measurement import Measurement
from influence_core.run import Run
from influence_core.store import Writer, noted_keys
from influence_core.task import Task


def fit(task: Task, estimator: Estimator, run: Run) -> Fitted:
    """Return the fitted method, doing what train-side work is not done yet.

    A small artifact records that the work is complete, and which artifacts a query reads: it is how the app knows that
    an answer will be instant.
    """
    registry.check_available(estimator.named, task)
    key = estimator.key(task, run)
    memo = f"fitted/{key}/{estimator.named.name}/{run.device}/{run.artifacts.root}"
    if memo not in task.memo:
        with noted_keys() as reads:
            fitted = estimator.fit(task, run)

        def record(writer: Writer) -> None:
            writer.save("fitted", torch.ones(1))
            writer.meta["reads"] = list(reads)

        run.artifacts.obtain(key, estimator.identity(task, run), record, run.waiting)
        task.memo[memo] = fitted
    # A copy: what is computed later reports to this caller's run, not to the one that fitted and has ended, and asks
    # this caller's task for the query: another view of the same task may have fitted.
    answer = copy.copy(task.memo[memo])
    answer.run, answer.task = run, task
    return answer


def is_fitted(task: Task, estimator: Estimator, run: Run) -> bool:
    """Tell whether the train-side work of a method is done, and what it left is still there."""
    found = run.artifacts.find(estimator.key(task, run))
    return found is not None and all(run.artifacts.has(key) for key in found.meta.get("reads", ()))


def default_measurement(estimator: Estimator) -> Measurement:
    """Return what a method explains unless told otherwise."""
    kinds = estimator.named.measurements
    return Measurement("loss" if not kinds or "loss" in kinds else kinds[0])
