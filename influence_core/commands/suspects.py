"""Commands that look for label errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from influence_core.commands.base import Format, Out, StudyPath, app, opened, progress, write_table

Retrain = Annotated[bool, typer.Option("--retrain", help="Also the detectors that train five models.")]


@app.command("suspects")
def suspects_command(
    study: StudyPath,
    detectors: Annotated[list[str] | None, typer.Option("--detectors", help="Detector ids; may be repeated.")] = None,
    more: Annotated[list[str] | None, typer.Argument(help="Further detector ids.")] = None,
    retrain: Retrain = False,
    pred_probs: Annotated[
        Path | None,
        typer.Option(
            help="Held-out probabilities of your own: csv or parquet with the row ids and a column named after each "
            "class, or npy in the order of both. Default: those that are kept in the study."
        ),
    ] = None,
    column: Annotated[str, typer.Option(help="The detector that orders the list; empty: the default.")] = "",
    top: Annotated[int, typer.Option(help="So many rows; 0: all.")] = 0,
    format: Format = "csv", out: Out = None,
) -> None:  # fmt: skip
    """Rank the train rows whose labels look wrong, with every detector's number and the label they suggest."""
    from influence_core.api import read_pred_probs
    from influence_core.workflows.suspects.own_probabilities import usable_probabilities
    from influence_core.workflows.suspects.ranking import suspects
    from influence_core.workflows.suspects.tables import suspects_table

    held = opened(study)
    names = [*(detectors or []), *(more or [])] or None
    with progress() as run:
        given = usable_probabilities(held) if pred_probs is None else read_pred_probs(held, pred_probs, run)
        listed = suspects(held.task, run.with_store(held.store), names, retrain=retrain, pred_probs=given)
    order = listed.order(column)
    write_table(suspects_table(held, listed, order[:top] if top > 0 else order), format, out)


@app.command("find-suspects", hidden=True)
def find_suspects(study: StudyPath, retrain: Retrain = False) -> None:
    """Compute and keep the list of suspects; started by the app."""
    from influence_core.workflows.suspects.own_probabilities import usable_probabilities
    from influence_core.workflows.suspects.ranking import suspects

    held = opened(study)
    with progress() as run:
        given = usable_probabilities(held)
        suspects(held.task, run.with_store(held.store), retrain=retrain, pred_probs=given)
