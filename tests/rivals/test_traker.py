"""TRAK without a projection beside traker 0.3.2, up to the rescaling that it does."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from influence_core import Rows, Run, Store, Task, registry
from influence_core.fitting import fit
from influence_core.measurement import Measurement
from tests.cases import integers, made, normal

NEEDS = "trak"

N, M, RIDGE = 60, 7, 0.5


def net() -> nn.Module:
    return made(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), 0)


def test_without_a_projection_it_is_traker_up_to_one_factor(tmp_path: Path) -> None:
    from trak import TRAKer
    from trak.projectors import NoOpProjector

    x, y, xt, yt = normal(N, 4, seed=1), integers(3, N, seed=2), normal(M, 4, seed=3), integers(3, M, seed=4)
    task = Task(net, (x, y), (xt, yt), checkpoints=[net().state_dict()])
    fitted = fit(
        task,
        registry.made("trak", {"projection": None, "ridge": RIDGE}),
        Run(device="cpu", dtype=torch.float64, store=Store(tmp_path / "ours")),
    )
    ours = fitted.scores(Rows("test", tuple(range(M))), Measurement("margin"))

    model = net().float().eval()
    size = sum(parameter.numel() for parameter in model.parameters())
    # It divides features by the root of the number of parameters, so that its ridge is in other units.
    rival = TRAKer(
        model, "image_classification", N, save_dir=str(tmp_path / "theirs"), device="cpu", use_half_precision=False,
        projector=NoOpProjector(device="cpu"), lambda_reg=RIDGE / size,
    )  # fmt: skip
    rival.load_checkpoint(model.state_dict(), model_id=0)
    rival.featurize((x.float(), y), num_samples=N)
    rival.finalize_features()
    rival.start_scoring_checkpoint("test", model.state_dict(), model_id=0, num_targets=M)
    rival.score((xt.float(), yt), num_samples=M)
    theirs = torch.tensor(rival.finalize_scores("test")).double().T

    assert theirs.shape == ours.shape == (M, N)
    factor = float((ours * theirs).sum() / theirs.square().sum())
    assert factor > 0  # the same sign: positive = proponent
    assert float((ours - factor * theirs).abs().max()) < 1e-4 * float(ours.abs().max())
