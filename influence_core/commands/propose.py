"""The command that lets a workflow propose changes, as a patch to be reviewed and retrained on."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from influence_core.commands.base import ConfigText, StudyPath, app, opened, options, progress
from influence_core.errors import BadInput

if TYPE_CHECKING:
    from influence_core.run import Run
    from influence_core.study import Study


class Proposer(StrEnum):
    """The workflows, by the name that the patch has as reviewer."""

    RDIA = "rdia"
    SELFINF = "selfinf"
    PROBES = "probes"


@app.command()
def propose(
    study: StudyPath,
    workflow: Annotated[
        Proposer,
        typer.Option(
            help="rdia: relabel rows that harm the test rows. selfinf: trust rows less that are learnt from themselves "
            "alone. probes: relabel what taught the model to pass your probes."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Write the patch here: .csv, .json or .parquet.")],
    probes: Annotated[
        Path | None,
        typer.Option(help="For probes: cases that the model gets wrong, as a CSV with the study's columns and label."),
    ] = None,
    config: ConfigText = "{}",
) -> None:  # fmt: skip
    """Let a workflow propose changes of training rows, and write them as a patch; nothing is changed yet."""
    from influence_core.workflows.patches import patch_bytes, suffix, with_rows_seen
    from influence_core.workflows.proposals import stamped

    if (workflow is Proposer.PROBES) != (probes is not None):
        why = "--workflow probes and --probes FILE belong together."
        raise BadInput("These options do not fit", why, "Give both, or neither.")
    format, given, held = suffix(out), options(config), opened(study)
    with progress() as run:
        found = _proposed(held, workflow, probes, given, run)
    content = patch_bytes(with_rows_seen(stamped(found.changes, time.time()), held), format)
    try:
        out.write_bytes(content)
    except OSError as error:
        raise BadInput(
            "The file cannot be written", f"{out}: {error.strerror}.", "Choose another place for it."
        ) from None
    print("\n".join([f"{out}: {len(found.changes):,} changes proposed by {workflow.value}.", *found.notes]))


def _proposed(study: Study, workflow: Proposer, probes: Path | None, given: dict[str, Any], run: Run) -> Any:
    if workflow is Proposer.RDIA:
        from influence_core.workflows.relabel_rdia import RdiaConfig, relabel_rdia

        return relabel_rdia(study, run, RdiaConfig.checked(given))
    if workflow is Proposer.SELFINF:
        from influence_core.workflows.reweigh_selfinf import SelfinfConfig, reweigh_selfinf

        return reweigh_selfinf(study, run, SelfinfConfig.checked(given))
    from influence_core.workflows.probe_files import read_probes
    from influence_core.workflows.probe_relabel import ProbesConfig, probe_relabel

    assert probes is not None
    checked = ProbesConfig.checked(given)
    view, rows, label = read_probes(study, probes)
    return probe_relabel(view, rows, label, run, checked)
