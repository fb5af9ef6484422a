"""Distances and cosines, one pair of rows at a time."""

from __future__ import annotations

import numpy as np


def squared_distances(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.array(
        [[sum((float(a) - float(b)) ** 2 for a, b in zip(q, p, strict=True)) for p in points] for q in queries]
    )


def cosines(queries: np.ndarray, points: np.ndarray) -> np.ndarray:
    def cosine(q: np.ndarray, p: np.ndarray) -> float:
        lengths = np.sqrt(q @ q) * np.sqrt(p @ p)
        return float(q @ p / lengths) if lengths > 0 else 0.0

    return np.array([[cosine(q, p) for p in points] for q in queries])
