"""Detectors of label errors: each gives every train row a number, higher is more suspicious, in its own unit.

A detector is in-sample if the numbers come from a model that saw the row with its label: a network that memorises hides
its label errors from those, the more the longer it is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from influence_core import registry
from influence_core.embedding_cache import class_labels
from influence_core.fitting import default_measurement, fit
from influence_core.measurement import Rows
from influence_core.primitives.votes import margins
from influence_core.run import Run
from influence_core.task import Needs, Task
from influence_core.workflows.suspects.confident import normalized_margins
from influence_core.workflows.suspects.predictions import (
    builtin_loss,
    checkpoint_outputs,
    class_chances,
    neighbour_votes,
    out_of_fold,
)  # fmt: skip

_MOST_PARAMETERS = 2_000  # up to which the curvature is factored at once; a solve per row takes minutes


@dataclass(frozen=True)
class Detector:
    """One way of suspecting a label.

    Attributes:
        name: Its id.
        title: What people read.
        unit: The unit of its numbers, in words.
        summary: One plain sentence on what it looks at.
        in_sample: Whether a model that saw the row gives the numbers.
        retrains: Whether it trains models, which takes as long as they do.
        flags: Above this number it says "mislabelled" by itself; None: its numbers are only an order.
        missing: Why it cannot run on a task; empty if it can.
        suspicion: ``[n_train]``, higher is more suspicious.
    """

    name: str
    title: str
    unit: str
    summary: str
    in_sample: bool
    retrains: bool
    flags: float | None
    missing: Callable[[Task], str]
    suspicion: Callable[[Task, Run], Tensor]


_DETECTORS: dict[str, Detector] = {}


def detectors() -> dict[str, Detector]:
    """Return all detectors by name."""
    return dict(_DETECTORS)


def available(task: Task) -> Iterator[Detector]:
    """Yield the detectors that can run on a task."""
    return (detector for detector in _DETECTORS.values() if not detector.missing(task))


def _detector(
    name: str, title: str, unit: str, summary: str, missing: Callable[[Task], str], *, in_sample: bool = True,
    retrains: bool = False, flags: float | None = None,
) -> Callable[[Callable[[Task, Run], Tensor]], Callable[[Task, Run], Tensor]]:  # fmt: skip
    def add(function: Callable[[Task, Run], Tensor]) -> Callable[[Task, Run], Tensor]:
        _DETECTORS[name] = Detector(name, title, unit, summary, in_sample, retrains, flags, missing, function)
        return function

    return add


def _classes(task: Task) -> str:
    return (
        ""
        if Needs.LABELS | Needs.OUTPUTS in task.provides and task.n_checkpoints
        else "needs class labels and a trained model"
    )


def _checkpoints(task: Task) -> str:
    return _classes(task) or ("" if task.n_checkpoints > 1 else "needs several checkpoints")


def _outputs(task: Task) -> str:
    return "" if Needs.OUTPUTS in task.provides and task.n_checkpoints else "needs a trained model and a built-in loss"


def _recipe(task: Task) -> str:
    return "" if Needs.RECIPE in task.provides else "needs a recipe, so that it can be trained without some rows"


def _numbers(task: Task) -> str:
    inputs = task.split("train").batch(slice(0, 1)).inputs
    single = isinstance(inputs, Tensor) and inputs.is_floating_point()
    return "" if single else "compares rows by their inputs, which must be one tensor of real numbers"


def _method(name: str) -> Callable[[Task], str]:
    return lambda task: registry.missing(registry.found(name, task).info, task)


def given_labels(task: Task) -> Tensor:
    """Return the class that every train row carries ``[n_train]``."""
    return class_labels(task.split("train").targets)


@_detector(
    "training_margin", "Margin over training", "probability, mean over checkpoints",
    "By how much another class led over the given label, averaged over the course of training.", _checkpoints,
    flags=0.0,
)  # fmt: skip
def training_margin(task: Task, run: Run) -> Tensor:
    """Late checkpoints have memorised the label, early ones have not: the mean remembers."""
    labels = given_labels(task)
    return torch.stack([margins(class_chances(task, f), labels) for f in checkpoint_outputs(task, run)]).mean(0)


@_detector(
    "neighbour_votes", "Neighbours' labels", "lead in votes",
    "By how much the ten most similar rows vote for another label; the row itself has no vote.",
    lambda task: _classes(task) or _numbers(task), in_sample=False, flags=0.0,
)  # fmt: skip
def neighbour_margin(task: Task, run: Run) -> Tensor:
    """Similar by the encoded inputs, which no label has shaped."""
    return margins(neighbour_votes(task, run, task.n_classes or 1).train, given_labels(task))


@_detector(
    "out_of_fold", "Out-of-fold margin", "probability",
    "By how much another class leads in a model that was trained without this row.",
    lambda task: _classes(task) or _recipe(task), in_sample=False, retrains=True, flags=0.0,
)  # fmt: skip
def out_of_fold_margin(task: Task, run: Run) -> Tensor:
    """Five retrainings, each without a fifth of the rows."""
    return margins(class_chances(task, out_of_fold(task, run)), given_labels(task))


@_detector(
    "confident_learning", "Confident learning", "probability over the class's usual one",
    "As the out-of-fold margin, with every class measured by how sure the model usually is of it.",
    lambda task: _classes(task) or _recipe(task), in_sample=False, retrains=True, flags=0.0,
)  # fmt: skip
def confident_learning(task: Task, run: Run) -> Tensor:
    """Northcutt et al., JAIR 2021: probabilities less the class's mean self-confidence."""
    shares = class_chances(task, out_of_fold(task, run))
    return normalized_margins(shares, given_labels(task))


@_detector(
    "out_of_fold_error", "Out-of-fold error", "squared error",
    "How wrong a model is about this row that was trained without it.",
    lambda task: (_outputs(task) or _recipe(task)) if not task.loss.classifies else "is for numbers",
    in_sample=False, retrains=True,
)  # fmt: skip
def out_of_fold_error(task: Task, run: Run) -> Tensor:
    """For regressions."""
    return builtin_loss(task).from_outputs(out_of_fold(task, run), task.split("train").targets)


@_detector("loss", "Training loss", "loss", "How wrong the trained model still is about the row.", _outputs)
def training_loss(task: Task, run: Run) -> Tensor:
    """Plain, the baseline beside everything else."""
    return builtin_loss(task).from_outputs(task.outputs_of("train"), task.split("train").targets)


@_detector(
    "margin", "Margin", "probability", "By how much another class leads over the given label in the trained model.",
    _classes, flags=0.0,
)  # fmt: skip
def final_margin(task: Task, run: Run) -> Tensor:
    """Of the explained model."""
    return margins(class_chances(task, task.outputs_of("train")), given_labels(task))


@_detector(
    "tracin_self", "TracIn self-influence", "gradient units",
    "How much training on the row moved the model's answer about the row itself.", _method("tracin_fast"),
)  # fmt: skip
def tracin_self(task: Task, run: Run) -> Tensor:
    """Of the last layer, over all checkpoints."""
    return fit(task, registry.made("tracin_fast", None, task), run).self_influence()


@_detector(
    "influence_self", "Influence on itself", "loss",
    "How much worse the model would fit the row without having seen it, by influence functions.",
    lambda task: _method("if_ggn")(task) or ("" if task.n_params <= _MOST_PARAMETERS else "needs a smaller model"),
)  # fmt: skip
def influence_self(task: Task, run: Run) -> Tensor:
    """Gauss-Newton influence, by conjugate gradients where the model is larger."""
    return fit(task, registry.made("if_ggn", None, task), run).self_influence()


@_detector(
    "harm", "Harm to mistakes", "gradient units",
    "How much training on the row pushed the test rows that are predicted wrongly further away from their labels.",
    _method("tracin_fast"),
)  # fmt: skip
def harm(task: Task, run: Run) -> Tensor:
    """Minus the mean TracIn score on the wrong test rows; all test rows where none is wrong, or for numbers."""
    fitted = fit(task, registry.made("tracin_fast", None, task), run)
    ids = task.ids("test")
    if task.loss.classifies:
        wrong = class_chances(task, task.outputs_of("test")).argmax(1) != class_labels(task.split("test").targets)
        ids = ids[wrong.numpy()] if bool(wrong.any()) else ids
    rows = Rows("test", tuple(ids.tolist()), reduce="mean")
    return -fitted.scores(rows, default_measurement(fitted.estimator))[0]


@_detector(
    "knn_shapley", "KNN-Shapley value", "share of the value",
    "How little the row adds to what its neighbours know about the test rows.", _method("knn_shapley"),
)  # fmt: skip
def negative_value(task: Task, run: Run) -> Tensor:
    """Minus the mean Shapley value over the test rows."""
    fitted = fit(task, registry.made("knn_shapley", None, task), run)
    rows = Rows("test", tuple(task.ids("test").tolist()), reduce="mean")
    return -fitted.scores(rows, default_measurement(fitted.estimator))[0]


@_detector(
    "representer", "Representer weight", "weight",
    "How hard the row pulls at its own label in a last layer that is refit.", _method("rps_l2"),
)  # fmt: skip
def representer_weight(task: Task, run: Run) -> Tensor:
    """Refit to the given labels: distilled targets would ask the model, which may have memorised them."""
    estimator = registry.made("rps_l2", {"targets": "true"}, task)
    return fit(task, estimator, run).global_importance  # type: ignore[attr-defined]
