"""The background worker and how it runs a job's command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands import base
from influence_core.commands.base import app
from influence_core.errors import Cancelled

CANCELLED = 130


@app.command(hidden=True)
def worker(studies: Annotated[Path, typer.Argument(help="The folder of studies.")]) -> None:
    """Run queued jobs until there are none; started by the app."""
    from influence_core.service.worker import run_worker

    run_worker(studies, execute)


def execute(study_dir: Path, argv: list[str], progress: Any, cancelled: Any) -> None:
    """Run a job's command in this process, with the job's own progress and cancel."""
    version, argv = (argv[0], argv[1:]) if argv[0].startswith("@") else ("", argv)
    base.set_job((progress, cancelled))
    try:
        if app([argv[0], f"{study_dir}{version}", *argv[1:]], standalone_mode=False) == CANCELLED:
            raise Cancelled
    finally:
        base.set_job(None)
