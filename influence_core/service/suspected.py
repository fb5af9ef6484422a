"""The list of suspects that a study has: the richest one that was computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from influence_core.errors import Unavailable
from influence_core.service.opened import OpenStudy
from influence_core.study import Study
from influence_core.workflows.suspects.detectors import Search
from influence_core.workflows.suspects.own_probabilities import usable_probabilities
from influence_core.workflows.suspects.ranking import Suspects, chosen_detectors, read_suspects, suspects_key
from influence_core.workflows.suspects.tables import suspects_table


@dataclass(frozen=True)
class Found:
    """A list of suspects with the key of its artifact."""

    key: str
    listed: Suspects

    def table(self, study: Study, positions: np.ndarray) -> pd.DataFrame:
        """Return some rows as a table."""
        return suspects_table(study, self.listed, positions)


def search_of(held: OpenStudy) -> Search:
    """Return where label errors of a study are looked for."""
    given = held.remembered(("own probabilities",), lambda: (usable_probabilities(held.study),))
    return Search(held.study.task, held.run, given[0])


def found_suspects(held: OpenStudy) -> Found | None:
    """Return the list with out-of-fold numbers, else the one without, else None.

    Raises:
        Unavailable: No detector can run.
    """
    search = search_of(held)
    keys = held.remembered(("suspects keys",), lambda: _keys(search))
    for key in keys:
        known = held.recalled(("suspects", key))
        if known is None and (artifact := held.run.artifacts.find(key)) is not None:
            known = Found(key, read_suspects(held.study.task, artifact))
            held.remember(("suspects", key), known)
        if known is not None:
            return known
    return None


def _keys(search: Search) -> tuple[str, ...]:
    keys = [suspects_key(search, chosen_detectors(search, retrain=True))]
    try:
        keys.append(suspects_key(search, chosen_detectors(search)))
    except Unavailable:
        pass  # all that can run here trains models
    return tuple(keys)
