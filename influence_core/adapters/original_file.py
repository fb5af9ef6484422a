"""What reviewers decided about a study, carried over to the file that it was imported from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from influence_core.changes import Change
from influence_core.readers.original import Correction, corrected_file
from influence_core.study import Study
from influence_core.workflows import patch_replay, patches


def original_file(study: Study, changes: Sequence[Change], path: Path) -> tuple[bytes, str]:
    """Return the user's own file with the corrected labels, everything else as it came, and the ending of its name.

    Args:
        study: The study that was imported from it.
        changes: What is to become of its rows.
        path: The file.

    Raises:
        BadInput: It is not the file that the study was imported from.
    """
    done = patch_replay.replayed(study, changes)
    applied = [outcome.change for outcome in done.outcomes if outcome.result == "applied"]
    corrections = {
        change.row: Correction(
            change.new if change.action == "relabel" else None,
            change.weight if change.action == "downweight" else None,
            change.action == "drop",
        )
        for change in applied
    }
    table, header = patches.whole_table(study), study.header
    labels = dict(zip(table[header.id].to_pylist(), map(str, table[header.label].to_pylist()), strict=True))
    label = patches.users_label(study)
    return corrected_file(path, label, labels, corrections, numbers=header.task == "regression")
