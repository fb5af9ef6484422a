"""Tables of numbers without gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from influence_core.encoder.base import Encoder, named_column


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


def _numbers(rows: pa.Table, columns: tuple[str, ...]) -> np.ndarray:
    return np.stack([named_column(rows, name).to_numpy().astype(np.float64) for name in columns], 1)
