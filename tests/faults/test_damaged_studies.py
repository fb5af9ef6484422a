"""Damage of every kind, on every way in: one clear message each, nothing lost, and the same numbers once mended.

The ways in: the command line (code 2 and one line on standard error), Python (an ``InfluenceError``), and the calls
that the screens make. ``tests/test_study.py`` shows more kinds of damage to the header, through Python alone.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from influence_core import Rows, Study, attribute, service
from influence_core.__main__ import main
from influence_core.errors import BadInput, InfluenceError, NumericalProblem, StoreProblem
from influence_core.service import opened as opened_studies
from influence_core.service.jobs import Jobs
from influence_core.service.views import ExplainRequest, PredictionFilter

Damage = Callable[[Path], object]


@pytest.fixture
def study(own_studies: Path) -> Iterator[Path]:
    """The table study with its default fit done, as the service sees it."""
    opened_studies._opened.clear()
    attribute(Study(own_studies / "table"), "tracin_cp", Rows("test", (first_row(own_studies / "table"),)))
    yield own_studies / "table"
    opened_studies._opened.clear()


def first_row(path: Path) -> int:
    return int(Study(path).column("test", "id")[0])


# -- the ways in -------------------------------------------------------------------------------------------------------


class Answers:
    """What every way in answers on an undamaged study, to compare with once the damage is mended."""

    def __init__(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.path, self.capfd, self.row = path, capfd, first_row(path)
        self.before = self.all()

    def command(self, *words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        out, err = self.capfd.readouterr()
        return code, out, err

    def ranking(self) -> tuple[int, str, str]:
        return self.command("attribute", self.path, "--method", "tracin_cp", "--test", self.row)

    def fit(self) -> tuple[int, str, str]:
        return self.command("fit", self.path, "--method", "tracin_cp")

    def python(self) -> torch.Tensor:
        return attribute(Study(self.path), "tracin_cp", Rows("test", (self.row,))).scores

    def overview(self) -> Any:
        return service.overview(self.path.name)

    def predictions(self) -> service.PredictionList:
        return service.predictions(self.path.name, PredictionFilter())

    def explain(self) -> service.Explanation | service.FitNeeded:
        return service.explain(self.path.name, ExplainRequest(ids=(self.row,), method="tracin_cp"))

    def all(self) -> tuple[Any, ...]:
        code, ranking, error = self.ranking()
        assert (code, error) == (0, "")
        explained, overview = self.explain(), self.overview()
        assert isinstance(explained, service.Explanation)
        return (
            ranking, self.python().tolist(), overview.accuracy, overview.confusion.tolist(), self.predictions(),
            explained.proponents, explained.opponents,
        )  # fmt: skip

    def refused(self, kind: type[InfluenceError], what: str, *named: str, screens: bool = True) -> str:
        """Check that every way in says the same thing: ``what``, with each of ``named`` in the reason or the fix."""
        code, out, line = self.fit()
        assert (code, out) == (2, "") and line.count("\n") == 1 and line.startswith(f"error: {what}"), line
        assert "Traceback" not in line and all(name in line for name in named), line
        calls: list[Callable[[], object]] = [self.python]
        calls += [self.overview, self.predictions, self.explain] if screens else []
        for call in calls:
            with pytest.raises(kind) as caught:
                call()
            said = caught.value
            assert said.what.startswith(what) and said.why and said.fix, f"{call.__name__}: {said}"
            assert "\n" not in str(said) and all(name in str(said) for name in named), f"{call.__name__}: {said}"
        return line

    def assert_as_before(self) -> None:
        assert self.all() == self.before


@pytest.fixture
def answers(study: Path, capfd: pytest.CaptureFixture[str]) -> Answers:
    return Answers(study, capfd)


# -- damage to the study's own files -----------------------------------------------------------------------------------


def edited(file: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: (path / file).write_bytes(change((path / file).read_bytes()))


def garbled(content: bytes) -> bytes:
    """Leave both ends as they are: a table opens, its first page does not unpack."""
    return content[:40] + b"\xff" * 160 + content[200:]


def weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(path: Path) -> None:
        file = path / "checkpoints/6.safetensors"
        save_file(change(load_file(file)), file)

    return damage


def cell(split: str, column: str, value: Any) -> Damage:
    """Put a value into the fourth row."""

    def damage(path: Path) -> None:
        table = pq.read_table(path / f"{split}.parquet")
        values = table[column].to_pylist()
        values[3] = value
        place = table.column_names.index(column)
        pq.write_table(table.set_column(place, column, pa.array(values)), path / f"{split}.parquet")

    return damage


def table(split: str, change: Callable[[pa.Table], pa.Table]) -> Damage:
    file = f"{split}.parquet"
    return lambda path: pq.write_table(change(pq.read_table(path / file)), path / file)


def folder_instead(file: str) -> Damage:
    return lambda path: ((path / file).unlink(), (path / file).mkdir())


def text_column(rows: pa.Table) -> pa.Table:
    place = rows.column_names.index("depth")
    return rows.set_column(place, "depth", pa.array(["deep"] * len(rows)))


def encoder(**changes: Any) -> Damage:
    return edited("encoder.json", lambda content: json.dumps({**json.loads(content), **changes}).encode())


LAST = "checkpoints/6.safetensors"
NOT_FINITE = "A value is no finite number"
DAMAGES: dict[str, tuple[Damage, type[InfluenceError], str, tuple[str, ...]]] = {
    "checkpoint gone": (lambda p: (p / LAST).unlink(), BadInput, "A checkpoint is gone", (LAST, "Put the file back")),
    "checkpoint of another size": (
        weights(lambda state: {name: value[:1].clone() for name, value in state.items()}),
        BadInput, "Checkpoint 1 does not fit the model", ("1.weight", "Give checkpoints of this architecture"),
    ),
    "checkpoint of other layers": (
        weights(lambda state: {"other": torch.ones(3)}),
        BadInput, "Checkpoint 1 does not fit the model", ("1.weight", "Give checkpoints of this architecture"),
    ),
    "checkpoint with NaN": (
        weights(lambda state: {name: value * torch.nan for name, value in state.items()}),
        NumericalProblem, "Checkpoint 1 is broken", ("NaN", "Leave this checkpoint out"),
    ),
    "checkpoint cut": (edited(LAST, lambda c: c[:200]), BadInput, "Checkpoint 1 cannot be read", (LAST, "Give a")),
    "checkpoint empty": (edited(LAST, lambda c: b""), BadInput, "Checkpoint 1 cannot be read", (LAST, "Give a")),
    "checkpoint is a pickle": (
        edited(LAST, lambda c: pickle.dumps({"weight": [1.0] * 100})),
        BadInput, "Checkpoint 1 cannot be read", (LAST, "Give a state dict saved as .safetensors"),
    ),
    "checkpoint is a folder": (
        folder_instead(LAST), BadInput, "A file of the study cannot be read", (LAST, "Restore it")
    ),
    "newer format": (
        edited("study.toml", lambda c: c.replace(b"format = 1", b"format = 99")),
        BadInput, "The study is from a newer version", ("study.toml", "99", "Update the program"),
    ),
    "header cut": (
        edited("study.toml", lambda c: c[: len(c) // 2]), BadInput, "The study ", ("study.toml", "Restore study.toml")
    ),
    "header is no text": (
        edited("study.toml", lambda c: b"\xff\xfe" + c),
        BadInput, "The study cannot be read", ("study.toml", "Restore study.toml"),
    ),
    "no train rows file": (
        lambda p: (p / "train.parquet").unlink(), BadInput, "A file of the study is gone", ("train.parquet", "Restore")
    ),
    "empty file": (
        edited("test.parquet", lambda c: b""), BadInput, "The 'test' data cannot be read", ("test.parquet", "Restore")
    ),
    "rows cut": (
        edited("train.parquet", lambda c: c[:1000]), BadInput, "The 'train' data cannot be read",
        ("train.parquet", "Restore"),
    ),
    "train page garbled": (
        edited("train.parquet", garbled), BadInput, "The 'train' data cannot be read", ("train.parquet", "Restore")
    ),
    "locked page garbled": (
        edited("locked.parquet", garbled), BadInput, "The 'locked' data cannot be read", ("locked.parquet", "Restore")
    ),
    "no rows": (
        table("test", lambda t: t.slice(0, 0)), BadInput, "The test data is empty", ("test.parquet", "at least one row")
    ),
    "no label column": (
        table("train", lambda t: t.drop_columns(["label"])),
        BadInput, "A column is missing", ("train.parquet", "'label'", "Restore the data"),
    ),
    "no feature column": (
        table("test", lambda t: t.drop_columns(["depth"])),
        BadInput, "A column is missing", ("test.parquet", "'depth'", "Restore the data"),
    ),
    "label outside the classes": (
        cell("test", "label", "ape"), BadInput, "A label of the test split is no class",
        ("test.parquet", "'ape'", "Correct the label"),
    ),
    "label missing": (
        cell("train", "label", None), BadInput, "A label of the train split is no class",
        ("train.parquet", "Correct the label"),
    ),
    "id missing": (
        cell("test", "id", None), BadInput, "A row of the test split has no id", ("test.parquet", "'id'", "Give every")
    ),
    "NaN in train": (cell("train", "depth", float("nan")), BadInput, NOT_FINITE, ("train.parquet", "row 1", "Correct")),
    "infinity in test": (cell("test", "depth", float("inf")), BadInput, NOT_FINITE, ("test.parquet", "Correct")),
    "infinity in locked": (cell("locked", "depth", -float("inf")), BadInput, NOT_FINITE, ("locked.parquet", "Correct")),
    "value missing": (cell("test", "depth", None), BadInput, NOT_FINITE, ("test.parquet", "row 1", "Correct")),
    "beyond 32 bits": (cell("train", "depth", 1e300), BadInput, NOT_FINITE, ("train.parquet", "row 1", "Correct")),
    "texts for numbers": (
        table("test", text_column), BadInput, "The rows do not fit encoder.json", ("test.parquet", "deep", "Restore")
    ),
    "no encoder": (
        lambda p: (p / "encoder.json").unlink(), BadInput, "The encoder cannot be read", ("encoder.json", "Restore")
    ),
    "encoder of another kind": (
        encoder(kind="sound"), BadInput, "Unknown encoder", ("encoder.json", "'sound'", "newer version")
    ),
    "encoder with too few means": (
        encoder(mean=[1.0, 2.0]), BadInput, "The rows do not fit encoder.json", ("train.parquet", "Restore")
    ),
    "encoder that divides by 0": (encoder(std=[0.0] * 4), BadInput, NOT_FINITE, ("train.parquet", "encoder.json")),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_said_the_same_on_every_way_in_and_mended_without_loss(name: str, answers: Answers) -> None:
    damage, kind, what, named = DAMAGES[name]
    path = answers.path
    backup = path.with_name("backup")
    shutil.copytree(path, backup)
    damage(path)
    answers.refused(kind, what, *named)
    assert_unharmed(path, backup)
    for entry in backup.rglob("*"):  # put back what was damaged, and nothing else
        own = path / entry.relative_to(backup)
        if entry.is_file() and (not own.is_file() or own.read_bytes() != entry.read_bytes()):
            if own.is_dir():
                own.rmdir()
            shutil.copy2(entry, own)
    answers.assert_as_before()


def assert_unharmed(path: Path, backup: Path) -> None:
    """Whatever was finished is still there, byte for byte."""
    for entry in (backup / "cache").rglob("*"):
        if entry.is_file():
            assert (path / entry.relative_to(backup)).read_bytes() == entry.read_bytes()


def test_damaged_truth_stops_what_shows_it_and_nothing_else(answers: Answers) -> None:
    file = answers.path / "truth.parquet"
    content = file.read_bytes()
    file.write_bytes(garbled(content))
    opened_studies._opened.clear()
    assert torch.equal(answers.python(), torch.tensor(answers.before[1]))
    for call in (answers.overview, answers.explain):
        with pytest.raises(BadInput, match="truth.parquet.*Restore the file, or delete it"):
            call()
    file.write_bytes(content)
    answers.assert_as_before()


def test_a_file_where_the_study_should_be(answers: Answers) -> None:
    code, out, err = answers.command("fit", answers.path / "study.toml", "--method", "tracin_cp")
    assert (code, out) == (2, "") and err.startswith("error: There is no study here") and err.count("\n") == 1


# -- a loss that is no number ------------------------------------------------------------------------------------------


def overflowing(path: Path) -> None:
    weights(lambda state: {name: torch.full_like(value, 1e38) for name, value in state.items()})(path)


def test_finite_weights_whose_outputs_overflow_are_named_by_the_fit(answers: Answers) -> None:
    file = answers.path / LAST
    content = file.read_bytes()
    overflowing(answers.path)
    answers.refused(NumericalProblem, "", "Training row", "checkpoint 1", "NaN", screens=False)
    file.write_bytes(content)
    answers.assert_as_before()


def test_the_screens_show_no_accuracy_of_outputs_that_are_no_numbers(answers: Answers) -> None:
    overflowing(answers.path)
    for call in (answers.overview, answers.predictions):
        with pytest.raises(NumericalProblem):
            call()


@pytest.mark.parametrize("name", ["checkpoint of another size", "checkpoint with NaN"])
def test_a_checkpoint_that_does_not_fit_is_named_by_its_file(name: str, answers: Answers) -> None:
    damage, kind, what, _ = DAMAGES[name]
    damage(answers.path)
    answers.refused(kind, what, LAST)


# -- the job list ------------------------------------------------------------------------------------------------------


def newer(path: Path) -> None:
    with sqlite3.connect(path / "jobs.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()


@pytest.mark.parametrize(
    ("damage", "what", "fix"),
    [
        (edited("jobs.sqlite", lambda c: b"x" * len(c)), "The job list cannot be read", "Move this file away"),
        (edited("jobs.sqlite", lambda c: c[:4096] + b"\xff" * 4096), "The job list cannot be read", "Move this file"),
        (newer, "The job list comes from a newer program", "Update this program"),
    ],
    ids=["overwritten", "garbled", "newer"],
)
def test_a_damaged_job_list_stops_jobs_and_nothing_else(damage: Damage, what: str, fix: str, answers: Answers) -> None:
    path = answers.path
    done = Jobs(path).submit("k", "Fit", ["fit"], "a")
    content = (path / "jobs.sqlite").read_bytes()
    damage(path)
    answers.assert_as_before()  # what is fitted is shown, and the command line needs no job list
    ask = ExplainRequest(ids=(answers.row,), method="grad_cos")
    uses: list[Callable[[], object]] = [
        lambda: service.listed_jobs("table"), lambda: service.job("table", done.id),
        lambda: service.start_fit("table", ask, "a"), lambda: service.explain("table", ask),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(StoreProblem) as caught:
            use()
        said = caught.value
        assert said.what == what and str(path / "jobs.sqlite") in said.why and said.fix.startswith(fix)
    (path / "jobs.sqlite").write_bytes(content)
    assert Jobs(path).list() == [done]


# -- the cache ---------------------------------------------------------------------------------------------------------


def each(pattern: str, change: Callable[[Path], object]) -> Damage:
    return lambda path: [change(file) for file in (path / "cache").glob(pattern)]


CACHE_DAMAGES: dict[str, Damage] = {
    "record cut": each("??/*/meta.json", lambda f: os.truncate(f, 20)),
    "record emptied": each("??/*/meta.json", lambda f: os.truncate(f, 0)),
    "record of nothing": each("??/*/meta.json", lambda f: f.write_text("{}")),
    "arrays cut": each("??/*/*.npy", lambda f: os.truncate(f, f.stat().st_size - 4)),
    "headers cut": each("??/*/*.npy", lambda f: os.truncate(f, 60)),
    "arrays emptied": each("??/*/*.npy", lambda f: os.truncate(f, 0)),
    "arrays gone": each("??/*/*.npy", lambda f: f.unlink()),
    "arrays of another shape": each("??/*/*.npy", lambda f: np.save(f, np.load(f)[:1])),
    "arrays of another type": each("??/*/*.npy", lambda f: np.save(f, np.load(f).astype(np.float16))),
    "arrays of objects": each("??/*/*.npy", lambda f: np.save(f, np.array([{}, 1], dtype=object), allow_pickle=True)),
}


@pytest.mark.parametrize("name", CACHE_DAMAGES)
def test_a_damaged_cache_is_named_and_never_gives_numbers(name: str, answers: Answers) -> None:
    """Following the message (delete the folder) brings the same numbers back, computed again."""
    CACHE_DAMAGES[name](answers.path)
    opened_studies._opened.clear()
    line = answers.refused(StoreProblem, "A cached result is damaged", str(answers.path / "cache"), "Delete the folder")
    deleted = 0
    while "Delete the folder" in line:
        shutil.rmtree(line.strip().rpartition("Delete the folder ")[2].rstrip("."))
        deleted += 1
        _, _, line = answers.fit()
    assert 2 <= deleted <= 10 and line == ""
    opened_studies._opened.clear()
    answers.assert_as_before()


@pytest.mark.parametrize("name", ["inputs", "fitted", "0.a", "0.norms"])
@pytest.mark.parametrize("damage", ["cut", "gone", "another shape"])
def test_one_damaged_array_gives_a_message_or_the_same_numbers(name: str, damage: str, answers: Answers) -> None:
    change = {
        "cut": lambda f: os.truncate(f, f.stat().st_size - 4), "gone": lambda f: f.unlink(),
        "another shape": lambda f: np.save(f, np.zeros((7, 7), np.float32)),
    }[damage]  # fmt: skip
    files = list((answers.path / "cache").glob(f"??/*/{name}.npy"))
    assert files, "there is such an array"
    change(files[0])
    opened_studies._opened.clear()
    folder = files[0].parent
    for call, before in ((answers.python, 1), (answers.predictions, 4)):
        try:
            result = call()
            assert (result.tolist() if isinstance(result, torch.Tensor) else result) == answers.before[before]
        except StoreProblem as error:
            assert error.what == "A cached result is damaged" and str(folder) in error.fix
    shutil.rmtree(folder)
    opened_studies._opened.clear()
    answers.assert_as_before()


def removed(entry: Path) -> None:
    if entry.is_dir():
        shutil.rmtree(entry)
    else:
        entry.unlink()


@pytest.mark.parametrize("pattern", ["??/*/meta.json", "??/*", "??"])
def test_a_cache_with_parts_deleted_is_made_again(pattern: str, answers: Answers) -> None:
    for entry in list((answers.path / "cache").glob(pattern)):
        removed(entry)
    opened_studies._opened.clear()
    assert isinstance(answers.explain(), service.FitNeeded)
    code, _, error = answers.fit()
    assert (code, error) == (0, "")
    answers.assert_as_before()


@pytest.mark.parametrize("where", ["cache", "cache/shelf"])
def test_a_file_in_the_place_of_a_cache_folder(where: str, answers: Answers) -> None:
    folder = answers.path / "cache"
    if where == "cache":
        shutil.rmtree(folder)
        folder.write_text("")
    else:
        for shelf in list(folder.iterdir()):
            shutil.rmtree(shelf)
            shelf.write_text("")
    opened_studies._opened.clear()
    answers.refused(StoreProblem, "The folder cannot be written", str(folder), "Make it a folder")
    removed(folder)
    assert answers.fit()[0] == 0
    answers.assert_as_before()
