"""Tables as files: CSV, JSON or Parquet."""

from __future__ import annotations

import io

import pandas as pd

from influence_core.errors import BadInput

FORMATS = ("csv", "json", "parquet")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def table_bytes(table: pd.DataFrame, format: str) -> bytes:
    """Return a table as the content of a file.

    Texts that a spreadsheet would run as a formula are written into CSV with a leading apostrophe.

    Raises:
        BadInput: Unknown format.
    """
    if format == "csv":
        safe = table.copy()
        for name in safe.columns:
            if not pd.api.types.is_numeric_dtype(safe[name]):
                safe[name] = [
                    f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
                    for value in safe[name]
                ]
        return safe.to_csv(index=False).encode()
    if format == "json":
        text = table.to_json(orient="records", force_ascii=False, indent=1, double_precision=15)
        return f"{text}\n".encode()
    if format == "parquet":
        buffer = io.BytesIO()
        table.rename(columns=str).to_parquet(buffer, index=False)
        return buffer.getvalue()
    raise BadInput("Unknown format", f"format is '{format}'.", f"Use {', '.join(FORMATS)}.")
