"""The rows of a filtered list of suspects, made ready to be decided together."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from influence_core.errors import BadInput
from influence_core.reviews import MAX_ROWS
from influence_core.service.batches import relabelling
from influence_core.service.opened import opened, told_if_gone
from influence_core.service.review_views import Batch
from influence_core.service.suspect_views import SURE, SuspectFilter
from influence_core.service.suspected import found_suspects
from influence_core.service.suspects import passing

ACTIONS = ("suggested", "relabel", "keep", "drop")
_WHAT = "These rows cannot be decided together"


@told_if_gone
def suspect_batch(study: str, filter: SuspectFilter, action: str, label: str = "") -> Batch:
    """Return what a decision about all suspects that pass a filter comes to; nothing is written.

    Args:
        study: The study's name.
        filter: Which rows.
        action: ``suggested``: every row gets the label that is suggested for it, where that is more likely right than
            wrong; ``relabel``: all get ``label``, except those that carry it; ``keep`` or ``drop``.
        label: A class of the study.

    Raises:
        BadInput: They have not been computed, too many rows, an unknown action or class, or labels that are numbers.
    """
    held = opened(study)
    found, classes = found_suspects(held), list(held.study.header.classes)
    if found is None:
        raise BadInput(_WHAT, "Label errors have not been looked for.", "Start that first.")
    if action not in ACTIONS or (action == "relabel" and label not in classes):
        said = f"'{label[:40]}' is no class." if action == "relabel" else f"'{action[:40]}' is no action."
        raise BadInput(_WHAT, said, f"Use one of: {', '.join(classes if action == 'relabel' else ACTIONS)}.")
    beliefs, chosen = found.listed.beliefs, passing(held, found, filter)
    evidence = {
        "screen": "suspects", "rule": action, "list": found.key, "listed": len(chosen),
        "filter": {name: value for name, value in asdict(filter).items() if value},
        "ordered_by": filter.column or found.listed.default,
    }  # fmt: skip
    if action == "relabel":
        return relabelling(study, "train", found.listed.ids[chosen].tolist(), label, evidence)
    labels: tuple[str, ...] = ()
    left: tuple[tuple[int, str], ...] = ()
    if action == "suggested":
        if beliefs is None:
            raise BadInput(_WHAT, "Nothing is suggested for numbers.", "Keep or drop the rows, or review them.")
        sure = beliefs.chance[chosen] > SURE
        if not sure.all():
            left = ((int((~sure).sum()), "no suggestion is more likely right than wrong"),)
        chosen = chosen[sure]
        labels = tuple(np.asarray(classes)[beliefs.suggested[chosen]].tolist())
    if len(chosen) > MAX_ROWS:
        raise BadInput(_WHAT, f"There are {len(chosen):,}.", f"Filter them down to at most {MAX_ROWS:,}.")
    wrong = None if beliefs is None or not len(chosen) else float(beliefs.wrong[chosen].mean())
    evidence["mean_chance_of_being_wrong"] = wrong
    done: Any = "relabel" if action == "suggested" else action
    return Batch("train", done, tuple(found.listed.ids[chosen].tolist()), labels, evidence, left, wrong)


__all__ = ["suspect_batch"]
