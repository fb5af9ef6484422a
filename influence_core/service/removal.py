"""The removal curve of one prediction: what its top proponents do to it by going, beside random rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from influence_core import registry
from influence_core.config import digest
from influence_core.errors import BadInput, Unavailable
from influence_core.metrics import Judging
from influence_core.metrics.planning import planned, unmeasurable
from influence_core.metrics.removal_curve import RANDOM
from influence_core.service import access, tasks
from influence_core.service import data as rows
from influence_core.service.catalog import predictions
from influence_core.service.folder import parts_of
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.trust import candidates, known_of, latest_job, priced, titled
from influence_core.service.trust_views import RemovalLine, RemovalPage
from influence_core.service.views import Datum, JobView, PredictionFilter

DRAWS = 20
PREFIX = "removal-"
_OFFERED = 30


def removal(study: str, row: str = "") -> RemovalPage:
    """Return the removal curves of one test prediction, by default of one that has some, or of a confident mistake.

    Raises:
        BadInput: No such test row.
    """
    held = opened(study)
    task, known = held.study.task, known_of(held)
    job, owner = latest_job(study, PREFIX), access.role(parts_of(study)[0]) == "owner"
    problem = unmeasurable(task, "removal", None)
    if problem:
        return RemovalPage(None, (), (), (), None, "", (), problem, job, owner)
    followed = tuple(known.followed)
    choices = _choices(study, held, followed)
    chosen = held.study.row_id("test", row) if row else choices[0].row_id
    datum = next((one for one in choices if one.row_id == chosen), None) or _data(held, (chosen,))[0]
    curves = known.curve(chosen)
    lines = tuple(sorted((_line(name, one) for name, one in curves.items() if name != RANDOM), key=_rows_to_flip))
    random = _line(RANDOM, curves[RANDOM]) if RANDOM in curves else None
    able = tuple(one for one in candidates(held) if "removal" not in one.unjudged)
    return RemovalPage(datum, choices, followed, lines, random, _words(lines, random), able, "", job, owner)


def removal_plan(study: str, row: str, methods: Sequence[str]) -> str:
    """Return what computing the curves would take, in one sentence.

    Raises:
        BadInput: No such test row, or an unknown method.
    """
    held = opened(study)
    task, options = held.study.task, Judging.checked(_options(held, row))
    estimators = [registry.made(name, None, task) for name in methods]
    plan = planned(task, estimators, ["removal"], held.run, options)
    price = priced(plan.models.get("removal", 0), plan.seconds)
    price = f"{price[0].upper()}{price[1:]}"
    return f"{price}, with {DRAWS} random removals beside; models that are there already are not taken off."


def start_removal(study: str, row: str, methods: Sequence[str], client: str) -> JobView:
    """Queue the curves of one prediction, or join the job that is at it already.

    Raises:
        BadInput: No method, no such test row, or they are not an owner of the study.
        Unavailable: Nothing can be removed here.
    """
    access.check(parts_of(study)[0], "owner")
    held, chosen = opened(study), list(dict.fromkeys(methods))
    if problem := unmeasurable(held.study.task, "removal", None):
        raise Unavailable("No rows can be removed here", problem, "Use a study with a training recipe.")
    if not chosen:
        raise BadInput("There is nothing to remove", "No method is chosen.", "Choose one or more.")
    flags = [word for name in chosen for word in ("--methods", registry.found(name).info.name)]
    argv = ["evaluate", *flags, "--metrics", "removal", "--config", json.dumps(_options(held, row))]
    return tasks.submitted(study, f"{PREFIX}{digest(argv)}", f"Removing proponents of row {row}", argv, client, 60.0)


def _options(held: OpenStudy, row: str) -> dict[str, Any]:
    return {"predictions": [held.study.row_id("test", row)], "draws": DRAWS}


def _choices(study: str, held: OpenStudy, followed: tuple[Any, ...]) -> tuple[Datum, ...]:
    """Return the predictions with curves, then the most confident mistakes, then the most confident others."""
    found = list(_data(held, followed[:_OFFERED]))
    for status in ("wrong", "all"):
        seen = {datum.row_id for datum in found}
        listing = predictions(study, PredictionFilter(status=status, limit=_OFFERED)).rows
        found += [datum for datum in listing if datum.row_id not in seen][: max(0, _OFFERED - len(found))]
    return tuple(found)


def _data(held: OpenStudy, ids: tuple[Any, ...]) -> tuple[Datum, ...]:
    places = {value: place for place, value in enumerate(held.study.task.ids("test").tolist())}
    return rows.data(held, "test", [places[value] for value in ids if value in places])


def _line(method: str, curve: Mapping[str, Any]) -> RemovalLine:
    title = "Random rows" if method == RANDOM else titled(method)
    low, high = tuple(curve["low"]), tuple(curve["high"])
    return RemovalLine(
        title, tuple(curve["counts"]), tuple(curve["margins"]), low, high, int(curve["draws"]), curve["flip"],
        float(curve["flipped"]),
    )  # fmt: skip


def _rows_to_flip(line: RemovalLine) -> tuple[float, float]:
    return (float("inf") if line.flip is None else line.flip), line.margins[-1]


def _words(lines: Sequence[RemovalLine], random: RemovalLine | None) -> str:
    """Return what the curves say in one sentence."""
    if not lines:
        return ""
    best, largest = lines[0], lines[0].counts[-1]
    if best.flip is None:
        said = f"No method flips this prediction by removing up to {largest:,} of its top proponents"
    elif best.flip == 0:
        said = "A model trained again on all rows predicts another class already: look at another prediction"
    else:
        rows_ = "row flips" if best.flip == 1 else "rows flips"
        said = f"Removing the top {best.flip:,.0f} {rows_} this prediction, by {best.title}"
    if random is None or best.flip == 0:
        return f"{said}."
    flips = round(random.flipped * random.draws)
    return f"{said}; of {random.draws} random removals of up to {random.counts[-1]:,} rows, {flips or 'none'} did."
