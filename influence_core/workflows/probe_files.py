"""Probes in a file: rows of a study that are in none of its splits, with the one right label of them all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from influence_core.errors import BadInput
from influence_core.measurement import TYPED, Rows
from influence_core.study import Study
from influence_core.tables import reading
from influence_core.workflows.typed_rows import KEPT, TypedStudy, keep, with_typed
from influence_core.workflows.typed_values import checked_values, fields

_SHAPE = "Give a CSV with the study's input columns and its label column, a row for each probe."


def read_probes(study: Study, path: Path) -> tuple[TypedStudy, Rows, str]:
    """Return the study with the probes as its typed rows, the probes, and their right label.

    Further columns are ignored. The probes are kept beside the study, like everything that is typed.

    Args:
        study: A classification.
        path: CSV, UTF-8; an image's cell is the path of its file, from the folder of the CSV.

    Raises:
        BadInput: The file cannot be read, has no probes or too many, lacks a column, has several right labels, or a
            value cannot be one of its column.
    """
    try:
        with reading(path, "The probes cannot be read", _SHAPE):
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput("There is no such file of probes", f"{path} does not exist.", _SHAPE) from None
    kinds = {field.name: field.kind for field in fields(study) if not field.is_label}
    missing = [name for name in (*kinds, study.header.label) if name not in table.columns]
    if missing:
        raise BadInput("The probes cannot be read", f"{path} has no column {', '.join(missing)}.", _SHAPE)
    if not 0 < len(table) <= KEPT:
        why = f"{path} has {len(table):,} rows; from 1 to {KEPT} can be used."
        raise BadInput("Too few or too many probes", why, "20 to 100 are usual.")
    labels = sorted(set(table[study.header.label].str.strip()))
    if len(labels) > 1:
        why = f"{path} has {', '.join(labels[:5])}."
        raise BadInput(
            "The probes have several right labels", why, "Make a file for each label, and run once for each."
        )
    ids = [
        keep(study, checked_values(study, {name: _cell(path, kind, row[name]) for name, kind in kinds.items()}))
        for row in table.to_dict("records")
    ]
    ids = list(dict.fromkeys(ids))
    return with_typed(study, ids), Rows(TYPED, tuple(ids)), labels[0]


def _cell(path: Path, kind: str, text: str) -> str | Path:
    return path.parent / text if kind == "image" else text
