"""RelatIF against the definition, its bound, and the trap of an indefinite curvature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from influence_core import registry
from influence_core.api import attribute, fit, self_influence
from influence_core.errors import BadInput, Unavailable
from influence_core.measurement import Rows
from influence_core.run import Run
from influence_core.store import Store
from influence_core.task import Task
from tests.cases import CASES, N_TRAIN
from tests.oracles.curvature import ggn
from tests.oracles.gradients import BUILTIN, loop_gradients, stacked

F64 = torch.float64
EXACT = {"rtol": 1e-9, "atol": 1e-12}
DAMPING = 0.05
BOTH = pytest.mark.parametrize("method", ["relatif_loss", "relatif_theta"])


def run_in(folder: Path, **more: Any) -> Run:
    return Run(device="cpu", dtype=F64, store=Store(folder), **more)


def dense(task: Task) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of train and test, and the inverse curvature."""
    model = task.model_at(-1, "cpu", F64)
    train, test = (task.split(name).batch(slice(None), "cpu", F64) for name in ("train", "test"))
    names = [name for name, _ in model.named_parameters()]
    g, gt = (stacked(loop_gradients(model, BUILTIN[task.loss.name], *batch), names) for batch in (train, test))
    matrix = ggn(model, model(train.inputs), train.targets, task.loss.name) / N_TRAIN
    return g, gt, torch.linalg.inv(matrix + DAMPING * torch.eye(len(matrix), dtype=F64))


@pytest.mark.parametrize("method", ["relatif_loss", "relatif_theta", "renorm_if"])
@pytest.mark.parametrize("case", ["mlp", "regression", "transformer"])
def test_equals_the_definition(method: str, case: str, tmp_path: Path) -> None:
    task = CASES[case]()
    g, gt, inverse = dense(task)
    moved = g @ inverse
    length = {"relatif_theta": moved, "renorm_if": g}.get(method)
    length = (moved * g).sum(1).sqrt() if length is None else length.norm(dim=1)
    run, config = run_in(tmp_path), {"damping": DAMPING}
    found = attribute(task, method, range(task.n_test), config=config, run=run).scores
    torch.testing.assert_close(found, gt @ moved.T / length, **EXACT)
    own = self_influence(task, method, config=config, run=run)
    torch.testing.assert_close(own, (moved * g).sum(1) / length, **EXACT)


def test_the_loss_form_is_bounded_and_met_by_a_duplicate(tmp_path: Path) -> None:
    task = CASES["mlp"]()
    g, gt, inverse = dense(task)
    run, config = run_in(tmp_path), {"damping": DAMPING}
    bound = (gt @ inverse * gt).sum(1).sqrt()
    found = attribute(task, "relatif_loss", range(task.n_test), config=config, run=run).scores
    assert bool((found.abs() <= bound[:, None] * (1 + 1e-12)).all())
    square = attribute(task, "relatif_loss", Rows("train", tuple(range(N_TRAIN))), config=config, run=run).scores
    torch.testing.assert_close(square.diagonal(), (g @ inverse * g).sum(1).sqrt(), **EXACT)
    assert bool((square.argmax(1) == torch.arange(N_TRAIN)).all())  # no row speaks for another better than itself


@BOTH
def test_ekfac_gives_the_ratios_of_if_ekfac(method: str, tmp_path: Path) -> None:
    task, run = CASES["cnn_inplace"](), run_in(tmp_path)
    config = {"damping": DAMPING, "curvature": "ekfac"}
    found = attribute(task, method, range(task.n_test), config=config, run=run).scores
    plain = attribute(task, "if_ekfac", range(task.n_test), config={"damping": DAMPING}, run=run).scores * N_TRAIN
    ratio = plain / found
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-8, atol=0)
    if method == "relatif_loss":
        own = self_influence(task, "if_ekfac", config={"damping": DAMPING}, run=run) * N_TRAIN
        torch.testing.assert_close(ratio[0], own.sqrt(), rtol=1e-8, atol=0)


def test_there_is_no_hessian_to_choose_and_the_factorisation_is_shared(tmp_path: Path) -> None:
    task, stages = CASES["mlp"](), []
    with pytest.raises(BadInput):  # its radicand could be negative
        attribute(task, "relatif_loss", [0], config={"curvature": "hessian"}, run=run_in(tmp_path))
    with pytest.raises(Unavailable, match="custom loss"):
        registry.made("relatif_loss", {}, task).fit(CASES["custom_loss"](), run_in(tmp_path))
    run = run_in(tmp_path, progress=lambda stage, done, total: stages.append(stage))
    fit(task, registry.made("if_exact", {"damping": 0.1}), run)
    stages.clear()
    fit(CASES["mlp"](), registry.made("relatif_theta", {"damping": 0.2}), run)
    assert stages == []


def test_a_row_without_gradient_moves_nothing(tmp_path: Path) -> None:
    from influence_core.primitives.sides import Dense
    from influence_core.primitives.spectrum import DiagonalBlock, Spectrum, damped_inverse

    spectrum = Spectrum([DiagonalBlock(torch.tensor([0.0, 1.0], dtype=F64))])
    zero = [Dense(torch.zeros(1, 2, dtype=F64))]
    assert float(spectrum.quadratic(zero, damped_inverse(0.1))) == 0
    task, run = CASES["mlp"](), run_in(tmp_path)
    fitted: Any = fit(task, registry.made("relatif_loss", {"damping": 0.1}), run)
    fitted.memo["weights"] = torch.zeros(N_TRAIN, dtype=F64)
    assert not bool(fitted.scores(Rows("test", (0,))).any())
