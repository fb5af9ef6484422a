"""Accepting suggestions and retraining undoes damage; the measured bar is in ``benchmarks/cleaning.py``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.cleaning import INSPECTED, Cleaned, cleaned, share_closed
from influence_core.run import Run
from influence_core.store import Store


def test_accepted_suggestions_close_part_of_the_gap(tmp_path: Path) -> None:
    results = [
        cleaned(seed, Run(device="cpu", store=Store(tmp_path / str(seed))), epochs=60, checkpoints=(5, 15, 40, 60))
        for seed in (200, 201)
    ]
    for found in results:
        assert found.inspected == round(INSPECTED * 1200)
        assert found.wrong > 0.8 * found.errors and found.right > 0.8 * found.wrong
        assert found.clean > found.before + 0.1  # there is damage to undo
        assert found.after - found.before > 0.3 * (found.clean - found.before)


def test_the_interval_of_the_share_is_fiellers() -> None:
    random = np.random.default_rng(0)
    results = [Cleaned(b, b + 0.12 + g, b + 0.2 + h, 0, 0, 0, 0) for b, g, h in random.normal(0, 0.02, (10, 3))]
    share = share_closed(results)
    gain, gap = (np.array([getattr(r, name) - r.before for r in results]) for name in ("after", "clean"))
    assert share.share == pytest.approx(gain.mean() / gap.mean())
    for end in (share.low, share.high):  # where a paired t test is just refused
        assert stats.ttest_1samp(gain - end * gap, 0).pvalue == pytest.approx(0.05, abs=1e-6)
    assert share.low < share.share < share.high


def test_without_a_gap_no_share_is_claimed() -> None:
    results = [Cleaned(0.9, 0.9 + d, 0.9 + e, 0, 0, 0, 0) for d, e in ((0.01, -0.02), (0.0, 0.02), (-0.01, 0.001))]
    assert share_closed(results).low == -np.inf
