"""Predictions for every train row by models that did not see it.

By the best source there is: probabilities that the user gives; else five retrainings by the recipe, each without a
fifth of the rows; else a logistic regression on the inputs, in five folds, which is a proxy for the model and marked as
one. Never features of a network that saw the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from influence_core.config import digest
from influence_core.embedding_cache import class_labels
from influence_core.errors import BadInput
from influence_core.examples import content_hash
from influence_core.outcomes import Outcomes
from influence_core.primitives.features import flat_inputs
from influence_core.run import Run
from influence_core.store import Writer
from influence_core.task import Needs, Task
from influence_core.workflows.suspects.predictions import Search, class_chances, given_labels

VERSION = 1
N_FOLDS = 5
_ROUNDING = 1e-3  # of probabilities that were written with few digits
SOURCES = {
    "given": "probabilities that you gave",
    "recipe": "five retrainings, each without a fifth of the rows",
    "proxy": "a proxy: logistic regression on the inputs in five folds, because this study has no recipe",
}


class HeldOut(NamedTuple):
    """Class probabilities ``[n_train, C]``, and where they come from: a key of ``SOURCES``."""

    shares: Tensor
    source: str


def source_of(search: Search) -> str:
    """Return where held-out probabilities come from."""
    if search.pred_probs is not None:
        return "given"
    return "recipe" if Needs.RECIPE in search.task.provides else "proxy"


def held_out(search: Search) -> HeldOut:
    """Return the held-out probabilities of a classification.

    Raises:
        InfluenceError: A retraining fails.
    """
    source = source_of(search)
    if source == "given":
        assert search.pred_probs is not None
        return HeldOut(search.pred_probs, source)
    if source == "recipe":
        return HeldOut(class_chances(search.task, held_out_outputs(search)), source)
    return HeldOut(_proxy(search.task, search.run), source)


def held_out_outputs(search: Search) -> Tensor:
    """Return the outputs ``[n_train, ...]`` of models that were trained by the recipe without the row's fold.

    Five retrainings, kept in the table of outcomes that every retraining method reads.

    Raises:
        Unavailable: The task cannot be retrained.
    """
    outcomes, folds = Outcomes(search.task, search.run), fold_of_rows(search.task)
    result: Tensor | None = None
    for fold in search.run.track(np.unique(folds), "training without each fifth of the rows", N_FOLDS):
        rows = np.flatnonzero(folds == fold)
        known = outcomes.without(rows.tolist(), outcomes.recipe.seed).outputs["train"]
        result = torch.empty_like(known) if result is None else result
        result[rows] = known[rows]
    assert result is not None
    return result


def fold_of_rows(task: Task, n_folds: int = N_FOLDS, seed: int = 0) -> np.ndarray:
    """Return the fold ``[n_train]`` of every train row: classes in equal shares, identical rows together."""
    order, groups = np.random.default_rng(seed), identical_rows(task)
    labels = class_labels(task.split("train").targets).numpy() if task.loss.classifies else np.zeros(task.n_train, int)
    first = np.unique(groups, return_index=True)[1]
    fold_of_group = np.zeros(groups.max() + 1, np.int64)
    start = 0
    for label in np.unique(labels[first]):
        members = order.permutation(groups[first][labels[first] == label])
        fold_of_group[members] = (start + np.arange(len(members))) % n_folds
        start += len(members)  # small classes do not all begin in the first fold
    return fold_of_group[groups]


def identical_rows(task: Task) -> np.ndarray:
    """Return a number for every train row ``[n]`` that rows with identical inputs share."""
    seen: dict[bytes, int] = {}
    batches = task.split("train").batches(4096, "cpu", torch.float32)
    rows = (row for _, batch in batches for row in flat_inputs(batch.inputs).contiguous().numpy())
    return np.asarray([seen.setdefault(row.tobytes(), len(seen)) for row in rows])


def _proxy(task: Task, run: Run) -> Tensor:
    inputs = {"kind": "proxy probabilities", "version": VERSION, "task": task.fingerprint}

    def produce(writer: Writer) -> None:
        writer.save("shares", torch.from_numpy(_linear(task, run)))

    return run.artifacts.obtain(digest(inputs), inputs, produce, run.waiting).tensor("shares")


def _linear(task: Task, run: Run) -> np.ndarray:
    """Return probabilities ``[n, C]`` of logistic regressions, each fitted without the row's fold."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    batches = task.split("train").batches(4096, "cpu", torch.float32)
    x = torch.cat([flat_inputs(batch.inputs) for _, batch in batches]).double().numpy()
    labels, folds = given_labels(task).numpy(), fold_of_rows(task)
    result = np.zeros((len(labels), task.n_classes or 1))
    for fold in run.track(np.unique(folds), "a linear model without each fifth of the rows", N_FOLDS):
        out, rest = folds == fold, folds != fold
        kinds = np.unique(labels[rest])
        if len(kinds) < 2:  # nothing to tell apart
            result[np.ix_(out, kinds)] = 1.0
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        model.fit(x[rest], labels[rest])
        result[np.ix_(out, kinds)] = model.predict_proba(x[out])
    return result


def check_classified(task: Task) -> None:
    """Raise where labels are numbers.

    Raises:
        BadInput: They are.
    """
    if not task.loss.classifies:
        why = "Its labels are numbers, which have no probabilities."
        raise BadInput("The probabilities do not fit the study", why, "Leave them out.")


def checked_probabilities(task: Task, values: Sequence[object] | np.ndarray | Tensor) -> Tensor:
    """Return a user's held-out probabilities as float64 ``[n_train, C]``, in the order of the train rows.

    Raises:
        BadInput: Not numbers, another shape, or rows that are no probabilities.
    """
    check_classified(task)
    try:
        plain = values.numpy() if isinstance(values, Tensor) else values
        found = torch.from_numpy(np.array(plain, dtype=np.float64))
    except (TypeError, ValueError):
        raise BadInput("The probabilities cannot be read", "They are no numbers.", "Give a table of numbers.") from None
    shape = (task.n_train, task.n_classes or 0)
    if tuple(found.shape) != shape:
        raise BadInput(
            "The probabilities do not fit the study",
            f"They are {' x '.join(map(str, found.shape))}; it has {shape[0]} train rows and {shape[1]} classes.",
            "Give a row per train row, in their order, and a column per class.",
        )
    sums = found.sum(1)
    wrong = ~(found.isfinite().all(1) & (found >= 0).all(1) & (found <= 1 + _ROUNDING).all(1) & _near_one(sums))
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        row, values = task.ids("train")[first], found[first]
        said = (
            "hold one that is missing or not finite" if not bool(values.isfinite().all())
            else f"hold {float(values.min()):.4g}" if float(values.min()) < 0
            else f"sum to {float(sums[first]):.4g}, not to 1"
        )  # fmt: skip
        rest = f" ({int(wrong.sum()):,} such rows)" if int(wrong.sum()) > 1 else ""
        raise BadInput(
            "These are no probabilities", f"Those of row {row} {said}{rest}.",
            "Give for every row numbers from 0 to 1 with the sum 1.",
        )  # fmt: skip
    return found


def _near_one(sums: Tensor) -> Tensor:
    return (sums - 1).abs() < _ROUNDING


def probabilities_key(search: Search) -> str:
    """Return what tells one user's probabilities from another's; empty without any."""
    return "" if search.pred_probs is None else content_hash(search.pred_probs)
