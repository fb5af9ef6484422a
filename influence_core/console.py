"""Progress where a command runs: a bar for a person, silence for a pipe, the jobs table for a worker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from influence_core.run import Run, stage_name


@contextmanager
def console_run() -> Iterator[Run]:
    """Yield a Run that draws a progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield Run()
        return
    from rich.console import Console
    from rich.progress import Progress, TaskID

    with Progress(console=Console(stderr=True), transient=True) as bars:
        known: dict[str, TaskID] = {}

        def progress(stage: str, done: float, total: float) -> None:
            name = stage_name(stage)
            if name not in known:
                known[name] = bars.add_task(stage, total=total)
            bars.update(known[name], completed=done, total=total, description=stage)

        yield Run(progress=progress)


@contextmanager
def job_run(progress: Callable[[str, float, float], None], cancelled: Callable[[], bool]) -> Iterator[Run]:
    """Yield a Run that reports to a job."""
    yield Run(progress=progress, cancel=cancelled)
