"""Images as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import pyarrow as pa

from influence_core.encoder.base import Encoder, named_column


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
