"""Importing a Parquet file of a million rows and 11 columns, beside reading and rewriting it with pyarrow.

The bar holds for what both do with the rows; training a model on them is told apart. A worker that has imported before
is measured, as pyarrow is: loading the libraries is in neither time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.timing import Report

N_ROWS = 1_000_000
MOST_BYTES = 2 << 30  # resident, of the whole process
_TIMES = 3.0
_TURNS = 4  # of both, one after the other: the best of each counts

# Runs in a process of its own, so that its memory is its own; training is told apart from the rest.
_IMPORT = """
import json, resource, sys, time
from pathlib import Path
from influence_core.readers import guessed_roles, import_table, open_source
from influence_core.run import Run

spent, last = {}, ["starting", time.perf_counter()]
def progress(stage, done, total):
    now = time.perf_counter()
    spent[last[0]] = spent.get(last[0], 0.0) + now - last[1]
    last[:] = ["training" if stage.startswith("training") else "rows", now]

def imported(file, out, run):
    with open_source(file, run) as source:
        import_table(source, guessed_roles(source, "label"), Path(out), run)

imported(sys.argv[1], sys.argv[3], Run(device="cpu"))
start = last[1] = time.perf_counter()
imported(sys.argv[2], sys.argv[4], Run(device="cpu", progress=progress))
seconds = time.perf_counter() - start
progress("end", 1, 1)
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "training": spent.get("training", 0.0), "most": most}))
"""


@dataclass(frozen=True)
class Import:
    """What an import took: seconds, those of them that trained the model, most resident bytes."""

    seconds: float
    training: float
    most: float


def write_rows(path: Path, n_rows: int = N_ROWS) -> None:
    """Write numbers, words, dates and a label of two classes as a Parquet file."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw = np.random.default_rng(0)
    values, weights = draw.normal(size=(n_rows, 8)), draw.normal(size=8)
    colour = draw.choice(["red", "green", "blue", "black"], n_rows)
    label = values @ weights + 0.5 * (colour == "red") + draw.normal(size=n_rows) > 0
    days = np.datetime64("2020-01-01") + draw.integers(0, 1000, n_rows).astype("timedelta64[D]")
    columns = {f"x{i}": values[:, i] for i in range(8)}
    table = {"row_id": np.arange(n_rows), **columns, "colour": colour, "when": pa.array(days)}
    pq.write_table(pa.table({**table, "label": np.where(label, "yes", "no")}), path)


def imported(file: Path, out: Path) -> Import:
    """Import a file in a process of its own, after a small one."""
    small = out.with_name(f"{out.name}-small.parquet")
    write_rows(small, 2000)
    command = [sys.executable, "-c", _IMPORT, str(small), str(file), str(out.with_name(f"{out.name}-small")), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return Import(**json.loads(done.stdout.splitlines()[-1]))


def rewritten(file: Path, out: Path) -> float:
    """Return the seconds that pyarrow takes to read and write the file: the best of three."""
    import pyarrow.parquet as pq

    times = []
    for _ in range(3):
        start = time.perf_counter()
        pq.write_table(pq.read_table(file), out)
        times.append(time.perf_counter() - start)
    return min(times)


def run(report: Report) -> None:
    """Measure the import, of its rows alone and with the training, and its memory."""
    took: list[Import] = []
    floors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        write_rows(file)
        for turn in range(_TURNS):
            floors.append(rewritten(file, Path(folder) / "copy.parquet"))
            took.append(imported(file, Path(folder) / f"study-{turn}"))
    floor, best = min(floors), min(took, key=lambda one: one.seconds)
    report.add("million import", "pyarrow: read and rewrite", f"{floor:.2f} s")
    report.add("million import", "training the model", f"{best.training:.1f} s")
    rows = min(one.seconds - one.training for one in took)
    report.add("million import", "without the training / pyarrow", f"{rows:.2f} s = {rows / floor:.1f} x",
               "<= 3 x", rows <= _TIMES * floor)  # fmt: skip
    report.add("million import", "all of it / pyarrow", f"{best.seconds:.1f} s = {best.seconds / floor:.1f} x")
    most = max(one.most for one in took)
    report.add("million import", "most resident memory", f"{most / 2**20:.0f} MiB", "< 2048 MiB",
               most < MOST_BYTES)  # fmt: skip
