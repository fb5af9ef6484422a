"""One query on a study of a million rows, features projected to 512 numbers of 16 bits, memory-mapped."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.timing import Report

N_ROWS, WIDTH = 1_000_000, 32
_CONFIG = {"projection": 512, "storage": "half"}

# Runs in a process of its own, so that its private memory can be read off.
_QUERY = """
import json, sys, time
from pathlib import Path
from influence_core import Run, Study, attribute

def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

import torch, pyarrow.parquet, pandas  # noqa
from influence_core import api, registry
registry.entries()
before = private()
study, config = Study.open(sys.argv[1]), json.loads(sys.argv[2])
ids = study.column("test", "id")[:20].tolist()
attribute(study, "grad_dot", ids[:1], config=config).proponents(100)
files = sorted((study.path / "cache").glob("??/*/0.g.npy"), key=lambda p: p.stat().st_size)
buffer = bytearray(4 << 20)

def read():
    with open(files[-1], "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass

times = {"query": [], "read": []}
for row in ids[1:8]:
    query = lambda: attribute(study, "grad_dot", [row], config=config).proponents(100)
    for name, call in (("query", query), ("read", read)):
        started = time.perf_counter(); call(); times[name].append(time.perf_counter() - started)
print(json.dumps({**times, "private": private(), "before": before, "bytes": files[-1].stat().st_size}))
"""


def build(path: Path) -> None:
    """Write a study of random table rows with a small trained model."""
    import numpy as np
    import pyarrow as pa

    from influence_core import Recipe, Study, architectures
    from influence_core.encoder import TableEncoder
    from influence_core.primitives.training import new_model
    from influence_core.study import save_study

    random = np.random.default_rng(0)
    names = tuple(f"x{i}" for i in range(WIDTH))
    tables = {}
    for split, rows, first in (("train", N_ROWS, 0), ("test", 1000, N_ROWS)):
        values = random.standard_normal((rows, WIDTH), dtype=np.float32)
        labels = np.where(values[:, 0] + values[:, 1] * values[:, 2] > 0, "yes", "no")
        tables[split] = pa.table(
            {"id": np.arange(first, first + rows), "label": labels, **dict(zip(names, values.T, strict=True))}
        )
    encoder = TableEncoder(names, (0.0,) * WIDTH, (1.0,) * WIDTH)
    options = {"n_inputs": WIDTH, "n_classes": 2, "hidden": [32]}
    model = new_model(architectures.model_factory("mlp", options), Recipe())
    header = {
        "name": "million", "title": "A million rows", "description": "", "modality": "table", "label": "label",
        "classes": ["no", "yes"], "loss": "cross_entropy", "model": {"architecture": "mlp", "options": options},
        "checkpoints": [{"file": "checkpoints/a.safetensors", "learning_rate": 0.1, "epoch": 1}],
        "feature_names": list(names),
    }  # fmt: skip
    save_study(path, header, tables, encoder, {"checkpoints/a.safetensors": model.state_dict()})
    assert Study(path).n_rows("train") == N_ROWS


def run(report: Report) -> None:
    """Build, fit, and query in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "million"
        build(path)
        command = [
            sys.executable,
            "-m",
            "influence_core",
            "fit",
            str(path),
            "--method",
            "grad_dot",
            "--config",
            json.dumps(_CONFIG),
        ]
        subprocess.run(command, check=True, capture_output=True)
        done = subprocess.run(
            [sys.executable, "-c", _QUERY, str(path), json.dumps(_CONFIG)], check=True, capture_output=True, text=True
        )
    result = json.loads(done.stdout.splitlines()[-1])
    query, read = sorted(result["query"])[3], sorted(result["read"])[3]
    report.add(
        "million rows", f"reading the {result['bytes'] / 1e9:.2f} GB of features from the page cache", f"{read:.2f} s"
    )
    report.add(
        "million rows",
        "one query, top 100 / reading",
        f"{query:.2f} s = {query / read:.2f} x",
        "<= 3 x",
        query <= 3 * read,
    )
    growth = result["private"] - result["before"]
    report.add(
        "million rows",
        "private memory: growth over imports (whole process)",
        f"{growth:.0f} MiB ({result['private']:.0f} MiB)",
        "< 256 MiB",
        growth < 256,
    )
