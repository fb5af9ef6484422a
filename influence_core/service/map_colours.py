"""What the points of a map are coloured by, for all rows; a colour that cannot be had is replaced, and says why."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from influence_core import fitting, registry
from influence_core.errors import Unavailable
from influence_core.service.map_rows import MapRows
from influence_core.service.map_views import MapColours, MapRequest
from influence_core.service.requests import Question, plain_options
from influence_core.service.suspected import found_suspects

MAX_CATEGORIES = 20
_ENDS = (1, 99)  # percentiles at which a scale ends, so that a few extreme rows do not grey out all others


class Coloured(NamedTuple):
    """A code or a number for each of the asked rows, and what they mean."""

    colours: MapColours
    codes: np.ndarray
    values: np.ndarray


class NotHere(Exception):
    """This colour cannot be had; the words say why."""


def coloured(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    """Return the colours of some rows; by label, with a note, where the asked colour cannot be had."""
    makers = {
        "label": _label, "prediction": _prediction, "correct": _correct, "loss": _loss, "suspicion": _suspicion,
        "self-influence": _self_influence, "influence": _influence,
    }  # fmt: skip
    try:
        return makers[request.colour](rows, request, places, question)
    except NotHere as reason:
        plain = _label(rows, request, places, question)
        return plain._replace(colours=replace(plain.colours, note=str(reason)))


def _label(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    if rows.is_regression:
        return _scale(rows.given[places], "given number", "The number in the data.")
    return _classes(rows, rows.given, places, "given label", "The label in the data.")


def _prediction(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    _need_model(rows)
    if rows.is_regression:
        return _scale(rows.predicted[places], "predicted number", "What the model says.")
    return _classes(rows, rows.predicted, places, "predicted label", "What the model says.")


def _correct(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    _need_model(rows)
    if rows.is_regression:
        errors = (rows.predicted - rows.given)[places]
        return _diverging(errors, "predicted − given", "Above zero the model says too much.")
    words = "Whether the model's prediction is the given label."
    colours = MapColours("category", "prediction", words, ("right", "wrong"))
    return Coloured(colours, rows.wrong[places].astype(np.int32), np.empty(0))


def _loss(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    _need_model(rows)
    return _scale(rows.loss[places], "loss", "How badly the model fits the label; on train rows after learning them.")


def _suspicion(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    """Colour by the default list of suspects where it has been computed, else by loss."""
    found = _stored_suspicion(rows)
    if found is None:
        plain = _loss(rows, request, places, question)
        note = "Suspects have not been computed yet (screen Suspects), so this is the loss."
        return plain._replace(colours=replace(plain.colours, note=note))
    words = "How likely the given label is wrong, by the combined list of Suspects; test rows have none."
    return _scale(_train_only(rows, found)[places], "suspicion", words)


def _stored_suspicion(rows: MapRows) -> np.ndarray | None:
    try:
        found = found_suspects(rows.held)
    except Unavailable:
        return None
    return None if found is None else found.listed.columns[found.listed.default]


def _self_influence(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    if request.query is None:
        raise NotHere("Self-influence needs a method: choose one on Explain first; this is the label.")
    held, asked = rows.held, request.query
    entry = registry.found(asked.method, held.study.task)
    if reason := registry.missing(entry.info, held.study.task):
        raise NotHere(f"{entry.info.title} cannot run here: it {reason}; this is the label.")
    estimator = registry.made(asked.method, plain_options(asked.method, asked.config), held.study.task)
    if not fitting.is_fitted(held.study.task, estimator, held.run):
        raise NotHere(f"{entry.info.title} has not been computed yet (open Explain once); this is the label.")

    def make() -> np.ndarray:
        fitted = fitting.fit(held.study.task, estimator, held.run)
        return fitted.self_influence().double().cpu().numpy()

    values = held.remembered(("self-influence", estimator.key(held.study.task, held.run)), make)
    words = f"How much a row influences itself, by {entry.info.title} ({entry.info.units}); test rows have none."
    return _scale(_train_only(rows, values)[places], "self-influence", words)


def _influence(rows: MapRows, request: MapRequest, places: np.ndarray, question: Question | None) -> Coloured:
    if question is None:
        raise NotHere("No prediction is explained: choose one on Explain; this is the label.")
    if not question.ready:
        raise NotHere(f"{question.info.title} has not been computed for it yet (open Explain); this is the label.")
    words = f"Above zero a row pushed the explained prediction there: {question.info.title} ({question.info.units})."
    return _diverging(_train_only(rows, question.scores())[places], "influence", words)


def _need_model(rows: MapRows) -> None:
    if not rows.knows_model:
        raise NotHere("There is no trained model to ask; this is the label.")


def _train_only(rows: MapRows, values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.full(rows.n["test"], np.nan)])


def _classes(rows: MapRows, codes: np.ndarray, places: np.ndarray, title: str, words: str) -> Coloured:
    """Colour by class: the most frequent ones by name, the rest as one."""
    names, chosen = rows.classes, codes[places].astype(np.int32)
    if len(names) > MAX_CATEGORIES:
        counts = np.bincount(codes, minlength=len(names))
        kept = np.sort(np.argsort(-counts, kind="stable")[: MAX_CATEGORIES - 1])
        place_of = np.full(len(names), len(kept), np.int32)
        place_of[kept] = np.arange(len(kept))
        chosen = place_of[chosen]
        names = (*(names[i] for i in kept), f"{len(names) - len(kept)} other classes")
    return Coloured(MapColours("category", title, words, names), chosen, np.empty(0))


def _scale(values: np.ndarray, title: str, words: str) -> Coloured:
    known = values[np.isfinite(values)]
    low, high = (float(end) for end in np.percentile(known, _ENDS)) if len(known) else (0.0, 1.0)
    return Coloured(MapColours("sequential", title, words, (), low, max(high, low + 1e-12)), np.empty(0, int), values)


def _diverging(values: np.ndarray, title: str, words: str) -> Coloured:
    known = np.abs(values[np.isfinite(values)])
    end = float(np.percentile(known, _ENDS[1])) if len(known) else 1.0
    return Coloured(MapColours("diverging", title, words, (), -(end or 1.0), end or 1.0), np.empty(0, int), values)
