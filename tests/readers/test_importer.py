from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from influence_core.api import attribute
from influence_core.errors import BadInput, Cancelled
from influence_core.readers import Roles, guessed_roles, import_table, open_source
from influence_core.run import Run
from influence_core.study import Study

SHARED = Path(__file__).parents[3] / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data folder is not beside this checkout")


def table(n: int = 240) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, 2)).round(3)
    city = draw.choice(["Zürich", "Łódź", "São Paulo"], n)
    label = np.where(x[:, 0] + 0.2 * (city == "Łódź") > 0, "ja", "nein")
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "city": city, "day": "2024-01-02", "y": label})
    frame.loc[::7, "b"] = np.nan
    frame["day"] = pd.date_range("2024-01-01", periods=n).strftime("%Y-%m-%d")
    return frame


def imported(frame: pd.DataFrame, tmp_path: Path, run: Run | None = None, **roles) -> Study:
    frame.to_csv(tmp_path / "a.csv", index=False)
    with open_source(tmp_path / "a.csv") as source:
        chosen = Roles(**roles) if roles else guessed_roles(source, "y")
        return import_table(source, chosen, tmp_path / "out" / "mine", run or Run(device="cpu"))


def accuracy(study: Study, split: str) -> float:
    truth = study.label_index(split)
    return float((study.task.predicted(split, torch.arange(len(truth))).numpy() == truth).mean())


def test_a_table_becomes_a_study_that_explains(tmp_path: Path) -> None:
    frame = table()
    study = imported(frame, tmp_path)
    header = study.header
    assert (header.name, header.title, header.modality, header.task) == ("mine", "a.csv", "table", "classification")
    assert header.classes == ("ja", "nein") and header.loss == "cross_entropy" and len(header.checkpoints) >= 3
    sizes = {split: study.n_rows(split) for split in study.splits}
    assert sum(sizes.values()) == 240 and abs(sizes["train"] - 168) <= 2 and abs(sizes["test"] - 36) <= 2
    # Ids are row numbers: every row of the study is that row of the file.
    for split in study.splits:
        for row in study.rows(split, range(sizes[split])).to_pylist():
            given = frame.iloc[row["id"] - 1]
            assert (row["a"], row["city"], row["label"]) == (given["a"], given["city"], given["y"])
            assert row["b"] == given["b"] or (row["b"] is None and np.isnan(given["b"]))
    assert accuracy(study, "test") > 0.85
    test_ids = study.column("test", "id")[:2].tolist()
    result = attribute(study, "tracin_cp", test=test_ids, run=Run(device="cpu"))
    assert result.scores.shape == (2, sizes["train"]) and bool(torch.isfinite(result.scores).all())
    assert not [p for p in (tmp_path / "out").iterdir() if p.name != "mine"]


def test_the_same_rows_give_the_same_study(tmp_path: Path) -> None:
    prints = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        prints.append(imported(table(), tmp_path / name).fingerprint)
    assert prints[0] == prints[1]


def test_columns_called_id_and_label_give_way(tmp_path: Path) -> None:
    frame = table().rename(columns={"a": "label", "b": "id"}).assign(key=[f"k{i}" for i in range(240)])
    study = imported(frame, tmp_path, label="y", id="key", features=("label", "id", "city"))
    rows = study.rows("train", range(5)).to_pylist()
    assert list(rows[0]) == ["id", "label", "original label", "original id", "city", "day"]
    for row in rows:
        assert row["original label"] == frame["label"][int(row["id"][1:])]
    assert study.header.notes and any("'original id'" in note for note in study.header.notes)


def test_missing_labels_are_dropped_and_counted(tmp_path: Path) -> None:
    frame = table()
    frame.loc[:4, "y"] = None
    study = imported(frame, tmp_path)
    assert sum(study.n_rows(split) for split in study.splits) == 235
    assert "5 rows without a label were left out." in study.header.notes


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([0, 1], ("0", "1")), ([2, 10, 1], ("1", "2", "10")), ([True, False], ("false", "true")),
     (["日本", "b\tc", "<i>"], ("<i>", "b\tc", "日本")), ([-1.0, 1.0], ("-1", "1"))],
)  # fmt: skip
def test_labels_of_every_kind(tmp_path: Path, labels: list, classes: tuple) -> None:
    frame = table()
    frame["y"] = [labels[i % len(labels)] for i in range(len(frame))]
    study = imported(frame, tmp_path)
    assert study.header.classes == classes
    assert set(study.label_index("train").tolist()) == set(range(len(classes)))


def test_regression(tmp_path: Path) -> None:
    frame = table()
    frame["y"] = 150 + 30 * frame["a"]
    study = imported(frame, tmp_path)
    assert (study.header.task, study.header.loss, study.header.classes) == ("regression", "mse", ())
    targets = study.targets("train")
    assert targets.dtype == np.float32 and abs(targets.mean() - 150) < 10
    result = attribute(study, "tracin_cp", test=study.column("test", "id")[:1].tolist(), run=Run(device="cpu"))
    assert bool(torch.isfinite(result.scores).all())


def test_text(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    spam = draw.integers(0, 2, 200)
    words = [["meeting", "lunch", "tomorrow"], ["prize", "winner", "claim"]]
    texts = [" ".join([*draw.choice(words[k], 4), *draw.choice(list("abcdefghij"), 15)]) for k in spam]
    study = imported(pd.DataFrame({"text": texts, "y": spam}), tmp_path)
    assert study.header.modality == "text" and study.rows("train", [0]).column_names == ["id", "label", "text"]
    assert accuracy(study, "test") > 0.9


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
def test_work_cancelled_before_a_stage_is_done_leaves_nothing(tmp_path: Path, calls: int) -> None:
    left = iter(range(calls))
    with pytest.raises(Cancelled):
        imported(table(), tmp_path, Run(device="cpu", cancel=lambda: next(left, None) is None))
    kept = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert not [path for path in kept if not list(path.glob("rows.json"))]


def test_a_study_is_never_overwritten_and_a_job_list_stays(tmp_path: Path) -> None:
    (tmp_path / "out" / "mine").mkdir(parents=True)
    (tmp_path / "out" / "mine" / "jobs.sqlite").write_bytes(b"jobs")
    study = imported(table(), tmp_path)
    assert (study.path / "jobs.sqlite").read_bytes() == b"jobs"
    with pytest.raises(BadInput, match="The folder is taken"):
        imported(table(), tmp_path)


def test_a_test_row_far_outside_the_range_of_train_never_makes_a_study_that_cannot_be_opened(tmp_path: Path) -> None:
    frame = table()
    frame["x"], frame["split"] = np.arange(240) * 1e-20, ["train"] * 200 + ["test"] * 40
    frame.loc[210, "x"] = 1e25
    try:
        study = imported(frame, tmp_path)
    except BadInput as error:
        assert "row 211 holds one that is" in error.why
        assert not list((tmp_path / "out").iterdir())
    else:
        for split in study.splits:
            outputs = study.task.outputs_of(split, slice(None))
            assert bool(torch.isfinite(outputs).all())


def test_identical_rows_never_straddle(tmp_path: Path) -> None:
    frame = pd.concat([table(80)] * 3, ignore_index=True)
    study = imported(frame, tmp_path)
    seen: dict[tuple, str] = {}
    for split in study.splits:
        for row in study.rows(split, range(study.n_rows(split))).to_pylist():
            content = tuple(v for k, v in row.items() if k not in ("id", "label"))
            assert seen.setdefault(content, split) == split


@shared
@pytest.mark.parametrize(
    ("file", "label", "n", "floor"),
    [("sms-spam.csv", "spam", 4837, 0.95), ("compas-scores-two-years.csv", "two_year_recid", 7214, 0.9)],
)
@pytest.mark.parametrize("named", [True, False])
def test_the_shared_files_import_as_they_are(
    tmp_path: Path, file: str, label: str, n: int, floor: float, named: bool
) -> None:
    with open_source(SHARED / file) as source:
        roles = guessed_roles(source, label if named else None)
        study = import_table(source, roles, tmp_path / "s", Run(device="cpu"))
    assert sum(study.n_rows(split) for split in study.splits) == n
    assert accuracy(study, "test") > floor


_BIG = """
import sys, time, resource
from pathlib import Path
from influence_core.readers import guessed_roles, import_table, open_source
from influence_core.run import Run
start = time.monotonic()
with open_source(Path(sys.argv[1])) as source:
    study = import_table(source, guessed_roles(source, "y"), Path(sys.argv[2]), Run(device="cpu"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, round(time.monotonic() - start, 1))
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_million_rows_stay_within_two_gibibytes(tmp_path: Path) -> None:
    draw, n = np.random.default_rng(0), 1_000_000
    frame = pd.DataFrame({f"x{i}": draw.normal(size=n) for i in range(8)})
    frame["city"] = draw.choice(["a", "b", "c"], n)
    frame["y"] = np.where(frame["x0"] + frame["x1"] > 0, "up", "down")
    frame.to_parquet(tmp_path / "big.parquet")
    command = [sys.executable, "-c", _BIG, str(tmp_path / "big.parquet"), str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1700)
    assert result.returncode == 0, result.stderr
    peak, seconds = result.stdout.split()[-2:]
    print(f"peak {peak} MiB, {seconds} s")
    assert int(peak) < 2048
    assert Study.open(tmp_path / "out").n_rows("train") == pytest.approx(700_000, abs=5)
