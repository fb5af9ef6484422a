"""Where a sweep through the recorded steps is kept from time to time, so that a killed one goes on.

A sweep carries some arrays from segment to segment. They are written to two slots in turn, so that what is marked as
done is never being overwritten, and deleted when the sweep has come to its end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from influence_core.store import Writer

KEEP_SECONDS = 2.0  # between two times


class KeptSweep:
    """The arrays of a sweep, kept.

    Args:
        writer: Of the artifact that the sweep ends in.
        arrays: As they are at the start.
    """

    def __init__(self, writer: Writer, arrays: Mapping[str, Tensor]) -> None:
        """Declare the arrays and begin to count the time."""
        self._writer, self._names, self._slot, self._last = writer, tuple(arrays), 0, time.monotonic()
        for name, value in arrays.items():
            kind = np.float64 if value.dtype == torch.float64 else np.float32
            writer.create(name, (2, *value.shape), kind)

    def found(self, places: Iterable[int]) -> tuple[int, dict[str, Tensor]] | None:
        """Return the first of these places that the sweep was kept at, with its arrays; None: at none.

        Args:
            places: Numbers of segments, the furthest on the way first.
        """
        for place in places:
            for slot in (0, 1):
                if self._writer.is_done(_mark(place, slot)):
                    self._slot = 1 - slot
                    return place, {name: self._writer.read_row(name, slot) for name in self._names}
        return None

    def keep(self, place: int, arrays: Mapping[str, Tensor]) -> None:
        """Keep the arrays as they are at a place, if the last time was long enough ago."""
        if time.monotonic() - self._last < KEEP_SECONDS:
            return
        for name in self._names:
            self._writer.write(name, self._slot, arrays[name].detach().cpu().clone()[None])
        self._writer.mark_done(_mark(place, self._slot))
        self._slot, self._last = 1 - self._slot, time.monotonic()

    def close(self) -> None:
        """Delete what was kept: the sweep has ended."""
        for name in self._names:
            self._writer.drop(name)


def _mark(place: int, slot: int) -> str:
    return f"segment {place}, slot {slot}"
