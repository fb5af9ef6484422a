"""Agreement against examples computed by hand in the literature."""

from __future__ import annotations

import math

import pytest

from influence_core.metrics.reviewer_agreement import agreement, cohen_kappa, krippendorff_alpha


def test_cohen_kappa_of_a_two_by_two_table() -> None:
    # 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed .7, chance .5, kappa .4.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    first, second = zip(*pairs, strict=True)
    assert cohen_kappa(first, second) == pytest.approx(0.4, abs=1e-12)
    assert cohen_kappa(first, first) == 1
    assert math.isnan(cohen_kappa("aa", "aa")) and math.isnan(cohen_kappa([], []))


def test_krippendorff_alpha_of_two_coders_and_ten_units() -> None:
    # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section A: binary data, alpha = .095.
    meg, owen = "0100000010", "1110010000"
    assert krippendorff_alpha(list(zip(meg, owen, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_krippendorff_alpha_with_missing_choices() -> None:
    # The same paper, section C: four observers, twelve units, nominal alpha = .743.
    a, b = [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3]
    c, d = [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0]
    units = [[choice for choice in unit if choice] for unit in zip(a, b, c, d, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert math.isnan(krippendorff_alpha([["x", "x"], ["x"]]))


def test_the_measure_follows_the_number_of_reviewers() -> None:
    two = {1: {"ann": "x", "bob": "x"}, 2: {"ann": "y", "bob": "x"}, 3: {"ann": "x"}}
    assert agreement(two)[0] == "Cohen's kappa" and agreement(two)[2:] == (2, ("ann", "bob"))
    assert agreement({**two, 4: {"ann": "x", "eve": "x"}})[0] == "Krippendorff's alpha"
    assert agreement({1: {"ann": "x"}})[0] == ""
