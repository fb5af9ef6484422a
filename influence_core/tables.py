"""Tables as files: CSV, JSON or Parquet."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pandas as pd

from influence_core.errors import BadInput

FORMATS = ("csv", "json", "parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table_bytes(table: pd.DataFrame, format: str) -> bytes:
    """Return a table as the content of a file.

    Texts that a spreadsheet would run as a formula are written into CSV with a leading apostrophe, in cells and in the
    header. JSON keeps every digit of a number; what is not finite becomes null.

    Raises:
        BadInput: Unknown format.
    """
    if format == "csv":
        safe = table.copy()
        for name in safe.columns:
            if not pd.api.types.is_numeric_dtype(safe[name]):
                safe[name] = [_inert(value) for value in safe[name]]
        safe.columns = [_inert(name) for name in safe.columns]
        return safe.to_csv(index=False).encode()
    if format == "json":
        # Not by pandas, which writes 15 decimal places: small scores would lose their digits.
        records = [{str(n): _finite(value) for n, value in row.items()} for row in table.to_dict(orient="records")]
        return f"{json.dumps(records, ensure_ascii=False, indent=1)}\n".encode()
    if format == "parquet":
        buffer = io.BytesIO()
        table.rename(columns=str).to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise BadInput("Unknown format", f"format is '{format}'.", f"Use {', '.join(FORMATS)}.")


def _inert(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
