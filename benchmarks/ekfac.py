"""EK-FAC against kronfluence 1.0.1: fitting, a further query, self-influence of all rows, and what they say.

The reference lives in the environment of ``make test-rivals``; ``KRONFLUENCE_PYTHON`` names another Python that has it.
Without one only our own times are measured. Both run on one thread each, in turn in the same run, and the ratios are of
processor seconds, which neighbours on the machine disturb least; wall times stand beside them. Its query is its
pairwise-score call for one row with fitted factors, ours a row that was not asked before, with the app's caches warm.
Two models: the MLP 784-128-64-10 on 5,000 x 500 random rows, and the CNN of the reference case on MNIST.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.ekfac_rival import BATCH, network
from benchmarks.reference_case import reference_case
from benchmarks.rivals import alone, rival_python
from benchmarks.timing import Report, cpu_seconds, middle, seconds, single_thread
from influence_core import Run, Store, Task, attribute, registry, self_influence
from influence_core.fitting import fit

DAMPING = 1e-3
ROUNDS = 3
Times = dict[str, list[tuple[float, float]]]  # wall and processor seconds


@dataclass
class Case:
    """A model with its rows."""

    kind: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    state: dict[str, Tensor]

    def task(self) -> Task:
        """Return a new task, with nothing remembered."""
        return Task(lambda: network(self.kind), self.train, self.test, checkpoints=[self.state], learning_rates=[1.0])


def mlp_case() -> Case:
    """Return random rows: the speed test of other engines."""
    torch.manual_seed(0)
    x, y = torch.randn(5500, 784), torch.randint(0, 10, (5500,))
    return Case("mlp", (x[:5000], y[:5000]), (x[5000:], y[5000:]), network("mlp").state_dict())


def cnn_case() -> Case:
    """Return the trained CNN of the reference case on fewer rows: the rival needs its minutes."""
    whole = reference_case()
    train, test = ((part[0][:n], part[1][:n]) for part, n in ((whole.train, 1000), (whole.test, 50)))
    return Case("cnn", train, test, whole.states[-1])


def run(report: Report) -> None:
    """Measure both models."""
    for case in (mlp_case(), cnn_case()):
        with tempfile.TemporaryDirectory() as name, single_thread():
            _case(report, case, Path(name))


def _timed(times: Times, name: str, call: Callable[[], Any]) -> None:
    wall, (cpu, _) = seconds(lambda: cpu_seconds(call))
    times.setdefault(name, []).append((wall, cpu))


def _case(report: Report, case: Case, folder: Path) -> None:
    times: Times = {}
    ours = _ours(case, folder / "before", times)
    rival = _rival(case, folder)
    _ours(case, folder / "after", times)
    found = {name: tuple(middle(list(part)) for part in zip(*values, strict=True)) for name, values in times.items()}
    for name, (wall, cpu) in found.items():
        report.add(f"ekfac {case.kind}", f"ours: {name}", f"{cpu:.3f} CPU-s ({wall:.3f} s)")
    if rival is None:
        report.add(f"ekfac {case.kind}", "kronfluence", "not run: make test-rivals, or KRONFLUENCE_PYTHON")
        return
    theirs, scores = rival
    bars = (("fit sampled", "fit sampled", 5), ("fit", "fit sampled", 5), ("query", "query", 50), ("self", "self", 50))
    for mine, other, bar in bars:
        (wall, cpu), (its_wall, its_cpu) = found[mine], theirs[other]
        ratio = its_cpu / cpu
        held = mine != "fit"
        report.add(
            f"ekfac {case.kind}",
            f"kronfluence / ours: {mine}{'' if held else ' (exact labels)'}",
            f"{its_cpu:.2f} / {cpu:.4f} CPU-s = {ratio:.1f} x (wall {its_wall / wall:.1f} x)",
            f">= {bar} x" if held else "",
            ratio >= bar if held else None,
        )
    for labels, other in (("true", "true"), ("sampled", "sampled"), ("exact", "sampled")):
        rank = _spearman(ours[labels], torch.from_numpy(scores[other]))
        # Its drawn labels make it differ from itself as much, under another seed: tests/rivals/test_kronfluence.py.
        held = labels == "true"
        report.add(
            f"ekfac {case.kind}",
            f"Spearman, our '{labels}' labels with its '{other}' ones",
            f"{rank:.4f}",
            ">= .99" if held else "",
            rank >= 0.99 if held else None,
        )


def _ours(case: Case, folder: Path, times: Times) -> dict[str, Tensor]:
    settings = Run(device="cpu", batch_size=BATCH, store=Store(folder))
    scores: dict[str, Tensor] = {}
    for labels in ("exact", "sampled", "true"):
        task, options = case.task(), {"labels": labels, "damping": DAMPING}
        fresh = Run(device="cpu", batch_size=BATCH, store=Store(folder / labels))
        name = "fit" if labels == "exact" else f"fit {labels}"
        _timed(times, name, lambda: fit(task, registry.made("if_ekfac", options), fresh))  # noqa: B023
        every = list(range(len(case.test[1])))
        scores[labels] = attribute(task, "if_ekfac", every, config=options, run=fresh).scores
    task, options = case.task(), {"damping": DAMPING}
    fit(task, registry.made("tracin_cp"), settings)
    _timed(times, "fit after tracin_cp", lambda: fit(task, registry.made("if_ekfac", options), settings))
    attribute(task, "if_ekfac", [0], config=options, run=settings)
    for row in range(1, 21):
        _timed(times, "query", lambda: attribute(task, "if_ekfac", [row], config=options, run=settings))  # noqa: B023
    for round_ in range(ROUNDS):  # another damping each time: the answer is not in the store
        other = {"damping": DAMPING * (2 + round_)}
        fit(task, registry.made("if_ekfac", other), settings)
        _timed(times, "self", lambda: self_influence(task, "if_ekfac", config=other, run=settings))  # noqa: B023
    return scores


def _rival(case: Case, folder: Path) -> tuple[dict[str, list[float]], Any] | None:
    python = rival_python()
    if python is None:
        return None
    arrays = {f"state/{name}": value.numpy() for name, value in case.state.items()}
    (x, y), (xt, yt) = case.train, case.test
    np.savez(folder / "input.npz", x=x, y=y, xt=xt, yt=yt, damping=DAMPING, **arrays)
    script = Path(__file__).with_name("ekfac_rival.py")
    subprocess.run([str(python), str(script), str(folder), case.kind], check=True, capture_output=True, env=alone())
    return json.loads((folder / "seconds.json").read_text()), np.load(folder / "scores.npz", allow_pickle=False)


def _spearman(ours: Tensor, theirs: Tensor) -> float:
    """Return the mean rank correlation over queries."""
    ranks = [values.double().argsort(1).argsort(1).double() for values in (ours, theirs)]
    a, b = (values - values.mean(1, keepdim=True) for values in ranks)
    return float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean())
