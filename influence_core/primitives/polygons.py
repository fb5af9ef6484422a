"""Which of many points lie in a polygon, exactly, in about the time of a few passes over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from influence_core.errors import BadInput

MAX_CORNERS = 2_000


def polygon_corners(corners: Sequence[Sequence[float]]) -> np.ndarray:
    """Return the corners of a polygon as float64 ``[m, 2]``.

    Raises:
        BadInput: Fewer than three corners, more than 2,000, or one that is no pair of finite numbers.
    """
    try:
        values: np.ndarray = np.asarray(corners, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2 or values.shape[1] != 2 or not 3 <= len(values) <= MAX_CORNERS:
        raise BadInput(
            "This is not a region of the map", f"It has the shape {list(values.shape)}.",
            f"Give 3 to {MAX_CORNERS:,} corners, each a pair of numbers.",
        )  # fmt: skip
    if not np.isfinite(values).all():
        raise BadInput("This is not a region of the map", "A corner is not a number.", "Draw it again.")
    return values


class SortedPoints:
    """Points sorted by height once, so that every edge of a polygon looks only at the points beside it.

    Args:
        xy: Coordinates ``[n, 2]``, finite.
    """

    def __init__(self, xy: np.ndarray) -> None:
        """Sort the points."""
        self.order = np.argsort(xy[:, 1], kind="stable")
        self.x = np.ascontiguousarray(xy[self.order, 0], dtype=np.float64)
        self.y = np.ascontiguousarray(xy[self.order, 1], dtype=np.float64)

    @property
    def nbytes(self) -> int:
        """Return the bytes held."""
        return self.order.nbytes + self.x.nbytes + self.y.nbytes

    def inside(self, corners: np.ndarray) -> np.ndarray:
        """Return which points lie in a polygon ``[n]``, in the order they were given in; even-odd rule.

        A ray to the right crosses an edge ``(x1, y1)-(x2, y2)`` of a point with ``min(y) <= y < max(y)`` where the edge
        is right of it. Work: points times the polygon's height walked up and down, however many corners it has.

        Args:
            corners: Float64 ``[m, 2]``; the last one is joined to the first.
        """
        low, high = np.searchsorted(self.y, [corners[:, 1].min(), corners[:, 1].max()])
        # Outside the bounding box nothing is inside; what is left of it would be crossed an even number of times.
        beside = (self.x[low:high] >= corners[:, 0].min()) & (self.x[low:high] <= corners[:, 0].max())
        places = np.flatnonzero(beside) + low
        x, y = self.x[places], self.y[places]
        odd = np.zeros(len(places), dtype=bool)
        following = np.roll(corners, -1, axis=0)
        for (x1, y1), (x2, y2) in zip(corners, following, strict=True):
            if y1 == y2:
                continue
            start, stop = np.searchsorted(y, [min(y1, y2), max(y1, y2)])
            odd[start:stop] ^= x[start:stop] < x1 + (y[start:stop] - y1) * ((x2 - x1) / (y2 - y1))
        result = np.zeros(len(self.x), dtype=bool)
        result[self.order[places[odd]]] = True
        return result
