"""What the commands share: the application, kinds of arguments, progress, and reading and writing for a person."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.errors import BadInput
from influence_core.run import Run

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)

StudyPath = Annotated[Path, typer.Argument(help="A study folder.")]
MethodName = Annotated[str, typer.Option("--method", "-m", help="A method id; `methods` lists them.")]
ConfigText = Annotated[str, typer.Option("--config", help="Options as JSON, such as '{\"damping\": 0.1}'.")]
Format = Annotated[str, typer.Option("--format", help="csv, json or parquet.")]
TrustedModels = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="PKG.MODULE:FACTORY", help="Run this code of your own, which a study names as its model."
    ),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write here instead of standard output.")]

_job: tuple[Callable[[str, float, float], None], Callable[[], bool]] | None = None


def set_job(job: tuple[Callable[[str, float, float], None], Callable[[], bool]] | None) -> None:
    """Say that commands now run for a job, which has its own progress and cancel; None: for a person."""
    global _job
    _job = job


def allow_models(references: list[str]) -> None:
    """Trust references to models, in this process and in those that it starts.

    Raises:
        BadInput: One is none.
    """
    if not references:
        return
    from influence_core.model_reference import VARIABLE, allow_model

    for reference in references:
        allow_model(reference)
    named = [*os.environ.get(VARIABLE, "").split(","), *references]
    os.environ[VARIABLE] = ",".join(dict.fromkeys(part.strip() for part in named if part.strip()))


def progress() -> AbstractContextManager[Run]:
    """Return a context that yields a Run: with a job's progress, or a progress bar where a person is looking."""
    from influence_core.console import console_run, job_run

    return job_run(*_job) if _job is not None else console_run()


def opened(path: Path) -> Any:
    """Return the study in a folder, or with ``folder@id`` a version of it."""
    from influence_core.study import Study

    return Study.open(path)


def options(text: str, name: str = "--config") -> dict[str, Any]:
    """Return the JSON object in an option's text.

    Raises:
        BadInput: It is none.
    """
    try:
        found = json.loads(text)
    except ValueError as error:
        raise BadInput(
            "The options cannot be read", f"{name} is {text!r} ({error}).", 'Give JSON such as {"damping": 0.1}.'
        ) from None
    if not isinstance(found, dict):
        raise BadInput(
            "The options cannot be read", f"{name} is {text!r}.", 'Give a JSON object such as {"damping": 0.1}.'
        )
    return found


def write_table(table: Any, format: str, out: Path | None) -> None:
    """Write a data frame as csv, json or parquet, to a file or to standard output.

    Raises:
        BadInput: The file cannot be written.
    """
    from influence_core.tables import table_bytes

    data = table_bytes(table, format)
    if out is not None:
        try:
            out.write_bytes(data)
        except OSError as error:
            raise BadInput(
                "The file cannot be written", f"{out}: {error.strerror}.", "Choose another place for --out."
            ) from None
    elif format == "parquet":
        sys.stdout.buffer.write(data)
    else:
        print(data.decode(), end="")
