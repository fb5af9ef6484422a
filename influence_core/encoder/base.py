"""What every encoder can do."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import pyarrow as pa

from influence_core.errors import BadInput

ROWS_AT_ONCE = 4096
_BYTES_AT_ONCE = 64 << 20
Batches = Callable[[], Iterator[pa.Table]]


class Encoder(ABC):
    """Turns rows of a table into model inputs."""

    kind: str
    rows_at_once: int | None = None  # where a row takes so long that fewer make a step of progress

    @abstractmethod
    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the model inputs ``[n, ...]``, float32."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one encoded row."""

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return, for every array that encoded rows are kept in, the shape of one row and the type of its numbers."""
        return {"inputs": (self.shape, "float32")}

    def arrays(self, rows: pa.Table) -> dict[str, np.ndarray]:
        """Return the encoded rows as the arrays of ``layout``, each ``[n, ...]``."""
        return {"inputs": self.encoded(rows)}

    def called(self, arrays: Mapping[str, Any]) -> Any:
        """Return what the model is called with, given the arrays of ``layout`` in any form (arrays, tensors)."""
        return arrays["inputs"]

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as JSON values."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_json(cls, options: Mapping[str, Any]) -> Self:
        """Make an encoder from what ``to_json`` gave, without its kind.

        Raises:
            TypeError: Options are missing or unknown.
        """
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in options.items()})


def rows_at_once(encoder: Encoder) -> int:
    """Return how many rows to encode together: 4,096, or fewer where they are so long that memory would fill."""
    widths = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in encoder.layout.values()]
    return max(1, min(encoder.rows_at_once or ROWS_AT_ONCE, _BYTES_AT_ONCE // max(1, sum(widths))))


def named_column(rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column of a table.

    Raises:
        BadInput: It has none of this name.
    """
    if name not in rows.column_names:
        raise BadInput(
            "A column is missing",
            f"The rows have no column '{name}'.",
            "Restore the data from a copy, or correct the name in study.toml or encoder.json.",
        )
    return rows.column(name)
