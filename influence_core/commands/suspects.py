"""Commands that look for label errors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
        Path | None, typer.Option(help="Held-out probabilities of your own, csv, parquet or npy, a row per train row.")
    ] = None,
    column: Annotated[str, typer.Option(help="The detector that orders the list; empty: the default.")] = "",
    top: Annotated[int, typer.Option(help="So many rows; 0: all.")] = 0,
    format: Format = "csv", out: Out = None,
) -> None:  # fmt: skip
    """Rank the train rows whose labels look wrong, with every detector's number and the label they suggest."""
    from influence_core.workflows.suspects.ranking import suspects
    from influence_core.workflows.suspects.tables import suspects_table

    held = opened(study)
    names = [*(detectors or []), *(more or [])] or None
    given = None if pred_probs is None else _probabilities(pred_probs)
    with progress() as run:
        listed = suspects(held.task, run.with_store(held.store), names, retrain=retrain, pred_probs=given)
    order = listed.order(column)
    write_table(suspects_table(held, listed, order[:top] if top > 0 else order), format, out)


@app.command("find-suspects", hidden=True)
def find_suspects(study: StudyPath, retrain: Retrain = False) -> None:
    """Compute and keep the list of suspects; started by the app."""
    from influence_core.workflows.suspects.ranking import suspects

    held = opened(study)
    with progress() as run:
        suspects(held.task, run.with_store(held.store), retrain=retrain)


def _probabilities(path: Path) -> Any:
    """Return the numbers in a file; nothing is unpickled.

    Raises:
        BadInput: It cannot be read.
    """
    import numpy as np
    import pandas as pd

    from influence_core.errors import BadInput

    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise BadInput("The probabilities cannot be read", f"{path}: {why}.", "Give csv, parquet or npy.") from None
    return table.to_numpy()
