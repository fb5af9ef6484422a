"""The linear datamodeling score on three trained models of the digits MLP: what one model's table leaves to chance.

The models differ in their seed only, and are held against the same retrained halves as ``benchmarks/lds.py``'s. On the
same weights kronfluence 1.0.1 is asked for its EK-FAC (environment of ``make test-rivals``, or ``KRONFLUENCE_PYTHON``).
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from benchmarks.lds import OPTIONS, SETTINGS, study
from benchmarks.rivals import alone, rival_python
from benchmarks.timing import Report
from influence_core import Run, Store, Task, registry
from influence_core.measurement import Measurement, Rows
from influence_core.metrics import Judging
from influence_core.metrics.intervals import mean_correlation
from influence_core.metrics.lds import predicted
from influence_core.metrics.scoring import chosen_rows, judged_measurement, true_measurement
from influence_core.metrics.truth import SubsetTruth, subset_truth

SEEDS = (0, 1, 2)
RIVAL = "kronfluence EK-FAC"
ONE_CHECKPOINT = (
    "if_exact", "if_ggn", "group_if_second_order", "if_woodbury", "if_kfac", "if_ekfac", "rps_lje",
    "infinitesimal_jackknife", "logra", "trak", "kernel_loo", "ntk_if", "grad_dot",
)  # fmt: skip
TRAJECTORY = ("magic", "sgd_influence", "source", "tracin_cp")
SEVERAL_MODELS = ("trak_ensemble",)


def run(report: Report, store: Path | None = None) -> None:
    """Report the mean score of each method over the models, and the bars that are about it."""
    with tempfile.TemporaryDirectory() as folder:
        found = measured(store or Path(folder))
    means = {name: mean(values) for name, values in found.items()}
    for name, values in sorted(found.items(), key=lambda one: -means[one[0]]):
        said = ", ".join(f"{value:.3f}" for value in values)
        report.add("lds, 3 models", name, f"{means[name]:.3f} +- {stdev(values):.3f} ({said})")
    single, path = (max(group, key=lambda name: means[name]) for group in (ONE_CHECKPOINT, TRAJECTORY))
    report.add(
        "lds, 3 models", f"{path}, above the best of one checkpoint ({single})",
        f"{means[path]:.3f} and {means[single]:.3f}", "above", means[path] > means[single],
    )  # fmt: skip
    report.add(
        "lds, 3 models", "trak_ensemble", f"{means['trak_ensemble']:.3f}", ">= .35", means["trak_ensemble"] >= 0.35
    )  # fmt: skip
    if RIVAL in means:
        ours, theirs = means["if_ekfac"], means[RIVAL]
        report.add(
            "lds, 3 models", f"if_ekfac and {RIVAL}", f"{ours:.3f} and {theirs:.3f}", "not below", ours >= theirs
        )
    else:
        report.add("lds, 3 models", RIVAL, "not run: make test-rivals, or KRONFLUENCE_PYTHON")


def measured(folder: Path) -> dict[str, list[float]]:
    """Return the scores of every method, a number per model."""
    settings, options = Run(device="cpu", store=Store(folder)), Judging.checked(OPTIONS)
    first = study("mlp")
    rows, truth = chosen_rows(first, settings, options.rows), subset_truth(first, settings, options)
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        task = study("mlp", seed)
        for name in (*ONE_CHECKPOINT, *TRAJECTORY, *SEVERAL_MODELS):
            estimator = registry.made(name, None, task)
            measurement = judged_measurement(task, estimator)
            said, _ = predicted(task, estimator, rows, measurement, truth.kept, settings)
            found.setdefault(name, []).append(_lds(said, truth, rows, true_measurement(estimator, measurement)))
        scores = _rival(task)
        if scores is not None:
            scores = scores[task.positions(rows).numpy()]
            # Its score is of a measurement that should be small, ours of one that should be large.
            said = -scores @ truth.kept.T.astype(float)
            found.setdefault(RIVAL, []).append(_lds(said, truth, rows, Measurement("margin")))
    return found


def _lds(said: np.ndarray, truth: SubsetTruth, rows: Rows, measurement: Measurement) -> float:
    return mean_correlation(said, truth.measured(rows, measurement).mean(0)).value


def _rival(task: Task) -> np.ndarray | None:
    """Return kronfluence's scores ``[n_test, n_train]`` on the model of a task; None where it is not installed."""
    python = rival_python()
    if python is None:
        return None
    (x, y), (xt, yt) = SETTINGS["mlp"].rows()
    arrays = {f"state/{key}": value.numpy() for key, value in task.state().items()}
    with tempfile.TemporaryDirectory() as name:
        np.savez(Path(name) / "input.npz", x=x, y=y, xt=xt, yt=yt, **arrays)
        script = Path(__file__).with_name("lds_rival.py")
        subprocess.run([str(python), str(script), name], check=True, capture_output=True, env=alone())
        return np.load(Path(name) / "scores.npz", allow_pickle=False)["scores"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path)
    run(Report(), parser.parse_args().store)
