"""What every encoder can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Self

import numpy as np
import pyarrow as pa

from influence_core.errors import BadInput

Batches = Callable[[], Iterator[pa.Table]]


class Encoder(ABC):
    """Turns rows of a table into model inputs."""

    kind: str

    @abstractmethod
    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the model inputs ``[n, ...]``, float32."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one encoded row."""

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
