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
    from influence_core.workflows import patch_replay, patches

    if out is None and (patch is None or like is not None):
        raise BadInput("There is nothing to write", "Neither --out nor --patch is given.", "Give one, or both.")
    formats = [patches.suffix(path) if path else "" for path in (None if like else out, patch)]
    held = opened(study)
    changes, conflicts = resolved_changes(study, held.header.classes)
    changes = patches.with_rows_seen(changes, held)
    if out is not None and like is not None:
        from influence_core.adapters.original_file import original_file

        content, _ = original_file(held, changes, like)
        _write(out, content)
        print(f"{out}: {like.name} with the corrected labels")
    elif out is not None:
        done = patch_replay.replayed(held, changes)
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
    patch: Annotated[list[Path], typer.Option("--patch", help="The patch to apply; give several to merge them.")],
    out: Cleaned = None,
    merged: Annotated[Path | None, typer.Option("--merged", help="Write the merged patch here.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Change a row that has moved where it is now, known by its content.")
    ] = False,
) -> None:
    """Apply patches to a study's data, the same or newer, and list what did not fit; the study stays as it is."""
    from influence_core.workflows import patch_replay, patches

    formats = [patches.suffix(path) if path else "" for path in (out, merged)]
    held = opened(study)
    changes, disputed = patches.merged([patches.read_patch(path, held) for path in patch])
    done = patch_replay.replayed(held, changes, follow=follow)
    if out is not None:
        _write(out, patches.data_bytes(patches.users_shape(held, done.table), formats[0]))
    if merged is not None:
        _write(merged, patches.patch_bytes(changes, formats[1]))
        print(f"{merged}: {len(changes):,} decisions")
    print(done.in_words())
    for said in disputed:
        words = "; ".join(f"{c.reviewer or 'somebody'}: {c.action} {c.new or ''}".strip() for c in said)
        print(f"The patches contradict each other, so unchanged: {said[0].split} row {said[0].row} ({words})")


def _write(path: Path, content: bytes) -> Any:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise BadInput(
            "The file cannot be written", f"{path}: {error.strerror}.", "Choose another place for it."
        ) from None
