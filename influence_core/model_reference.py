"""Models by name: built in, or ``package.module:factory``, which is code and runs only when a person has named it."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from influence_core import architectures
from influence_core.errors import BadInput, InfluenceError

VARIABLE = "INFLUENCE_MODELS"
_NAME = r"[^\W\d]\w*"
_REFERENCE = re.compile(rf"{_NAME}(\.{_NAME})*:{_NAME}(\.{_NAME})*")
_FIX = "Correct this file; its packages must be installed where this program runs."
_allowed: set[str] = set()


def is_reference(text: object) -> bool:
    """Tell whether a text has the form ``package.module:factory``."""
    return isinstance(text, str) and len(text) < 500 and _REFERENCE.fullmatch(text) is not None


def allow_model(reference: str) -> None:
    """Trust a reference in this process.

    Raises:
        BadInput: It is none.
    """
    _allowed.add(_checked(reference))


def is_allowed(reference: str) -> bool:
    """Tell whether a person has named a reference: in this process, or in the environment as ``INFLUENCE_MODELS``."""
    named = {part.strip() for part in os.environ.get(VARIABLE, "").split(",")}
    return reference in _allowed or reference in named


def is_off(model: Mapping[str, Any]) -> bool:
    """Tell whether the ``[model]`` of a study is code that nobody has named."""
    return "reference" in model and not is_allowed(str(model["reference"]))


def model_factory(model: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Return a zero-argument factory of the model that a study's ``[model]`` names.

    Raises:
        BadInput: Unknown, switched off, or its code does not run; the last one names file, line and message.
    """
    if "reference" not in model:
        return architectures.model_factory(model["architecture"], model.get("options", {}))
    reference = _checked(model["reference"])
    if not is_allowed(reference):
        raise BadInput(
            "The model of this study is switched off",
            f"study.toml names '{reference}', which is code of its own.",
            f"If you trust it, start with --model {reference}, or make run MODELS={reference}.",
        )
    return UserModel(reference, _imported(reference))


@dataclass(frozen=True)
class UserModel:
    """A factory of the user's; what goes wrong inside is named as theirs."""

    reference: str
    function: Callable[[], Any]

    def __call__(self) -> nn.Module:
        """Return a new model.

        Raises:
            BadInput: The function fails, or returns something else.
        """
        with running_user_code("The model cannot be built", self.reference):
            model = self.function()
        if not isinstance(model, nn.Module):
            raise BadInput(
                "The model cannot be built",
                f"'{self.reference}' returned a {type(model).__name__}.",
                "Return a torch.nn.Module.",
            )
        return model


@contextmanager
def running_user_code(what: str, reference: str, fix: str = "") -> Iterator[None]:
    """Name what the user's code raises: file, line and message in one sentence.

    Raises:
        BadInput: ``what``, a clause; ``fix``, or that the file needs a correction.
    """
    try:
        yield
    except InfluenceError:
        raise
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever it is, it is theirs)
        raise _theirs(what, reference, error, fix or _FIX) from error


def reference_of(function: Any) -> str:
    """Return ``package.module:name`` of a function or class that another process can import.

    Raises:
        BadInput: It is made on the spot, or stands in the script that runs or in a notebook.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    what, fix = "The model cannot be found again", "Put a function without arguments into a module of its own."
    if isinstance(function, nn.Module):
        why = f"A {type(function).__name__} in memory was given; a study needs code that builds it in another process."
        fix = "Give model='package.module:factory' and checkpoints=[model.state_dict()]."
        raise BadInput(what, why, fix)
    if not callable(function) or not module or not name:
        why = f"A {type(function).__name__} was given."
        raise BadInput(what, why, "Give 'package.module:factory' or that function.")
    if module == "__main__":
        why = f"'{name}' is defined in the script or notebook that runs, which another process cannot import."
        raise BadInput(what, why, f"{fix[:-1]}, and give model='module:{name.rpartition('.')[2]}'.")
    if not is_reference(f"{module}:{name}"):
        raise BadInput(what, f"'{name}' is defined inside another function.", fix)
    return f"{module}:{name}"


def _checked(reference: object) -> str:
    if not is_reference(reference):
        raise BadInput(
            "This is no model reference",
            f"It is {str(reference)[:200]!r}.",
            "Give package.module:factory, as in 'mypackage.models:make_net'.",
        )
    return str(reference)


def _imported(reference: str) -> Callable[[], Any]:
    """Return the function behind a reference; a module is looked for in the current folder too, after all others."""
    module_name, _, name = reference.partition(":")
    if not {os.getcwd(), ""} & set(sys.path):
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()  # it may have been written a moment ago
    what = "The module of the model cannot be imported"
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        parts = module_name.split(".")
        if error.name not in {".".join(parts[: i + 1]) for i in range(len(parts))}:
            raise _theirs(what, reference, error) from error
        why = f"There is no module '{error.name}' in {os.getcwd()}, on PYTHONPATH or among the installed packages."
        raise BadInput(what, why, "Start in the folder that holds it, or set PYTHONPATH to that folder.") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever the user's code raises)
        raise _theirs(what, reference, error) from error
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found) or isinstance(found, nn.Module):
        held = "no such name" if found is None else f"a {type(found).__name__}, no function"
        raise BadInput(
            "The model cannot be found", f"'{name}' in module '{module_name}' is {held}.", "Correct the reference."
        )
    return found


def _theirs(what: str, reference: str, error: BaseException, fix: str = _FIX) -> BadInput:
    """Return what the user's code raised as one message: file, line, error."""
    # Their own lines only: not this program's, and not those of the packages that they call.
    others = ("<", os.path.dirname(__file__) + os.sep, os.path.dirname(os.__file__) + os.sep)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(others)]
    frames = [frame for frame in frames if f"{os.sep}site-packages{os.sep}" not in frame.filename]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}: " if frames else ""
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}: "
    message = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:300]
    why = f"{reference}: {place}{type(error).__name__}: {str(message).rstrip('.')}."
    return BadInput(what, why, fix)
