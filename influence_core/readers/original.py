"""A user's own file with the labels that its reviewers corrected: everything else as it came, to the byte in text.

A study keeps what it reads of a file; the file itself is the only record of all of it. So the corrections are carried
over to the original: of separated text and JSON lines every row that nobody changed is copied as it stands (separator,
quotes, line ends, encoding, mark at the start), of Parquet and Arrow every column keeps its kind. Rows are found by the
id column, or by their number, from 1, where there was none, and every label in the file is held against the study's
first: a file that was edited since the import is refused rather than corrected in the wrong places.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from influence_core.errors import BadInput
from influence_core.readers.building import class_names
from influence_core.readers.delimited import DelimitedFile
from influence_core.readers.files import text_encoding, unpacked
from influence_core.readers.rows import cleaned_names

_FORMULA = ("=", "+", "-", "@")  # how a cell begins that a spreadsheet would compute


@dataclass(frozen=True)
class Correction:
    """What is to become of one row: a new label, a weight, or nothing but to be left out."""

    label: str | None = None
    weight: float | None = None
    dropped: bool = False


@dataclass
class _Fix:
    """The rows of a file as they pass by, each held against the study and changed where it was corrected.

    Attributes:
        labels: Row id -> label in the study, of every row.
        corrections: Row id -> correction.
        numbers: Whether the labels are numbers rather than classes.
        raw: Class -> how the file writes it, found on the way.
    """

    labels: Mapping[Any, str]
    corrections: Mapping[Any, Correction]
    numbers: bool
    raw: dict[str, Any] = field(default_factory=dict)
    seen: int = 0

    def learn(self, row: Any, value: Any) -> None:
        """Note how the file writes a row's class, and check that the row is the study's."""
        known = self.labels.get(row)
        if known is None:  # a row that the import left out, or another file: told apart at the end
            return
        self.seen += 1
        if not _same(value, known, numbers=self.numbers):
            why = f"Row {row} is labelled {value!r} there, and was imported as {known!r}."
            raise BadInput("This is not the file that was imported", why, "Give the file as it was at the import.")
        self.raw.setdefault(known, value)

    def check(self) -> None:
        """Raise if rows of the study were not met."""
        if self.seen < len(self.labels):
            why = f"{len(self.labels) - self.seen:,} of the study's {len(self.labels):,} rows are not in it."
            raise BadInput("This is not the file that was imported", why, "Give the file as it was at the import.")

    def written(self, label: str, like: Callable[[str], Any]) -> Any:
        """Return a label as the file writes it; ``like`` makes one that the file has never had."""
        return self.raw[label] if label in self.raw else like(label)

    @property
    def weighs(self) -> bool:
        """Tell whether any row has a weight."""
        return any(one.weight is not None for one in self.corrections.values())


def corrected_file(
    path: Path, label: str, labels: Mapping[Any, str], corrections: Mapping[Any, Correction], *, numbers: bool,
) -> tuple[bytes, str]:  # fmt: skip
    """Return a file's content with the corrections, and the ending of its name.

    Args:
        path: The file that the study was imported from; gz and zip are unpacked.
        label: The label's column, by its name in the file.
        labels: Row id -> label in the study before any correction, of every row.
        corrections: Row id -> what is to become of it.
        numbers: Whether the labels are numbers rather than classes.

    Raises:
        BadInput: No such file or column, or another file than the one that was imported.
    """
    with tempfile.TemporaryDirectory(prefix="influence-export-") as folder:
        file, format = unpacked(path, Path(folder))
        write = {"csv": _separated, "json": _json}.get(format, _columns)
        problem: BadInput | None = None
        # The study keeps ids, not the name of the column that they came from: the file tells which one it was.
        for column in _id_columns(file, format, label, labels):
            try:
                return write(file, label, column, _Fix(labels, corrections, numbers)), file.suffix or ".csv"
            except BadInput as error:
                problem = problem or error
    raise problem or BadInput("This is not the file that was imported", "It has no rows.", "Give the file itself.")


def _id_columns(file: Path, format: str, label: str, labels: Mapping[Any, str]) -> list[str | None]:
    """Return where the row ids may come from, the likeliest first; None: rows are numbered from 1."""
    if format == "csv":
        opened = DelimitedFile(file, text_encoding(file)[0], file.name)
        opened.close()
        names = cleaned_names(opened.names, file.name)
    elif format == "json":
        text = file.read_bytes().decode(text_encoding(file)[0])
        first = json.loads(text)[0] if text.lstrip()[:1] == "[" else json.loads(text.lstrip().splitlines()[0])
        names = list(first)
    else:
        names = _table(file).column_names
    _place(names, label)
    numbered = all(isinstance(row, int) for row in labels)
    named = sorted((name for name in names if name != label), key=lambda name: "id" not in name.lower())
    return [*([None] if numbered else []), *named]


# -- separated text -----------------------------------------------------------------------------------------------


def _separated(file: Path, label: str, id_column: str | None, fix: _Fix) -> bytes:
    encoding, _ = text_encoding(file)
    opened = DelimitedFile(file, encoding, file.name)
    opened.close()
    names = cleaned_names(opened.names, file.name)
    place, id_place = _place(names, label), None if id_column is None else _place(names, id_column)
    text = file.read_bytes().decode(encoding)
    for row, cells, _ in _records(text, opened.separator, id_place, fix):
        if row is not None:
            fix.learn(row, cells[place])
    fix.check()
    out = io.StringIO(newline="")
    for i, (row, cells, raw) in enumerate(_records(text, opened.separator, id_place, fix)):
        out.write(raw if row is None and i else _record(raw, cells, place, fix, row, opened.separator, header=not i))
    return _encoded(out.getvalue(), encoding, file)


def _encoded(text: str, encoding: str, file: Path) -> bytes:
    """Return text in the encoding of a file, with its mark in front."""
    with file.open("rb") as opened:
        start = opened.read(4)
    for mark, codec in ((codecs.BOM_UTF32_BE, "utf-32-be"), (codecs.BOM_UTF32_LE, "utf-32-le"),
                        (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF16_LE, "utf-16-le")):  # fmt: skip
        if start.startswith(mark):
            return mark + text.encode(codec)
    return text.encode(encoding)


def _records(text: str, separator: str, id_place: int | None, fix: _Fix) -> Iterator[tuple[Any, list[str], str]]:
    """Yield id, cells and raw text of every record; the header and blank lines have no id."""
    lines = io.StringIO(text, newline="").readlines()
    reader, before, number = csv.reader(iter(lines), delimiter=separator), 0, -1
    for record in reader:
        raw, before = "".join(lines[before : reader.line_num]), reader.line_num
        if not record:
            yield None, record, raw
            continue
        number += 1
        if number == 0:
            yield None, record, raw
        elif id_place is None:
            yield number, record, raw
        else:
            yield _id(record[id_place], fix.labels), record, raw


def _record(raw: str, cells: list[str], place: int, fix: _Fix, row: Any, separator: str, *, header: bool) -> str:
    """Return a record as it stands, or with its label and weight."""
    one = None if header else fix.corrections.get(row)
    if one is not None and one.dropped:
        return ""
    body = raw.rstrip("\r\n")
    ending = raw[len(body) :]
    if one is not None and one.label is not None:
        cells = [*cells[:place], str(fix.written(one.label, _harmless)), *cells[place + 1 :]]
        line = io.StringIO(newline="")
        csv.writer(line, delimiter=separator, lineterminator="").writerow(cells)
        body = line.getvalue()
    if fix.weighs:
        weight = "weight" if header else f"{1 if one is None or one.weight is None else one.weight:g}"
        body = f"{body}{separator}{weight}"
    return body + ending


def _harmless(label: str) -> str:
    return f"'{label}" if label.startswith(_FORMULA) and not _is_number(label) else label


# -- JSON and columns -----------------------------------------------------------------------------------------------


def _json(file: Path, label: str, id_column: str | None, fix: _Fix) -> bytes:
    text = file.read_bytes().decode(text_encoding(file)[0])
    whole = text.lstrip()[:1] == "["
    raws = [] if whole else [line for line in text.splitlines() if line.strip()]
    records: list[dict[str, Any]] = json.loads(text) if whole else [json.loads(line) for line in raws]
    ids = [
        number if id_column is None else _id(one.get(id_column), fix.labels) for number, one in enumerate(records, 1)
    ]
    for row, one in zip(ids, records, strict=True):
        fix.learn(row, one.get(label))
    fix.check()
    kept: list[Any] = []
    for i, (row, one) in enumerate(zip(ids, records, strict=True)):
        correction = fix.corrections.get(row)
        if correction is not None and correction.dropped:
            continue
        changed = dict(one)
        if correction is not None and correction.label is not None:
            changed[label] = fix.written(correction.label, str)
        if fix.weighs:
            changed["weight"] = 1 if correction is None or correction.weight is None else correction.weight
        kept.append(changed if whole else raws[i] if changed == one else json.dumps(changed, ensure_ascii=False))
    return (json.dumps(kept, ensure_ascii=False, indent=1) if whole else "\n".join(kept) + "\n").encode()


def _columns(file: Path, label: str, id_column: str | None, fix: _Fix) -> bytes:
    table = _table(file)
    ids = (
        list(range(1, len(table) + 1))
        if id_column is None
        else [_id(v, fix.labels) for v in table[id_column].to_pylist()]
    )
    values = table[label].to_pylist()
    as_classes = values if fix.numbers else class_names(table[label]).to_pylist()
    for row, value, name in zip(ids, values, as_classes, strict=True):
        fix.learn(row, name)
        if not fix.numbers and name is not None:
            fix.raw[name] = value
    fix.check()
    kind, weights = table.schema.field(label).type, np.ones(len(table))
    kept = np.ones(len(table), bool)
    for i, row in enumerate(ids):
        one = fix.corrections.get(row)
        if one is None:
            continue
        kept[i] = not one.dropped
        weights[i] = 1.0 if one.weight is None else one.weight
        if one.label is not None:
            values[i] = float(one.label) if fix.numbers else fix.written(one.label, str)
    try:
        column = pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        why = f"The column '{label}' holds {kind}: {error}."
        raise BadInput("A new label does not fit the file's column", why, "Export as CSV.") from None
    field = table.schema.field(label)
    table = table.set_column(table.column_names.index(label), field, column)
    if fix.weighs:
        table = table.append_column("weight", pa.array(weights))
    sink = pa.BufferOutputStream()
    table = table.filter(pa.array(kept))
    pq.write_table(table, sink) if _is_parquet(file) else feather.write_feather(table, sink)
    return sink.getvalue().to_pybytes()


def _table(file: Path) -> pa.Table:
    return pq.read_table(file) if _is_parquet(file) else feather.read_table(file)


def _is_parquet(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PAR1"


# -- helpers of all -------------------------------------------------------------------------------------------------


def _place(names: list[str], wanted: str) -> int:
    if wanted not in names:
        why = f"It has no column '{wanted}'."
        raise BadInput("This is not the file that was imported", why, "Give the file as it was at the import.")
    return names.index(wanted)


def _id(value: Any, labels: Mapping[Any, str]) -> Any:
    """Return an id as the study has it: a number where it reads as one."""
    if value in labels or not isinstance(value, str):
        return value
    try:
        number = int(value)
    except ValueError:
        return value.strip() if value.strip() in labels else value
    return number if number in labels else value


def _same(value: Any, known: str, *, numbers: bool) -> bool:
    text = str(value).strip()
    if numbers or _is_number(known):
        return _is_number(text) and _is_number(known) and float(text.replace(",", "")) == float(known)
    return text == known or (isinstance(value, bool) and str(value).lower() == known)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True
