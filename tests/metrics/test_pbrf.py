"""The proximal Bregman response against its closed form, and damped GGN influence against the response."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from influence_core import Run, Store, Task, registry
from influence_core.errors import Unavailable
from influence_core.metrics import Judging, pbrf
from influence_core.metrics.pbrf import bregman, responses
from influence_core.primitives.losses import LOSSES
from tests.cases import convex

OPTIONS = Judging.checked({"left_out": 10, "rows": 6, "damping": 0.05})


def test_squared_error_of_a_linear_model_has_a_closed_form(tmp_path: Path) -> None:
    """The objective is quadratic: (G - (1/n) H_i + lam I) step = g_i / n, with the gradient *taken away*."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(15, 3, generator=generator).double(), torch.randn(15, generator=generator).double()
    tests, weight, lam = torch.randn(4, 3, generator=generator).double(), torch.tensor([[0.3, -1.0, 0.5]]), 0.1
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)  # not the minimum: the response is about the model as it is
    task = Task(layer, (x, y), (tests, torch.zeros(4).double()), "mse")
    before, after = responses(task, [0, 7], lam, Run(store=Store(tmp_path)))
    w = layer.weight.detach().double()[0]
    torch.testing.assert_close(before[:, 0], tests @ w)
    for place, i in enumerate((0, 7)):
        gradient = 2 * (x[i] @ w - y[i]) * x[i]
        curvature = 2 / 15 * (x.T @ x - torch.outer(x[i], x[i])) + lam * torch.eye(3).double()
        step = torch.linalg.solve(curvature, gradient / 15)
        torch.testing.assert_close(after[place][:, 0], tests @ (w + step), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["cross_entropy", "bce", "mse"])
def test_the_divergence_is_the_bregman_divergence_of_the_loss(name: str) -> None:
    """Loss at f, minus loss at the current outputs, minus its slope there, with the label cancelled by convexity."""
    generator = torch.Generator().manual_seed(1)
    width = 3 if name == "cross_entropy" else 1
    f, at = torch.randn(2, 5, width, generator=generator).double()
    loss, at = LOSSES[name], at.requires_grad_()
    targets = torch.tensor([0, 1, 1, 0, 1]) if name == "cross_entropy" else torch.tensor([0.0, 1, 1, 0, 1]).double()
    start = loss.from_outputs(at, targets)
    (slope,) = torch.autograd.grad(start.sum(), at)
    expected = loss.from_outputs(f, targets) - start - ((f - at) * slope).sum(1)
    found = bregman(loss, f, at)
    torch.testing.assert_close(found, expected.detach().to(found), rtol=1e-9, atol=1e-12, check_dtype=False)
    assert (found > 0).all() and F.relu(-bregman(loss, at, at)).max() == 0


def test_damped_ggn_influence_is_its_first_order(tmp_path: Path) -> None:
    task, run = convex(), Run(dtype=torch.float64, store=Store(tmp_path))
    methods = [registry.made("if_ggn", {"damping": 0.05}), registry.made("grad_dot"), registry.made("loss")]
    table = pbrf(task, methods, run, None, OPTIONS).set_index(["method", "figure"])
    assert table.loc[("if_ggn", "spearman"), "value"] > 0.95
    assert table.loc[("if_ggn", "spearman"), "value"] > table.loc[("grad_dot", "spearman"), "value"] + 0.05
    assert table.loc[("if_ggn", "pearson"), "note"] == "loss; 10 rows, damping 0.05"
    assert "no score for a pair of rows" in table.loc[("loss", "not measured"), "note"]
    assert np.isfinite(table.loc["if_ggn"]["low"]).all() and (table.loc["if_ggn"]["ceiling"] == 1).all()


def test_a_loss_of_unknown_outputs_is_refused() -> None:
    task = convex()
    data = task.split("train").batch(slice(None)), task.split("test").batch(slice(None))

    def own(model, batch):
        return F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")

    bare = Task(nn.Linear(4, 3), *data, own)
    with pytest.raises(Unavailable, match="It needs a trained model and a built-in loss"):
        pbrf(bare, [registry.made("grad_dot")], Run(), None, OPTIONS)
