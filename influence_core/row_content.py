"""What a row says, as a short hash: the same row is known again in newer data, wherever it stands there."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any

import pyarrow as pa

from influence_core.study import Study

_ROWS_AT_ONCE = 4096


def content_hashes(study: Study, split: str, positions: Sequence[int]) -> list[str]:
    """Return a hash of each row's content: all columns but its id, its label and the larger copy of a picture.

    The hash does not depend on the order of columns, on empty ones, or on how a number is kept (3 is 3.0), so that a
    row which is imported again is the same one. What people see of a picture is left out: it is made at import, by a
    library whose next version may make it differently; the model's own pixels are in.

    Args:
        study: The study.
        split: One of its splits.
        positions: Which rows, by position ``[k]``.

    Returns:
        16 hexadecimal digits for each ``[k]``.
    """
    left_out = {study.header.id, study.header.label, getattr(study.encoder, "picture", None)}
    columns = sorted(name for name in study.column_names(split) if name not in left_out)
    found: list[str] = []
    for start in range(0, len(positions), _ROWS_AT_ONCE):
        rows = study.some_columns(split, positions[start : start + _ROWS_AT_ONCE], columns)
        found += _hashes(rows, columns)
    return found


def _hashes(rows: pa.Table, columns: Sequence[str]) -> Iterator[str]:
    values = [rows[name].to_pylist() for name in columns]
    for i in range(len(rows)):
        said = {name: text for name, column in zip(columns, values, strict=True) if (text := _said(column[i])) != ""}
        content = json.dumps(said, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        yield hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _said(value: Any) -> Any:
    """Return a value as JSON can hold it, equal for what people would call equal; "" for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, bytes):
        return hashlib.blake2b(value, digest_size=16).hexdigest()
    if isinstance(value, list | tuple):
        return [_said(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _said(part) for name, part in value.items()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, str | int | bool) else str(value)
