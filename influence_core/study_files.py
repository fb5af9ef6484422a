"""The files of a study folder: what ``study.toml`` says, and how a folder is written, all of it or nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from influence_core.encoder import Encoder
from influence_core.errors import BadInput
from influence_core.recipe import Recipe
from influence_core.store import disk_errors

FORMAT = 1
SPLITS = ("train", "test", "locked")
ROWS_AT_ONCE = 4096
States = Mapping[str, Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Header:
    """What ``study.toml`` says.

    Attributes:
        task: ``"classification"``, or ``"regression"``: no classes, and labels that are numbers.
        notes: What the import did to the data, in sentences.
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


def write_study(
    path: Path, header: Mapping[str, Any], tables: Mapping[str, pa.Table | Path], encoder: Encoder, states: States,
    truth: pa.Table | None = None,
) -> None:  # fmt: skip
    """Write a study folder: all of it, or nothing.

    Args:
        path: Where it will stand. A folder may be there already if it holds no study: its job list stays.
        header: Content of ``study.toml``; the format number is added.
        tables: Split name -> rows, or a finished Parquet file, which is moved.
        encoder: How rows become numbers.
        states: Checkpoint file name -> weights.
        truth: Planted truth: columns ``id`` and ``label``.

    Raises:
        BadInput: A study stands there.
        StoreProblem: The disk is full or refuses.
    """
    import tomli_w

    if (path / "study.toml").exists() or (path.exists() and not path.is_dir()):
        raise BadInput("The folder is taken", f"{path} exists already.", "Choose another place, or delete it first.")
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with disk_errors(path):
            _write_parts(part, tables, encoder, states, truth)
            text = tomli_w.dumps({"format": FORMAT, **header})
            if path.exists():
                _move_in(part, path, text)
            else:
                (part / "study.toml").write_text(text, encoding="utf-8")
                part.rename(path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write_parts(
    part: Path, tables: Mapping[str, pa.Table | Path], encoder: Encoder, states: States, truth: pa.Table | None
) -> None:
    from safetensors.torch import save

    (part / "checkpoints").mkdir(parents=True)
    for split, table in tables.items():
        if isinstance(table, Path):
            shutil.move(table, part / f"{split}.parquet")
        else:
            pq.write_table(table, part / f"{split}.parquet", row_group_size=ROWS_AT_ONCE)
    if truth is not None:
        pq.write_table(truth, part / "truth.parquet")
    (part / "encoder.json").write_text(json.dumps(encoder.to_json(), indent=1))
    for name, state in states.items():
        (part / name).write_bytes(save({key: value.contiguous() for key, value in state.items()}))


def _move_in(part: Path, path: Path, text: str) -> None:
    """Move the parts into a folder that is there; ``study.toml`` comes last and makes it a study."""
    for item in part.iterdir():
        target = path / item.name
        if target.is_dir():
            shutil.rmtree(target)
        item.replace(target)
    (part / "study.toml").write_text(text, encoding="utf-8")
    (part / "study.toml").replace(path / "study.toml")
    part.rmdir()


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
    version = content.pop("format", None)
    if not isinstance(version, int) or version > FORMAT:
        raise BadInput(
            "The study is from a newer version",
            f"{file} has format {version}; this version reads up to {FORMAT}.",
            "Update the program, then open the study again.",
        )
    recipe = content.pop("recipe", None)
    try:
        return Header(
            **{
                **content, "classes": tuple(str(name) for name in content["classes"]),
                "model": {"architecture": content["model"]["architecture"], **content["model"]},
                "checkpoints": tuple(
                    {**entry, "file": str(entry["file"]), "learning_rate": float(entry["learning_rate"])}
                    for entry in content.get("checkpoints", ())
                ),
                "feature_names": tuple(content.get("feature_names", ())),
                "task": _known_task(content.get("task", "classification")),
                "notes": tuple(str(note) for note in content.get("notes", ())),
                "recipe": Recipe.checked(recipe) if recipe else None,
            }
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput("The study is incomplete", f"{file}: {error}.", "Restore study.toml from a copy.") from None


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
