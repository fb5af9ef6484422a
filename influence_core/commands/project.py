"""The command that computes what the map draws."""

from __future__ import annotations

from typing import Annotated

import typer

from influence_core.commands.base import StudyPath, app, opened, progress


@app.command()
def project(
    study: StudyPath,
    place: Annotated[str, typer.Option("--place", help="penultimate, input or gradients.")] = "penultimate",
    kind: Annotated[str, typer.Option("--kind", help="pca or umap.")] = "umap",
    seed: Annotated[int, typer.Option("--seed", help="Equal seeds give equal maps.")] = 0,
) -> None:
    """Place the train and test rows of a study in two dimensions, for the screen Map."""
    from influence_core.workflows.projection import ProjectionConfig, projection

    config = ProjectionConfig.checked({"place": place, "kind": kind, "seed": seed})
    held = opened(study)
    with progress() as run:
        found = projection(held.task, run.with_store(held.store), config)
    sizes = ", ".join(f"{len(xy):,} {split} rows" for split, xy in found.xy.items())
    typer.echo(f"{kind} of {place}: {sizes}")
