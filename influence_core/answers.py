"""Answers that cost a real solve each: computed once per query, kept as artifacts."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from influence_core.config import digest
from influence_core.estimator import Estimator
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Task


def _inputs(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> dict[str, Any]:
    return {
        "kind": "answer", "fit": estimator.key(task, run), "split": rows.split, "ids": list(rows.ids),
        "reduce": rows.reduce, "measurement": measurement.identity(),
    }  # fmt: skip


def answer_key(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> str:
    """Return the key of a query's scores."""
    return digest(_inputs(task, estimator, rows, measurement, run))


def obtained_answer(task: Task, estimator: Estimator, rows: Rows, measurement: Measurement, run: Run) -> Tensor:
    """Return the scores ``[n_test, n_train]`` of a query, solving only if they are not in the store."""
    inputs = _inputs(task, estimator, rows, measurement, run)

    def produce(writer: Writer) -> None:
        writer.save("scores", fit(task, estimator, run).scores(rows, measurement))

    return run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).tensor("scores")
