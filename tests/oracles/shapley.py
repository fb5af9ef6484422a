"""Shapley values by the definition: every coalition of every player."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations
from math import comb

import numpy as np


def shapley_values(utility: Callable[[tuple[int, ...]], float], n: int) -> np.ndarray:
    """The mean marginal contribution over coalitions of each size, then over sizes."""
    values = np.zeros(n)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for members in combinations(others, size):
                gain = utility(tuple(sorted((*members, i)))) - utility(members)
                values[i] += gain / (n * comb(n - 1, size))
    return values


def votes(distances: np.ndarray, matches: np.ndarray, members: tuple[int, ...], k: int) -> float:
    """Matching labels among the k nearest members; members tied at the border share the places that are left."""
    total, places = 0.0, k
    for distance in sorted({distances[j] for j in members}):
        tied = [j for j in members if distances[j] == distance]
        taken = min(places, len(tied))
        total += taken * sum(matches[j] for j in tied) / len(tied)
        places -= taken
    return total


def votes_over_all_orders(distances: np.ndarray, matches: np.ndarray, members: tuple[int, ...], k: int) -> float:
    """The same as the mean over every way to break the ties, written out."""
    counts = []
    for order in permutations(members):
        if all(distances[a] <= distances[b] for a, b in zip(order, order[1:], strict=False)):
            counts.append(sum(matches[j] for j in order[:k]))
    return float(np.mean(counts))


def knn_values(distances: np.ndarray, matches: np.ndarray, k: int) -> np.ndarray:
    """Shapley values of votes / k, nothing for the empty set."""
    return shapley_values(lambda s: votes(distances, matches, s, k) / k, len(distances))


def soft_knn_values(distances: np.ndarray, matches: np.ndarray, k: int, n_classes: int) -> np.ndarray:
    """Shapley values of the mean vote, chance for the empty set."""

    def utility(s: tuple[int, ...]) -> float:
        return votes(distances, matches, s, k) / min(k, len(s)) if s else 1 / n_classes

    return shapley_values(utility, len(distances))
