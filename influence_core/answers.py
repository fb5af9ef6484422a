"""Answers that cost a real solve each: computed once per query, kept as artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from influence_core.config import digest
from influence_core.estimator import Estimator
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task

VERSION = 2


def _inputs(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> dict[str, Any]:
    return {
        "kind": "answer", "version": VERSION, "fit": estimator.key(task, run), "split": rows.split,
        "ids": list(rows.ids), "reduce": rows.reduce, "measurement": measurement.identity(),
    }  # fmt: skip


def answer_key(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> str:
    """Return the key of a query's scores."""
    return digest(_inputs(task, estimator, rows, measurement, run))


@dataclass(frozen=True)
class Answer:
    """Scores ``[n_test, n_train]`` of a query, and what the solve found out: how far it converged, say."""

    scores: Tensor
    notes: tuple[str, ...]


def obtained_answer(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> Answer:
    """Return the answer to a query, solving only if it is not in the store."""
    inputs = _inputs(task, estimator, rows, measurement, run)

    def produce(writer: Writer) -> None:
        fitted = fit(task, estimator, run)
        writer.save("scores", fitted.scores(rows, measurement))
        writer.meta["notes"] = list(fitted.notes)

    found = run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting)
    return Answer(found.tensor("scores"), tuple(found.meta["notes"]))
