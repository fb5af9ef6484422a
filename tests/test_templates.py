"""Every example that `init` writes runs as it stands, in a folder of its own, and ends with ranked training rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from influence_core.__main__ import main
from influence_core.commands.init import TEMPLATES, names

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = {"own-loop": "train.py", "image-folders": "image.py", "texts": "text.py", "table-of-classes": "table.py",
           "table-of-numbers": "regression.py", "scikit-learn": "sklearn_model.py"}  # fmt: skip
FAST = ("own-loop", "table-of-classes")


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in SCRIPTS])
def test_an_example_runs_and_ranks_training_rows(name: str, tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "mine"), "--example", name]) == 0
    printed = run(tmp_path / "mine", SCRIPTS[name])
    assert "proponent" in printed and "opponent" in printed, printed
    assert list((tmp_path / "mine" / "studies").glob("*/study.toml"))


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    assert main(["init", str(tmp_path / "mine"), "--example", "notebook"]) == 0
    book = json.loads((tmp_path / "mine" / "influence.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
    (tmp_path / "mine" / "cells.py").write_text("\n\n".join([*cells, "print(answer, len(found))"]))
    assert int(run(tmp_path / "mine", "cells.py").split()[-1]) > 60, "of 100 planted label errors, among the first 100"


def test_every_example_is_named_and_run() -> None:
    assert names() == sorted([*SCRIPTS, "notebook"])
    assert all((TEMPLATES / name / file).is_file() for name, file in SCRIPTS.items())


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["init", str(tmp_path / "new"), "--example", "another"]) == 2
    assert "own-loop" in capsys.readouterr().err and not (tmp_path / "new").exists()
