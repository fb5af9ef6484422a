"""What workflows that propose changes share: which rows may steer them, and a change in the words of the data.

A proposal is a list of ``Change`` with the workflow's id as the reviewer: written as a patch, it can be read, cut down,
reviewed and retrained on like that of a person. The time is 0 until somebody writes it down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from influence_core.changes import Change
from influence_core.embedding_cache import class_labels
from influence_core.errors import BadInput, Unavailable
from influence_core.measurement import Rows
from influence_core.primitives.losses import BinaryCrossEntropy, CrossEntropy
from influence_core.run import Run
from influence_core.study import Study
from influence_core.task import Task

JUDGE = "Judge the outcome on rows that steered nothing: the locked split, or rows kept back."


def resolved(given: Task | Study, run: Run | None) -> tuple[Task, Run]:
    """Return a task, and the run with the study's store where there is one."""
    if isinstance(given, Study):
        return given.task, (run or Run()).with_store(given.store)
    return given, run or Run()


def steering_rows(task: Task, rows: Rows | None) -> Rows:
    """Return the rows that a proposal may be steered by, as one query: all test rows unless others are named.

    Raises:
        BadInput: They are of the locked split, which chooses nothing, or of train, which would vouch for itself.
    """
    if rows is None:
        return Rows("test", tuple(task.ids("test").tolist()), "mean")
    if rows.split in ("locked", "train"):
        why = {"locked": "Locked rows are reported on and never choose anything.",
               "train": "A training row vouches for its own label."}[rows.split]  # fmt: skip
        raise BadInput("These rows may not steer a proposal", why, "Use rows of the test split.")
    if not rows.ids:
        raise BadInput("There is nothing to steer by", "No row is named.", "Name rows of the test split, or none.")
    return replace(rows, reduce="mean")


def check_single_label(task: Task) -> None:
    """Refuse a task whose rows do not have one class each.

    Raises:
        Unavailable: A regression, a custom loss, or several labels in a row.
    """
    targets = task.split("train").targets
    if not isinstance(task.loss, (CrossEntropy, BinaryCrossEntropy)) or targets.numel() != len(targets):
        raise Unavailable(
            "No label can be proposed here", f"The loss is '{task.loss.name}', and labels are proposed among classes.",
            "Use it on a classification with one label in a row.",
        )  # fmt: skip


def class_logits(task: Task, split: str) -> Tensor:
    """Return the explained model's logits ``[n, C]`` on a split, float64; one logit becomes those of two classes."""
    f = task.outputs_of(split).double()
    if isinstance(task.loss, BinaryCrossEntropy):
        f = f.reshape(len(f), -1)[:, 0]
        return torch.stack([torch.zeros_like(f), f], 1)
    return f


def given_classes(task: Task) -> Tensor:
    """Return the label ``[n_train]`` that each training row carries, as a class index."""
    return class_labels(task.split("train").targets)


def class_name(task: Task, index: int) -> str:
    """Return a class's name, or its number where it has none."""
    return task.class_names[index] if task.class_names else str(index)


def label_in_words(task: Task, position: int) -> str:
    """Return the label of a training row as the data say it: a class's name, or a number."""
    target = task.split("train").targets[position].reshape(-1)
    return class_name(task, int(target[0])) if task.loss.classifies else str(target[0].item())


def row_id(task: Task, position: int) -> int | str:
    """Return a training row's id as a plain number or text."""
    value: Any = task.ids("train")[position]
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, int) else str(value)


def stamped(changes: Sequence[Change], at: float) -> list[Change]:
    """Return changes with a time, seconds since 1970."""
    return [replace(change, at=at) for change in changes]


def curvature_note(task: Task, damping: float | None) -> tuple[str, ...]:
    """Return a warning where an inverse curvature rests on too little, else nothing.

    With fewer rows than parameters and next to no damping the smallest eigenvalues rule the scores: in a test on
    pixels the AUC of harm for wrong labels fell from 0.99 to 0.81.

    Args:
        task: The task that was scored.
        damping: Damping plus weight decay; None where the method has none.
    """
    if damping is None or not math.isfinite(damping) or damping >= 1e-3 or task.n_train >= task.n_params:
        return ()
    return (
        f"{task.n_train:,} training rows stand against {task.n_params:,} parameters with damping {damping:g}: harm may "
        "be noise. Raise the damping or compress the inputs, and change only the most harmful rows.",
    )


__all__ = [
    "JUDGE", "check_single_label", "class_logits", "class_name", "curvature_note", "given_classes", "label_in_words",
    "resolved", "row_id", "stamped", "steering_rows",
]  # fmt: skip
