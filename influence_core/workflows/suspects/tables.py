"""The list of suspects as a table, for files."""

from __future__ import annotations

import numpy as np
import pandas as pd

from influence_core.study import Study
from influence_core.workflows.suspects.ranking import Suspects


def suspects_table(study: Study, listed: Suspects, positions: np.ndarray) -> pd.DataFrame:
    """Return some rows of a list, in the given order: labels, chances, and every detector's number."""
    names = np.asarray(study.header.classes)
    targets = study.task.split("train").targets
    given = names[targets.reshape(-1).long().numpy()] if len(names) else targets.double().reshape(-1).numpy()
    table = {"train_id": listed.ids[positions], "label": given[positions]}
    if listed.beliefs is not None:
        table["suggested"] = names[listed.beliefs.suggested[positions]]
        table["chance"] = listed.beliefs.chance[positions]
        table["wrong"] = listed.beliefs.wrong[positions]
    table["detectors_agreeing"] = listed.flagged[positions]
    for name, values in listed.columns.items():
        table[name] = values[positions]
    return pd.DataFrame(table)
