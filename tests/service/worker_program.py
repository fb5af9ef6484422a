"""A worker with small obedient jobs, to be started as a real process: ``python worker_program.py STUDIES``.

The idle time is read from the environment, because ``ensure_worker`` appends only the folder.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from influence_core.errors import BadInput, Cancelled
from influence_core.service.worker import run_worker

Progress = Callable[[str, float, float], None]

RAISED: dict[str, BaseException] = {
    "bad-input": BadInput("No such layer", "Layer 'x' is not in the model.", "Use 'fc'."),
    "cancelled": Cancelled(),
    "value": ValueError("seven is not even"),
    "memory": MemoryError(),
    "torch-memory": RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 GB.\nmore"),
    "runtime": RuntimeError("shapes differ"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/x.npy"),
    "missing-file": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/data/y.npy"),
    "exit": SystemExit(3),
}


def count(
    study: Path, name: str, total: int, seconds: float, progress: Progress, cancelled: Callable[[], bool]
) -> None:
    """Make ``total`` numbered shards, skipping those already there; log each shard made, so that rework is visible."""
    folder = study / name
    folder.mkdir(exist_ok=True)
    for i in range(total):
        if cancelled():
            raise Cancelled
        if not (folder / f"{i}.shard").exists():
            time.sleep(seconds)
            (folder / f"{i}.part").write_text(str(i * i))
            (folder / f"{i}.part").rename(folder / f"{i}.shard")
            with (folder / "made.log").open("a") as log:
                log.write(f"{i}\n")
        progress("counting", i + 1, total)
    (folder / "result.part").write_text(str(sum(int((folder / f"{i}.shard").read_text()) for i in range(total))))
    (folder / "result.part").rename(folder / "result")


def advance_and_die(study: Path, progress: Progress) -> None:
    """Get one step further than the attempt before, report it, and die once the report is on disk."""
    steps = study / "steps"
    done = len(steps.read_text()) if steps.exists() else 0
    if done == 8:
        return
    steps.write_text("." * (done + 1))
    progress("stepping", done + 1, 8)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def execute(study: Path, argv: list[str], progress: Progress, cancelled: Callable[[], bool]) -> None:
    """Do what the first word says."""
    match argv:
        case ["count", name, total, seconds]:
            count(study, name, int(total), float(seconds), progress, cancelled)
        case ["raise", name]:
            raise RAISED[name]
        case ["die"]:
            os.kill(os.getpid(), signal.SIGKILL)
        case ["advance-and-die"]:
            advance_and_die(study, progress)
        case ["print", size]:
            print("x" * int(size), flush=True)
            time.sleep(0.7)
        case _:
            raise AssertionError(f"unknown job {argv}")


if __name__ == "__main__":
    with Path(sys.argv[-1], "started.log").open("a") as started:
        started.write(f"{os.getpid()}\n")
    run_worker(Path(sys.argv[-1]), execute, idle_seconds=float(os.environ.get("TEST_IDLE_SECONDS", "20")))
