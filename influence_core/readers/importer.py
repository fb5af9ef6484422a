"""From a user's rows to a study: divided, encoded, a model trained, written as a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import architectures
from influence_core.encoder import Encoder
from influence_core.errors import BadInput
from influence_core.examples import Examples
from influence_core.primitives.losses import LOSSES
from influence_core.readers import limits
from influence_core.readers.roles import Roles, check_roles, used_columns
from influence_core.readers.sources import Source
from influence_core.readers.splits import Assignment, split_names
from influence_core.run import Run
from influence_core.store import disk_errors
from influence_core.study import Study, save_study
from influence_core.study_files import SPLITS
from influence_core.tables import check_finite
from influence_core.trajectory import trained_checkpoints


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
        Cancelled: The user asked to stop; nothing is left behind.
    """
    out = Path(out)
    if (out / "study.toml").exists() or (out.exists() and not out.is_dir()):
        raise BadInput("The folder is taken", f"{out} exists already.", "Choose another place, or delete it first.")
    check_roles(source, roles)
    plan = _Plan.of(source, roles)
    assignment = _assignment(source, plan, run)
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=f".{out.name}-import-", dir=out.parent, ignore_cleanup_errors=True)
    with folder:
        place = Path(folder.name)
        tables = _written(source, plan, assignment, place, run)
        classes = _classes(tables) if roles.task == "classification" else []
        encoder = _encoder(tables["train"], plan, run)
        _check_rest(tables, encoder, run)
        header, states = _trained(tables["train"], encoder, plan, classes, place, run)
        notes = [*source.notes, *assignment.notes, *plan.notes, *_absent(tables["train"], classes)]
        header |= {
            "name": name or out.name, "title": title or source.path.name, "notes": notes,
            "description": f"{source.n_rows:,} rows of {source.path.name}; the label is '{roles.label}'.",
        }  # fmt: skip
        return save_study(out, header, tables, encoder, states)


@dataclass(frozen=True)
class _Plan:
    """Which columns go where.

    Attributes:
        used: Columns that the model reads, as the source names them.
        shown: Source name -> name in the study, of every column that is kept.
    """

    roles: Roles
    used: tuple[str, ...]
    shown: dict[str, str]
    notes: tuple[str, ...]

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
        return _Plan(roles, used, shown, tuple(notes))

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the names in the study of what the model reads."""
        return tuple(self.shown[name] for name in self.used)

    def rows(self, batch: pa.Table, first: int) -> pa.Table:
        """Return a batch as the study keeps it: id, label, then the other columns."""
        number = pa.array(np.arange(first, first + len(batch)))
        ids = number if self.roles.id is None else batch[self.roles.id]
        labels = batch[self.roles.label]
        labels = labels.cast(pa.float64()) if self.roles.task == "regression" else _class_names(labels)
        return pa.table([ids, labels, *(batch[name] for name in self.shown)], names=["id", "label",
                                                                                     *self.shown.values()])  # fmt: skip


def _assignment(source: Source, plan: _Plan, run: Run) -> Assignment:
    roles, size = plan.roles, limits.ROWS_AT_ONCE

    def batches() -> Iterator[pa.Table]:
        return run.track(source.batches(size), "dividing the rows", -(-source.n_rows // size))

    stratified = roles.task == "classification"
    return split_names(batches, plan.used, roles.label, split=roles.split, stratified=stratified)


def _class_names(labels: pa.ChunkedArray) -> pa.Array:
    """Return labels as texts; 1.0 among numbers is the class 1."""
    return pa.array([None if v is None or v != v else _class_name(v) for v in labels.to_pylist()], pa.string())


def _class_name(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _written(source: Source, plan: _Plan, assignment: Assignment, place: Path, run: Run) -> dict[str, pa.Table | Path]:
    """Write each split that has rows as a Parquet file, in pieces of a few thousand rows."""
    size, first = limits.ROWS_AT_ONCE, 0
    files: dict[str, pa.Table | Path] = {}
    writers: dict[int, pq.ParquetWriter] = {}
    waiting: dict[int, list[pa.Table]] = {code: [] for code in range(len(SPLITS))}
    total = -(-source.n_rows // size)

    def flush(code: int, at_least: int) -> None:
        if waiting[code] and sum(map(len, waiting[code])) >= at_least:
            table = pa.concat_tables(waiting[code])
            if code not in writers:
                file = place / f"{SPLITS[code]}.parquet"
                files[SPLITS[code]], writers[code] = file, pq.ParquetWriter(file, table.schema)
            writers[code].write_table(table, row_group_size=size)
            waiting[code].clear()

    try:
        with disk_errors(place):
            for batch in run.track(source.batches(size), "writing the rows", total):
                rows, codes = plan.rows(batch, first + 1), assignment.codes[first : first + len(batch)]
                first += len(batch)
                for code in waiting:
                    if (codes == code).any():
                        waiting[code].append(rows.filter(pa.array(codes == code)))
                        flush(code, size)
            for code in waiting:
                flush(code, 1)
    finally:
        for writer in writers.values():
            writer.close()
    return files


def _batches(file: pa.Table | Path, columns: list[str] | None = None) -> Iterator[pa.Table]:
    assert isinstance(file, Path)
    for batch in pq.ParquetFile(file).iter_batches(limits.ROWS_AT_ONCE, columns=columns):
        yield pa.Table.from_batches([batch])


def _labels(file: pa.Table | Path) -> Iterator[Any]:
    for batch in _batches(file, ["label"]):
        yield from batch["label"].to_pylist()


def _classes(tables: dict[str, pa.Table | Path]) -> list[str]:
    """Return the class names of every split: numbers by size, words by the alphabet."""
    names = {label for file in tables.values() for label in _labels(file)}
    numbers = all(name.lstrip("-").isdecimal() and name.isascii() for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numbers else (lambda name: (0, name)))


def _absent(train: pa.Table | Path, classes: list[str]) -> list[str]:
    missing = sorted(set(classes) - set(_labels(train))) if classes else []
    return [f"No train row has the label {', '.join(missing[:10])}: the model cannot learn it."] if missing else []


def _encoder(train: pa.Table | Path, plan: _Plan, run: Run) -> Encoder:
    from influence_core.encoder import ColumnsEncoder, TextEncoder

    assert isinstance(train, Path)
    total = -(-pq.read_metadata(train).num_rows // limits.ROWS_AT_ONCE)

    def batches() -> Iterator[pa.Table]:
        return run.track(_batches(train, list(plan.columns)), "fitting the encoder", total)

    if plan.roles.text is not None:
        return TextEncoder.fitted(batches, plan.columns[0])
    return ColumnsEncoder.fitted(batches, plan.columns)


def _encoded(rows: pa.Table, encoder: Encoder, file: Path) -> np.ndarray:
    with np.errstate(all="ignore"):
        values = encoder.encoded(rows)
    check_finite(values, rows, "id", file)
    return values


def _check_rest(tables: dict[str, pa.Table | Path], encoder: Encoder, run: Run) -> None:
    """Refuse now what the study would refuse when it is opened: a value far outside the range of train."""
    for split, file in tables.items():
        if split != "train" and isinstance(file, Path):
            total = -(-pq.read_metadata(file).num_rows // limits.ROWS_AT_ONCE)
            for batch in run.track(_batches(file), f"checking the {split} rows", total):
                _encoded(batch, encoder, file)


def _trained(
    train: pa.Table | Path, encoder: Encoder, plan: _Plan, classes: list[str], place: Path, run: Run
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Encode the train rows into a mapped file, choose a model, train it; return header entries and weights."""
    from influence_core.default_model import chosen_model

    assert isinstance(train, Path)
    task, kind = plan.roles.task, "table" if plan.roles.text is None else "text"
    present = set(_labels(train))
    if len(present) < 2:
        why = "Every row that fell into train has the same label."
        raise BadInput("The model has nothing to tell apart", why, "Give more rows of the other labels.")
    if not encoder.shape[0]:
        why = "Among the train rows, every column has one value only."
        raise BadInput("Nothing is left to learn from", why, "Name other features, or give more rows.")
    n_rows = pq.read_metadata(train).num_rows
    inputs = np.lib.format.open_memmap(place / "inputs.npy", "w+", np.float32, (n_rows, *encoder.shape))
    start, total = 0, -(-n_rows // limits.ROWS_AT_ONCE)
    with disk_errors(place):
        for batch in run.track(_batches(train), "encoding the train rows", total):
            inputs[start : start + len(batch)] = _encoded(batch, encoder, train)
            start += len(batch)
    index = {name: i for i, name in enumerate(classes)}
    values = (index[label] for label in _labels(train)) if classes else _labels(train)
    targets = np.fromiter(values, np.int64 if classes else np.float32, n_rows)
    architecture, options, recipe = chosen_model(kind, task, encoder.shape, targets, len(classes))
    loss = "cross_entropy" if classes else "mse"
    rows = Examples((inputs, targets), "train")
    factory = architectures.model_factory(architecture, options)
    states, entries = trained_checkpoints(factory, recipe, rows, LOSSES[loss], run, plan.roles.label)
    names = list(getattr(encoder, "feature_names", ()))
    return {
        "modality": kind, "label": "label", "classes": classes, "loss": loss, "task": task,
        "model": {"architecture": architecture, "options": options}, "recipe": recipe.to_json(),
        "checkpoints": entries, "feature_names": names,
    }, states  # fmt: skip
