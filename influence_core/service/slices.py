"""Slices of a study's rows: those with one value, or in one range, of a column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from influence_core.service.opened import OpenStudy
from influence_core.service.quality import group_names

_LOOKED_AT = 2_000  # rows by which a column of words is taken for a category, or for texts of their own
_FEW = 0.5  # different words over rows, above which they are texts
_MOST = 100  # columns to choose from


def slice_columns(held: OpenStudy) -> tuple[str, ...]:
    """Return the columns whose values part the train rows, the sensitive ones first: numbers, words, dates, yes or no.

    Not the id and the label, no lists or pictures, and no column of words where most rows have words of their own.
    """
    return held.remembered(("slice columns",), lambda: (_columns(held),))[0]


def _columns(held: OpenStudy) -> tuple[str, ...]:
    study = held.study
    sample = study.some_columns("train", range(min(_LOOKED_AT, study.n_rows("train"))), None)
    names = [name for name in sample.column_names if name not in (study.header.id, study.header.label)]
    found = [name for name in names if _parts(sample[name])]
    first = [name for name in study.header.sensitive if name in found]
    return (*first, *(name for name in found if name not in first))[:_MOST]


def _parts(values: pa.ChunkedArray) -> bool:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind):
        known = values.drop_null()
        return 1 < len(known.unique()) <= max(2, _FEW * len(known))
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return number or pa.types.is_boolean(kind) or pa.types.is_temporal(kind)


def slice_of_rows(held: OpenStudy, column: str) -> np.ndarray:
    """Return the name of every train row's slice ``[n]`` by a column: its value, or a quarter of the rows."""
    return held.remembered(("slices", column), lambda: group_names(held.study.column("train", column)))


def slice_sizes(held: OpenStudy, column: str) -> tuple[tuple[str, int], ...]:
    """Return the slices of a column with their numbers of train rows, the largest first."""
    names, counts = np.unique(slice_of_rows(held, column).astype(str), return_counts=True)
    return tuple((str(names[i]), int(counts[i])) for i in np.argsort(-counts, kind="stable"))
