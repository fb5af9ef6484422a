"""Images as numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
import pyarrow as pa

from influence_core.encoder.base import Batches, Encoder, named_column
from influence_core.encoder.pictures import as_png, media_type


@final
@dataclass(frozen=True)
class ImageEncoder(Encoder):
    """Grey or colour images kept as 8-bit numbers in one list column: ``value / 255``, minus a mean, over a spread.

    Attributes:
        column: The list column, ``channels * height * width`` numbers a row.
        size: Channels, height, width.
        mean: One number, or one for each channel.
        std: Likewise.
        picture: A column with the bytes of a larger copy to look at, where there is one; missing: the pixels will do.
    """

    column: str
    size: tuple[int, int, int]
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    picture: str | None = None
    kind = "image"

    def __post_init__(self) -> None:
        """Check that there is a spread, and one number or one for each channel."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            numbers = np.atleast_1d(np.asarray(value, np.float64))
            if numbers.size not in (1, self.size[0]) or not np.isfinite(numbers).all():
                raise ValueError(f"{name} is {value} for {self.size[0]} channels")
            if name == "std" and (numbers <= 0).any():
                raise ValueError(f"std is {value}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Return channels, height, width."""
        return tuple(self.size)

    @classmethod
    def fitted(
        cls, batches: Batches, column: str, size: tuple[int, int, int], picture: str | None = None
    ) -> ImageEncoder:
        """Return the encoder with each channel's mean and spread over these rows, in one pass.

        Args:
            batches: Starts a pass over the train rows.
            column: The list column of pixels.
            size: Channels, height, width.
            picture: A column of larger copies, if any.
        """
        raw = cls(column, size, 0.0, 1.0)
        counts = np.zeros((size[0], 256), np.int64)
        for batch in batches():
            pixels = raw.pixels(batch)
            for channel in range(size[0]):
                counts[channel] += np.bincount(pixels[:, channel].reshape(-1), minlength=256)
        levels = np.arange(256) / 255
        total = np.maximum(counts.sum(1), 1)
        mean = counts @ levels / total
        std = np.sqrt(np.maximum((counts * np.square(levels - mean[:, None])).sum(1) / total, 0))
        std[std < 1e-3] = 1.0  # a channel of one level
        return cls(column, size, tuple(mean.round(6).tolist()), tuple(std.round(6).tolist()), picture)

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
        mean, std = (self._by_channel(value) for value in (self.mean, self.std))
        return ((self.pixels(rows).astype(np.float32) / 255 - mean) / std).astype(np.float32)

    @property
    def neutral(self) -> Any:
        """Return what black is in encoded images: a number, or ``[channels, 1, 1]``, float32."""
        return -self._by_channel(self.mean) / self._by_channel(self.std)

    def _by_channel(self, value: float | tuple[float, ...]) -> Any:
        return np.asarray(value, np.float32).reshape(-1, 1, 1) if isinstance(value, tuple) else value

    def shown(self, rows: pa.Table) -> list[bytes]:
        """Return each row as the bytes of a PNG or JPEG file to look at: the larger copy, or else the pixels."""
        copies: list[Any] = [None] * len(rows)
        if self.picture is not None and self.picture in rows.column_names:  # a typed row has none
            copies = rows[self.picture].to_pylist()
        pixels = self.pixels(rows)
        return [
            copy if isinstance(copy, bytes) and media_type(copy) else as_png(pixels[i]) for i, copy in enumerate(copies)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the encoder as JSON values; without a larger copy there is no word of one, as in older files."""
        values = {name: value for name, value in asdict(self).items() if name != "picture" or value is not None}
        return {"kind": self.kind, **values}
