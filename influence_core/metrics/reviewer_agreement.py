"""How far reviewers agree beyond chance: Cohen's kappa for two, Krippendorff's alpha (nominal) for more."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return Cohen's kappa of two reviewers' choices about the same rows; NaN where chance alone would agree fully."""
    n = len(first)
    if n == 0 or n != len(second):
        return math.nan
    agree = sum(a == b for a, b in zip(first, second, strict=True)) / n
    one, two = Counter(first), Counter(second)
    chance = sum(one[c] * two[c] for c in one) / n**2
    return math.nan if chance == 1 else (agree - chance) / (1 - chance)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float:
    """Return Krippendorff's alpha for nominal data.

    Args:
        units: For every row the choices that were made about it; rows with one choice are left out.

    Returns:
        1 for perfect agreement, 0 for what chance gives; NaN where everybody always chose the same.
    """
    compared = [unit for unit in units if len(unit) > 1]
    totals = Counter(choice for unit in compared for choice in unit)
    n = sum(totals.values())
    if n < 2:
        return math.nan
    observed = sum(
        count * (len(unit) - count) / (len(unit) - 1) for unit in compared for count in Counter(unit).values()
    )
    expected = sum(count * (n - count) for count in totals.values()) / (n - 1)
    return math.nan if expected == 0 else 1 - observed / expected


def agreement(votes: Mapping[Hashable, Mapping[str, Hashable]]) -> tuple[str, float, int, tuple[str, ...]]:
    """Return the measure that fits, its value, the rows compared, and the reviewers.

    Args:
        votes: Row -> reviewer -> choice.
    """
    shared = [said for said in votes.values() if len(said) > 1]
    names = tuple(sorted({name for said in shared for name in said}))
    if len(names) < 2:
        return "", math.nan, len(shared), names
    if len(names) == 2:
        pairs = [[said[name] for said in shared] for name in names]
        return "Cohen's kappa", cohen_kappa(*pairs), len(shared), names
    return "Krippendorff's alpha", krippendorff_alpha([list(said.values()) for said in shared]), len(shared), names
