"""Who reviews what: the rows of a queue dealt among reviewers, with a share that everybody sees.

Without shared rows nothing can be said about how far reviewers agree; with every row shared the work is done twice. A
row's hash decides whether it is shared, and to whom it belongs if not (the highest of one number per reviewer, so that
another reviewer takes rows from everybody and moves none between the others). The deal does not depend on the order or
the length of the queue.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from influence_core.errors import BadInput
from influence_core.service import access
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import opened
from influence_core.service.queues import SUSPECTS, queue
from influence_core.service.review_views import Queue, RowId
from influence_core.store import disk_errors

_FILE = "dealing.json"
_MOST_REVIEWERS = 100
_MAX_NAME = 100


@dataclass(frozen=True)
class Dealing:
    """How rows are dealt.

    Attributes:
        reviewers: Their names; nobody: every row is everybody's.
        overlap: Share of the rows, from 0 to 1, that everybody sees.
    """

    reviewers: tuple[str, ...] = ()
    overlap: float = 0.1


@dataclass(frozen=True)
class Shares:
    """What a deal comes to on the standing queue: rows for everybody, and each reviewer's own."""

    title: str
    total: int
    shared: int
    own: tuple[tuple[str, int], ...]


def dealing(study: str) -> Dealing:
    """Return how a study's rows are dealt among its reviewers.

    Raises:
        BadInput: The file that says so is damaged.
    """
    access.check(base_name(study))
    file = study_folder(study) / _FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return checked([str(name) for name in content["reviewers"]], float(content["overlap"]))
    except FileNotFoundError:
        return Dealing()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            "The rows cannot be dealt", f"{_FILE} is damaged: {error}.", "Delete it, or save a deal."
        ) from None


def save_dealing(study: str, reviewers: Sequence[str], overlap: float) -> None:
    """Deal the rows among these reviewers from now on; what was decided stays.

    Raises:
        BadInput: They are not its owner, or a name or the share cannot be used.
    """
    access.check(base_name(study), "owner")
    opened(base_name(study))
    kept, file = checked(reviewers, overlap), study_folder(study) / _FILE
    with disk_errors(file):
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(kept)), encoding="utf-8")
        part.replace(file)


def checked(reviewers: Sequence[str], overlap: float) -> Dealing:
    """Return a deal with its names stripped and told apart.

    Raises:
        BadInput: A share outside 0 to 1, too many names, or one that is too long.
    """
    names = tuple(dict.fromkeys(name.strip() for name in reviewers if name.strip()))
    if not 0 <= overlap <= 1:
        raise BadInput("The rows cannot be dealt", f"The share is {overlap}.", "Give a share from 0 to 1.")
    if len(names) > _MOST_REVIEWERS or any(len(name) > _MAX_NAME for name in names):
        why = f"There are {len(names)} names, the longest of {max(map(len, names))} letters."
        raise BadInput("The rows cannot be dealt", why, f"Give at most {_MOST_REVIEWERS} names of {_MAX_NAME} letters.")
    return Dealing(names, overlap)


def dealt(study: str, rows: Queue, reviewer: str) -> Queue:
    """Return the part of a queue that is a reviewer's; all of it where nothing is dealt, or not to them."""
    deal = dealing(study)
    if len(deal.reviewers) < 2 or reviewer not in deal.reviewers:
        return rows
    held = opened(base_name(study))
    key = ("dealt", rows.token, hash(rows.row_ids), deal, reviewer)
    return held.remembered(key, lambda: replace(rows, row_ids=own_rows(deal, rows.split, rows.row_ids, reviewer)))


def own_rows(deal: Dealing, split: str, row_ids: Sequence[RowId], reviewer: str) -> tuple[RowId, ...]:
    """Return the rows that everybody sees and those that are this reviewer's alone, in their order."""
    return tuple(row for row in row_ids if (whose := owner(deal, split, row)) is None or whose == reviewer)


def owner(deal: Dealing, split: str, row: RowId) -> str | None:
    """Return whose a row is; None: everybody's."""
    row_name = f"{split}/{row!r}"
    if _number(row_name) < deal.overlap:
        return None
    return max(deal.reviewers, key=lambda name: _number(f"{row_name}/{name}"))


def shares(study: str) -> Shares:
    """Return what the deal comes to on the list of suspects, or on all training rows where there is none."""
    access.check(base_name(study), "reviewer")
    deal, rows = dealing(study), queue(study, SUSPECTS)
    if len(deal.reviewers) < 2:
        return Shares(rows.title, len(rows.row_ids), len(rows.row_ids), ())
    whose = [owner(deal, rows.split, row) for row in rows.row_ids]
    own = tuple((name, whose.count(name)) for name in deal.reviewers)
    return Shares(rows.title, len(whose), whose.count(None), own)


def _number(text: str) -> float:
    """Return a number in [0, 1) that is the same for the same text everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
