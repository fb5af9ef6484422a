"""How far each method can be believed on a study: what was measured, what it would cost to measure, and the job."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from influence_core import api, registry
from influence_core.config import digest
from influence_core.costs import cost
from influence_core.errors import BadInput, InfluenceError
from influence_core.service import access, tasks
from influence_core.service.folder import parts_of
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.views import JobView
from influence_core.workflows.trust import measured

SUBSETS, SEEDS, ROWS = 50, 2, 64
_SUGGESTED = (
    "tracin_cp", "grad_dot", "if_ggn", "if_ekfac", "trak", "source", "sgd_influence", "magic", "knn_shapley",
)  # fmt: skip
_CHEAP_SECONDS = 30.0


@dataclass(frozen=True)
class TrustLine:
    """How well one method tracks retraining, with a 95% interval, and what it took to find the scores out."""

    method: str
    title: str
    value: float
    low: float
    high: float
    ceiling: float
    seconds: float
    note: str


@dataclass(frozen=True)
class Candidate:
    """A method that can be measured here, with the estimate of its fit.

    Attributes:
        seconds: Of the fit.
        per_query: The method works for every query anew: its time grows with the test rows.
    """

    method: str
    title: str
    seconds: float
    suggested: bool
    per_query: bool = False


@dataclass(frozen=True)
class TrustPage:
    """All that the screen shows.

    Attributes:
        lines: The best first; empty while nothing is known.
        advice: One sentence made from the numbers.
        compared: Titles of the methods whose agreement is known, and their rank correlations ``[k, k]``.
        unmeasured: Title and reason of methods that were tried.
        candidates: What can be measured.
        impossible: Title and reason of every method whose scores cannot be summed here, or that cannot run.
        problem: Why nothing can be measured here; empty if it can.
        job: A measurement under way or failed.
        may_measure: Whether whoever asks may start one.
    """

    lines: tuple[TrustLine, ...]
    advice: str
    compared: tuple[str, ...]
    agreement: np.ndarray
    unmeasured: tuple[tuple[str, str], ...]
    candidates: tuple[Candidate, ...]
    impossible: tuple[tuple[str, str], ...]
    problem: str
    job: JobView | None
    may_measure: bool


def trust(study: str) -> TrustPage:
    """Return what was measured of the methods on a study, and what can be."""
    held = opened(study)
    known = measured(held.study)
    lines = tuple(map(_line, known.fidelity.to_dict("records")))
    agreement = known.agreement
    job = next((job for job in tasks.listed_jobs(study) if job.key.startswith(_PREFIX)), None)
    job = None if job is None or job.state in ("done", "cancelled") else job
    problem = (
        ""
        if held.study.task.recipe is not None
        else ("The study has no training recipe, so that nothing can be retrained to compare with.")
    )
    return TrustPage(
        lines, _in_titles(known.advice, [line.method for line in lines]), tuple(map(_title, agreement.columns)),
        agreement.to_numpy(), tuple((_title(name), why) for name, why in known.unmeasured.items()),
        () if problem else _candidates(held), () if problem else _impossible(held), problem, job,
        access.role(parts_of(study)[0]) == "owner",
    )  # fmt: skip


def fidelity(study: str, method: str) -> str:
    """Return in a few words how well a method tracks retraining on a study; empty if nobody has measured it."""
    known = measured(opened(study).study).fidelity
    for line in map(_line, known.to_dict("records")):
        if line.method == method:
            possible = f" of a possible {line.ceiling:.2f}" if np.isfinite(line.ceiling) else ""
            return f"tracks retraining {line.value:.2f}{possible}"
    return ""


def measuring_plan(study: str, methods: Sequence[str], subsets: int = SUBSETS, seeds: int = SEEDS) -> str:
    """Return in one sentence what measuring would train and fit, and how long that takes.

    Raises:
        InfluenceError: An unknown method, or numbers out of bounds.
    """
    held = opened(study)
    options = {"subsets": subsets, "seeds": seeds, "rows": ROWS}
    said = api.evaluation_plan(held.study, list(methods), ["lds", "agreement"], run=held.run, options=options)
    return _in_titles(said, methods)


def start_measuring(
    study: str, methods: Sequence[str], client: str, subsets: int = SUBSETS, seeds: int = SEEDS
) -> JobView:
    """Queue the measurement of methods, or join the job that is at it already.

    Raises:
        BadInput: No method, or they are not an owner of the study.
    """
    access.check(parts_of(study)[0], "owner")
    chosen = list(dict.fromkeys(methods))
    if not chosen:
        raise BadInput("There is nothing to measure", "No method is chosen.", "Choose two or more.")
    for name in chosen:
        registry.found(name)
    flags = [word for name in chosen for word in ("--methods", name)]
    flags += ["--metrics", "lds", *(("--metrics", "agreement") if len(chosen) > 1 else ())]
    argv = ["evaluate", *flags, "--subsets", str(subsets), "--seeds", str(seeds), "--rows", str(ROWS)]
    return tasks.submitted(study, f"{_PREFIX}{digest(argv)}", "Measuring methods", argv, client, 60.0)


_PREFIX = "trust-"


def _candidates(held: OpenStudy) -> tuple[Candidate, ...]:
    """Return the methods that LDS can judge here, the cheapest first."""

    def found() -> tuple[Candidate, ...]:
        task, several = held.study.task, []
        for name, entry in registry.entries().items():
            info = entry.info
            if not info.scores or not info.additive or info.partial or registry.missing(info, task):
                continue
            try:
                seconds = cost(task, entry.make(), held.run).seconds
            except InfluenceError:
                continue
            cheap = name in _SUGGESTED and seconds <= _CHEAP_SECONDS
            several.append(Candidate(name, info.title, seconds, cheap, info.query == "solve"))
        return tuple(sorted(several, key=lambda one: one.seconds))

    return held.remembered(("trust candidates",), found)


def _impossible(held: OpenStudy) -> tuple[tuple[str, str], ...]:
    """Return the methods that LDS cannot judge here, each with the reason."""
    found = []
    for entry in registry.entries().values():
        info = entry.info
        if reason := registry.missing(info, held.study.task):
            found.append((info.title, reason))
        elif not info.scores:
            found.append((info.title, "It has one number per training row, and none for a pair of rows."))
        elif not info.additive:
            found.append((info.title, "Its scores are an order, not amounts that can be summed over a half."))
        elif info.partial:
            found.append((info.title, "It scores a part of the rows only."))
    return tuple(found)


def _line(row: Mapping[Any, Any]) -> TrustLine:
    value, low, high, ceiling, seconds = (float(row[name]) for name in ("value", "low", "high", "ceiling", "seconds"))
    name = str(row["method"])
    return TrustLine(name, _title(name), value, low, high, ceiling, seconds, str(row["note"]))


def _title(method: str) -> str:
    entry = registry.entries().get(method)
    return method if entry is None else entry.info.title


def _in_titles(sentence: str, methods: Sequence[str]) -> str:
    """Return a sentence with the ids of methods as their titles; a word that only contains an id stays."""
    if not methods:
        return sentence
    ids = "|".join(re.escape(name) for name in sorted(methods, key=len, reverse=True))
    return re.sub(rf"(?<![\w-])({ids})(?![\w-])", lambda found: _title(found[1]), sentence)
