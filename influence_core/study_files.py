"""The files of a study folder: what ``study.toml`` says, and how a folder is written, all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from influence_core.encoder import Encoder
from influence_core.errors import BadInput
from influence_core.recipe import Recipe
from influence_core.store import disk_errors
from influence_core.study_versions import check_format
from influence_core.tables import reading

FORMAT = 1
MAX_TITLE = 100  # characters
SPLITS = ("train", "test", "locked")
ROWS_AT_ONCE = 4096
States = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Header:
    """What ``study.toml`` says.

    Attributes:
        task: ``"classification"``, or ``"regression"``: no classes, and labels that are numbers.
        notes: What the import did to the data, in sentences.
        model: ``architecture`` with ``options``, or ``reference``: code of the user's, off until named.
        checkpoints: Each has a ``file`` and, where known, its ``learning_rate``.
        parity: Of a user's own model: ``rows`` that were compared with its own predictions, the
            ``largest_difference`` and whether they ``agree``.
        sensitive: Columns of protected groups, which the overview compares.
        training: ``loss``: the mean training loss after every epoch, where it is known.
    """

    name: str
    title: str
    description: str
    modality: str
    label: str
    classes: tuple[str, ...]
    loss: str
    model: Mapping[str, Any]
    recipe: Recipe | None
    checkpoints: tuple[Mapping[str, Any], ...]
    id: str = "id"
    feature_names: tuple[str, ...] = field(default_factory=tuple)
    task: Literal["classification", "regression"] = "classification"
    notes: tuple[str, ...] = ()
    parity: Mapping[str, Any] = field(default_factory=dict)
    sensitive: tuple[str, ...] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyParts:
    """What a study folder is written from.

    Attributes:
        header: Content of ``study.toml``; the format number is added.
        tables: Split name -> rows, or a finished Parquet file, which is moved.
        encoder: How rows become numbers.
        states: Checkpoint file name -> weights; looked at one after another.
        truth: Planted truth: columns ``id`` and ``label``.
        files: Name in the folder -> a file to copy.
        check: Called with the whole folder before it takes its place; returns more of ``study.toml``, or raises.
    """

    header: Mapping[str, Any]
    tables: Mapping[str, pa.Table | Path]
    encoder: Encoder
    states: States
    truth: pa.Table | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    check: Callable[[Path], Mapping[str, Any]] | None = None


def write_study(
    path: Path, header: Mapping[str, Any], tables: Mapping[str, pa.Table | Path], encoder: Encoder, states: States,
    truth: pa.Table | None = None,
) -> None:  # fmt: skip
    """Write a study folder from ``StudyParts``, given one by one; see ``write_parts``."""
    write_parts(path, StudyParts(header, tables, encoder, states, truth))


def write_parts(path: Path, parts: StudyParts) -> None:
    """Write a study folder: all of it, or nothing.

    Args:
        path: Where it will stand. A folder may be there already if it holds no study: its job list stays.
        parts: What it holds.

    Raises:
        BadInput: A study stands there.
        StoreProblem: The disk is full or refuses.
    """
    import tomli_w

    check_free(path)
    part = path.with_name(path.name + ".part")
    whole = part / "study"  # one level down, where no list of studies looks
    shutil.rmtree(part, ignore_errors=True)
    try:
        with disk_errors(path):
            _write_content(whole, parts)
            text = tomli_w.dumps({"format": FORMAT, **parts.header})
            if parts.check is not None:
                (whole / "study.toml").write_text(text, encoding="utf-8")
                text = tomli_w.dumps({"format": FORMAT, **parts.header, **parts.check(whole)})
            if path.exists():
                _move_in(whole, path, text)
            else:
                (whole / "study.toml").write_text(text, encoding="utf-8")
                whole.rename(path)
            part.rmdir()
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def check_free(path: Path) -> None:
    """Refuse a place where a study stands, or a file.

    Raises:
        BadInput: It is taken.
    """
    if (path / "study.toml").exists() or (path.exists() and not path.is_dir()):
        raise BadInput("The folder is taken", f"{path} exists already.", "Choose another place, or delete it first.")


def _write_content(whole: Path, parts: StudyParts) -> None:
    from safetensors.torch import save

    (whole / "checkpoints").mkdir(parents=True)
    for split, table in parts.tables.items():
        if isinstance(table, Path):
            shutil.move(table, whole / f"{split}.parquet")
        else:
            pq.write_table(table, whole / f"{split}.parquet", row_group_size=ROWS_AT_ONCE)
    if parts.truth is not None:
        pq.write_table(parts.truth, whole / "truth.parquet")
    for name, file in parts.files.items():
        shutil.copyfile(file, whole / name)
    (whole / "encoder.json").write_text(json.dumps(parts.encoder.to_json(), indent=1))
    for name, state in parts.states.items():
        (whole / name).write_bytes(save({key: value.contiguous() for key, value in state.items()}))


def _move_in(part: Path, path: Path, text: str) -> None:
    """Move the parts into a folder that is there; ``study.toml`` comes last and makes it a study."""
    (part / "study.toml").unlink(missing_ok=True)
    for item in part.iterdir():
        target = path / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    (part / "study.toml").write_text(text, encoding="utf-8")
    (part / "study.toml").replace(path / "study.toml")
    part.rmdir()


def checked_title(title: str, longest: int = MAX_TITLE) -> str:
    """Return the name that people read, of a study or a version, with single spaces.

    Raises:
        BadInput: It is empty, too long, or has invisible characters.
    """
    title = " ".join(title.split())
    if not title or len(title) > longest or not title.isprintable():
        why = f"It has {len(title)} characters; 1 to {longest}, all of them visible, can be used."
        raise BadInput("This name cannot be used", why, "Choose another one.")
    return title


def read_header(path: Path) -> Header:
    """Read ``study.toml``.

    Raises:
        BadInput: No study there, damaged, or written by a newer version.
    """
    file = path / "study.toml"
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(
            "There is no study here",
            f"{file} does not exist.",
            "Give a study folder, or build one: python -m influence_core demo digits --out studies/digits",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise BadInput("The study cannot be read", f"{file}: {error}.", "Restore study.toml from a copy.") from None
    check_format(file, content.pop("format", None), FORMAT)
    recipe = content.pop("recipe", None)
    try:
        return Header(
            **{
                **content, "classes": tuple(str(name) for name in content["classes"]),
                "model": _known_model(content["model"]),
                "checkpoints": _known_checkpoints(content.get("checkpoints", ())),
                "feature_names": tuple(content.get("feature_names", ())),
                "task": _known_task(content.get("task", "classification")),
                "notes": tuple(str(note) for note in content.get("notes", ())),
                "sensitive": tuple(str(name) for name in content.get("sensitive", ())),
                "parity": _known_parity(content.get("parity", {})),
                "recipe": Recipe.checked(recipe) if recipe else None,
            }
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput("The study is incomplete", f"{file}: {error}.", "Restore study.toml from a copy.") from None


def _known_model(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``[model]`` if it names one model: a built-in one, or code by reference."""
    if ("architecture" in model) == ("reference" in model):
        raise ValueError("[model] needs an architecture or a reference")
    return dict(model)


def _known_checkpoints(entries: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Return the entries, with a learning rate in each or in none."""
    rated = any("learning_rate" in entry for entry in entries)
    return tuple(
        {**entry, "file": str(entry["file"]), **({"learning_rate": float(entry["learning_rate"])} if rated else {})}
        for entry in entries
    )


def _known_parity(parity: Mapping[str, Any]) -> Mapping[str, Any]:
    if not parity:
        return {}
    largest = float(parity["largest_difference"])
    return {**parity, "rows": int(parity["rows"]), "largest_difference": largest, "agree": bool(parity["agree"])}


def _known_task(name: str) -> Literal["classification", "regression"]:
    if name not in ("classification", "regression"):
        raise ValueError(f"task is '{name}', not classification or regression")
    return cast(Literal["classification", "regression"], name)


def file_hash(path: Path) -> str:
    """Return the hash of a file's content."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except FileNotFoundError:
        raise BadInput(
            "A file of the study is gone", f"{path} does not exist.", "Restore it from a copy of the study."
        ) from None
    except OSError as error:
        why = f"{path}: {error.strerror}."
        raise BadInput("A file of the study cannot be read", why, "Restore it from a copy of the study.") from None


def rows_at(file: pq.ParquetFile, positions: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
    """Return rows of a Parquet file by position, all columns or some, reading only the row groups that hold them."""
    sizes = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    wanted = np.asarray(positions, dtype=np.int64)
    groups = np.searchsorted(starts, wanted, side="right") - 1
    used = sorted(set(groups.tolist()))
    table = file.read_row_groups(used, columns)
    offsets = dict(zip(used, np.concatenate([[0], np.cumsum([sizes[g] for g in used])]), strict=False))
    places = [offsets[g] + p - starts[g] for g, p in zip(groups.tolist(), wanted.tolist(), strict=True)]
    return table.take(pa.array(places, pa.int64()))


def read_truth(path: Path, ids: Sequence[Any]) -> np.ndarray:
    """Return the true labels ``[n]`` of rows by id, as text.

    Raises:
        BadInput: The file is damaged, or a row is not in it.
    """
    what = "The planted truth cannot be read"
    fix = "Restore the file, or delete it: only badges and metrics use it."
    try:
        with reading(path, what, fix):
            truth = pq.read_table(path)
            known = dict(zip(truth["id"].to_pylist(), truth["label"].to_pylist(), strict=True))
        return np.asarray([str(known[row]) for row in ids])
    except KeyError as error:
        raise BadInput(what, f"{path}: {error}.", fix) from None
