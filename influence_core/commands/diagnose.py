"""The command that runs a diagnostic: a question about the model as a whole, answered with a table and sentences."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from influence_core.commands.base import ConfigText, Out, app, opened, options, progress, write_table
from influence_core.errors import BadInput


@app.command()
def diagnose(
    study: Annotated[Path | None, typer.Argument(help="A study folder; none: list the diagnostics.")] = None,
    workflow: Annotated[
        str, typer.Option("--workflow", "-w", help="Which one; `diagnose` without a study lists them.")
    ] = "",
    config: ConfigText = "{}",
    format: Annotated[str, typer.Option("--format", help="csv, json, parquet, or text with what it comes to.")] = "csv",
    out: Out = None,
) -> None:
    """Ask about the model, a method or the data as a whole: fragility, fading, memorisation, error bars."""
    from influence_core import api
    from influence_core.workflows.diagnostics.catalogue import diagnostics, found

    if study is None:
        if workflow:
            entry = found(workflow)
            print(f"{entry.title}. {entry.summary}\n\n{_options(entry.Config)}")
            return
        for name, entry in diagnostics().items():
            print(f"{name:<22} {entry.summary}")
        return
    if not workflow:
        known = ", ".join(diagnostics())
        raise BadInput("No diagnostic is named", "There is nothing to do.", f"Give --workflow, one of: {known}.")
    given = options(config)
    found(workflow).Config.checked(given)  # before the study is read
    with progress() as run:
        report = api.diagnose(opened(study), workflow, config=given, run=run)
    if format == "text":
        text = "\n".join([report.table.round(4).to_string(index=False), "", *report.notes])
        if out is None:
            print(text)
            return
        try:
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            why = f"{out}: {error.strerror}."
            raise BadInput("The file cannot be written", why, "Choose another place for --out.") from None
        return
    write_table(report.table, format, out)
    if sys.stderr.isatty():  # like a progress bar: where a person is looking
        print("\n".join(report.notes), file=sys.stderr)


def _options(config: type) -> str:
    from influence_core.config import Config

    assert issubclass(config, Config)
    lines = [
        f"  {name:<18} {field.description} (default: {getattr(config(), name)!r})"
        for name, field in config.model_fields.items()
    ]
    return "\n".join(["Options, as --config '{\"name\": value}':", *lines]) if lines else "It has no options."
