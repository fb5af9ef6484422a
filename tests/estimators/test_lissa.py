"""The sum over batches against dense solves, and the traps of its scale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from influence_core import registry
from influence_core.errors import NumericalProblem
from influence_core.fitting import fit
from influence_core.measurement import Rows
from influence_core.primitives.solvers import neumann
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, normal


def fitted(task: Task, method: str, folder: Path, seed: int = 0, **options: Any) -> Any:
    run = Run(device="cpu", dtype=torch.float64, seed=seed, store=Store(folder))
    return fit(task, registry.made(method, options), run)


def rows(task: Task, n: int = 3) -> Rows:
    return Rows("test", tuple(task.ids("test").tolist()[:n]))


def test_the_sum_over_all_rows_is_the_inverse_whatever_the_scale(tmp_path: Path) -> None:
    """The effective damping is the one that was given: the official code's would be multiplied by the scale."""
    task = CASES["mlp"]()
    exact = fitted(task, "if_exact", tmp_path, damping=1.0).scores(rows(task))
    for scale in (None, 20.0):
        found = fitted(task, "if_lissa", tmp_path, damping=1.0, depth=400, scale=scale)
        torch.testing.assert_close(found.scores(rows(task)), exact, rtol=1e-6, atol=1e-9 * float(exact.abs().max()))
        assert found.residual < 1e-6
        assert "Effective damping 1" in found.notes[0]


def test_partial_sums_are_the_series() -> None:
    a = normal(6, 6, seed=1)
    a = a @ a.T / 6 + 0.5 * torch.eye(6, dtype=torch.float64)
    b = normal(2, 6, seed=2)
    sums = list(neumann(lambda v: v @ a, b, 4.0, 400))
    expected, term = torch.zeros_like(b), b.clone()
    for _ in range(4):
        expected, term = expected + term / 4, term - term @ a / 4
    torch.testing.assert_close(sums[2], expected)
    torch.testing.assert_close(sums[-1], torch.linalg.solve(a, b.T).T, rtol=1e-10, atol=1e-12)
    with pytest.raises(NumericalProblem, match="larger scale"):
        list(neumann(lambda v: v @ a, b, 0.1, 400))


def test_drawn_batches_come_near_and_the_notes_say_how_near(tmp_path: Path) -> None:
    task = CASES["convex"]()
    exact = fitted(task, "if_exact", tmp_path, damping=0.05).scores(rows(task))
    found = fitted(task, "if_lissa", tmp_path, damping=0.05, sample=8, depth=400, repeats=2)
    scores = found.scores(rows(task))
    assert float(torch.corrcoef(torch.stack([scores.flatten(), exact.flatten()]))[0, 1]) > 0.9
    assert not torch.allclose(scores, exact, rtol=1e-3)
    assert 1e-4 < found.residual < 1.0 and f"{found.residual:.2g}" in found.notes[-1]
    torch.testing.assert_close(found.scores(rows(task)), scores, rtol=0, atol=0)  # the same draws again
    other = fitted(task, "if_lissa", tmp_path, seed=5, damping=0.05, sample=8, depth=400, repeats=2)
    assert not torch.allclose(other.scores(rows(task)), scores)


def test_a_scale_too_small_is_refused(tmp_path: Path) -> None:
    task = CASES["convex"]()
    with pytest.raises(NumericalProblem, match="diverges"):
        fitted(task, "if_lissa", tmp_path, scale=1e-3).scores(rows(task))
