"""The command that writes an example to start from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from influence_core.commands.base import app
from influence_core.errors import BadInput

TEMPLATES = Path(__file__).resolve().parents[1] / "templates"


def names() -> list[str]:
    """Return the names of the examples."""
    return sorted(path.name for path in TEMPLATES.iterdir() if path.is_dir() and not path.name.startswith("_"))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    example: Annotated[str, typer.Option(help="own-loop, image-folders, texts, scikit-learn, ...")] = "own-loop",
) -> None:
    """Write an example to start from: a training loop with a Recorder, or one of the others in docs/gallery.md."""
    if example not in names():
        raise BadInput("Unknown example", f"'{example}' is none.", f"Use one of: {', '.join(names())}.")
    if folder.exists():
        raise BadInput("The folder is taken", f"{folder} exists already.", "Choose another place.")
    try:
        shutil.copytree(TEMPLATES / example, folder, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        why = f"{folder}: {error.strerror or error}."
        raise BadInput("The folder cannot be written", why, "Choose a place that you may write to.") from None
    for file in sorted(folder.iterdir()):
        print(file)
