"""How the cost of a fit grows with training rows, parameters and checkpoints: slopes of log time against log size."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.timing import Report, in_turn, middle
from influence_core import Run, Store, Task, registry
from influence_core.fitting import fit


def _time(n_train: int, width: int, checkpoints: int) -> tuple[int, float]:
    """Return the number of parameters and the seconds of a TracIn fit on random data."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
    x, y = torch.randn(n_train, width), torch.randint(0, 10, (n_train,))
    states = [model.state_dict() for _ in range(checkpoints)]
    # Equal weights would share one artifact: every checkpoint gets its own.
    states = [{name: value + 1e-3 * c for name, value in state.items()} for c, state in enumerate(states)]

    def fitted() -> None:
        with tempfile.TemporaryDirectory() as folder:
            task = Task(model, (x, y), (x[:1], y[:1]), checkpoints=states, learning_rates=[0.1] * checkpoints)
            fit(task, registry.made("tracin_cp"), Run(device="cpu", store=Store(Path(folder))))

    fitted()
    return sum(p.numel() for p in model.parameters()), middle(in_turn({"fit": fitted}, 3)["fit"])


def run(report: Report) -> None:
    """Measure the three slopes."""
    cases = {
        "n_train": [(n, 256, 2) for n in (4_000, 8_000, 16_000, 32_000)],
        "n_params": [(8_000, width, 2) for width in (256, 512, 1024)],
        "checkpoints": [(8_000, 256, count) for count in (2, 4, 8, 16)],
    }
    for name, settings in cases.items():
        results = [(setting, *_time(*setting)) for setting in settings]
        sizes = {"n_train": 0, "checkpoints": 2}
        xs = [parameters if name == "n_params" else setting[sizes[name]] for setting, parameters, _ in results]
        slope = np.polyfit(np.log(xs), np.log([taken for _, _, taken in results]), 1)[0]
        shown = ", ".join(f"{x:,}: {taken:.2f} s" for x, (_, _, taken) in zip(xs, results, strict=True))
        report.add(
            "scaling", f"fit against {name}: {shown}", f"slope {slope:.2f}", "linear: <= 1.15", bool(slope <= 1.15)
        )
