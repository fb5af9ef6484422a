"""Influence on a margin and on a gap between groups, against refits and written-out gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from influence_core import registry
from influence_core.errors import BadInput
from influence_core.fitting import fit
from influence_core.measurement import Measurement, Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.workflows.measures import class_margin, gap_influence
from tests.cases import CASES, WEIGHT_DECAY
from tests.oracles.refits import softmax_fit

EPS = 1e-4  # by how much a row becomes lighter: the derivative itself, to four digits


def run_in(folder: Path) -> Run:
    return Run(device="cpu", dtype=torch.float64, store=Store(folder))


def refits() -> tuple[Tensor, list[Tensor], Tensor]:
    """Weights with all rows and with each a little lighter, and the test inputs with a 1."""
    task = CASES["convex"]()
    x, y = (task.split("train").batch(slice(None), "cpu", torch.float64)[k] for k in (0, 1))
    xt = task.split("test").batch(slice(None), "cpu", torch.float64).inputs
    n, start = len(y), torch.zeros(3, x.shape[1] + 1, dtype=torch.float64)
    even = torch.full((n,), 1 / n, dtype=torch.float64)
    whole = softmax_fit(x, y, even, WEIGHT_DECAY, 3, start)
    without = []
    for i in range(n):
        weights = even.clone()
        weights[i] *= 1 - EPS
        without.append(softmax_fit(x, y, weights, WEIGHT_DECAY, 3, whole))
    return whole, without, torch.cat([xt, torch.ones(len(xt), 1, dtype=torch.float64)], 1)


def agree(found: Tensor, before: Tensor, after: Tensor) -> None:
    truth = (before - after) / EPS
    torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-5 * float(truth.abs().max()))


def test_a_margin_between_two_classes_is_that_of_refits(tmp_path: Path) -> None:
    task, (whole, without, at) = CASES["convex"](), refits()
    exact = fit(task, registry.made("if_exact", {"damping": 0.0}), run_in(tmp_path))
    found = exact.scores(Rows("test", (task.ids("test").tolist()[0],)), Measurement(class_margin(0, 2)))[0]
    margins = torch.stack([(at[0] @ w.T)[0] - (at[0] @ w.T)[2] for w in (whole, *without)])
    agree(found, margins[0], margins[1:])


def test_a_gap_between_groups_is_that_of_refits(tmp_path: Path) -> None:
    task, (whole, without, at) = CASES["convex"](), refits()
    ids = task.ids("test").tolist()
    one, other = Rows("test", tuple(ids[:3])), Rows("test", tuple(ids[3:]))
    exact = fit(task, registry.made("if_exact", {"damping": 0.0}), run_in(tmp_path))
    found = gap_influence(exact, one, other, Measurement("probability", 1))
    gaps = []
    for w in (whole, *without):
        p = (at @ w.T).softmax(1)[:, 1]
        gaps.append(p[:3].mean() - p[3:].mean())
    agree(found, torch.stack(gaps)[0], torch.stack(gaps)[1:])


def test_groups_and_classes_that_are_none_are_refused(tmp_path: Path) -> None:
    task = CASES["convex"]()
    dots = fit(task, registry.made("grad_dot"), run_in(tmp_path))
    ids = task.ids("test").tolist()
    for one, other in ((ids[:2], ids[1:3]), ([], ids[:1])):
        with pytest.raises(BadInput, match="no gap"):
            gap_influence(dots, Rows("test", tuple(one)), Rows("test", tuple(other)), Measurement())
    with pytest.raises(BadInput, match="no margin"):
        class_margin(1, 1)
