"""One question and its answer: which training rows made the model say this?"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from influence_core import fitting, registry
from influence_core.answers import answer_key, obtained_answer
from influence_core.costs import absurdity, cost, cost_in_words
from influence_core.errors import BadInput, Unavailable
from influence_core.estimator import Cost, Estimator, check_measurement, check_rows
from influence_core.measurement import TYPED, Measurement, Rows
from influence_core.primitives.features import check_layer
from influence_core.service import data as rows
from influence_core.service import tasks
from influence_core.service.catalog import UNITS_IN_WORDS
from influence_core.service.opened import opened, told_if_gone
from influence_core.service.typed import notes, opened_for
from influence_core.service.views import ExplainRequest, Explanation, FitNeeded, JobView, QueryView, RankedRow
from influence_core.tables import table_bytes

_BINS = 60
_SET_SHOWN = 6
MEASURED = {
    "loss": "the log-probability the model gives to {label}",
    "margin": "how far the score of {label} is ahead of the other classes",
    "probability": "the probability the model gives to {label}",
    "logit": "the model's raw score for {label}",
}


class Question:
    """A request, checked against its study: estimator, rows and measurement.

    Raises:
        InfluenceError: Unknown study, row, method, option, measurement or class; or the method cannot run here.
    """

    def __init__(self, study: str, request: ExplainRequest) -> None:
        """Check every part."""
        _check_types(request)
        self.held = opened_for(study, request.split, request.ids)
        self.request = request
        task = self.held.study.task
        self.estimator: Estimator = registry.made(request.method, plain_options(request.method, request.config), task)
        self.info = self.estimator.named
        registry.check_available(self.info, task)
        for layer in getattr(self.estimator.config, "layers", None) or ():
            if layer not in ("last", *(name for name, _ in task.module.named_parameters(remove_duplicate=False))):
                check_layer(task.module, layer)  # now, rather than in a job that must fail
        check_rows(self.info, Rows(request.split))
        if not self.info.scores:
            raise Unavailable(
                f"{self.info.title} does not rank rows for a prediction",
                "It has only a number per training row.",
                "Choose another method here.",
            )
        kind = request.measurement
        if kind == "loss" and self.info.measurements and "loss" not in self.info.measurements:
            kind = self.info.measurements[0]  # the method's own, where the reader has not chosen
        regression = rows.is_regression(self.held)
        self.target = "true" if regression and request.target == "predicted" else request.target
        self.measurement = Measurement(kind, self.held.study.target(self.target))
        check_measurement(self.info, self.measurement)
        ids = tuple(self.held.study.row_id(request.split, value) for value in request.ids)
        if not ids:
            raise BadInput("The query is empty", "No prediction matches.", "Choose a prediction from the list.")
        self.rows = Rows(request.split, ids, request.reduce)
        if len(ids) == 1:
            self.rows = Rows(request.split, ids)  # a mean of one is the row itself, and shares its answer
        if len(ids) > 1 and request.reduce is None:
            raise BadInput(
                "Several rows are not one question", f"There are {len(ids)}.", "Choose one, or ask for their mean."
            )

    @property
    def solving(self) -> bool:
        """Tell whether every new query of this method is real work."""
        return self.info.query == "solve"

    @property
    def key(self) -> str:
        """Return the key of the artifact whose absence means waiting."""
        task, run = self.held.study.task, self.held.run
        return (
            answer_key(task, self.estimator, self.rows, self.measurement, run)
            if self.solving
            else self.estimator.key(task, run)
        )

    @property
    def ready(self) -> bool:
        """Tell whether the answer can be had at once."""
        task, run = self.held.study.task, self.held.run
        return run.artifacts.has(self.key) if self.solving else fitting.is_fitted(task, self.estimator, run)

    def scores(self) -> np.ndarray:
        """Return the scores ``[n_train]``."""
        return self.answer()[0]

    def answer(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the scores ``[n_train]``, and facts that change how to read them."""
        task, run = self.held.study.task, self.held.run

        def make() -> tuple[np.ndarray, tuple[str, ...]]:
            if self.solving:
                answer = obtained_answer(task, self.estimator, self.rows, self.measurement, run)
                scores, notes = answer.scores, answer.notes
            else:
                fitted = fitting.fit(task, self.estimator, run)
                scores, notes = fitted.scores(self.rows, self.measurement), fitted.notes
            return scores[0].double().cpu().numpy(), notes

        identity = (self.info.name, self.key, self.rows, self.measurement)
        return self.held.remembered(("scores", identity), make)

    @property
    def method_words(self) -> list[str]:
        """Return what names the method on the command line."""
        return ["--method", self.info.name, "--config", json.dumps(self.estimator.config.to_json())]

    def argv(self) -> list[str]:
        """Return the command line of the work that is missing."""
        if not self.solving:
            return ["fit", *self.method_words]
        ids = [argument for value in self.rows.ids for argument in ("--test", str(value))]
        return [
            "answer", *self.method_words, *ids, "--split", self.rows.split,
            "--measurement", str(self.measurement.kind), "--target", self.target, "--reduce", self.rows.reduce or "",
        ]  # fmt: skip


def _check_types(request: ExplainRequest) -> None:
    """Raise ``BadInput`` for what would otherwise fail in the middle of a computation."""
    if not isinstance(request.k, int) or request.k < 1:
        raise BadInput("Nothing to show", f"k is {request.k!r}.", "Show a whole number of rows per side, at least one.")
    if isinstance(request.ids, str) or not isinstance(request.ids, Sequence):
        raise BadInput("The query cannot be read", f"ids is {request.ids!r}.", "Give the row ids as a tuple.")
    if not isinstance(request.method, str):
        raise BadInput("Unknown method", f"method is {request.method!r}.", "Give a method's id.")
    if not isinstance(request.config, Mapping):
        raise BadInput("These options cannot be used", f"config is {request.config!r}.", "Give names and values.")


def plain_options(method: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as the Config takes them: a comma-separated text becomes a list where a list is asked for."""
    fields = registry.found(method).cls.Config.model_fields
    result = {}
    for name, value in config.items():
        listed = name in fields and "tuple" in str(fields[name].annotation)
        if listed and isinstance(value, str):
            value = tuple(part.strip() for part in value.split(",") if part.strip()) or None
        result[name] = value
    return result


@told_if_gone
def query(study: str, request: ExplainRequest) -> QueryView:
    """Return the explained prediction: cheap, before any method runs."""
    return _query(Question(study, request))


def _query(question: Question) -> QueryView:
    held, chosen = question.held, question.rows
    positions = held.study.task.positions(chosen).tolist()
    shown = rows.data(held, chosen.split, positions[:_SET_SHOWN], all_cells=len(positions) == 1)
    if chosen.split == TYPED:
        title = "Your input"
    elif len(positions) == 1:
        title = f"{chosen.split.capitalize()} row {chosen.ids[0]}"
    else:
        said = rows.answers(held, chosen.split, positions)
        given, predicted = set(said.given), set(said.predicted)
        alike = len(given) == len(predicted) == 1
        same = f": given {given.pop()}, predicted {predicted.pop()}" if alike else ""
        title = f"{len(positions)} {chosen.split} rows{same}"
    chances = rows.chances_in_words(held, chosen.split, positions)
    return QueryView(title, shown, len(positions), chances, notes(held, chosen))


@told_if_gone
def explain(study: str, request: ExplainRequest) -> Explanation | FitNeeded:
    """Return the ranked training rows, or what has to be computed first.

    Raises:
        InfluenceError: Anything in the request that does not fit the study.
    """
    question = Question(study, request)
    if not question.ready:
        return _needed(study, question)
    started = time.perf_counter()
    scores, notes = question.answer()
    fitted = fitting.fit(question.held.study.task, question.estimator, question.held.run)
    known = np.isfinite(scores)
    counts, edges = np.histogram(scores[known], bins=_BINS)
    return Explanation(
        _query(question), question.info.name, question.info.title, question.info.units,
        UNITS_IN_WORDS[question.info.units], measured_in_words(question), _ranked(question, scores, 1),
        _ranked(question, scores, -1), int(known.sum()), counts, edges, fitted.share, _share(question, fitted.share),
        notes, time.perf_counter() - started,
    )  # fmt: skip


def ranked_positions(question: Question, scores: np.ndarray, sign: int) -> np.ndarray:
    """Return the positions of the training rows on one side of the screen: 1 proponents, -1 opponents."""
    signed = np.where(np.isfinite(scores), sign * scores, -np.inf)
    k = min(question.request.k, len(signed))
    # A partition keeps any of the rows that tie for the last place, so only its k-th value is used; ties by position.
    last = -np.partition(-signed, k - 1)[k - 1]
    top = np.flatnonzero((signed >= last) & (signed > 0))
    return top[np.argsort(-signed[top], kind="stable")][:k]


def _ranked(question: Question, scores: np.ndarray, sign: int) -> tuple[RankedRow, ...]:
    top = ranked_positions(question, scores, sign)
    shown = rows.data(question.held, "train", top.tolist())
    return tuple(RankedRow(i + 1, float(scores[p]), card) for i, (p, card) in enumerate(zip(top, shown, strict=True)))


def measured_in_words(question: Question) -> str:
    """Return what a question explains, in words."""
    if not question.info.measurements:
        return question.info.utility
    classes, target = question.held.study.header.classes, question.measurement.target
    many = len(question.rows.ids) > 1
    if rows.is_regression(question.held):
        return "minus the squared error" + (", the mean over these rows" if many else "")
    if isinstance(target, int):
        label = f"“{classes[target]}”"
    elif many:
        label = "each row's given label" if target == "true" else "each row's predicted label"
    else:
        batch = question.held.study.task.query(question.rows, question.measurement)
        label = f"“{classes[int(batch.targets[0])]}” ({'given' if target == 'true' else 'predicted'})"
    return MEASURED[str(question.measurement.kind)].format(label=label)


def _share(question: Question, share: float | None) -> str:
    if share is None:
        return "compares rows, not parameters"
    layers = getattr(question.estimator.config, "layers", None)
    where = f" (layers: {', '.join(layers)})" if layers else ""
    return f"looks at {share:.0%} of the model's parameters{where}"


def _needed(study: str, question: Question) -> FitNeeded:
    info, price = question.info, _price(question)
    what = (
        "Every prediction is a computation of its own"
        if question.solving
        else "Once; every later prediction is instant"
    )
    words = cost_in_words(price)
    said = f"{words[0].upper()}{words[1:]}. {what}. {absurdity(price.seconds)}".strip()
    return FitNeeded(
        info.name, info.title, question.key, price.seconds, price.bytes / 1e6, said, tasks.found(study, question.key),
    )  # fmt: skip


def _price(question: Question) -> Cost:
    """Return what stands between a question and its answer: the fit, and for a method that solves, this solve."""
    task, run = question.held.study.task, question.held.run
    estimate = cost(task, question.estimator, run)
    if not question.solving:
        return Cost(estimate.seconds, estimate.bytes)
    asked = estimate.answering(1 if question.rows.reduce else len(question.rows.ids))
    if fitting.is_fitted(task, question.estimator, run):
        return Cost(asked)
    return Cost(estimate.seconds + asked, estimate.bytes)


@told_if_gone
def start_fit(study: str, request: ExplainRequest, client: str) -> JobView:
    """Queue the work that an answer waits for, or join the job that is doing it already."""
    question = Question(study, request)
    seconds = _price(question).seconds
    what = f"{question.info.title}: {_query(question).title}" if question.solving else question.info.title
    return tasks.submitted(study, question.key, what, question.argv(), client, seconds)


@told_if_gone
def export_scores(study: str, request: ExplainRequest, format: str) -> bytes:
    """Return the scores of all training rows as a file, strongest proponents first.

    Raises:
        BadInput: The method is not fitted yet, or the format is unknown.
    """
    question = Question(study, request)
    if not question.ready:
        raise BadInput(
            "There is nothing to export yet", f"{question.info.title} has not been computed.", "Start it, then export."
        )
    held = question.held
    scores = question.scores()
    given, predicted = rows.exported_answers(held, "train")
    table = pd.DataFrame({
        "train_id": held.study.task.ids("train"), "score": scores, "label": given, "predicted": predicted,
    })  # fmt: skip
    table = table.assign(
        query=", ".join(("typed " if question.rows.split == TYPED else "") + str(value) for value in question.rows.ids),
        method=question.info.name,
        measurement=str(question.measurement.kind), target=question.target, units=question.info.units,
    )  # fmt: skip
    return table_bytes(table.sort_values("score", ascending=False, kind="stable"), format)


def disk_use(study: str) -> tuple[int, int]:
    """Return the bytes that a study's cache uses, and its cap."""
    store = opened(study).study.store
    return store.bytes_used(), store.cap_bytes or 0


__all__ = ["Question", "disk_use", "explain", "export_scores", "query", "ranked_positions", "start_fit"]
