"""The command that trains a new version of a study on corrected data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from influence_core.commands.base import StudyPath, app, opened, progress
from influence_core.errors import BadInput, InfluenceError
from influence_core.study import Study


@app.command()
def retrain(
    study: StudyPath,
    reviews: Annotated[bool, typer.Option("--reviews", help="Take the decisions of the reviewers.")] = False,
    patch: Annotated[Path | None, typer.Option("--patch", help="Take the changes in this patch.")] = None,
    name: Annotated[str, typer.Option(help="The name of the new version.")] = "corrected",
    seeds: Annotated[int, typer.Option(help="Pairs of models, for the intervals.")] = 5,
) -> None:
    """Train again on corrected data, into a new version, and compare it with the original."""
    from influence_core.changes import resolved_changes
    from influence_core.study_changes import effective
    from influence_core.workflows.comparison import compare
    from influence_core.workflows.patch_replay import check_content
    from influence_core.workflows.patches import read_patch
    from influence_core.workflows.retraining import retrain as retrained

    if reviews == (patch is not None):
        raise BadInput("What is to be changed is not said", "Give --reviews or --patch, one of them.", "Add one.")
    held = opened(study)
    with _taken(patch, held):
        if patch is not None:
            changes = read_patch(patch, held)
            check_content(held, changes)
        else:
            changes, conflicts = resolved_changes(held.path, held.header.classes)
            for conflict in conflicts:
                print(f"Undecided, so unchanged: {conflict.split} row {conflict.row}")
        if not effective(changes):
            raise BadInput("There is nothing to retrain on", "No change changes anything.", "Review some rows first.")
        parent = held.made.id if held.made is not None and patch is not None else ""
        with progress() as run:
            version = retrained(held, changes, name, run, seeds, parent)
        found = compare(held, "", version.id)
        print(f"{version.name} is {held.path}@{version.id}. {found.headline}")
        for word, sentence in (("Alarm", found.alarm), ("Note", found.doubt)):
            if sentence:
                print(f"{word}: {sentence}")


@contextmanager
def _taken(patch: Path | None, held: Study) -> Iterator[None]:
    """Remove the request of a job when it ends, well or not.

    A job that is killed, or put off because the worker has to stop, finds it when it goes on.
    """
    from influence_core.workflows.retraining import REQUESTS

    request = patch if patch is not None and patch.parent == held.path.absolute() / REQUESTS else None
    try:
        yield
    except InfluenceError:
        if request is not None:
            request.unlink(missing_ok=True)
        raise
    if request is not None:
        request.unlink(missing_ok=True)
