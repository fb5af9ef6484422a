"""Solved answers are kept with what the solve found out, and are not solved again."""

from __future__ import annotations

from pathlib import Path

import torch

from influence_core import Run, Store, registry
from influence_core.answers import answer_key, obtained_answer
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from tests.cases import CASES


def test_an_answer_keeps_scores_and_notes_for_the_next_who_asks(tmp_path: Path) -> None:
    task, run = CASES["mlp"](), Run(dtype=torch.float64, store=Store(tmp_path))
    estimator = registry.made("if_cg", {"max_iterations": 2}, task)
    rows, measurement = Rows("test", (1,)), Measurement()
    key = answer_key(task, estimator, rows, measurement, run)
    assert run.artifacts.find(key) is None
    first = obtained_answer(task, estimator, rows, measurement, run)
    torch.testing.assert_close(first.scores, fit(task, estimator, run).scores(rows, measurement), rtol=0, atol=0)
    assert any("2 iterations" in note and "short of the tolerance" in note for note in first.notes)
    kept = run.artifacts.find(key)
    assert kept is not None
    made = kept.meta["created"]
    again = obtained_answer(CASES["mlp"](), estimator, rows, measurement, run)
    assert torch.equal(again.scores, first.scores) and again.notes == first.notes
    found = run.artifacts.find(key)
    assert found is not None and found.meta["created"] == made
