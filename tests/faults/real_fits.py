"""Real processes on a study whose fit takes seconds, and what must hold of its cache at any moment."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from influence_core import Rows, Run, Study, architectures, attribute
from influence_core.encoder import ImageEncoder
from influence_core.primitives.training import new_model
from influence_core.recipe import Recipe
from influence_core.service import opened as opened_studies
from influence_core.service import worker as workers
from influence_core.service.jobs import Jobs
from influence_core.service.views import ExplainRequest
from influence_core.study import save_study

ROOT = Path(__file__).resolve().parents[2]
CLASSES = tuple("abcde")
BATCH = Run().batch_size  # rows per stage in a fit with default settings


def image_rows(n: int, start: int, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASSES), n)
    pixels = random.integers(0, 120, (n, 8, 8))
    pixels[np.arange(n), labels] += 120
    return pa.table({
        "id": np.arange(start, start + n), "label": [CLASSES[label] for label in labels],
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.astype(np.uint8).ravel()), 64),
    })  # fmt: skip


def long_study(path: Path, n_train: int, n_checkpoints: int = 2, widths: tuple[int, int] = (8, 16)) -> Study:
    """A network with fresh weights at each checkpoint: as much work for a fit as a trained one, and quickly made."""
    recipe = Recipe.checked({"learning_rate": 0.05, "epochs": n_checkpoints})
    options = {"channels": 1, "size": 8, "n_classes": len(CLASSES), "widths": list(widths), "hidden": 16}
    states, listed = {}, []
    for c in range(n_checkpoints):
        file = f"checkpoints/{c}.safetensors"
        model = new_model(architectures.model_factory("cnn", options), recipe.model_copy(update={"seed": c}))
        states[file] = {name: value.detach().clone() for name, value in model.state_dict().items()}
        listed.append({"file": file, "epoch": c, "learning_rate": 0.05})
    header = {
        "name": path.name, "title": "Long", "description": "Its fit takes a while.", "modality": "image",
        "label": "label", "classes": list(CLASSES), "loss": "cross_entropy",
        "model": {"architecture": "cnn", "options": options}, "recipe": recipe.to_json(), "checkpoints": listed,
    }  # fmt: skip
    tables = {"train": image_rows(n_train, 0, 1), "test": image_rows(40, n_train, 2)}
    return save_study(path, header, tables, ImageEncoder("pixels", (1, 8, 8), 0.3, 0.25), states)


def copied(study: Path, to: Path) -> Path:
    """Copy a study without its cache and jobs."""
    shutil.copytree(study, to, ignore=shutil.ignore_patterns("cache", "jobs.sqlite*"))
    return to


def request(study: Path, config: dict[str, Any] | None = None) -> ExplainRequest:
    """Ask about the first test row."""
    row = int(Study(study).column("test", "id")[0])
    return ExplainRequest(split="test", ids=(row,), method="tracin_cp", config=config or {})


def scores(study: Path, config: dict[str, Any] | None = None) -> torch.Tensor:
    """Scores of all test rows, from what is on the disk."""
    opened = Study(study)
    return attribute(opened, "tracin_cp", Rows("test", tuple(opened.task.ids("test").tolist())), config=config).scores


# -- processes ---------------------------------------------------------------------------------------------------------


def started(*words: object) -> subprocess.Popen[str]:
    """Start a command of the program."""
    environment = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "influence_core", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=environment)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a command; return its code and what it printed."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def one_line(result: tuple[int, str, str]) -> str:
    """Return the single error line of a command that ended with code 2."""
    code, out, err = result
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1, result
    return err


def wait_for(condition: Callable[[], object], what: str, seconds: float = 90.0, every: float = 0.01) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(every)


def workers_of(studies: Path) -> list[int]:
    """Ids of the live worker processes of a studies folder, read from their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"worker" in words and str(studies.resolve()).encode() in words:
                    found.append(int(entry.name))
    return found


def kill(pid: int) -> None:
    """``kill -9``, and wait until the process is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "killed")


@contextmanager
def watched(studies: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make this the studies folder of the service; end its workers afterwards."""
    monkeypatch.setenv("INFLUENCE_STUDIES", str(studies))
    opened_studies._opened.clear()
    try:
        yield studies
    finally:
        for pid in workers_of(studies):
            kill(pid)


def revived(studies: Path) -> None:
    """Look as the screens do at every poll: a dead worker is replaced."""
    workers.ensure_worker(studies)


def job_ended(study: Path, job_id: int, seconds: float = 120.0) -> str:
    """Poll until the job has ended; return its state."""
    jobs = Jobs(study)

    def over() -> bool:
        revived(study.parent)
        job = jobs.get(job_id)
        return job is not None and not job.is_active

    wait_for(over, "the job has ended", seconds, 0.02)
    job = jobs.get(job_id)
    assert job is not None
    return job.state


# -- the cache ---------------------------------------------------------------------------------------------------------


def parts(study: Path) -> list[Path]:
    """Unfinished artifacts."""
    return sorted((study / "cache").glob("??/*.part"))


def assert_only_whole_artifacts(study: Path) -> dict[str, int]:
    """Check every visible artifact; return key -> inode, which a second computation would change."""
    seen = {}
    for folder in (study / "cache").glob("??/*"):
        if folder.is_dir() and folder.suffix == "":
            meta = json.loads((folder / "meta.json").read_text())
            assert meta["key"] == folder.name and meta["inputs"] and meta["arrays"]
            assert set(meta["arrays"]) == {path.stem for path in folder.glob("*.npy")}
            for name, (shape, dtype) in meta["arrays"].items():
                array = np.load(folder / f"{name}.npy", mmap_mode="r" if 0 not in shape else None)
                assert list(array.shape) == shape and array.dtype.str == dtype
                header = (folder / f"{name}.npy").stat().st_size - math.prod(shape) * array.dtype.itemsize
                assert 0 < header <= 256 and header % 64 == 0, "the file ends where its last row does"
            seen[folder.name] = (folder / "meta.json").stat().st_ino
    return seen


def arrays(study: Path) -> dict[str, bytes]:
    """Content of all arrays of the cache by key and name."""
    files = (study / "cache").glob("??/*/*.npy")
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}
