"""Imports in a process of their own that are killed, and what a study's files hold, for the tests that go on after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]


def content(study: Path) -> dict[str, bytes]:
    """Return every file of a study by its path."""
    return {p.relative_to(study).as_posix(): p.read_bytes() for p in study.rglob("*") if p.is_file()}


def killed(program: str, given: list[object], ready: str | None, seconds: float) -> bool:
    """Run a program and kill it some seconds after it has printed a line that begins so; tell whether that hit it.

    Args:
        program: Python code.
        given: Its arguments.
        ready: How the line begins; None: the seconds count from the start.
        seconds: How long to wait then.
    """
    command = [sys.executable, "-c", program, *map(str, given)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    with process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout if ready is not None else ():
            if line.startswith(ready):
                break
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), error
    return process.returncode != 0
