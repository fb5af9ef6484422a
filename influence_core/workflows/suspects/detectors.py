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
from influence_core.task import Needs
from influence_core.workflows.suspects.confident import normalized_margins
from influence_core.workflows.suspects.held_out import held_out, held_out_outputs
from influence_core.workflows.suspects.predictions import (
    Search,
    builtin_loss,
    checkpoint_outputs,
    class_chances,
    given_labels,
    neighbour_votes,
    not_numbers,
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
        method: The method that it fits, for the cost preview; empty for none.
        missing: Why it cannot run on a study; empty if it can.
        suspicion: ``[n_train]``, higher is more suspicious.
    """

    name: str
    title: str
    unit: str
    summary: str
    in_sample: bool
    retrains: bool
    flags: float | None
    method: str
    missing: Callable[[Search], str]
    suspicion: Callable[[Search], Tensor]

    def trains(self, search: Search) -> bool:
        """Tell whether it would train models here: not where held-out probabilities are given."""
        return self.retrains and search.pred_probs is None


_Suspicion = Callable[[Search], Tensor]
_DETECTORS: dict[str, Detector] = {}


def detectors() -> dict[str, Detector]:
    """Return all detectors by name."""
    return dict(_DETECTORS)


def available(search: Search) -> Iterator[Detector]:
    """Yield the detectors that can run."""
    return (detector for detector in _DETECTORS.values() if not detector.missing(search))


def _detector(
    name: str, title: str, unit: str, summary: str, missing: Callable[[Search], str], *, in_sample: bool = True,
    retrains: bool = False, flags: float | None = None, method: str = "",
) -> Callable[[_Suspicion], _Suspicion]:  # fmt: skip
    def add(function: _Suspicion) -> _Suspicion:
        _DETECTORS[name] = Detector(name, title, unit, summary, in_sample, retrains, flags, method, missing, function)
        return function

    return add


def _classes(search: Search) -> str:
    task = search.task
    known = Needs.LABELS | Needs.OUTPUTS in task.provides and task.n_checkpoints
    return "" if known else "needs class labels and a trained model"


def _checkpoints(search: Search) -> str:
    return _classes(search) or ("" if search.task.n_checkpoints > 1 else "needs several checkpoints")


def _outputs(search: Search) -> str:
    task = search.task
    return "" if Needs.OUTPUTS in task.provides and task.n_checkpoints else "needs a trained model and a built-in loss"


def _neighbours(search: Search) -> str:
    return _classes(search) or not_numbers(search.task) or ("" if search.task.n_train > 2 else "needs more rows")


def _held_out(search: Search) -> str:
    recipe = Needs.RECIPE in search.task.provides
    other = search.pred_probs is not None or recipe or not not_numbers(search.task)
    return _classes(search) or (
        "" if other else "needs a recipe, probabilities of your own, or inputs that a linear model can read"
    )


def _held_out_numbers(search: Search) -> str:
    if search.task.loss.classifies:
        return "is for labels that are numbers"
    recipe = Needs.RECIPE in search.task.provides
    return _outputs(search) or ("" if recipe else "needs a recipe, so that it can be trained without some rows")


def _small(search: Search) -> str:
    """Refuse where the curvature would be solved with, row by row."""
    return (
        ""
        if search.task.n_params <= _MOST_PARAMETERS
        else f"solves for every row: above {_MOST_PARAMETERS:,} parameters that takes too long"
    )


def _method(name: str) -> Callable[[Search], str]:
    return lambda search: registry.missing(registry.found(name, search.task).info, search.task)


@_detector(
    "training_margin", "Margin over training", "probability, mean over checkpoints",
    "By how much another class led over the given label, averaged over the course of training.", _checkpoints,
    flags=0.0,
)  # fmt: skip
def training_margin(search: Search) -> Tensor:
    """Late checkpoints have memorised the label, early ones have not: the mean remembers."""
    task, run = search.task, search.run
    labels = given_labels(task)
    return torch.stack([margins(class_chances(task, f), labels) for f in checkpoint_outputs(task, run)]).mean(0)


@_detector(
    "neighbour_votes", "Neighbours' labels", "lead in votes",
    "By how much the ten most similar rows vote for another label; the row itself has no vote.",
    _neighbours, in_sample=False, flags=0.0,
)  # fmt: skip
def neighbour_margin(search: Search) -> Tensor:
    """Similar by the encoded inputs, which no label has shaped."""
    task, run = search.task, search.run
    return margins(neighbour_votes(task, run).train, given_labels(task))


@_detector(
    "out_of_fold", "Out-of-fold margin", "probability",
    "By how much another class leads in a model that was trained without this row.",
    _held_out, in_sample=False, retrains=True, flags=0.0,
)  # fmt: skip
def out_of_fold_margin(search: Search) -> Tensor:
    """Of five models, each trained without a fifth of the rows; see :mod:`held_out` for which models."""
    return margins(held_out(search).shares, given_labels(search.task))


@_detector(
    "confident_learning", "Confident learning", "probability over the class's usual one",
    "As the out-of-fold margin, with every class measured by how sure the model usually is of it.",
    _held_out, in_sample=False, retrains=True, flags=0.0,
)  # fmt: skip
def confident_learning(search: Search) -> Tensor:
    """Northcutt et al., JAIR 2021: probabilities less the class's mean self-confidence."""
    return normalized_margins(held_out(search).shares, given_labels(search.task))


@_detector(
    "out_of_fold_error", "Out-of-fold error", "squared error",
    "How wrong a model is about this row that was trained without it.",
    _held_out_numbers, in_sample=False, retrains=True,
)  # fmt: skip
def out_of_fold_error(search: Search) -> Tensor:
    """For regressions."""
    return builtin_loss(search.task).from_outputs(held_out_outputs(search), search.task.split("train").targets)


@_detector("loss", "Training loss", "loss", "How wrong the trained model still is about the row.", _outputs)
def training_loss(search: Search) -> Tensor:
    """Plain, the baseline beside everything else."""
    task = search.task
    return builtin_loss(task).from_outputs(task.outputs_of("train"), task.split("train").targets)


@_detector(
    "margin", "Margin", "probability", "By how much another class leads over the given label in the trained model.",
    _classes, flags=0.0,
)  # fmt: skip
def final_margin(search: Search) -> Tensor:
    """Of the explained model."""
    task = search.task
    return margins(class_chances(task, task.outputs_of("train")), given_labels(task))


@_detector(
    "tracin_self", "TracIn self-influence", "gradient units",
    "How much training on the row moved the model's answer about the row itself.", _method("tracin_fast"),
    method="tracin_fast",
)  # fmt: skip
def tracin_self(search: Search) -> Tensor:
    """Of the last layer, over all checkpoints."""
    task, run = search.task, search.run
    return fit(task, registry.made("tracin_fast", None, task), run).self_influence()


@_detector(
    "influence_self", "Influence on itself", "loss",
    "By how much the loss on the row would grow if the model had not seen it, by influence functions.",
    lambda search: _method("if_ggn")(search) or _small(search), method="if_ggn",
)  # fmt: skip
def influence_self(search: Search) -> Tensor:
    """Gauss-Newton influence, by conjugate gradients where the model is larger."""
    task, run = search.task, search.run
    return fit(task, registry.made("if_ggn", None, task), run).self_influence()


@_detector(
    "harm", "Harm to mistakes", "gradient units",
    "How much training on the row pushed the test rows that are predicted wrongly further away from their labels.",
    _method("tracin_fast"),
    method="tracin_fast",
)  # fmt: skip
def harm(search: Search) -> Tensor:
    """Minus the mean TracIn score on the wrong test rows; all test rows where none is wrong, or for numbers."""
    task, run = search.task, search.run
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
    method="knn_shapley",
)  # fmt: skip
def negative_value(search: Search) -> Tensor:
    """Minus the mean Shapley value over the test rows."""
    task, run = search.task, search.run
    fitted = fit(task, registry.made("knn_shapley", None, task), run)
    rows = Rows("test", tuple(task.ids("test").tolist()), reduce="mean")
    return -fitted.scores(rows, default_measurement(fitted.estimator))[0]


@_detector(
    "representer", "Representer weight", "weight",
    "How hard the row pulls at its own label in a last layer that is refit.", _method("rps_l2"),
    method="rps_l2",
)  # fmt: skip
def representer_weight(search: Search) -> Tensor:
    """Refit to the given labels: distilled targets would ask the model, which may have memorised them."""
    task, run = search.task, search.run
    estimator = registry.made("rps_l2", {"targets": "true"}, task)
    return fit(task, estimator, run).global_importance  # type: ignore[attr-defined]
