"""Commands about reviews: the cleaned data, the patch, and a patch replayed on other data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from influence_core.commands.base import StudyPath, app, opened
from influence_core.errors import BadInput

Cleaned = Annotated[Path | None, typer.Option("--out", help="Write the cleaned data here: .csv, .json or .parquet.")]
PatchOut = Annotated[Path | None, typer.Option("--patch", help="Write the patch here: .csv, .json or .parquet.")]


Like = Annotated[
    Path | None,
    typer.Option("--like", help="The file that was imported: --out is then that file, with corrected labels alone."),
]


@app.command()
def export(study: StudyPath, out: Cleaned = None, patch: PatchOut = None, like: Like = None) -> None:
    """Write the data as the reviewers corrected it, and the patch: what changed, by whom, and why."""
    from influence_core.changes import resolved_changes
    from influence_core.workflows import patches

    if out is None and (patch is None or like is not None):
        raise BadInput("There is nothing to write", "Neither --out nor --patch is given.", "Give one, or both.")
    formats = [patches.suffix(path) if path else "" for path in (None if like else out, patch)]
    held = opened(study)
    changes, conflicts = resolved_changes(study, held.header.classes)
    changes = patches.with_labels_found(changes, held)
    if out is not None and like is not None:
        from influence_core.adapters.original_file import original_file

        content, _ = original_file(held, changes, like)
        _write(out, content)
        print(f"{out}: {like.name} with the corrected labels")
    elif out is not None:
        done = patches.replayed(held, changes)
        _write(out, patches.data_bytes(patches.users_shape(held, done.table), formats[0]))
        print(f"{out}: {len(done.table):,} rows; {done.in_words()}")
    if patch is not None:
        _write(patch, patches.patch_bytes(changes, formats[1]))
        print(f"{patch}: {len(changes):,} decisions")
    for conflict in conflicts:
        votes = "; ".join(f"{v.reviewer}: {v.decision.action} {v.decision.label or ''}".strip() for v in conflict.votes)
        print(f"Undecided, so unchanged: {conflict.split} row {conflict.row} ({votes})")


@app.command()
def replay(
    study: StudyPath,
    patch: Annotated[Path, typer.Option("--patch", help="The patch to apply.")],
    out: Cleaned = None,
) -> None:
    """Apply a patch to a study's data, the same or newer, and list what did not fit; the study stays as it is."""
    from influence_core.workflows import patches

    format = patches.suffix(out) if out else ""
    held = opened(study)
    done = patches.replayed(held, patches.read_patch(patch, held))
    if out is not None:
        _write(out, patches.data_bytes(patches.users_shape(held, done.table), format))
    print(done.in_words())


def _write(path: Path, content: bytes) -> Any:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadInput(
            "The file cannot be written", f"{path}: {error.strerror}.", "Choose another place for it."
        ) from None
