"""From a user's rows to a study: divided, encoded, a model trained, written as a folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from influence_core.encoder import Encoder
from influence_core.readers import limits
from influence_core.readers.beside import beside
from influence_core.readers.building import (
    Learning,
    Tables,
    check_rest,
    class_names,
    classes_of,
    fitting_batches,
    kept_encoding,
    trained_model,
)
from influence_core.readers.leaks import found_leaks, leak_notes
from influence_core.readers.partial import PartialImport, partial_import
from influence_core.readers.roles import Roles, check_roles, used_columns
from influence_core.readers.sources import Source
from influence_core.readers.split_files import SplitFiles
from influence_core.readers.splits import Assignment, split_names
from influence_core.run import Run
from influence_core.study import Study, save_study
from influence_core.study_files import check_free


def import_table(
    source: Source, roles: Roles, out: Path, run: Run, *, name: str | None = None, title: str | None = None
) -> Study:
    """Make a study of a table: rows divided, encoder fitted on train, a model chosen and trained.

    Memory is bounded by one batch of rows, 17 bytes a row, and the encoded train rows, which are mapped from the disk.

    Args:
        source: The rows.
        roles: What each column is for.
        out: The study's folder; it may be there already if it holds no study.
        run: Progress and cancel.
        name: The study's name; by default the folder's.
        title: What the study is called on screen; by default the file's name.

    Raises:
        BadInput: These rows and roles make no study; the message says why.
        NumericalProblem: The training diverged.
        StoreProblem: The disk is full or refuses.
        Cancelled: The user asked to stop. The stages that are done stay in a hidden folder beside the study; the same
            import goes on from there, and so it does when it was killed.
    """
    out = Path(out)
    check_free(out)
    check_roles(source, roles)
    plan = _Plan.of(source, roles)
    with (
        partial_import(out, [source.mark, roles.key()]) as work,
        SplitFiles(work.folder, plain=True) as files,
    ):
        tables, divided = _divided(source, plan, files, work, run)
        classes, absent = classes_of(tables) if roles.task == "classification" else ([], [])
        encoder, inputs = _encoded(tables, plan, work, run)
        kind = "table" if roles.text is None else "text"
        learning = Learning(kind, roles.task, classes, roles.label)
        with beside(partial(_checked, source, roles, tables, encoder, work), run) as (training, leaking):
            header, states = trained_model(tables["train"], encoder, learning, inputs, training, work.training)
            notes = [*source.notes, *leaking(), *divided, *plan.notes, *absent]
        header |= {
            "name": name or out.name, "title": title or source.path.name, "notes": notes,
            "sensitive": [plan.shown[column] for column in roles.sensitive],
            "description": f"{source.n_rows:,} rows of {source.path.name}; the label is '{roles.label}'.",
        }  # fmt: skip
        files.finished()
        return save_study(out, header, tables, encoder, states)


@dataclass(frozen=True)
class _Plan:
    """Which columns go where.

    Attributes:
        used: Columns that the model reads, as the source names them.
        shown: Source name -> name in the study, of every column that is kept.
        notes: What is said of them.
        rows_at_once: How many rows make a batch.
    """

    roles: Roles
    used: tuple[str, ...]
    shown: dict[str, str]
    notes: tuple[str, ...]
    rows_at_once: int

    @staticmethod
    def of(source: Source, roles: Roles) -> _Plan:
        used, notes = used_columns(source, roles), []
        taken = {"id", "label", *source.names}
        shown = {}
        for name in source.names:
            if name in (roles.label, roles.id, roles.split) or name in roles.ignored:
                continue
            shown[name] = name
            if name in ("id", "label"):
                shown[name] = f"original {name}"
                while shown[name] in taken:
                    shown[name] += "_"
                notes.append(f"The column '{name}' is called '{shown[name]}' here.")
        rest = [name for name in shown if name not in used]
        if rest:
            more = f" and {len(rest) - 20} more" if len(rest) > 20 else ""
            notes.append(f"Kept to look at, not read by the model: {', '.join(rest[:20])}{more}.")
        if roles.weight is not None:
            notes.append(
                f"'{roles.weight}' is kept to look at and weighs nothing: the methods say what leaving a row out does "
                "where every row counts once."
            )
        return _Plan(roles, used, shown, tuple(notes), source.rows_at_once)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names in the study of what the model reads."""
        return tuple(self.shown[name] for name in self.used)

    def rows(self, batch: pa.Table, first: int) -> pa.Table:
        """Return a batch as the study keeps it: id, label, then the other columns."""
        number = pa.array(np.arange(first, first + len(batch)))
        ids = number if self.roles.id is None else batch[self.roles.id]
        labels = batch[self.roles.label]
        labels = labels.cast(pa.float64()) if self.roles.task == "regression" else class_names(labels)
        return pa.table([ids, labels, *(batch[name] for name in self.shown)], names=["id", "label",
                                                                                     *self.shown.values()])  # fmt: skip


def _divided(
    source: Source, plan: _Plan, files: SplitFiles, work: PartialImport, run: Run
) -> tuple[dict[str, Path], list[str]]:
    """Divide the rows and write them, or find that done; return the file of each split, and what was done."""
    if (said := work.done("rows")) is not None:
        return {name: work.folder / f"{name}.parquet" for name in said["splits"]}, said["notes"]
    assignment = _assignment(source, plan, run)
    notes = list(assignment.notes)

    def record(written: list[Path]) -> None:
        work.record("rows", {"splits": [f.stem for f in written if f.suffix == ".parquet"], "notes": notes}, written)

    return files.divided(_rows(source, plan, run), assignment.codes, record), notes


def _encoded(tables: Tables, plan: _Plan, work: PartialImport, run: Run) -> tuple[Encoder, np.ndarray]:
    """Fit the encoder and encode the train rows, or find that done."""
    return kept_encoding(tables["train"], partial(_encoder, tables["train"], plan, run), work, run)


def _checked(
    source: Source, roles: Roles, tables: Tables, encoder: Encoder, work: PartialImport, run: Run
) -> list[str]:
    """Refuse rows beside train that cannot be encoded; return what is said of columns that give the label away."""
    if work.done("checked") is None:
        check_rest(tables, encoder, run)
        work.record("checked", {}, [])
    return leak_notes(found_leaks(source, roles))


def _assignment(source: Source, plan: _Plan, run: Run) -> Assignment:
    roles, size = plan.roles, source.rows_at_once
    read = [name for name in (*plan.used, roles.label, roles.split) if name is not None]

    def batches() -> Iterator[pa.Table]:
        return run.track(source.batches(size, read), "dividing the rows", -(-source.n_rows // size))

    stratified = roles.task == "classification"
    return split_names(batches, plan.used, roles.label, split=roles.split, stratified=stratified)


def _rows(source: Source, plan: _Plan, run: Run) -> Iterator[pa.Table]:
    """Yield the rows as the study keeps them, numbered from 1."""
    size, first = source.rows_at_once, 1
    for batch in run.track(source.batches(size), "writing the rows", -(-source.n_rows // size)):
        yield plan.rows(batch, first)
        first += len(batch)


def _encoder(train: Path, plan: _Plan, run: Run) -> Encoder:
    from influence_core.encoder import ColumnsEncoder, SentenceEncoder, TextEncoder

    size = limits.ROWS_AT_ONCE if plan.roles.text is not None else plan.rows_at_once

    def batches() -> Iterator[pa.Table]:
        return fitting_batches(train, list(plan.columns), run, size)

    if plan.roles.text is not None and plan.roles.reading == "meaning":
        return SentenceEncoder.installed(plan.columns[0])
    if plan.roles.text is not None:
        return TextEncoder.fitted(batches, plan.columns[0])
    return ColumnsEncoder.fitted(batches, plan.columns)
