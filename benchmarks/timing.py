"""Timing that holds on a noisy machine: runs in turn, medians, ratios within the run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass
class Row:
    """One line of the result: what, the figure, the bar it is held to, and whether it is met."""

    case: str
    figure: str
    value: str
    bar: str = ""
    met: bool | None = None


@dataclass
class Report:
    """The lines of one benchmark, printed as they come."""

    rows: list[Row] = field(default_factory=list)

    def add(self, case: str, figure: str, value: str, bar: str = "", met: bool | None = None) -> None:
        """Add and print a line."""
        self.rows.append(Row(case, figure, value, bar, met))
        mark = {None: " ", True: "+", False: "-"}[met]
        print(f"{mark} {case:<18} {figure:<58} {value:<26} {bar}", flush=True)


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the wall time of a call, and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def cpu_seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor time of a call over all threads, and its result."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute on one thread: comparisons of processor time without threads that wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_turn(
    calls: dict[str, Callable[[], Any]], rounds: int, before: Callable[[], Any] = lambda: None
) -> dict[str, list[float]]:
    """Return wall times of several calls, run A B C A B C ..., so that a slow minute hits all of them.

    ``before`` tidies up ahead of each call, outside its time.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before()
            times[name].append(seconds(call)[0])
    return times


def middle(times: list[float]) -> float:
    """Return the median."""
    return median(times)


def plain_write(folder: Path, count: int) -> float:
    """Return the seconds it takes to write this many bytes to a new file and wait for the disk."""
    path, block = folder / "plain", os.urandom(8 << 20)

    def write() -> None:
        with open(path, "wb") as file:
            left = count
            while left > 0:
                left -= file.write(block[: min(left, len(block))])
            file.flush()
            os.fsync(file.fileno())

    taken = seconds(write)[0]
    path.unlink()
    return taken
