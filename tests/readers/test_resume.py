"""An import that was stopped, however it was stopped, goes on where it was and ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from influence_core import scratch, trajectory
from influence_core.errors import BadInput, Cancelled, StoreProblem
from influence_core.readers import guessed_roles, import_table, open_source, partial, split_files
from influence_core.run import Run
from influence_core.study import Study
from tests.readers.kills import content, killed

# "dividing", "writing" and the encoder's stages come before their record; the training follows all of them.
STAGES = ["dividing the rows", "writing the rows", "fitting the encoder", "encoding the train rows", "training y"]

_IMPORT = """
import sys, time
from pathlib import Path
from influence_core import trajectory
from influence_core.readers import guessed_roles, import_table, open_source, partial
from influence_core.run import Run
trajectory._KEEP_SECONDS = partial._SETTLE_SECONDS = 0.0
def progress(stage, done, total):
    print(stage, flush=True)
    time.sleep(float(sys.argv[3]))
run = Run(device="cpu", progress=progress)
with open_source(sys.argv[1], run) as source:
    import_table(source, guessed_roles(source, "y"), Path(sys.argv[2]), run)
"""


def rows(n: int = 900) -> pd.DataFrame:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(n, 3))
    city = np.asarray(["a", "b", None], object)[draw.integers(0, 3, n)]
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "city": city, "y": np.where(x[:, 0] + x[:, 2] > 0, "up", "down")})


@pytest.fixture(autouse=True)
def _keep_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trajectory, "_KEEP_SECONDS", 0.0)
    monkeypatch.setattr(partial, "_SETTLE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    rows().to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def whole(file: Path) -> dict[str, bytes]:
    return content(imported(file, file.parent / "whole" / "study"))


def imported(file: Path, out: Path, run: Run | None = None) -> Path:
    with open_source(file) as source:
        import_table(source, guessed_roles(source, "y"), out, run or Run(device="cpu"))
    return out


def stopped(file: Path, out: Path, stage: str, at: int) -> list[str]:
    """Cancel at the ``at``-th report of a stage; return the stages seen."""
    seen: list[str] = []

    def progress(said: str, done: float, total: float) -> None:
        seen.append(said.partition(" · ")[0])

    with pytest.raises(Cancelled):
        imported(file, out, Run(device="cpu", progress=progress, cancel=lambda: seen.count(stage) > at))
    return seen


def resumed(file: Path, out: Path) -> list[tuple[str, float]]:
    seen: list[tuple[str, float]] = []
    imported(file, out, Run(device="cpu", progress=lambda said, done, total: seen.append((said, done))))
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_whatever_stage_it_stopped_in_the_study_is_the_same(
    file: Path, whole: dict[str, bytes], tmp_path: Path, stage: str
) -> None:
    out = tmp_path / "study"
    stopped(file, out, stage, 0 if stage != "training y" else 5)
    seen = {said.partition(" · ")[0] for said, _ in resumed(file, out)}
    assert content(out) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
    later = STAGES.index(stage)
    if later >= 2:
        assert not {"dividing the rows", "writing the rows"} & seen
    if later == 4:
        assert not {"fitting the encoder", "encoding the train rows"} & seen
    assert stage in seen


def test_epochs_that_are_done_are_not_trained_again(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"
    stopped(file, out, "training y", 5)
    trained: list[int] = []
    real = trajectory.KeptTraining.keep

    def keep(self, epoch, *rest) -> None:
        trained.append(epoch.number)
        real(self, epoch, *rest)

    monkeypatch.setattr(trajectory.KeptTraining, "keep", keep)
    imported(file, out)
    assert trained[0] > 4 and trained == list(range(trained[0], trained[-1] + 1))


def test_a_training_by_another_recipe_is_not_taken_up(
    file: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from influence_core import default_model

    out = tmp_path / "study"
    with monkeypatch.context() as patch:
        patch.setattr(default_model, "_RECORDED", (0.3, 0.6, 1.0))
        stopped(file, out, "training y", 5)
    assert len(list(tmp_path.glob(".study-importing-*/training.safetensors"))) == 1
    imported(file, out)
    assert content(out) == whole


@pytest.mark.parametrize("damage", ["cut", "gone", "no record"])
def test_work_that_is_not_as_recorded_is_done_again(
    file: Path, whole: dict[str, bytes], tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "study"
    stopped(file, out, "training y", 5)
    (kept,) = tmp_path.glob(".study-importing-*")
    if damage == "no record":
        (kept / "rows.json").write_text("{")
    else:
        for name in ("train.parquet", "inputs.npy", "training.safetensors"):
            whole_bytes = (kept / name).read_bytes()
            (kept / name).unlink()
            if damage == "cut":
                (kept / name).write_bytes(whole_bytes[: len(whole_bytes) // 2])
    assert "dividing the rows" in {said for said, _ in resumed(file, out)}
    assert content(out) == whole


def test_other_rows_or_other_roles_begin_anew_and_the_rest_goes(file: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    stopped(file, out, "training y", 2)
    (kept,) = tmp_path.glob(".study-importing-*")
    with open_source(file) as source:
        roles = guessed_roles(source, "y").changed(features=("a",))
        study = import_table(source, roles, out, Run(device="cpu"))
    assert study.header.feature_names == ("a",) and not kept.exists()
    (tmp_path / "two").mkdir()
    other, place = tmp_path / "two" / "rows.csv", tmp_path / "two" / "study"
    rows(800).to_csv(other, index=False)
    stopped(other, place, "training y", 2)
    rows(700).to_csv(other, index=False)
    imported(other, place)
    assert sum(Study(place).n_rows(split) for split in Study(place).splits) == 700


def test_a_refusal_leaves_nothing_and_an_unforeseen_fault_leaves_the_work(
    file: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from influence_core.readers import importer

    def fails(error: Exception):
        def trained(*_: object, **__: object) -> None:
            raise error

        return trained

    out = tmp_path / "study"
    with monkeypatch.context() as patch:
        patch.setattr(importer, "trained_model", fails(BadInput("No", "It is so.", "Do this.")))
        with pytest.raises(BadInput):
            imported(file, out)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr(importer, "trained_model", fails(MemoryError()))
        with pytest.raises(MemoryError):
            imported(file, out)
    (kept,) = tmp_path.iterdir()
    assert {path.name for path in kept.glob("*.json")} == {"rows.json", "encoded.json", "encoder.json"}
    imported(file, out)
    assert content(out) == whole and [path.name for path in tmp_path.iterdir()] == ["study"]


def test_rows_that_could_not_be_written_are_never_taken_for_done(
    file: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study"

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(split_files.pq.ParquetWriter, "write_table", full)
        stopped(file, out, "fitting the encoder", 0)
        assert not list(tmp_path.glob(".study-importing-*/rows.json"))
        with pytest.raises(StoreProblem):
            imported(file, out)
    assert list(tmp_path.iterdir()) == []
    imported(file, out)
    assert content(out) == whole


def test_the_same_import_twice_at_once_is_refused(file: Path, tmp_path: Path) -> None:
    tried: list[str] = []

    def progress(said: str, done: float, total: float) -> None:
        if said == "fitting the encoder" and not tried:
            tried.append(said)
            with pytest.raises(BadInput, match="running already"):
                imported(file, tmp_path / "study")

    imported(file, tmp_path / "study", Run(device="cpu", progress=progress))
    assert tried and [path.name for path in tmp_path.iterdir()] == ["study"]


def test_work_is_swept_after_a_week_or_when_its_study_is_there(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(file, tmp_path / "study", "training y", 2)
    (kept,) = tmp_path.iterdir()
    monkeypatch.setattr(scratch, "_YOUNG_SECONDS", -1.0)
    assert scratch.swept(tmp_path) == [] and kept.exists()
    with monkeypatch.context() as patch:
        patch.setattr(scratch, "_KEPT_SECONDS", -1.0)
        assert scratch.swept(tmp_path) == [kept.name]
    kept.mkdir()
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.toml").touch()
    assert scratch.swept(tmp_path) == [kept.name]


@pytest.mark.parametrize("stage", [pytest.param("fitting the encoder", marks=pytest.mark.slow), "training y · epoch 4"])
def test_kill_nine_and_again(file: Path, whole: dict[str, bytes], tmp_path: Path, stage: str) -> None:
    out = tmp_path / "study"
    assert killed(_IMPORT, [file, out, 0.05], stage, 0.2)
    assert not out.exists()
    (kept,) = tmp_path.iterdir()
    assert (kept / "rows.json").exists() and (kept / "training.safetensors").exists() == (
        stage == "training y · epoch 4"
    )
    assert "dividing the rows" not in {said for said, _ in resumed(file, out)}
    assert content(out) == whole and [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_series_of_kills_at_any_moment_ends_in_the_same_study(
    file: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    draw, total = np.random.default_rng(0), 0
    for series in range(4):
        out = tmp_path / str(series) / "study"
        kills = 0
        while not (out / "study.toml").exists() and kills < 8:
            kills += killed(_IMPORT, [file, out, 0.01], "reading rows.csv", float(draw.uniform(0.0, 3.0)))
        if not (out / "study.toml").exists():
            imported(file, out)
        assert content(out) == whole
        scratch.swept(out.parent)
        assert [path.name for path in out.parent.iterdir()] == ["study"]
        total += kills
    assert total >= 4
