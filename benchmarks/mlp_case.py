"""Exact all-layer TracIn on an MLP 784-128-64-10, 5,000 x 500, one checkpoint, beyond forward and backward passes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import Report, cpu_seconds, middle
from influence_core import Run, Store, Task, attribute
from influence_core.examples import Batch
from influence_core.primitives.losses import LOSSES

N_TRAIN, N_TEST, BATCH = 5000, 500, 500


def network() -> nn.Module:
    """Return the MLP of 109,386 parameters."""
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


def run(report: Report) -> None:
    """Measure processor seconds beyond the passes over train and test rows."""
    torch.manual_seed(0)
    x, y = torch.randn(N_TRAIN + N_TEST, 784), torch.randint(0, 10, (N_TRAIN + N_TEST,))
    model, loss = network(), LOSSES["cross_entropy"]

    def passes() -> None:
        for start in range(0, len(x), BATCH):
            model.zero_grad(set_to_none=True)
            loss(model, Batch(x[start : start + BATCH], y[start : start + BATCH])).sum().backward()

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            task = Task(
                model, (x[:N_TRAIN], y[:N_TRAIN]), (x[N_TRAIN:], y[N_TRAIN:]),
                checkpoints=[model.state_dict()], learning_rates=[1.0],
            )  # fmt: skip
            settings = Run(device="cpu", batch_size=BATCH, store=Store(Path(folder)))
            attribute(task, "tracin_cp", list(range(N_TEST)), run=settings)

    for call in (passes, whole):
        call()
    base = middle([cpu_seconds(passes)[0] for _ in range(5)])
    total = middle([cpu_seconds(whole)[0] for _ in range(5)])
    report.add("mlp", "forward and backward passes, 5,500 rows", f"{base:.2f} CPU-s")
    report.add(
        "mlp",
        "5,000 x 500 exact scores, beyond the passes",
        f"{total - base:.2f} CPU-s",
        "<= 0.5 CPU-s",
        total - base <= 0.5,
    )
