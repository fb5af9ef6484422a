"""kronfluence's EK-FAC on the MLP of the LDS study, run by its own Python: ``python lds_rival.py FOLDER``.

Reads ``input.npz`` and writes ``scores.npz``: influence on the margin of the test rows, its automatic damping, labels
drawn for its factors. Imports nothing of this project but the script beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from ekfac_rival import opened
from torch import nn


def margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the summed difference between the true class's logit and the log of the other classes' sum."""
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (true[:, 0] - others.logsumexp(1)).sum()


def main() -> None:
    """Fit and answer all queries."""
    from kronfluence.arguments import FactorArguments, ScoreArguments

    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    analyzer, train, test = opened(folder, nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), margin)
    analyzer.fit_all_factors("f", train, per_device_batch_size=400, factor_args=FactorArguments(strategy="ekfac"))
    analyzer.compute_pairwise_scores(
        "pairs", "f", test, train, per_device_query_batch_size=100, per_device_train_batch_size=400,
        score_args=ScoreArguments(damping_factor=None),
    )  # fmt: skip
    np.savez(folder / "scores.npz", scores=analyzer.load_pairwise_scores("pairs")["all_modules"].numpy())


if __name__ == "__main__":
    main()
