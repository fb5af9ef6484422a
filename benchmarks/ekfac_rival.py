# ruff: noqa: B023 - what is defined within a loop runs within it
"""kronfluence on the benchmark's data, run by its own Python: ``python ekfac_rival.py FOLDER network``.

Stands alone: imports nothing of this project, reads ``input.npz`` and writes ``scores.npz`` and ``seconds.json``.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

BATCH = 500


def network(kind: str) -> nn.Module:
    """Return the benchmark's MLP or CNN."""
    if kind == "mlp":
        return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def measured_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed loss of test rows."""
    return F.cross_entropy(logits, labels, reduction="sum")


def opened(
    folder: Path, model: nn.Module, measure: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = measured_loss
) -> tuple[Any, TensorDataset, TensorDataset]:
    """Return kronfluence's analyzer of the rows and weights in ``input.npz``, and the rows."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            logits = model(batch[0])
            labels = batch[1]
            if sample:
                labels = torch.multinomial(logits.detach().softmax(1), 1).flatten()
            return F.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            return measure(model(batch[0]), batch[1])

    given = np.load(folder / "input.npz", allow_pickle=False)
    x, y, xt, yt = (torch.from_numpy(given[name]) for name in ("x", "y", "xt", "yt"))
    model.load_state_dict({name: torch.from_numpy(given[f"state/{name}"]) for name in model.state_dict()})
    task = Classification()
    analyzer = Analyzer(
        "ekfac", prepare_model(model.eval(), task), task, cpu=True, output_dir=str(folder), disable_model_save=True
    )
    return analyzer, TensorDataset(x, y), TensorDataset(xt, yt)


def main() -> None:
    """Fit, answer all queries, one query, and the self-influence of all rows."""
    from kronfluence.arguments import FactorArguments, ScoreArguments

    folder, kind = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    analyzer, train, test = opened(folder, network(kind))
    damping = float(np.load(folder / "input.npz", allow_pickle=False)["damping"])
    one = torch.utils.data.Subset(test, [0])
    times: dict[str, list[float]] = {}
    scores: dict[str, np.ndarray] = {}

    def timed(name: str, call: Callable[[], Any], rounds: int = 1) -> None:
        """Keep the medians of wall and processor seconds."""
        taken = []
        for _ in range(rounds):
            started = time.perf_counter(), time.process_time()
            call()
            taken.append((time.perf_counter() - started[0], time.process_time() - started[1]))
        times[name] = [statistics.median(part) for part in zip(*taken, strict=True)]

    for empirical in (False, True):
        name = "true" if empirical else "sampled"
        torch.manual_seed(0)
        factors = FactorArguments(strategy="ekfac", use_empirical_fisher=empirical)
        scored = ScoreArguments(damping_factor=damping)
        timed(
            f"fit {name}",
            lambda name=name, factors=factors: analyzer.fit_all_factors(
                name, train, per_device_batch_size=BATCH, factor_args=factors, overwrite_output_dir=True
            ),
        )

        def pairs(query: Any, label: str) -> None:
            analyzer.compute_pairwise_scores(
                label, name, query, train, per_device_query_batch_size=min(len(query), 100),
                per_device_train_batch_size=BATCH, score_args=scored, overwrite_output_dir=True,
            )  # fmt: skip

        timed(f"pairs {name}", lambda: pairs(test, f"pairs-{name}"))
        scores[name] = analyzer.load_pairwise_scores(f"pairs-{name}")["all_modules"].numpy()
        if not empirical:
            timed("query", lambda: pairs(one, "query"), 3)
            timed(
                "self",
                lambda name=name: analyzer.compute_self_scores(
                    "self",
                    name,
                    train,
                    per_device_train_batch_size=BATCH,
                    score_args=scored,
                    overwrite_output_dir=True,
                ),
            )
            scores["self"] = analyzer.load_self_scores("self")["all_modules"].numpy()
    np.savez(folder / "scores.npz", **scores)
    (folder / "seconds.json").write_text(json.dumps(times))


if __name__ == "__main__":
    main()
