"""``cross_loss_if`` by id: training rows behind a margin between two classes, or a gap between two groups.

Any differentiable number per row can be explained from Python (``Measurement(function)``, ``workflows/measures.py``);
these are the two that people ask for, ready to be called by name.

Reference: Silva, Chopra & Gombolay, Cross-Loss Influence Functions to Explain Deep Network Representations, AISTATS
2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from influence_core.config import Config
from influence_core.errors import BadInput
from influence_core.measurement import Measurement, Rows
from influence_core.workflows.diagnostics.catalogue import (
    METHOD_HELP,
    Answer,
    Findings,
    Kind,
    diagnostic,
    fitted_method,
    query_rows,
)
from influence_core.workflows.measures import class_margin, gap_influence


class CrossLossConfig(Config):
    """A margin between two classes, or a gap between two groups of test rows."""

    method: str = Field("influence", description=METHOD_HELP)
    classes: tuple[int | str, int | str] | None = Field(
        None, description="Two classes: the margin of the first over the second."
    )
    test: tuple[int | str, ...] | None = Field(
        None, min_length=1, description="For a margin: ids of test rows, as one query; empty: all."
    )
    column: str = Field("", description="For a gap: the column of the test rows that tells the groups apart.")
    groups: tuple[int | float | str | bool, int | float | str | bool] | None = Field(
        None, description="For a gap: two values of the column; the gap is the first's mean less the second's."
    )
    measurement: Kind = Field("", description="For a gap: what is averaged; empty: probability, or the loss.")
    target: int | str = Field("true", description="For a gap: of which class; true, predicted, or a class.")
    top: int = Field(20, ge=1, description="Training rows per side.")


@diagnostic(
    "cross_loss_if", "Influence on another measure than the loss",
    "Which training rows keep a margin between two classes, or a gap between two groups of people, as large as it is.",
    "Silva, Chopra & Gombolay, Cross-Loss Influence Functions, AISTATS 2022", CrossLossConfig,
)  # fmt: skip
def _crossed(findings: Findings, config: CrossLossConfig) -> Answer:
    """Return the table and what it comes to.

    Columns: ``train_id``; ``score``, the drop of the measure if the row is left out; the ``side`` that it is on.
    """
    if (config.classes is None) == (config.groups is None or not config.column):
        raise BadInput(
            "The measure is not clear", "It takes either classes, or a column with two groups.",
            "Give classes=(A, B), or column=NAME and groups=(A, B).",
        )  # fmt: skip
    scores, said = (_margin if config.classes is not None else _gap)(findings, config)
    order = np.argsort(-scores, kind="stable")
    top = min(config.top, -(-len(order) // 2))
    places = [*order[:top], *order[max(top, len(order) - top) :]]
    sides = ["keeps it large" if scores[place] > 0 else "makes it small" for place in places]
    table = pd.DataFrame({"train_id": findings.task.ids("train")[places], "score": scores[places], "side": sides})
    return table, (said, "A score is how much the measure drops if the row is left out.")


def _margin(findings: Findings, config: CrossLossConfig) -> tuple[np.ndarray, str]:
    assert config.classes is not None
    if findings.task.n_classes is None or findings.task.loss.name == "bce":
        why = "The model does not have a logit per class."
        raise BadInput("There is no margin between classes", why, "Use a gap between two groups.")
    a, b = (_class(findings, value) for value in config.classes)
    rows = query_rows(findings, config.test, findings.task.n_test)
    _, fitted = fitted_method(findings, config.method)
    scores = fitted.scores(Rows(rows.split, rows.ids, "mean"), Measurement(class_margin(a, b)))[0]
    said = f"Mean margin of {config.classes[0]} over {config.classes[1]} on {len(rows.ids):,} test rows."
    return scores.double().cpu().numpy(), said


def _gap(findings: Findings, config: CrossLossConfig) -> tuple[np.ndarray, str]:
    assert config.groups is not None
    study, task = findings.study, findings.task
    if study is None or config.column not in study.column_names("test"):
        known = (
            "a task in memory has no columns" if study is None else f"it has {', '.join(study.column_names('test'))}"
        )
        raise BadInput(
            "There is no such column", f"'{config.column}' is not there: {known}.",
            "Name a column of the test split, or call gap_influence with two sets of rows.",
        )  # fmt: skip
    values = study.column("test", config.column).astype(str)
    rows = [Rows("test", tuple(task.ids("test")[values == _text(group)].tolist())) for group in config.groups]
    for group, found in zip(config.groups, rows, strict=True):
        if not found.ids:
            some = ", ".join(sorted(set(values.tolist()))[:12])
            raise BadInput("A group is empty", f"No test row has '{group}' in {config.column}: {some}.", "Name others.")
    target = config.target if config.target in ("true", "predicted") else _class(findings, config.target)
    kind = config.measurement or ("probability" if task.loss.classifies else "loss")
    _, fitted = fitted_method(findings, config.method)
    scores = gap_influence(fitted, rows[0], rows[1], Measurement(kind, target))
    said = (
        f"Mean {kind} of {len(rows[0].ids):,} rows with {config.column} {config.groups[0]} less that of "
        f"{len(rows[1].ids):,} with {config.groups[1]}."
    )
    return scores.double().cpu().numpy(), said


def _class(findings: Findings, value: Any) -> int:
    """Return a class's index from its name or index."""
    names = findings.task.class_names
    if names is not None and str(value) in names:
        return names.index(str(value))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < (findings.task.n_classes or 0):
        return value
    known = ", ".join(names) if names is not None else f"0 to {(findings.task.n_classes or 1) - 1}"
    raise BadInput("Unknown class", f"'{value}' is not among {known}.", "Name a class.")


def _text(value: Any) -> str:
    return str(value)
