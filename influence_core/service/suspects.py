"""Suspected labels: the ranked list with its filters, the job that computes it, and its file."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import astuple, replace

import numpy as np

from influence_core.costs import cost_in_words
from influence_core.errors import BadInput
from influence_core.reviews import Reviews
from influence_core.service import data as rows
from influence_core.service import tasks
from influence_core.service.folder import study_folder
from influence_core.service.opened import OpenStudy, opened, told_if_gone
from influence_core.service.review_views import decided
from influence_core.service.slices import slice_columns, slice_of_rows, slice_sizes
from influence_core.service.suspect_evidence import feeding_rows, reasons
from influence_core.service.suspect_views import (
    SURE,
    BudgetPrecision,
    SuspectColumn,
    SuspectFilter,
    SuspectPage,
    SuspectRow,
)  # fmt: skip
from influence_core.service.suspected import Found, found_suspects, search_of
from influence_core.service.views import FitNeeded, JobView, RowId
from influence_core.tables import table_bytes
from influence_core.workflows.suspects.detectors import detectors
from influence_core.workflows.suspects.held_out import SOURCES
from influence_core.workflows.suspects.pricing import suspects_cost
from influence_core.workflows.suspects.ranking import COMBINED, chosen_detectors, suspects_key

_MOST_ROWS = 200
_BUDGETS = (0.05, 0.1, 0.15)
_TITLE = "Label suspects"
_COMBINED = SuspectColumn(
    COMBINED, "Combined", "sum of margins",
    "What the model thought of the row while it learned, and what its neighbours' labels say, taken together.",
    True, False,
)  # fmt: skip


@told_if_gone
def suspects(study: str, filter: SuspectFilter) -> SuspectPage | FitNeeded:
    """Return one page of the suspects that pass a filter, or what has to be computed first.

    Raises:
        InfluenceError: An unknown name in the filter, or no detector can run on the study.
    """
    held = opened(study)
    found = found_suspects(held)
    if found is None:
        return _needed(study, held, retrain=False)
    chosen = passing(held, found, filter)
    first = filter.page * filter.limit
    return SuspectPage(
        _rows(study, held, found, filter, chosen[first : first + filter.limit]), len(chosen), len(found.listed.ids),
        _column(filter.column or found.listed.default), tuple(_column(name) for name in found.listed.columns),
        len(found.listed.flags), found.listed.estimated, _planted(held), _budgets(held, found, filter.column),
        found.listed.notes, _missing(held), SOURCES.get(found.listed.held_out, ""),
        None if found.listed.held_out else _more(study, held), slice_columns(held),
        slice_sizes(held, filter.sliced) if filter.sliced else (),
    )  # fmt: skip


@told_if_gone
def suspect_rows(study: str, filter: SuspectFilter) -> list[RowId]:
    """Return the ids of all suspects that pass a filter, in order; none while they have not been computed."""
    held = opened(study)
    found = found_suspects(held)
    return [] if found is None else found.listed.ids[passing(held, found, filter)].tolist()


def _column(name: str) -> SuspectColumn:
    if name == COMBINED:
        return _COMBINED
    known = detectors()[name]
    return SuspectColumn(name, known.title, known.unit, known.summary, known.in_sample, known.flags is not None)


def _planted(held: OpenStudy) -> int | None:
    return None if held.study.planted is None else int(held.study.planted.sum())


def _missing(held: OpenStudy) -> tuple[tuple[str, str], ...]:
    search, regression = search_of(held), rows.is_regression(held)
    reasons = ((known, known.missing(search)) for known in detectors().values())
    other = ("is for labels that are numbers", "needs class labels and a trained model")
    return tuple((k.title, why) for k, why in reasons if why and not (why == other[regression] and held.study.task))


def _check(held: OpenStudy, found: Found, chosen: SuspectFilter) -> None:
    classes, listed = held.study.header.classes, found.listed
    named: dict[str, tuple[str, Collection[str]]] = {
        "given": (chosen.given, classes), "suggested": (chosen.suggested, classes),
        "column": (chosen.column, listed.columns), "flagged": (chosen.flagged, listed.flags),
        "planted": (chosen.planted, ("yes", "no")), "slice": (chosen.sliced, slice_columns(held)),
    }  # fmt: skip
    if chosen.group:
        parted = chosen.sliced in slice_columns(held)
        named["group"] = chosen.group, [name for name, _ in slice_sizes(held, chosen.sliced)] if parted else []
    for name, (value, known) in named.items():
        if value and value not in known:
            fix = f"Use one of: {', '.join(known)}." if len(known) else "Leave it out."
            raise BadInput("The list cannot be filtered", f"{name} is '{value[:80]}'.", fix)
    if not (chosen.page >= 0 and 0 < chosen.limit <= _MOST_ROWS and chosen.agree >= 0):
        why = f"page is {chosen.page}, limit {chosen.limit}, agree {chosen.agree}."
        raise BadInput("The list cannot be shown", why, f"Use whole numbers from 0, and 1 to {_MOST_ROWS} rows a page.")


def passing(held: OpenStudy, found: Found, chosen: SuspectFilter) -> np.ndarray:
    """Return the positions that pass a filter, the most suspicious first; remembered for every page of the list."""
    _check(held, found, chosen)
    key = ("suspected rows", found.key, astuple(replace(chosen, page=0, limit=1)))
    return held.remembered(key, lambda: _filtered(held, found, chosen))


def _filtered(held: OpenStudy, found: Found, chosen: SuspectFilter) -> np.ndarray:
    listed, order = found.listed, found.listed.order(chosen.column)
    keep = np.ones(len(order), bool)
    classes = list(held.study.header.classes)
    if chosen.given:
        keep &= rows.given_labels(held, "train") == classes.index(chosen.given)
    if chosen.suggested and listed.beliefs is not None:
        keep &= listed.beliefs.suggested == classes.index(chosen.suggested)
    if chosen.flagged:
        keep &= listed.flags[chosen.flagged]
    if chosen.agree:
        keep &= listed.flagged >= chosen.agree
    if chosen.likely:
        keep &= listed.beliefs is not None and listed.beliefs.wrong > SURE
    if chosen.group:
        keep &= slice_of_rows(held, chosen.sliced) == chosen.group
    if chosen.planted:
        truth = held.study.planted
        keep &= False if truth is None else truth == (chosen.planted == "yes")
    if chosen.text.strip():
        keep &= _matching(held, chosen.text.strip())
    return order[keep[order]]


def _matching(held: OpenStudy, text: str) -> np.ndarray:
    def haystack() -> list[str]:
        ids, said = held.study.task.ids("train").tolist(), rows.answers(held, "train", slice(None))
        words = rows.searched_words(held, "train")
        return [f"{ids[i]} {said.given[i]} {said.predicted[i]} {line}".casefold() for i, line in enumerate(words)]

    wanted = text.casefold()
    return np.asarray([wanted in line for line in held.remembered(("train haystack",), haystack)], bool)


def _rows(
    study: str, held: OpenStudy, found: Found, chosen: SuspectFilter, positions: np.ndarray
) -> tuple[SuspectRow, ...]:
    listed, classes = found.listed, held.study.header.classes
    values, flagged = listed.columns[chosen.column or listed.default], listed.flagged
    cards = rows.data(held, "train", positions.tolist())
    log, result = Reviews(study_folder(study)).decided("train", [card.row_id for card in cards]), []
    first = chosen.page * chosen.limit + 1
    for rank, p, card in zip(range(first, first + len(cards)), positions.tolist(), cards, strict=True):
        beliefs = listed.beliefs
        said = ("", 0.0, 0.0) if beliefs is None else (
            str(classes[int(beliefs.suggested[p])]), float(beliefs.chance[p]), float(beliefs.wrong[p]))  # fmt: skip
        result.append(SuspectRow(
            rank, card, *said, float(values[p]), int(flagged[p]), reasons(held, found, p),
            feeding_rows(held, found, p), tuple(map(decided, log.get(card.row_id, ()))),
        ))  # fmt: skip
    return tuple(result)


def _budgets(held: OpenStudy, found: Found, column: str) -> tuple[BudgetPrecision, ...]:
    """Return the precision at some numbers of reviewed rows: from the truth where it is known, else expected."""
    listed, truth = found.listed, held.study.planted
    if listed.beliefs is None and truth is None:
        return ()

    def make() -> tuple[BudgetPrecision, ...]:
        order, result = listed.order(column), []
        wrong = np.zeros(len(order)) if listed.beliefs is None else listed.beliefs.wrong
        hits = wrong if truth is None else truth
        for share in _BUDGETS:
            top = order[: max(1, round(share * len(order)))]
            recall = float(hits[top].sum() / max(hits.sum(), 1e-12))
            result.append(BudgetPrecision(
                len(top), float(hits[top].mean()), float(wrong[top].mean()), recall, truth is not None
            ))  # fmt: skip
        return tuple(result)

    return held.remembered(("budgets", found.key, column), make)


def _needed(study: str, held: OpenStudy, *, retrain: bool) -> FitNeeded:
    search = search_of(held)
    chosen = chosen_detectors(search, retrain=retrain)
    key = suspects_key(search, chosen)
    estimate = held.remembered(("suspects cost", key), lambda: suspects_cost(search, chosen))
    words = cost_in_words(estimate)
    what = "Trains five models without a fifth of the rows each" if retrain else "Once; afterwards the list is instant"
    return FitNeeded(
        "suspects", "Out-of-fold suspects" if retrain else _TITLE, key, estimate.seconds, estimate.bytes / 1e6,
        f"{words[0].upper()}{words[1:]}. {what}.", tasks.found(study, key),
    )  # fmt: skip


def _more(study: str, held: OpenStudy) -> FitNeeded | None:
    search = search_of(held)
    trained = any(detector.trains(search) for detector in chosen_detectors(search, retrain=True))
    return _needed(study, held, retrain=True) if trained else None


@told_if_gone
def start_suspects(study: str, retrain: bool, client: str) -> JobView:
    """Queue the search for label errors, or join the job that is at it already.

    Args:
        study: Its name.
        retrain: Also the detectors that train models.
        client: Who waits.
    """
    held = opened(study)
    needed = _needed(study, held, retrain=retrain)
    argv = ["find-suspects", *(["--retrain"] if retrain else [])]
    return tasks.submitted(study, needed.key, needed.method_title, argv, client, needed.seconds)


@told_if_gone
def export_suspects(study: str, filter: SuspectFilter, format: str) -> bytes:
    """Return the suspects that pass a filter as a file, with every detector's number.

    Raises:
        BadInput: They have not been computed yet, or the format is unknown.
    """
    held = opened(study)
    found = found_suspects(held)
    if found is None:
        raise BadInput("There is nothing to export yet", "Label errors have not been looked for.", "Start that first.")
    return table_bytes(found.table(held.study, passing(held, found, filter)), format)


__all__ = ["export_suspects", "passing", "start_suspects", "suspect_rows", "suspects"]
