"""The import job of a worker that died goes on in the next worker, with what the first one had done."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from influence_core import service
from influence_core.readers import Roles, import_table, open_source
from influence_core.run import Run
from influence_core.service import imports, previews

ROOT = Path(__file__).parents[2]
ROLES = Roles.checked({"label": "spam", "text": "text"})


@pytest.fixture(autouse=True)
def studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own; workers are started by the test."""
    monkeypatch.setenv("INFLUENCE_STUDIES", str(tmp_path / "studies"))
    monkeypatch.setattr(imports, "ensure_worker", lambda folder: False)
    monkeypatch.setattr(previews, "_opened", previews.OrderedDict())
    yield tmp_path / "studies"
    for held in previews._opened.values():
        held.close()


def texts(n: int = 3_000) -> bytes:
    """Texts whose encoding takes a second or more, which is when the worker dies."""
    draw = np.random.default_rng(0)
    words = np.asarray([f"w{i}" for i in range(5_000)])
    lines = [" ".join(row) for row in words[draw.integers(0, len(words), (n, 80))]]
    return ("text,spam\n" + "\n".join(f"{'prize ' * (i % 2)}{line},{i % 2}" for i, line in enumerate(lines))).encode()


def worker(studies: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "influence_core", "worker", str(studies)], env=environment)


def waited(found, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def content(study: Path) -> dict[str, bytes]:
    names = ("train.parquet", "test.parquet", "locked.parquet", "encoder.json")
    files = [*(study / name for name in names), *sorted((study / "checkpoints").iterdir())]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an import that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "mine.csv").write_bytes(texts())
    with open_source(folder / "mine.csv") as source:
        return content(import_table(source, ROLES, folder / "mine", Run(device="cpu"), name="mine").path)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_the_next_worker_goes_on_where_the_last_one_died(
    studies: Path, whole: dict[str, bytes], number: int
) -> None:  # fmt: skip
    token = service.save_upload("mine.csv", io.BytesIO(texts()))
    item = service.start_import(token, ROLES.to_json(), "Mine")
    first = worker(studies)
    waited(lambda: list(studies.glob(".mine-importing-*/rows.json")))
    first.send_signal(number)
    first.wait()
    (kept,) = studies.glob(".mine-importing-*")
    written = (kept / "train.parquet").stat()
    service.tidy_studies()  # as at the next start
    second = worker(studies)
    try:
        waited(lambda: service.pending_import(item.name) is None)
    finally:
        second.terminate()
        second.wait()
    study = studies / item.name
    assert (study / "train.parquet").stat().st_ino == written.st_ino  # the very file that the first one wrote
    assert content(study) == whole
    assert not list(studies.glob(".mine-importing-*"))


def test_an_import_that_is_given_up_takes_its_work_with_it(studies: Path) -> None:
    token = service.save_upload("mine.csv", io.BytesIO(texts()))
    item = service.start_import(token, {"label": "spam", "text": "text"}, "Mine")
    first = worker(studies)
    waited(lambda: list(studies.glob(".mine-importing-*/rows.json")))
    service.cancel_import(item.name)
    waited(lambda: not service.pending_imports()[0].job.is_active)
    first.terminate()
    first.wait()
    assert list(studies.glob(".mine-importing-*/rows.json"))
    service.discard_import(item.name)
    assert not list(studies.glob(".mine-importing-*")) and not (studies / "mine").exists()
