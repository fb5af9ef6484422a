"""How good a study's model is beyond one number: by group of its sensitive columns, and over its training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from influence_core.primitives.regression import bootstrap_intervals, mean_absolute_error
from influence_core.primitives.statistics import wilson_interval
from influence_core.service import data as rows
from influence_core.service.cells import in_words
from influence_core.service.opened import OpenStudy
from influence_core.service.views import GroupFigures, Interval, TrainingFigures

_GROUPS = 8  # shown of a column, the largest; the others are one
_BANDS = 4  # that many different numbers are put into
_OTHERS = "all others"
_STILL = 0.05  # of the whole fall of the loss that its last tenth took: more means it had not come to rest
_GAP = 0.05  # of accuracy on train above the upper end of the interval on test


def group_figures(held: OpenStudy) -> tuple[GroupFigures, ...]:
    """Return the quality of the test predictions by group of every sensitive column."""
    return held.remembered(("group figures",), lambda: tuple(_column(held, n) for n in held.study.header.sensitive))


def _column(held: OpenStudy, name: str) -> GroupFigures:
    groups = group_names(held.study.column("test", name))
    found = [(group, _quality(held, np.flatnonzero(groups == group))) for group in dict.fromkeys(groups.tolist())]
    found.sort(key=lambda pair: (pair[0] == _OTHERS, -pair[1].n, pair[0]))
    measure = "mean absolute error" if rows.is_regression(held) else "accuracy"
    return GroupFigures(name, measure, tuple(found))


def group_names(values: np.ndarray) -> np.ndarray:
    """Return the group of every row ``[n]``: its value as text, or a quarter of the rows where numbers are many.

    Args:
        values: A column ``[n]``; the rarest values beyond eight groups share one.
    """
    plain = values.tolist()
    given = np.asarray([value is not None and value == value for value in plain])
    if values.dtype.kind in "iuf" and len(np.unique(values[given])) > _GROUPS:
        return _bands(values.astype(float), given)
    words = np.asarray([in_words(value) for value in plain], object)
    names, counts = np.unique(words.astype(str), return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")[:_GROUPS]].tolist())
    return np.asarray([word if word in kept else _OTHERS for word in words.tolist()], object)


def _bands(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    edges = np.unique(np.quantile(values[given], np.linspace(0, 1, _BANDS + 1)))
    places = np.searchsorted(edges[1:-1], values, side="left")
    names = [f"{rows.figure(low)} to {rows.figure(high)}" for low, high in zip(edges[:-1], edges[1:], strict=True)]
    found = [names[place] if there else in_words(None) for place, there in zip(places, given, strict=True)]
    return np.asarray(found, object)


def _quality(held: OpenStudy, places: np.ndarray) -> Interval:
    n = len(places)
    if rows.is_regression(held):
        given, predicted = rows.given_numbers(held, "test")[places], rows.predicted_numbers(held, "test")[places]
        return Interval(mean_absolute_error(given, predicted), *bootstrap_intervals(given, predicted)[1], n)
    said = rows.probabilities(held, "test")[places].argmax(1)
    right = int((said == rows.given_labels(held, "test")[places]).sum())
    return Interval(right / n, *wilson_interval(right, n), n)


def training_figures(held: OpenStudy, accuracy: Mapping[str, Interval]) -> TrainingFigures | None:
    """Return how the training went; None where its losses were not kept, or it is a single step.

    Args:
        held: The study.
        accuracy: Split -> accuracy; empty for a regression.
    """
    header = held.study.header
    try:
        losses = tuple(float(value) for value in header.training.get("loss", ()))
        recorded = tuple(int(entry["epoch"]) for entry in header.checkpoints if "epoch" in entry)
    except (AttributeError, TypeError, ValueError):  # a figure on the side must not hide the study
        return None
    if len(losses) < 2 or not np.isfinite(losses).all():
        return None
    return TrainingFigures(losses, recorded, *training_in_words(losses, accuracy))


def training_in_words(losses: tuple[float, ...], accuracy: Mapping[str, Interval]) -> tuple[str, bool]:
    """Return what to make of a training in a sentence, and whether there is something to mend.

    Args:
        losses: Mean training loss of every epoch, two or more.
        accuracy: Split -> accuracy; empty for a regression.
    """
    if losses[-1] >= losses[0]:
        return "The loss did not fall: the model has learned nothing.", True
    train, test = accuracy.get("train"), accuracy.get("test")
    if train is not None and test is not None and train.value - test.high > _GAP:
        words = (
            f"It is right on {train.value:.1%} of the training rows and {test.value:.1%} of the test rows: "
            "it has partly learned its rows by heart (overfitting)."
        )
        return words, True
    late = max(1, len(losses) // 10)
    fell = float(np.mean(losses[-2 * late : -late]) - np.mean(losses[-late:]))
    if fell > _STILL * (losses[0] - min(losses)):
        return "The loss was still falling at the end: more epochs may make the model better.", True
    return "The loss has come to rest.", False
