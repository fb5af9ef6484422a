"""The rules of the layout that no type checker sees: who may import whom, and what thin files must not contain."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("streamlit", "plotly", "ray", "umap", "captum", "sklearn", "xgboost", "lightgbm")
# What several methods share lies directly in estimators/; the methods lie in the families below.
BASES = {path.stem for path in (ROOT / "influence_core" / "estimators").glob("*.py")} - {"__init__"}
SESSION = "pages/components/session.py"
SIGN_IN = "pages/components/signin.py"
MAX_MODULE_LINES = 400
MAX_SCREEN_LINES = 100
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
FILE_CALLS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}


def files(*patterns: str) -> list[str]:
    """Paths below the root, as posix strings so that they read well as test ids."""
    found = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def each(*patterns: str, keep: Callable[[str], bool] = lambda path: True) -> pytest.MarkDecorator:
    """One test per file; pytest skips the test where the folder is still empty."""
    return pytest.mark.parametrize("path", [path for path in files(*patterns) if keep(path)])


def parsed(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=path)


def imports(tree: ast.AST, package: str = "") -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported: `from a import b` gives `a.b`; `package` resolves relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


def called_name(node: ast.Call) -> str:
    return ast.unparse(node.func)


def thin_violations(tree: ast.AST) -> list[str]:
    """What a screen must leave to components and the service: error handling, tensors, files."""
    found = [f"line {node.lineno}: try" for node in ast.walk(tree) if isinstance(node, ast.Try | ast.TryStar)]
    found += [
        f"line {line}: imports {name}"
        for line, name in imports(tree)
        if any(is_within(name, module) for module in ("torch", "numpy", "torchvision"))
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called_name(node).rsplit(".", 1)[-1] in FILE_CALLS:
            found.append(f"line {node.lineno}: {called_name(node)}(")
    return found


def session_violations(tree: ast.AST) -> list[str]:
    """Every touch of the session state or the query parameters, however it was imported."""
    names = {"session_state", "query_params"}
    touched = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in names]
    found = [f"line {node.lineno}: {ast.unparse(node)}" for node in touched]
    return found + [f"line {line}: {name}" for line, name in imports(tree) if name.rsplit(".", 1)[-1] in names]


def person_violations(tree: ast.AST) -> list[str]:
    """Every touch of who is signed in, or of the secrets, however it was imported."""
    names = {f"streamlit.{name}" for name in ("user", "login", "logout", "secrets")}
    short = {name.replace("streamlit", "st") for name in names}
    touched = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) in names | short]
    found = [f"line {node.lineno}: {ast.unparse(node)}" for node in touched]
    return found + [f"line {line}: {name}" for line, name in imports(tree) if name in names]


def engine_violations(tree: ast.AST, package: str) -> list[str]:
    """Imports of the engine other than its service."""
    return [
        f"line {line}: {name}"
        for line, name in imports(tree, package)
        if is_within(name, "influence_core") and not is_within(name, "influence_core.service")
    ]


def sibling_violations(tree: ast.AST, module: str) -> list[str]:
    """Imports of another estimator; `module` is the importing module's full dotted name."""
    allowed = tuple(f"influence_core.estimators.{base}" for base in BASES)
    return [
        f"line {line}: {name}"
        for line, name in imports(tree, module.rpartition(".")[0])
        if is_within(name, "influence_core.estimators") and not any(is_within(name, base) for base in allowed)
    ]


def unsafe_violations(tree: ast.AST) -> list[str]:
    """Everything that would run code out of a data file."""
    found = [f"line {line}: imports {name}" for line, name in imports(tree) if name.split(".")[0] in UNSAFE_MODULES]
    found += [
        f"line {line}: imports {name}"
        for line, name in imports(tree)
        if name in {"torch.load", "joblib.load", "joblib.dump", "pandas.read_pickle"}
    ]
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = called_name(node)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "torch.load" and not is_constant(given.get("weights_only"), True):
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if name.rsplit(".", 1)[-1] in {"read_pickle", "to_pickle"} or name in {"joblib.load", "joblib.dump"}:
            found.append(f"line {node.lineno}: {name}")
        if "allow_pickle" in given and not is_constant(given["allow_pickle"], False):
            found.append(f"line {node.lineno}: {name}(allow_pickle=...)")
    return found


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_importing_the_engine_loads_no_interface_and_no_optional_library() -> None:
    code = f"import sys, json, influence_core; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


@each("app.py", "pages/screens/*.py")
def test_screens_are_thin(path: str) -> None:
    assert thin_violations(parsed(path)) == []


@each("app.py", "pages/screens/*.py")
def test_screens_are_short(path: str) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_SCREEN_LINES


@each("app.py", "pages/**/*.py", keep=lambda path: path != SESSION)
def test_only_the_session_component_touches_session_and_url(path: str) -> None:
    assert session_violations(parsed(path)) == []


@each("app.py", "pages/**/*.py", keep=lambda path: path != SIGN_IN)
def test_only_the_sign_in_component_knows_the_person(path: str) -> None:
    assert person_violations(parsed(path)) == []


@each("app.py", "pages/**/*.py")
def test_the_interface_imports_only_the_service(path: str) -> None:
    assert engine_violations(parsed(path), path.rpartition("/")[0].replace("/", ".")) == []


def test_layers_inside_the_engine() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    assert linter.exists(), "import-linter is not installed; make test installs it"
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


@each("influence_core/estimators/*/*.py")
def test_estimators_import_no_other_estimator(path: str) -> None:
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    # The dotted name of a package's own __init__ is one level higher; its siblings resolve from inside the package.
    module = module + ".__init__" if path.endswith("/__init__.py") else module
    assert sibling_violations(parsed(path), module) == []


@each("influence_core/estimators/*/*.py", keep=lambda path: not path.endswith("/__init__.py"))
def test_every_estimator_has_its_oracle_test(path: str) -> None:
    expected = f"tests/estimators/test_{Path(path).name}"
    assert (ROOT / expected).is_file(), f"{path} needs {expected}"


@each("app.py", "influence_core/**/*.py", "pages/**/*.py", "benchmarks/**/*.py")
def test_modules_stay_small(path: str) -> None:
    assert len((ROOT / path).read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


@each("app.py", "influence_core/**/*.py", "pages/**/*.py")
def test_nothing_is_unpickled(path: str) -> None:
    assert unsafe_violations(parsed(path)) == []


@pytest.mark.parametrize(
    ("check", "source", "expected"),
    [
        (thin_violations, "try:\n    f()\nexcept ValueError:\n    pass", 1),
        (thin_violations, "import numpy as np\nfrom torch import nn\nimport torch.nn.functional as F", 3),
        (thin_violations, "from pathlib import Path\nopen('a')\nPath('a').read_text()\nPath('a').open()", 3),
        (thin_violations, "import streamlit as st\nst.write('try to open(a) it')", 0),
        (session_violations, "import streamlit as st\nst.session_state['a'] = st.query_params.get('b')", 2),
        (session_violations, "from streamlit import session_state", 1),
        (session_violations, "from pages.components import session\nsession.place()", 0),
        (person_violations, "import streamlit as st\nst.user.email\nst.login()\nst.secrets['a']", 3),
        (person_violations, "from streamlit import user", 1),
        (person_violations, "from pages.components import signin\nsignin.user\nst.username", 0),
        (unsafe_violations, "import pickle\nfrom cloudpickle import loads\nimport marshal", 3),
        (unsafe_violations, "import torch\ntorch.load('a')\ntorch.load('a', weights_only=False)", 2),
        (unsafe_violations, "import torch\ntorch.load('a', weights_only=True)\nfrom torch import load", 1),
        (unsafe_violations, "import numpy as np\nnp.load('a', allow_pickle=True)\nnp.load('a', allow_pickle=False)", 1),
        (unsafe_violations, "import joblib\njoblib.load('a')\njoblib.Parallel()\nframe.to_pickle('a')", 2),
    ],
)
def test_the_checks_see_what_they_forbid(check: Callable[[ast.AST], list[str]], source: str, expected: int) -> None:
    assert len(check(ast.parse(source))) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from influence_core import attribute", 1),
        ("import influence_core.task", 1),
        ("import influence_core", 1),
        ("from influence_core.service import catalog\nfrom influence_core import service", 0),
        ("from influence_core.services_of_another_kind import x", 1),
        ("from ...influence_core.store import Store", 1),
    ],
)
def test_the_engine_check_sees_what_it_forbids(source: str, expected: int) -> None:
    assert len(engine_violations(ast.parse(source), "pages.components")) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from influence_core.estimators.gradient.grad_dot import GradDot", 1),
        ("from .grad_dot import GradDot", 1),
        ("from ..curvature import if_exact", 1),
        ("from ..bilinear import Bilinear\nfrom influence_core.estimators.resampling import Resampling", 0),
        ("from influence_core.estimators import bilinear", 0),
        ("from influence_core.estimator import Estimator", 0),
    ],
)
def test_the_estimator_check_sees_what_it_forbids(source: str, expected: int) -> None:
    module = "influence_core.estimators.gradient.tracin_cp"
    assert len(sibling_violations(ast.parse(source), module)) == expected
