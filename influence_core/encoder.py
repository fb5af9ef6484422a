"""How a raw row becomes numbers: fitted on train, kept as JSON, part of a study's fingerprint."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import pyarrow as pa

from influence_core.errors import BadInput


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


@final
@dataclass(frozen=True)
class ImageEncoder(Encoder):
    """Grey or colour images kept as 8-bit numbers in one list column: ``value / 255``, minus a mean, over a spread."""

    column: str
    size: tuple[int, int, int]  # channels, height, width
    mean: float
    std: float
    kind = "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return channels, height, width."""
        return tuple(self.size)

    def pixels(self, rows: pa.Table) -> np.ndarray:
        """Return the raw pixels ``[n, channels, height, width]``, uint8."""
        values = named_column(rows, self.column).combine_chunks()
        flat = (
            values.flatten()
            if not isinstance(values, pa.ChunkedArray)
            else pa.concat_arrays([c.flatten() for c in values.chunks])
        )
        return flat.to_numpy(zero_copy_only=False).reshape(-1, *self.size)

    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the normalised pixels."""
        return ((self.pixels(rows).astype(np.float32) / 255 - self.mean) / self.std).astype(np.float32)


@final
@dataclass(frozen=True)
class TableEncoder(Encoder):
    """Numeric columns, each minus its train mean and over its train standard deviation."""

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    kind = "table"

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the number of columns."""
        return (len(self.columns),)

    @staticmethod
    def fitted(rows: pa.Table, columns: tuple[str, ...]) -> TableEncoder:
        """Return the encoder with the statistics of these rows; a constant column keeps its scale."""
        values = _numbers(rows, columns)
        std = values.std(0)
        return TableEncoder(columns, tuple(values.mean(0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))

    def encoded(self, rows: pa.Table) -> np.ndarray:
        """Return the standardised columns."""
        return ((_numbers(rows, self.columns) - np.asarray(self.mean)) / np.asarray(self.std)).astype(np.float32)


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


def _numbers(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    return np.stack([named_column(rows, name).to_numpy().astype(np.float64) for name in columns], 1)


def load_encoder(path: Path) -> Encoder:
    """Read an encoder.

    Raises:
        BadInput: The file is gone, damaged, or of a kind this version does not know.
    """
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
        kind = str(options.pop("kind"))
        kinds: dict[str, type[Encoder]] = {"image": ImageEncoder, "table": TableEncoder}
        if kind not in kinds:
            raise BadInput("Unknown encoder", f"{path} is of kind '{kind}'.", "Open the study with a newer version.")
        return kinds[kind](**{n: tuple(value) if isinstance(value, list) else value for n, value in options.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            "The encoder cannot be read", f"{path}: {error}.", "Restore encoder.json from a copy of the study."
        ) from None
