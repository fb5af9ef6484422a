"""Commands that make a study of the user's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands.base import StudyPath, app, opened, options, progress
from influence_core.commands.studies import readied
from influence_core.errors import BadInput


@app.command("import")
def import_data(
    source: Annotated[
        str,
        typer.Argument(
            help="A table (CSV, TSV, JSON, JSON lines, Parquet, Arrow); a folder or zip of images; a data set saved by "
            "the datasets library, or its name on the hub (hf:owner/name); or a study packed by `backup`."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The study folder to make.")],
    label: Annotated[
        str | None, typer.Option(help="The column to predict; guessed where not given. Of images also: folder.")
    ] = None,
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


def _imported(source: Path | str, out: Path, label: str | None, roles: dict[str, Any], title: str | None) -> None:
    from influence_core.study_archive import import_archive, is_study_archive

    with progress() as run:
        if not str(source).startswith("hf:") and is_study_archive(Path(source)):
            study = import_archive(Path(source), out, run, **_taken(roles))
        else:
            study = readied(_made(source, out, label, roles, title, run), run)
    for note in study.header.notes:
        print(note)
    print(f"{study.header.title}: {out}")


def _taken(roles: dict[str, Any]) -> dict[str, bool]:
    """Return what is taken of a packed study besides its rows and model."""
    for name, value in roles.items():
        if name not in ("reviews", "cache") or not isinstance(value, bool):
            fix = "Leave it out; 'reviews' and 'cache' can be true or false."
            raise BadInput("A packed study has no such role", f"'{name[:80]}' was given as {value!r:.80}.", fix)
    return roles


def _made(source: Path | str, out: Path, label: str | None, roles: dict[str, Any], title: str | None, run: Any) -> Any:
    from influence_core.readers import (
        guessed_roles,
        holds_images,
        import_images,
        import_table,
        open_images,
        open_source,
    )

    if holds_images(source):
        if unknown := sorted(set(roles) - {"label"}):
            why = f"'{unknown[0]}' was given; of images only the label can be chosen."
            raise BadInput("Images have no such role", why, "Leave it out, or name the column in --label.")
        with open_images(source, run) as images:
            label = label or roles.get("label")
            return import_images(images, out, run, label=label, name=out.name, title=title)
    with open_source(source, run) as rows:
        chosen = guessed_roles(rows, label or roles.get("label")).changed(**roles)
        return import_table(rows, chosen, out, run, name=out.name, title=title)
