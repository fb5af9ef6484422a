"""Queues of rows to review: saved lists by their token, and the two that every study has."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from influence_core.config import digest
from influence_core.errors import BadInput
from influence_core.measurement import Rows
from influence_core.reviews import LOCKED, MAX_ROWS
from influence_core.service import access
from influence_core.service import data as rows
from influence_core.service.folder import base_name, study_folder
from influence_core.service.opened import OpenStudy, opened
from influence_core.service.review_views import Queue, RowId
from influence_core.service.suspect_views import SuspectFilter
from influence_core.service.suspects import suspect_rows
from influence_core.store import disk_errors

SUSPECTS = "suspects"
LOSS = "loss"
_FOLDER = "queues"
_KEPT = 60  # files


def save_queue(study: str, title: str, split: str, row_ids: Sequence[RowId], source: str) -> str:
    """Keep rows to review, in this order, and return the token for the address of the review screen.

    Raises:
        BadInput: No rows, too many, unknown ones, or locked ones.
    """
    access.check(base_name(study), "reviewer")
    held = opened(base_name(study))
    ids = tuple(dict.fromkeys(row_ids))
    refuse_locked(split)
    if not 0 < len(ids) <= MAX_ROWS:
        raise BadInput("These rows cannot be reviewed", f"There are {len(ids):,}.", f"Choose 1 to {MAX_ROWS:,} rows.")
    held.study.task.positions(Rows(split, ids))
    content = {"title": title[:200], "split": split, "source": source[:200], "rows": list(ids)}
    token, folder = digest(content), study_folder(study) / _FOLDER
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
        file = folder / f"{token}.json"
        part = file.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(file)
        for old in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    return token


def frozen_queue(study: str) -> str:
    """Return the token of the list of suspects as it is now, in the order that it keeps while it is reviewed.

    The list itself moves: rows are decided, detectors are added. Whoever reviews must not find rows come and go.
    """
    access.check(base_name(study), "reviewer")
    rows = queue(study, SUSPECTS)
    if rows.token != SUSPECTS:
        return rows.token
    return save_queue(study, rows.title, rows.split, rows.row_ids[:MAX_ROWS], rows.source)


def has_moved(study: str, token: str) -> bool:
    """Tell whether the list of suspects is another than the one that was frozen."""
    return queue(study, SUSPECTS).row_ids[:MAX_ROWS] != queue(study, token).row_ids


def refuse_locked(split: str) -> None:
    """Raise for rows that are not cleaned.

    Raises:
        BadInput: They are locked.
    """
    if split == "locked":
        raise BadInput(*LOCKED, "Review train and test rows.")


def queue(study: str, token: str = SUSPECTS) -> Queue:
    """Return a queue by its token; ``suspects`` and ``loss`` are there in every study.

    Raises:
        BadInput: There is no such queue, or it is gone.
    """
    held = opened(base_name(study))
    if token in ("", SUSPECTS, LOSS):
        return _standing_queue(study, held, token or SUSPECTS)
    known: Queue | None = held.recalled(("queue", token))
    if known is not None:
        return known
    what, fix = "This queue cannot be opened", "Choose the rows again, or review the suspects."
    if not (len(token) == 32 and set(token) <= set("0123456789abcdef")):
        raise BadInput(what, f"'{token[:40]}' is no queue.", fix)
    try:
        content = json.loads((study_folder(study) / _FOLDER / f"{token}.json").read_text(encoding="utf-8"))
        ids = tuple(content["rows"])
        found = Queue(token, str(content["title"]), str(content["split"]), ids, str(content["source"]))
    except FileNotFoundError:
        raise BadInput(what, "It is not there any more.", fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(what, f"Its file is damaged: {error}.", fix) from None
    held.study.task.positions(Rows(found.split, ids))
    with suppress(OSError):
        os.utime(study_folder(study) / _FOLDER / f"{token}.json")
    held.remember(("queue", token), found)
    return found


def _standing_queue(study: str, held: OpenStudy, token: str) -> Queue:
    """Return the suspects where they were computed, else the training rows with the highest loss first."""

    def by_loss() -> Queue:
        order = np.argsort(-rows.losses(held, "train"), kind="stable")
        ids = tuple(held.study.task.ids("train")[order].tolist())
        title = (
            "Training rows, largest error first" if rows.is_regression(held) else "Training rows, highest loss first"
        )
        return Queue(LOSS, title, "train", ids, "loss of the explained model")

    if token == SUSPECTS and (ids := suspect_rows(base_name(study), SuspectFilter())):
        return Queue(SUSPECTS, "Suspected labels", "train", tuple(ids), "the combined list of suspects")
    return held.remembered(("queue", LOSS), by_loss)
