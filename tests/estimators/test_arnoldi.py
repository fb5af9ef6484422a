"""Ritz pairs against eigenpairs, whole and truncated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from influence_core import registry
from influence_core.curvature_cache import Curvature
from influence_core.fitting import fit
from influence_core.gradient_cache import GradientSpec, TrainGradients
from influence_core.measurement import Rows
from influence_core.primitives.solvers import ritz_pairs
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, normal


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def scores(task: Task, method: str, folder: Path, **options: Any) -> Tensor:
    rows = Rows("test", tuple(task.ids("test").tolist()))
    return fit(task, registry.made(method, options), run_in(folder)).scores(rows)


def test_all_steps_give_the_eigenpairs() -> None:
    a = normal(12, 12, seed=1)
    a = a @ a.T
    *_, (values, vectors) = ritz_pairs(lambda v: a @ v, normal(12, seed=2), 12)
    expected = torch.linalg.eigh(a)
    torch.testing.assert_close(values, expected.eigenvalues, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close((vectors * expected.eigenvectors).sum(0).abs(), torch.ones(12).double())
    few = list(ritz_pairs(lambda v: a @ v, normal(12, seed=2), 6))
    assert len(few) == 6 and float(few[-1][0][-1]) == pytest.approx(float(expected.eigenvalues[-1]), rel=0.05)


def test_all_directions_are_the_exact_inverse(tmp_path: Path) -> None:
    task = CASES["convex"]()
    exact = scores(task, "if_exact", tmp_path, damping=0.01)
    found = scores(task, "if_arnoldi", tmp_path, damping=0.01, iterations=500, top=500)
    # Directions without curvature (a softmax has some) are left out here; the gradients have no part in them.
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-10 * float(exact.abs().max()))


def test_few_directions_are_the_truncated_inverse(tmp_path: Path) -> None:
    task, run = CASES["mlp"](), run_in(tmp_path)
    cache = TrainGradients(task, run, GradientSpec(task.n_checkpoints - 1))
    artifact = Curvature(task, run, cache.plan, "ggn").factorised()
    values, vectors = artifact.tensor("values")[-7:], artifact.tensor("vectors")[:, -7:]
    batches = [task.split(s).batch(slice(None), "cpu", torch.float64) for s in ("train", "test")]
    train, test = (torch.cat([side.dense() for side in cache.query(b, task.loss)], 1) for b in batches)
    expected = (test @ vectors / values) @ (train @ vectors).T / task.n_train
    found = scores(task, "if_arnoldi", tmp_path, iterations=2_000, top=7)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))
    assert not torch.allclose(scores(task, "if_exact", tmp_path, damping=0.01), found, rtol=0.1)
