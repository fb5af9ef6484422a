"""Into how many segments SOURCE should cut training: LDS on small studies of ``benchmarks/damping.py``.

The default of ``source`` was chosen here: five checkpoints evenly over the training, in 1, 2, 3 and 5 segments, with
the whole Gauss-Newton matrix and with EK-FAC, beside the influence function at the last checkpoint.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.checkpointed import checkpointed
from benchmarks.damping import SETTINGS, Truth, lds, rows_of, truth
from benchmarks.timing import Report
from influence_core import Rows, Run, Store, Task, attribute

STUDIES = (
    ("digits", 1), ("digits, 10 epochs", 0), ("digits, 100 epochs", 0), ("digits, L2 1e-3", 0), ("breast-cancer", 0),
    ("wine", 1), ("wine", 2), ("diabetes", 1), ("diabetes", 2), ("iris", 1), ("friedman", 1),
)  # fmt: skip
SEGMENTS = (1, 2, 3, 5)


def run(report: Report) -> None:
    """Report a line per study and curvature."""
    for name, seed in STUDIES:
        found = recorded(name, seed)
        with tempfile.TemporaryDirectory() as folder:
            settings = Run(device="cpu", store=Store(Path(folder)))
            end = _scored(found, "if_ggn", settings)
            for curvature in ("exact", "ekfac"):
                by_parts = [
                    _scored(found, "source", settings, segments=parts, curvature=curvature) for parts in SEGMENTS
                ]
                said = ", ".join(f"{value:.3f}" for value in by_parts)
                report.add(
                    f"{name}, seed {seed}", f"source ({curvature}) in {SEGMENTS} segments; if_ggn", f"{said}; {end:.3f}"
                )


def recorded(name: str, seed: int) -> Truth:
    """Return a study's truth, its task with five checkpoints of the training."""
    setting, found = SETTINGS[name], truth(name, seed)
    marks = tuple(round(setting.recipe.epochs * part / 5) for part in range(1, 6))
    recipe = setting.recipe.changed(seed=seed, checkpoints=marks)
    train, test = rows_of(setting, seed)
    states, rates = checkpointed(setting.network, train, recipe, setting.loss)
    task = Task(setting.network, train, test, setting.loss, checkpoints=states, learning_rates=rates, recipe=recipe)
    return replace(found, task=task)


def _scored(found: Truth, method: str, settings: Run, **options: object) -> float:
    query = Rows("test", tuple(range(found.task.n_test)))
    answer = attribute(found.task, method, query, config=options, measurement=found.measurement, run=settings)
    return lds(answer.scores, found)


if __name__ == "__main__":
    run(Report())
