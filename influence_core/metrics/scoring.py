"""What the judged methods say, computed once for all metrics and kept, with the seconds that it took."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from influence_core.config import digest
from influence_core.costs import QUERIES
from influence_core.errors import Unavailable
from influence_core.estimator import Estimator, Fitted
from influence_core.examples import content_hash
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 2


@dataclass(frozen=True)
class Scored:
    """Scores ``[n_test, n_train]`` of a query, or suspicion ``[n_train]``, and what they cost.

    Attributes:
        seconds: Of fitting and of scoring ``costs.QUERIES`` test rows, scaled from those that were scored; of
            suspicion, as it was.
    """

    values: np.ndarray
    seconds: float
    source: str = ""


def chosen_rows(task: Task, run: Run, count: int) -> Rows:
    """Return test rows drawn by the run's seed: the same for every method and metric."""
    generator = torch.Generator().manual_seed(run.seed + 1)
    chosen = torch.randperm(task.n_test, generator=generator)[:count].numpy()
    return Rows("test", tuple(task.ids("test")[chosen].tolist()))


def judged_measurement(task: Task, estimator: Estimator) -> Measurement:
    """Return what a method is judged on: the margin where there are classes and it can explain it, else its own."""
    if task.loss.classifies and "margin" in estimator.named.measurements:
        return Measurement("margin")
    return default_measurement(estimator)


def true_measurement(estimator: Estimator, measurement: Measurement) -> Measurement:
    """Return what is measured of retrained models: a method with an own utility is held against minus the loss."""
    return measurement if estimator.named.measurements else Measurement("loss", measurement.target)


def scored(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> Scored:
    """Return a method's scores for some rows.

    Raises:
        Unavailable: It has no score for a pair of rows, or not of every training row.
    """
    if not estimator.named.scores:
        raise Unavailable(
            f"{estimator.named.title} has no score for a pair of rows", "It has one number per training row.",
            "Leave it out of this metric.",
        )  # fmt: skip

    def asked(fitted: Fitted) -> np.ndarray:
        return fitted.scores(rows, measurement).double().cpu().numpy()

    return _kept(task, estimator, run, _query(rows, measurement), asked, "scores", QUERIES / len(rows.ids))


def grouped(
    task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, left: np.ndarray, run: Run
) -> Scored:
    """Return a method's own influence of groups that leave, ``left`` ``[M, n_train]``, as a whole: ``[n_test, M]``."""
    ids = task.ids("train")

    def asked(fitted: Fitted) -> np.ndarray:
        return fitted.group(rows, [ids[row].tolist() for row in left], measurement).double().cpu().numpy()

    return _kept(task, estimator, run, _groups(rows, measurement, left), asked, "groups")


def is_grouped(
    task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, left: np.ndarray, run: Run
) -> bool:
    """Tell whether ``grouped`` would only read."""
    return run.artifacts.has(digest(_inputs(task, estimator, run, _groups(rows, measurement, left))))


def is_scored(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> bool:
    """Tell whether ``scored`` would only read."""
    return run.artifacts.has(digest(_inputs(task, estimator, run, _query(rows, measurement))))


def is_suspected(task: Task, estimator: Estimator, run: Run) -> bool:
    """Tell whether ``suspicion`` would only read."""
    return run.artifacts.has(digest(_inputs(task, estimator, run, _SUSPICION)))


def _query(rows: Rows, measurement: Measurement) -> dict[str, Any]:
    return {"query": {"split": rows.split, "ids": list(rows.ids), "measurement": measurement.identity()}}


def _groups(rows: Rows, measurement: Measurement, left: np.ndarray) -> dict[str, Any]:
    return {**_query(rows, measurement), "groups": content_hash(torch.from_numpy(left))}


_SUSPICION = {"query": "suspicion"}


def suspicion(task: Task, estimator: Estimator, run: Run) -> Scored:
    """Return how suspicious each training row is ``[n_train]``, higher is more, and what was taken."""
    own = estimator.named.self_influence and estimator.named.units != "value"

    def asked(fitted: Fitted) -> np.ndarray:
        if own:
            return fitted.self_influence().double().cpu().numpy()
        rows = Rows("test", tuple(task.ids("test").tolist()), reduce="mean")
        return -fitted.scores(rows, default_measurement(estimator))[0].double().cpu().numpy()

    return _kept(task, estimator, run, _SUSPICION, asked, "self-influence" if own else "harm on test rows")


def _inputs(task: Task, estimator: Estimator, run: Run, query: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "judged", "version": VERSION, "fit": estimator.key(task, run), "method": estimator.named.name, **query,
    }  # fmt: skip


def _kept(
    task: Task, estimator: Estimator, run: Run, query: dict[str, Any], asked: Any, source: str, scale: float = 1.0
) -> Scored:
    """Return what a fitted method answers, from the store where it is known; ``scale`` is of the answer's seconds."""
    inputs = _inputs(task, estimator, run, query)

    def produce(writer: Writer) -> None:
        started = time.perf_counter()
        fitted = fit(task, estimator, run)
        fitting = time.perf_counter()
        writer.save("values", asked(fitted))
        # What was fitted before, by another metric or another day, counts with the time it took then.
        fitted_in = max(fitting - started, _recorded(task, estimator, run))
        writer.meta["spent"] = fitted_in + scale * (time.perf_counter() - fitting)

    found = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
    return Scored(np.asarray(found.array("values")), float(found.meta["spent"]), source)


def _recorded(task: Task, estimator: Estimator, run: Run) -> float:
    """Return the seconds that the artifacts of a fit took when they were made."""
    fitted = run.artifacts.find(estimator.key(task, run))
    parts = [run.artifacts.find(key) for key in (fitted.meta.get("reads", ()) if fitted is not None else ())]
    return sum(float(part.meta.get("seconds", 0.0)) for part in parts if part is not None)
