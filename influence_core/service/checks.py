"""Check it: the rows on screen changed, the model trained again, and what was foreseen beside what happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from influence_core import registry
from influence_core.config import digest
from influence_core.errors import BadInput, InfluenceError
from influence_core.service import access, tasks
from influence_core.service import data as rows
from influence_core.service.folder import parts_of
from influence_core.service.opened import OpenStudy, told_if_gone
from influence_core.service.requests import MEASURED, Question, ranked_positions
from influence_core.service.suspected import found_suspects
from influence_core.service.views import ExplainRequest, Interval, JobView
from influence_core.workflows.check import DRAWS, Asked, check_plan, check_possible
from influence_core.workflows.check_records import Action, Check, Pairs, kept_check, kept_checks
from influence_core.workflows.retraining import SEEDS

SUGGESTED = ""  # as a label: what the list of suspects suggests for each row
_MOST_SEEDS, _MOST_DRAWS = 50, 50


@dataclass(frozen=True)
class CheckRequest:
    """What is to be done to the rows on screen.

    Attributes:
        action: ``drop``, ``flip`` or ``downweight``.
        side: ``proponents`` or ``opponents``.
        label: Flip: the new class; empty: what the list of suspects suggests for each row.
        weight: Down-weight: how much each row still counts.
        seeds, draws: Pairs of trainings with the rows changed, and with random ones.
    """

    action: Action = "drop"
    side: str = "proponents"
    label: str = SUGGESTED
    weight: float = 0.5
    seeds: int = SEEDS
    draws: int = DRAWS


@dataclass(frozen=True)
class Moved:
    """Changes of the measurement over pairs of trainings: their mean with its interval, each, and how many flipped."""

    change: Interval
    each: tuple[float, ...]
    flips: int | None


@dataclass(frozen=True)
class ForeseenView:
    """What a method foresaw: a change, or None and a direction (1 up, -1 down, 0 not said), and how."""

    title: str
    change: float | None
    sign: int
    note: str


@dataclass(frozen=True)
class CheckView:
    """A check that was made.

    Attributes:
        title: What was done, in a few words.
        headline: What became of the prediction.
        findings: What the numbers mean for each other.
        measured: What the changes are changes of, in words.
        n_rows: How many rows were changed.
        converged: One pair is all there is to know.
    """

    key: str
    title: str
    headline: str
    findings: tuple[str, ...]
    measured: str
    n_rows: int
    actual: Moved
    random: Moved
    foreseen: tuple[ForeseenView, ...]
    notes: tuple[str, ...]
    made: str
    converged: bool


@dataclass(frozen=True)
class ChecksView:
    """What is known of a prediction, and what can be asked.

    Attributes:
        made: The newest first.
        problem: Why nothing can be checked; empty if it can.
        classifies: Rows have labels that can be flipped.
        converged: Training ends at the same weights whatever the seed.
        job: A check of this prediction under way, or the last one that failed or was cancelled.
        may_check: Whether whoever asks may start one.
    """

    made: tuple[CheckView, ...]
    problem: str
    classifies: bool
    converged: bool
    job: JobView | None
    may_check: bool


@dataclass(frozen=True)
class CheckOffer:
    """The price of a check in words, or why it cannot be made; ``known``: it was made already."""

    in_words: str
    problem: str = ""
    known: bool = False


@told_if_gone
def checks(study: str, request: ExplainRequest) -> ChecksView:
    """Return the checks of a prediction and what can be checked, without any work.

    Raises:
        InfluenceError: Anything in the request that does not fit the study.
    """
    question = Question(study, request)
    held, problem = question.held, ""
    try:
        check_possible(held.study, question.rows)
    except InfluenceError as error:
        problem = f"{error.why} {error.fix}"
    made = () if problem else kept_checks(held.study, question.rows)
    recipe = held.study.header.recipe
    return ChecksView(
        tuple(map(_view, made)), problem, not rows.is_regression(held),
        recipe is not None and recipe.optimizer == "lbfgs", _job(study, question),
        access.role(parts_of(study)[0]) == "owner",
    )  # fmt: skip


@told_if_gone
def check_labels(study: str, request: ExplainRequest) -> tuple[str, ...]:
    """Return what rows can be flipped to, the likeliest wish first; none in a regression.

    Where there is a list of suspects, ``SUGGESTED`` is among them: what it suggests for each row.

    Raises:
        InfluenceError: Anything in the request that does not fit the study.
    """
    return _labels(Question(study, request))


@told_if_gone
def check_offer(study: str, request: ExplainRequest, change: CheckRequest) -> CheckOffer:
    """Return what a check would train and how long that takes.

    Raises:
        InfluenceError: The request itself does not fit the study.
    """
    question = Question(study, request)
    try:
        asked = _asked(question, change)
        plan = check_plan(question.held.study, asked, question.held.run)
    except InfluenceError as error:
        return CheckOffer("", f"{error.why} {error.fix}")
    known = kept_check(question.held.study, question.rows, plan.key) is not None
    return CheckOffer("This check was made already; its result is below." if known else plan.in_words, known=known)


@told_if_gone
def start_check(study: str, request: ExplainRequest, change: CheckRequest, client: str) -> JobView:
    """Queue a check, or join the job that is at it already.

    Raises:
        InfluenceError: It cannot be made, or whoever asks is not an owner of the study.
    """
    access.check(parts_of(study)[0], "owner")
    question = Question(study, request)
    asked, held = _asked(question, change), question.held
    plan = check_plan(held.study, asked, held.run)
    argv = [
        "check", *question.method_words, *(word for value in asked.rows.ids for word in ("--test", str(value))),
        "--split", asked.rows.split, "--measurement", str(asked.measurement.kind), "--target", question.target,
        f"--{asked.action}", asked.side, *(word for row in asked.changed for word in ("--row", str(row))),
        *(word for label in asked.labels for word in ("--to", label)), "--weight", str(asked.weight),
        "--seeds", str(asked.seeds), "--draws", str(asked.draws),
    ]  # fmt: skip
    title = f"Check: {_title(asked.action, asked.side, asked.changed, asked.labels, asked.weight)}"
    return tasks.submitted(study, _prefix(question) + plan.key, title, argv, client, plan.seconds)


_SIGNS = {"proponents": 1, "opponents": -1}


def _shown(question: Question, side: str) -> np.ndarray:
    """Return the positions of the rows on one side of the screen."""
    if side not in _SIGNS:
        raise BadInput("There are no such rows", f"side is {side!r}.", "Use proponents or opponents.")
    if not question.ready:
        raise BadInput("There is nothing to check yet", f"{question.info.title} has not been computed.", "Start it.")
    return ranked_positions(question, question.scores(), _SIGNS[side])


def _asked(question: Question, change: CheckRequest) -> Asked:
    places = _shown(question, change.side)
    if not len(places):
        why = f"The prediction has no {change.side} here."
        raise BadInput("There is nothing to change", why, "Use the other side.")
    if not (1 <= change.seeds <= _MOST_SEEDS and 0 <= change.draws <= _MOST_DRAWS):
        why = f"{change.seeds} and {change.draws} were asked for."
        raise BadInput("Too few or too many trainings", why, f"Use 1 to {_MOST_SEEDS} pairs, 0 to {_MOST_DRAWS} draws.")
    study, labels = question.held.study, ()
    ids = tuple(study.task.ids("train")[places].tolist())
    if change.action == "flip":
        labels = (change.label,) * len(ids) if change.label != SUGGESTED else _suggested(question.held, places)
    return Asked(
        question.rows, question.measurement, question.estimator, ids, change.action, labels, change.weight,
        change.side, change.seeds, change.draws,
    )  # fmt: skip


def _suggested(held: OpenStudy, places: np.ndarray) -> tuple[str, ...]:
    found = found_suspects(held)
    if found is None or found.listed.beliefs is None:
        why = "The list of suspects has not been computed."
        raise BadInput("No labels are suggested", why, "Open Suspects first, or choose a class.")
    return tuple(held.study.header.classes[i] for i in found.listed.beliefs.suggested[places].tolist())


def _labels(question: Question) -> tuple[str, ...]:
    held = question.held
    if rows.is_regression(held):
        return ()
    classes = list(held.study.header.classes)
    if len(question.rows.ids) == 1 and question.rows.split in held.study.splits:
        # The class that the model hesitates about comes first: rows are flipped to see whether it takes that side.
        place = int(held.study.task.positions(question.rows)[0])
        chances = rows.probabilities(held, question.rows.split)[place]
        classes.insert(0, classes.pop(int(np.argsort(-chances, kind="stable")[1])))
    try:
        found = found_suspects(held)
    except InfluenceError:  # no detector can run here
        found = None
    return (SUGGESTED, *classes) if found is not None and found.listed.beliefs is not None else tuple(classes)


def _prefix(question: Question) -> str:
    """Return how the keys of a prediction's jobs begin."""
    asked, fingerprint = question.rows, question.held.study.task.fingerprint
    return f"check-{digest([fingerprint, asked.split, list(asked.ids), asked.reduce])[:16]}-"


def _job(study: str, question: Question) -> JobView | None:
    prefix = _prefix(question)
    job = next((job for job in tasks.listed_jobs(study) if job.key.startswith(prefix)), None)
    return None if job is None or job.state == "done" else job


def _view(found: Check) -> CheckView:
    return CheckView(
        found.key, _title(found.action, found.side, found.changed, found.labels, found.weight, found.method),
        found.headline, found.findings, _measured(found), len(found.changed), _moved(found.actual, found),
        _moved(found.random, found), tuple(ForeseenView(f.title, f.change, f.sign, f.note) for f in found.foreseen),
        found.notes, found.made, found.converged,
    )  # fmt: skip


def _moved(pairs: Pairs, found: Check) -> Moved:
    counted = bool(pairs.said_before) and not found.regression
    return Moved(Interval(*pairs.change), tuple(pairs.changes.tolist()), pairs.flips if counted else None)


def _measured(found: Check) -> str:
    """Return what the changes are changes of."""
    if found.regression:
        return "minus the squared error"
    if not found.explained:
        label = "each row's given label" if found.target == "true" else "each row's predicted label"
        label = label if found.target in ("true", "predicted") else f"“{found.target}”"
    else:
        label = f"“{found.explained}”"
    return MEASURED[found.kind].format(label=label)


def _title(
    action: str, side: str, changed: tuple[int | str, ...], labels: tuple[str, ...], weight: float, method: str = ""
) -> str:
    """Return what is done in a few words."""
    n, noun = len(changed), side if len(changed) != 1 else side.removesuffix("s")
    whose = f" by {_method(method)}" if method else ""
    if action == "drop":
        return f"{n} {noun}{whose} dropped"
    if action == "downweight":
        return f"{n} {noun}{whose} weighing {weight:g}"
    to = f"to {labels[0]}" if len(set(labels)) == 1 else "to other labels"
    return f"{n} {noun}{whose} relabelled {to}"


def _method(name: str) -> str:
    entry = registry.entries().get(name)
    return name if entry is None else entry.info.title
