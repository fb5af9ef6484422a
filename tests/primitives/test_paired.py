"""Paired differences: exact where all change alike, and intervals that cover their share."""

from __future__ import annotations

import numpy as np
import pytest

from influence_core.primitives.paired import paired_changes


def test_a_change_that_is_the_same_for_all_has_no_interval() -> None:
    before = np.random.default_rng(0).random((4, 30))
    found = paired_changes(before, before + 0.25)[0]
    assert found.before == pytest.approx(before.mean()) and found.n == 30
    np.testing.assert_allclose([found.change, found.low, found.high], 0.25)


def test_groups_are_apart_and_the_interval_covers_its_share() -> None:
    """The 95% interval holds the true change in about 95 of 100 draws of the data: at least 88 here."""
    groups, held = np.array([0] * 40 + [1] * 20 + [-1] * 5), 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        before = random.normal(size=(1, 65))
        after = before + np.where(groups == 0, 0.5, -0.2) + 0.3 * random.normal(size=(1, 65))
        first, second, none = paired_changes(before, after, groups, 3, draws=300)
        held += first.low <= 0.5 <= first.high
        assert second.n == 20 and none.n == 0 and np.isnan(none.change)
        np.testing.assert_allclose(second.change, (after - before)[0, groups == 1].mean())
    assert held >= 88
