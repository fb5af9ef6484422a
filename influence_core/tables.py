"""Tables as files: CSV, JSON or Parquet."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

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


@contextmanager
def reading(path: Path, what: str, fix: str = "Restore the file from a copy.") -> Iterator[None]:
    """Turn what a damaged table raises, while it is read or made numbers, into one clear message that names the file.

    Raises:
        BadInput: ``what``, a clause.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except BadInput as error:
        raise BadInput(error.what, f"{path}: {error.why}", error.fix) from None
    # A broken footer, a page that does not unpack, a text where a number should be: Arrow and NumPy have many names.
    except (pa.ArrowException, OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split()).rstrip(".")
        raise BadInput(what, f"{path}: {why}.", fix) from None


def check_finite(values: np.ndarray, rows: pa.Table, id_column: str, path: Path) -> None:
    """Refuse encoded rows ``[n, ...]`` with a value that is missing, NaN, infinite or beyond 32-bit numbers.

    Raises:
        BadInput: Names the file and the row.
    """
    broken = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))
    if len(broken):
        row = rows[id_column][int(broken[0])].as_py() if id_column in rows.column_names else int(broken[0])
        raise BadInput(
            "A value is no finite number",
            f"{path}: row {row} holds one that is missing, NaN, infinite or too large ({len(broken)} such rows here).",
            "Correct or remove these rows; if they are right, restore encoder.json from a copy.",
        )
