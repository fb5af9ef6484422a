"""Commands about whole studies: build a demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands.base import app, progress
from influence_core.errors import StoreProblem


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="digits, breast-cancer, ...")],
    out: Annotated[Path | None, typer.Option(help="The study folder to make.")] = None,
) -> None:
    """Build a demo study: trains a model, records its checkpoints, and fits the method that Explain starts with."""
    from influence_core.demos import build_demo

    out = out or Path("studies") / name
    with progress() as run:
        study = readied(build_demo(name, out, run), run)
    print(f"{study.header.title}: {out}")


def readied(study: Any, run: Any) -> Any:
    """Fit the method that Explain starts with, so that the first look needs no waiting."""
    from influence_core import fitting, registry
    from influence_core.workflows.default_method import default_method

    try:
        method, _ = default_method(study.task)
        fitting.fit(study.task, registry.made(method, {}, study.task), run.with_store(study.store))
    except StoreProblem as error:  # building it again would find the folder taken
        fix = f"The study itself is whole, in {study.path}: free some space and open it."
        raise StoreProblem(error.what, error.why, fix) from error
    return study
