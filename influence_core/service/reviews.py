"""Reviewing: cards from a queue, and where a reviewer stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from influence_core.changes import RESOLVES
from influence_core.reviews import Reviews, Standing
from influence_core.service import access, review_cards
from influence_core.service.dealing import dealt
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import opened
from influence_core.service.queues import queue, refuse_locked
from influence_core.service.review_acts import reviewer_name
from influence_core.service.review_views import (
    Decided,
    Queue,
    ReviewBatch,
    ReviewCard,
    ReviewState,
    ReviewStates,
    RowId,
    decided,
)

MOST_CARDS = 50


def review_batch(
    study: str, token: str, reviewer: str, after: int | None = None, n: int = MOST_CARDS, row: RowId | None = None
) -> ReviewBatch:
    """Return cards of a reviewer's part of a queue with their evidence and what was decided about them.

    Args:
        study: The study's name.
        token: The queue's.
        reviewer: The typed name; whoever is signed in reviews under their own.
        after: Place of the first card; None: where the reviewer stopped in this queue.
        n: At most so many cards, and never more than ``MOST_CARDS``.
        row: Begin with this row instead, if it is in the queue.

    Raises:
        BadInput: No such queue, or they may not review.
    """
    name = reviewer_name(study, reviewer)
    held, rows = opened(base_name(study)), dealt(study, queue(study, token), name)
    refuse_locked(rows.split)
    log = Reviews(study_folder(study))
    mine = log.rows_of(name, rows.split)
    start = _start(rows, mine, after, row, lambda: log.last_row(name, rows.split, rows.token))
    ids = rows.row_ids[start : start + max(1, min(n, MOST_CARDS))]
    cards = review_cards.cards(held, base_name(study), rows.split, ids, start)
    said = log.decided(rows.split, ids)
    done = sum(1 for value in mine if value in rows.places)
    classes = held.study.header.classes
    new = log.new_labels(classes) if classes else ()
    return ReviewBatch(start, len(rows.row_ids), done, tuple(_with(card, said, name) for card in cards), new)


def review_states(study: str, token: str, reviewer: str, first: int, n: int = 2 * MOST_CARDS) -> ReviewStates:
    """Return what was decided meanwhile about cards that a browser holds already, here or in another tab.

    Args:
        study: The study's name.
        token: The queue's.
        reviewer: The typed name; whoever is signed in reviews under their own.
        first: Place of the first card.
        n: So many, and never more than twice ``MOST_CARDS``.

    Raises:
        BadInput: No such queue, or they may not review.
    """
    name = reviewer_name(study, reviewer)
    rows = dealt(study, queue(study, token), name)
    refuse_locked(rows.split)
    first, n = max(0, first), max(0, min(n, 2 * MOST_CARDS))
    log = Reviews(study_folder(study))
    mine, said = log.rows_of(name, rows.split), log.decided(rows.split, rows.row_ids[first : first + n])
    states = []
    for place, row in enumerate(rows.row_ids[first : first + n], first):
        if row in said:
            states.append(ReviewState(place, row, *_votes(said[row], name)))
    return ReviewStates(first, n, sum(1 for row in mine if row in rows.places), tuple(states))


def _votes(standing: list[Standing], name: str) -> tuple[tuple[Decided, ...], Decided | None]:
    """Return what others decided, and what the reviewer did."""
    votes = [decided(one) for one in standing]
    own = next((vote for vote in votes if vote.reviewer == name), None)
    return tuple(vote for vote in votes if vote.reviewer != name), own


def _start(
    rows: Queue, mine: dict[RowId, int], after: int | None, row: RowId | None, last_of: Callable[[], RowId | None]
) -> int:
    """Return where to begin: after the row that was decided last from this queue, at the first open one from there on.

    A row that was decided elsewhere moves nobody to the middle of a list.
    """
    ids = rows.row_ids
    if row is not None and row in ids:
        return ids.index(row)
    if after is not None:
        return max(0, min(after, len(ids) - 1))
    stopped = last_of()
    last = -1 if stopped is None else rows.places.get(stopped, -1)
    order = (*range(last + 1, len(ids)), *range(last + 1))
    return next((i for i in order if ids[i] not in mine), len(ids))


def _with(card: ReviewCard, said: dict[RowId, list[Standing]], name: str) -> ReviewCard:
    others, own = _votes(said.get(card.row_id, []), name)
    return replace(card, decided=others, mine=own) if others or own is not None else card


def review_place(study: str, token: str) -> tuple[str, str, int, tuple[str, ...], str]:
    """Return a queue's token, title and number of rows, the classes of the study, and its kind of task.

    Raises:
        BadInput: No such queue, or they may not review.
    """
    access.check(base_name(study), "reviewer")
    held, rows = opened(base_name(study)), queue(study, token)
    refuse_locked(rows.split)
    return rows.token, rows.title, len(rows.row_ids), held.study.header.classes, held.study.header.task


def known_reviewer(study: str) -> str:
    """Return the name of whoever is signed in; empty where people type their name."""
    access.check(base_name(study), "reviewer")
    return access.visitor().person or ""


def is_resolution(reviewer: str) -> bool:
    """Tell whether a name in the log is that of an owner who resolved a conflict."""
    return reviewer.startswith(RESOLVES)


def plain(value: Any) -> Any:
    """Return records as what JSON holds, for the browser."""
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value
