"""Held-out probabilities that a user gives: matched by names, every mismatch one message, kept whole or not at all."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from influence_core import service
from influence_core.api import read_pred_probs
from influence_core.commands.work import execute
from influence_core.errors import BadInput, StoreProblem
from influence_core.run import Run
from influence_core.service import SuspectFilter, own_probabilities
from influence_core.service.opened import opened
from influence_core.service.suspected import search_of
from influence_core.study_archive import import_archive, write_archive
from influence_core.workflows.suspects import own_probabilities as own

CLASSES = ("ant", "bee", "cat")
ALL = SuspectFilter(limit=200)


def shares(n: int = 60) -> np.ndarray:
    return np.random.default_rng(4).dirichlet([0.4] * 3, n)


def frame(study: str = "table", **more: Any) -> pd.DataFrame:
    """The right table, with the rows and the columns in another order than the study's."""
    ids = opened(study).study.task.ids("train")
    made = pd.DataFrame(dict(zip(CLASSES, shares(len(ids)).T, strict=True)) | more)
    made.insert(1, "id", ids)
    return made.sample(frac=1, random_state=0)[["cat", "id", "ant", "bee", *more]]


def content(table: pd.DataFrame, kind: str = "csv") -> io.BytesIO:
    out = io.BytesIO()
    table.to_csv(out, index=False) if kind == "csv" else table.to_parquet(out, index=False)
    return io.BytesIO(out.getvalue())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("study", ["table", "linear"])
def test_rows_and_classes_are_matched_by_name_and_become_a_source(own_studies: Path, kind: str, study: str) -> None:
    assert service.pred_probs(study) is None
    service.save_pred_probs(study, f"../my probs.{kind}", content(frame(study), kind))
    kept = service.pred_probs(study)
    assert kept is not None and kept.file == f"my_probs.{kind}" and kept.problem == "" and kept.at > 1e9
    found = shares(opened(study).study.n_rows("train"))
    assert np.allclose(search_of(opened(study)).pred_probs.numpy(), found, atol=1e-12)
    execute(own_studies / study, ["find-suspects"], lambda *_: None, lambda: False)
    page = service.suspects(study, ALL)
    assert isinstance(page, service.SuspectPage) and page.more is None
    assert page.held_out == "probabilities that you gave"
    assert {"out_of_fold", "confident_learning"} <= {column.name for column in page.columns}
    # An independent margin: the best other class less the given one.
    given = opened(study).study.task.split("train").targets.numpy()
    others = np.where(np.eye(3, dtype=bool)[given], -1, found).max(1)
    table = pd.read_csv(io.BytesIO(service.export_suspects(study, ALL, "csv"))).set_index("train_id")
    # CSV has an apostrophe before an id that looks like a formula.
    ids = [f"'{i}" if str(i).startswith(("=", "+", "-", "@")) else i for i in opened(study).study.task.ids("train")]
    assert np.allclose(table.loc[ids, "out_of_fold"], others - found[np.arange(len(given)), given], atol=1e-6)
    service.remove_pred_probs(study)
    assert service.pred_probs(study) is None and search_of(opened(study)).pred_probs is None
    assert not list((own_studies / study).glob("*pred_probs*"))


def changed(column: str, row: int, value: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        made = table.sort_values("id").astype({column: object})
        made.iloc[row, made.columns.get_loc(column)] = value
        return made

    return change


WRONG: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "no id": (lambda t: t.drop(columns="id"), "No column names the rows; there are: cat, ant, bee."),
    "no class": (lambda t: t.drop(columns="bee"), "It has no column for bee."),
    "unknown class": (lambda t: t.assign(dog=0.0), "dog is no class of it."),
    "another name": (lambda t: t.rename(columns={"bee": "Bee"}), "no column for bee. Bee is no class of it."),
    "missing rows": (lambda t: t.sort_values("id")[:-2], r"It has 58 rows; the study has 60 train rows. 2 train rows"),
    "unknown rows": (lambda t: pd.concat([t, t[:1].assign(id=9999)]), r"1 rows are no train rows \(9999\)"),
    "twice": (lambda t: pd.concat([t, t[:2]]), "2 rows are there more than once"),
    "other ids": (lambda t: t.assign(id=range(60)), "60 train rows are missing .* and 55 more"),
    "nan": (changed("ant", 3, float("nan")), "hold one that is missing or not finite"),
    "infinite": (changed("ant", 3, float("inf")), "missing or not finite|'inf'"),
    "negative": (changed("ant", 3, -0.5), "hold -0.5"),
    "sum": (lambda t: t.assign(ant=t["ant"] + 0.25), r"sum to 1.25, not to 1 \(60 such rows\)"),
    "logits": (lambda t: t.assign(ant=9.0), "sum to"),
    "a word": (changed("ant", 3, "high"), "holds 'high'|holds"),
    "a formula": (changed("ant", 3, "=1+1"), "cannot be read"),
    "no rows": (lambda t: t[:0], "no rows|below"),
    "many columns": (lambda t: t.assign(**{f"c{i}": 0.0 for i in range(40)}), "and 44 columns"),
    "many rows": (lambda t: pd.concat([t] * 30), "It has 1,800 rows"),
}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_one_message_and_changes_nothing(own_studies: Path, kind: str, name: str) -> None:
    service.save_pred_probs("table", "good.csv", content(frame()))
    before = (own_studies / "table" / own.FILE_NAME).read_bytes()
    change, words = WRONG[name]
    table = change(frame())
    if kind == "parquet":
        table = table.apply(lambda c: c.astype(str) if any(isinstance(v, str) for v in c) else pd.to_numeric(c))
    with pytest.raises(BadInput, match=words) as caught:
        service.save_pred_probs("table", f"x.{kind}", content(table, kind))
    said = str(caught.value)
    assert "\n" not in said and str(own_studies) not in said and "/tmp" not in said and len(said) < 500
    assert (own_studies / "table" / own.FILE_NAME).read_bytes() == before


def bomb() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", b"id,ant,bee,cat\n" + b"0" * (200 << 20))
    return out.getvalue()


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "noise": lambda: bytes(range(256)) * 50,
    "a NUL": lambda: b"id,ant,bee,cat\n1,\0,0,1\n",
    "a pickle": lambda: b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93.",
    "half a parquet": lambda: content(frame(), "parquet").getvalue()[:-300],
    "parquet with a broken page": lambda: (lambda b: b[:60] + b"\xff" * 400 + b[460:])(
        content(frame(), "parquet").getvalue()),
    "an open quotation": lambda: b'id,ant,bee,cat\n"1,0,0,1\n' + b"2,0,0,1\n" * 50,
    "script": lambda: b"id,<script>alert(1)</script>,bee,cat\n1,0,0,1\n",
    "a zip that grows": bomb,
    "one line": lambda: b"id,ant,bee,cat," + b"x" * 100_000,
    "lists": lambda: content(pd.DataFrame({"id": [1], "ant": [[1.0]], "bee": [[0.0]], "cat": [[0.0]]}),
                             "parquet").getvalue(),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_hostile_files_are_one_message(own_studies: Path, name: str, ending: str) -> None:
    with pytest.raises(BadInput) as caught:
        service.save_pred_probs("table", f"x.{ending}", io.BytesIO(HOSTILE[name]()))
    assert len(str(caught.value)) < 700 and "/tmp" not in str(caught.value)
    assert service.pred_probs("table") is None and not list((own_studies / "table").glob(".*.part"))


def test_other_endings_and_files_that_are_too_large_are_refused(
    own_studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x.npy", "x.pkl", "x", "csv", ".csv", "x.csv.exe"):
        with pytest.raises(BadInput, match="as CSV or Parquet"):
            service.save_pred_probs("table", name, content(frame()))
    monkeypatch.setattr(own_probabilities, "MAX_BYTES", 100)
    with pytest.raises(BadInput, match="more than 100 bytes"):
        service.save_pred_probs("table", "x.csv", content(frame()))
    assert service.pred_probs("table") is None


def test_a_disk_that_refuses_keeps_the_earlier_ones(own_studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service.save_pred_probs("table", "good.csv", content(frame()))

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(StoreProblem):
        service.save_pred_probs("table", "other.csv", content(frame()))
    monkeypatch.undo()
    os.environ["INFLUENCE_STUDIES"] = str(own_studies)
    kept = own.kept_origin(opened("table").study)
    assert kept is not None and kept.file == "good.csv"
    assert not [path for path in (own_studies / "table").iterdir() if path.suffix == ".part"]


def test_a_damaged_or_foreign_file_says_so_and_is_not_used(own_studies: Path) -> None:
    service.save_pred_probs("table", "good.csv", content(frame()))
    file = own_studies / "table" / own.FILE_NAME
    whole = file.read_bytes()
    file.write_bytes(whole[:200])
    shown = service.pred_probs("table")
    assert shown is not None and "cannot be read" in shown.problem and search_of(opened("table")).pred_probs is None
    (own_studies / "linear" / own.FILE_NAME).write_bytes(whole)
    shown = service.pred_probs("linear")
    assert shown is not None and "of other rows" in shown.problem
    assert isinstance(service.suspects("linear", ALL), service.FitNeeded)  # the screen goes on without them
    service.remove_pred_probs("linear")
    assert service.pred_probs("linear") is None


def test_a_regression_takes_none(more_studies: Path) -> None:
    name = next(f.name for f in sorted(more_studies.iterdir())
                if (f / "study.toml").exists() and opened(f.name).study.header.task == "regression")  # fmt: skip
    with pytest.raises(BadInput, match="labels are numbers"):
        service.save_pred_probs(name, "x.csv", io.BytesIO(b"id,a\n1,1\n"))
    assert service.pred_probs(name) is None


def test_they_travel_in_an_archive(own_studies: Path, tmp_path: Path) -> None:
    service.save_pred_probs("table", "good.csv", content(frame()))
    archive = write_archive(own_studies / "table", tmp_path / "table.zip", Run())
    taken = import_archive(archive, tmp_path / "taken", Run())
    origin, there = own.kept_origin(taken), own.kept_probabilities(taken)
    assert origin is not None and origin.file == "good.csv" and there is not None
    assert np.allclose(there.numpy(), shares(), atol=1e-12)


def test_an_array_is_taken_in_the_order_of_rows_and_classes(own_studies: Path, tmp_path: Path) -> None:
    study = opened("table").study
    np.save(tmp_path / "x.npy", shares())
    assert np.array_equal(read_pred_probs(study, tmp_path / "x.npy").numpy(), shares())
    for wrong, words in ((shares(59), "59 x 3"), (shares()[:, :2], "60 x 2"), (np.zeros((60, 3)), "sum to 0")):
        np.save(tmp_path / "x.npy", wrong)
        with pytest.raises(BadInput, match=words):
            read_pred_probs(study, tmp_path / "x.npy")
