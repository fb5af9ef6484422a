"""The table in a patch file, read as what a stranger may have made: bounded, and nothing in it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core.changes import COLUMNS

RISKY = ("=", "+", "-", "@", "\t", "\r", "'")  # what a cell begins with that a spreadsheet would run, or hide
MAX_TEXT = 20_000  # characters of one cell
_ROWS_AT_ONCE = 8192
_UNPACKED = 1 << 30  # bytes that a packed file may say that it comes to


def patch_rows(path: Path, format: str, most: int | None = None) -> pd.DataFrame:
    """Return the columns of a patch as texts, numbers and nothing else, in the order of ``COLUMNS``, further ones last.

    Args:
        path: The file.
        format: csv, json or parquet.
        most: Refuse more rows than this.

    Raises:
        ValueError: It is no such table, or one beyond the bounds.
        OSError: It cannot be read.
        pyarrow.ArrowException: It is no Parquet file.
    """
    table = {"csv": _csv, "json": _json, "parquet": _parquet}[format](path, most)
    if most is not None and len(table) > most:
        raise ValueError(_too_many(most))
    for name in set(COLUMNS) & set(table.columns):
        for line, value in enumerate(table[name], 1):
            _check_cell(value, f"line {line}, {name}")
    return table


def _too_many(most: int) -> str:
    return f"it has more than {most:,} lines"


def _csv(path: Path, most: int | None) -> pd.DataFrame:
    rows = None if most is None else most + 1
    table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", nrows=rows, index_col=False)
    return table.map(lambda v: v[1:] if v[:1] == "'" and v[1:].startswith(RISKY) else v)


def _json(path: Path, most: int | None) -> pd.DataFrame:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError("it is no list of objects")
    if most is not None and len(records) > most:
        raise ValueError(_too_many(most))
    kept = [{name: record[name] for name in COLUMNS if name in record} for record in records]
    if records and not any(kept):
        return pd.DataFrame(columns=list(dict.fromkeys(name for record in records[:20] for name in record))[:20])
    return pd.DataFrame(kept, columns=None if records else list(COLUMNS), dtype=object)


def _parquet(path: Path, most: int | None) -> pd.DataFrame:
    """Read a piece at a time with its texts as a dictionary: a few packed bytes may stand for more than fits."""
    schema = pq.read_schema(path)
    wanted = [name for name in COLUMNS if name in schema.names]
    if not wanted:
        return pd.DataFrame(columns=schema.names[:20])
    if lists := [name for name in wanted if pa.types.is_nested(schema.field(name).type)]:
        raise ValueError(f"{lists[0]} holds lists")
    with pq.ParquetFile(path, read_dictionary=wanted) as file:
        if sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)) > _UNPACKED:
            raise ValueError(f"unpacked it has more than {_UNPACKED:,} bytes")
        columns: dict[str, list[Any]] = {name: [] for name in wanted}
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=wanted):
            for name in wanted:
                columns[name] += _values(batch.column(name), name)
            if most is not None and len(columns[wanted[0]]) > most:
                raise ValueError(_too_many(most))
    return pd.DataFrame(columns, dtype=object)


def _values(column: pa.Array, name: str) -> list[Any]:
    if isinstance(column, pa.DictionaryArray):
        said = column.dictionary.to_pylist()
        for value in said:
            _check_cell(value, name)
        return [None if place is None else said[place] for place in column.indices.to_pylist()]
    return column.to_pylist()


def _check_cell(value: Any, where: str) -> None:
    if isinstance(value, list | dict | bytes):
        raise ValueError(f"{where} is no text and no number")
    if not isinstance(value, str):
        return
    if len(value) > MAX_TEXT:
        raise ValueError(f"{where} has {len(value):,} characters, and {MAX_TEXT:,} is the most")
    if "\0" in value or not _is_text(value):
        raise ValueError(f"{where} has characters that no text has")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair
        return False
    return True


__all__ = ["MAX_TEXT", "RISKY", "patch_rows"]
