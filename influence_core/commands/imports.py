"""Commands that make a study of the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands.base import StudyPath, app, opened, options, progress
from influence_core.commands.studies import readied


@app.command("import")
def import_data(
    source: Annotated[Path, typer.Argument(help="A table: CSV, TSV, JSON, JSON lines, Parquet or Arrow.")],
    out: Annotated[Path, typer.Option("--out", help="The study folder to make.")],
    label: Annotated[str | None, typer.Option(help="The column to predict; guessed where not given.")] = None,
    roles: Annotated[
        str, typer.Option(help='Further roles of columns as JSON, such as \'{"id": "key", "text": "message"}\'.')
    ] = "{}",
    title: Annotated[str | None, typer.Option(help="The name that people read.")] = None,
) -> None:
    """Build a study from your own data: guesses what is not said, trains a model, records its checkpoints."""
    _imported(source, out, label, options(roles), title)


@app.command(hidden=True)
def finish_import(study: StudyPath, token: str, roles: str, title: str) -> None:
    """Import an upload of the app into a folder that holds nothing yet but its job."""
    from influence_core.service.imports import drop_upload, uploaded_file

    if (study / "study.toml").exists():  # its worker died between writing the study and the first fit
        with progress() as run:
            readied(opened(study), run)
    else:
        _imported(uploaded_file(study.parent, token), study, None, options(roles), title)
    drop_upload(token)


def _imported(source: Path, out: Path, label: str | None, roles: dict[str, Any], title: str | None) -> None:
    from influence_core.readers import guessed_roles, import_table, open_source

    with progress() as run, open_source(source, run) as rows:
        chosen = guessed_roles(rows, label or roles.get("label")).changed(**roles)
        study = readied(import_table(rows, chosen, out, run, name=out.name, title=title), run)
    for note in study.header.notes:
        print(note)
    print(f"{study.header.title}: {out}")
