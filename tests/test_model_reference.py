"""Code by reference: it runs only when a person has named it, and what goes wrong in it is named as theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from influence_core import Study, model_reference
from influence_core.__main__ import main
from influence_core.errors import BadInput
from influence_core.model_reference import allow_model, is_off, is_reference, model_factory, reference_of
from tests import own_models

ROOT = Path(__file__).resolve().parents[1]
CODE = """
from pathlib import Path
Path({touched!r}).touch()
from torch import nn

def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to import from, in a process that has allowed nothing."""
    monkeypatch.setattr(model_reference, "_allowed", set())
    monkeypatch.delenv("INFLUENCE_MODELS", raising=False)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", os.getcwd())] + [str(ROOT)])
    known = set(sys.modules)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield tmp_path / "work"
    for name in set(sys.modules) - known:
        if name.startswith("theirs"):
            del sys.modules[name]


def written(folder: Path, code: str, name: str = "theirs") -> str:
    (folder / f"{name}.py").write_text(code)
    return f"{name}:make"


def their_study(folder: Path, reference: str) -> Path:
    """A study of a module in the folder, saved by a process that trusts it."""
    state = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).state_dict()
    rows = torch.randn(12, 4, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2
    test = rows[0][:5] + 1, rows[1][:5]
    return Study.from_torch(
        "mine", reference, train=rows, test=test, checkpoints=[state], learning_rates=[0.1], out=folder / "studies/mine"
    ).path  # fmt: skip


def test_a_study_from_elsewhere_runs_no_code_until_it_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched = folder / "touched"
    path = their_study(folder, written(folder, CODE.format(touched=str(touched))))
    assert touched.exists()
    touched.unlink()
    del sys.modules["theirs"]
    model_reference._allowed.clear()
    study = Study(path)
    assert is_off(study.header.model)
    for ask in (lambda: study.task, lambda: study.fingerprint):
        with pytest.raises(BadInput, match="switched off") as caught:
            ask()
    assert caught.value.fix == "If you trust it, start with --model theirs:make, or make run MODELS=theirs:make."
    assert study.n_rows("train") == 12 and study.rows("test", [1])["label"].to_pylist() == ["1"]  # the data can be read
    assert study.label_index("test").tolist() == [0, 1, 0, 1, 0]
    assert not touched.exists() and "theirs" not in sys.modules
    allow_model("theirs:another")  # trusts that one alone
    with pytest.raises(BadInput, match="switched off"):
        _ = Study(path).task
    assert not touched.exists()
    monkeypatch.setenv("INFLUENCE_MODELS", "x:y, theirs:make")
    assert Study(path).task.n_params == 10 and touched.exists() and not is_off(study.header.model)


def test_the_command_line_names_models(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touched = folder / "touched"
    path = str(their_study(folder, written(folder, CODE.format(touched=str(touched)))))
    touched.unlink()
    command = [sys.executable, "-m", "influence_core"]
    tail = ["self-influence", path, "--method", "grad_dot", "--format", "csv"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    off = subprocess.run([*command, *tail], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert off.returncode == 2 and "--model theirs:make" in off.stderr and "Traceback" not in off.stderr
    assert not touched.exists()
    named = [*command, "--model", "theirs:make", *tail]
    on = subprocess.run(named, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert on.returncode == 0, on.stderr
    assert len(on.stdout.splitlines()) == 13 and touched.exists()
    assert main(["--model", "os.system", *tail]) == 2 and "no model reference" in capsys.readouterr().err
    assert "INFLUENCE_MODELS" not in os.environ


def test_models_named_on_the_command_line_hold_for_processes_that_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from influence_core.commands.base import allow_models

    monkeypatch.setattr(model_reference, "_allowed", set())
    monkeypatch.setenv("INFLUENCE_MODELS", "a:b")
    allow_models(["c.d:e", "a:b"])
    assert os.environ["INFLUENCE_MODELS"] == "a:b,c.d:e"
    allow_models([])
    assert os.environ["INFLUENCE_MODELS"] == "a:b,c.d:e"


def test_a_module_is_found_in_the_current_folder_and_on_pythonpath(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = written(folder, "from torch import nn\ndef make(): return nn.Linear(2, 3)")
    allow_model(here)
    assert model_factory({"reference": here})().weight.shape == (3, 2)
    (tmp_path / "else").mkdir()
    there = written(tmp_path / "else", "from torch import nn\ndef make(): return nn.Linear(4, 5)", "theirs_too")
    allow_model(there)
    with pytest.raises(BadInput, match="no module 'theirs_too' in .*work, on PYTHONPATH"):
        model_factory({"reference": there})
    monkeypatch.setattr(sys, "path", [str(tmp_path / "else"), *sys.path])
    assert model_factory({"reference": there})().weight.shape == (5, 4)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from torch import nn\n\ndef make(:\n", r"theirs\.py, line 3: SyntaxError"),
        ("x = 1\ny = x / 0\n", r"theirs\.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_package_at_all\n", r"theirs\.py, line 1: ModuleNotFoundError: No module named 'no_such"),
        ("import sys\nsys.exit(3)\n", r"theirs\.py, line 2: SystemExit: 3"),
        ("def other():\n    pass\n", "'make' in module 'theirs' is no such name"),
        ("make = 5\n", "a int, no function"),
        ("def make():\n    return 5\n", "'theirs:make' returned a int"),
        ("def make(size):\n    return size\n", "TypeError: make.* missing 1 required positional argument: 'size'"),
        ("def make():\n    x = []\n    return x[1]\n", r"theirs\.py, line 3: IndexError: list index out of range"),
    ],
)
def test_what_goes_wrong_in_their_code_is_one_message_with_file_and_line(code: str, message: str, folder: Path) -> None:
    reference = written(folder, code)
    allow_model(reference)
    with pytest.raises(BadInput, match=message) as caught:
        model_factory({"reference": reference})()
    assert "\n" not in str(caught.value) and caught.value.fix


def test_references_have_one_form() -> None:
    for good in ("a:b", "a.b.c:d", "a:B.c", "_a:_b1", "módulo:función"):
        assert is_reference(good)
    for bad in (
        "a",
        "a:",
        ":b",
        "a.:b",
        "a:b()",
        "a b:c",
        "../a:b",
        "a:b\n",
        "1a:b",
        "a:b:c",
        "a" * 600 + ":b",
        5,
        None,
    ):
        assert not is_reference(bad)
        with pytest.raises(BadInput, match="no model reference"):
            allow_model(bad)  # type: ignore[arg-type]


def local() -> Any:
    class Inside(nn.Module):
        pass

    return Inside


def test_the_reference_of_a_function_can_be_imported_again() -> None:
    assert reference_of(own_models.net) == "tests.own_models:net"
    assert reference_of(own_models.Reader) == "tests.own_models:Reader"
    in_script = type("Net", (nn.Module,), {"__module__": "__main__"})
    for bad, message in (
        (lambda: None, "inside another function"), (local(), "inside another function"),
        (in_script, "script or notebook"), (own_models.net(), "in memory"), (5, "A int was given"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=message):
            reference_of(bad)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('reference = "tests.own_models:net"', ""),
        ('reference = "tests.own_models:net"', 'reference = "tests.own_models:net"\narchitecture = "mlp"'),
    ],
)
def test_a_model_by_two_names_or_none_is_refused(old: str, new: str, tmp_path: Path) -> None:
    data = {"train": (torch.zeros(4, 6), torch.arange(4) % 3), "test": (torch.zeros(2, 6), torch.arange(2))}
    state = own_models.net().state_dict()
    study = Study.from_torch("s", own_models.net, **data, checkpoints=[state], out=tmp_path / "s")
    text = (study.path / "study.toml").read_text()
    assert old in text
    (study.path / "study.toml").write_text(text.replace(old, new))
    with pytest.raises(BadInput, match="incomplete.*needs an architecture or a reference"):
        Study(study.path)
    (study.path / "study.toml").write_text(text.replace("tests.own_models:net", "os; import os"))
    with pytest.raises(BadInput, match="no model reference"):
        _ = Study(study.path).task


def test_a_reference_with_arguments_of_the_shell_is_no_reference(folder: Path) -> None:
    with pytest.raises(BadInput):
        model_factory({"reference": "os:system('touch x')"})
    assert not list(folder.iterdir())
