"""Options: checked on construction, in words; the same key everywhere; JSON there and back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from influence_core.config import Config, digest
from influence_core.errors import BadInput


class Options(Config):
    damping: float = Field(0.01, ge=0, description="Added to the curvature.")
    projection: int | None = Field(None, ge=16, description="Dimensions.")
    layers: tuple[str, ...] | None = Field(None, description="Names of layers.")
    kind: Literal["ggn", "hessian"] = Field("ggn", description="Which curvature.")


class Same(Config):
    damping: float = 0.01
    projection: int | None = None
    layers: tuple[str, ...] | None = None
    kind: Literal["ggn", "hessian"] = "ggn"


def test_an_unknown_option_is_corrected() -> None:
    with pytest.raises(BadInput) as error:
        Options.checked({"projektion": 32})
    assert "'projektion' is not an option" in error.value.why
    assert "did you mean 'projection'?" in error.value.fix


def test_an_unknown_option_like_no_other_lists_them_all() -> None:
    with pytest.raises(BadInput, match="the options are: damping, projection, layers, kind"):
        Options.checked({"zzz": 1})
    with pytest.raises(BadInput, match="the options are: none"):
        Config.checked({"zzz": 1})


@pytest.mark.parametrize(
    ("options", "name", "help_text"),
    [
        ({"damping": -1}, "damping", "Added to the curvature."), ({"damping": float("nan")}, "damping", "Added"),
        ({"damping": float("inf")}, "damping", "Added"), ({"projection": 4}, "projection", "Dimensions."),
        ({"projection": "many"}, "projection", "Dimensions."), ({"layers": "last"}, "layers", "Names of layers."),
        ({"kind": "fisher"}, "kind", "Which curvature."), ({"damping": None}, "damping", "Added"),
    ],
)  # fmt: skip
def test_a_value_out_of_bounds_is_named_with_its_help(options: dict, name: str, help_text: str) -> None:
    with pytest.raises(BadInput) as error:
        Options(**options)
    assert f"'{name}'" in error.value.why and help_text in error.value.fix
    assert "\n" not in str(error.value) and "pydantic" not in str(error.value)


def test_every_problem_is_said_at_once() -> None:
    with pytest.raises(BadInput) as error:
        Options.checked({"damping": -1, "projection": 3, "dampin": 1})
    assert all(word in str(error.value) for word in ("'damping'", "'projection'", "'dampin'"))


def test_options_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError):
        Options().damping = 3  # type: ignore[misc]


def test_changed_is_checked_and_leaves_the_original() -> None:
    options = Options(damping=0.5)
    assert options.changed(projection=32) == Options(damping=0.5, projection=32)
    assert options == Options(damping=0.5)
    with pytest.raises(BadInput):
        options.changed(damping=-1)


def test_json_there_and_back() -> None:
    options = Options(layers=("a", "b"), damping=0.1, projection=64)
    again = Options.checked(json.loads(json.dumps(options.to_json())))
    assert again == options and again.key() == options.key() and hash(again) == hash(options)


def test_keys_tell_options_classes_and_versions_apart() -> None:
    variants = [Options(), Options(damping=0.02), Options(layers=("a",)), Options(layers=("a", "b")),
                Options(layers=("ab",)), Options(kind="hessian"), Options(layers=())]  # fmt: skip
    keys = {options.key() for options in variants}
    assert len(keys) == len(variants)
    assert Same().key() != Options().key()

    before = Options().key()
    try:
        Options.version = 2
        assert Options().key() != before
    finally:
        Options.version = 1
    assert Options().key() == before


def test_digest_is_the_same_in_every_process_and_order() -> None:
    value = {"b": [1, 2.5, None, "ü"], "a": {"y": 1, "x": True}}
    assert digest(value) == digest({"a": {"x": True, "y": 1}, "b": [1, 2.5, None, "ü"]})
    code = (
        "from influence_core.config import digest; print(digest({'b': [1, 2.5, None, 'ü'], 'a': {'y': 1, 'x': True}}))"
    )
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "PYTHONUTF8": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert told.stdout.strip() == digest(value)


@pytest.mark.parametrize(
    ("a", "b"), [([1], ["1"]), ([1, [2]], [[1], 2]), ("a", ["a"]), (None, "null"), (1.0, 1.5), ({}, [])]
)
def test_digest_tells_values_apart(a: object, b: object) -> None:
    assert digest(a) != digest(b)


def test_digest_refuses_what_json_has_no_word_for() -> None:
    with pytest.raises(ValueError):
        digest(float("nan"))
