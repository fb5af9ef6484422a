"""Options of a method: text in the address to typed values and back, within the method's own bounds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from influence_core.service import ConfigField
from pages.components.options import option_pairs, option_text, typed_options, typed_value
from pages.components.view import View
from tests.screens.fake_service import FakeService

METHOD = FakeService().methods("digits")[0]
DAMPING = ConfigField("damping", "Damping", "float", 0.01, "", 1e-8, 10.0)
WHOLE = ConfigField("steps", "Steps", "int", 3, "", 1, 9)


@given(some.floats(1e-8, 10.0))
def test_floats_keep_every_digit(value: float) -> None:
    assert typed_value(option_text(value), DAMPING) == value


@given(some.integers(1, 9))
def test_whole_numbers_round_trip(value: int) -> None:
    assert typed_value(option_text(value), WHOLE) == value


@pytest.mark.parametrize(
    ("text", "field", "needed"),
    [
        ("nan", DAMPING, "a number from 1e-08 to 10"),
        ("inf", DAMPING, "a number from 1e-08 to 10"),
        ("11", DAMPING, "a number from 1e-08 to 10"),
        ("", DAMPING, "a number"),
        ("1.5", WHOLE, "a whole number from 1 to 9"),
        ("0", WHOLE, "a whole number from 1 to 9"),
        ("x", replace(WHOLE, low=None, high=None), "a whole number"),
        ("true", ConfigField("a", "A", "bool", False, ""), "0 or 1"),
        ("c", ConfigField("a", "A", "choice", "a", "", choices=("a", "b")), "one of a, b"),
    ],
)
def test_bad_values_say_what_is_needed(text: str, field: ConfigField, needed: str) -> None:
    with pytest.raises(ValueError, match=f"^{needed}"):
        typed_value(text, field)


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("1", ConfigField("a", "A", "bool", False, ""), True),
        ("", replace(DAMPING, optional=True), None),
        ("conv1,head", ConfigField("layers", "Layers", "text", None, "", optional=True), "conv1,head"),
        ("b", ConfigField("a", "A", "choice", "a", "", choices=("a", "b")), "b"),
    ],
)
def test_values_get_the_fields_type(text: str, field: ConfigField, value: Any) -> None:
    found = typed_value(text, field)
    assert found == value and type(found) is type(value)


def test_only_what_differs_from_the_defaults_reaches_the_service() -> None:
    view = View(config=(("damping", "0.5"), ("weights", "rate"), ("layers", "conv1,head")))
    assert typed_options(view, METHOD) == ({"damping": 0.5, "layers": "conv1,head"}, ())


def test_unusable_options_are_named_and_dropped() -> None:
    view = View(config=(("damping", "-1"), ("magic", "1"), ("weights", "one")))
    options, problems = typed_options(view, METHOD)
    assert options == {"weights": "one"}
    assert "c.damping='-1'" in problems[0] and "using 0.01" in problems[0]
    assert "c.magic" in problems[1]


def test_the_forms_values_become_pairs_and_come_back() -> None:
    pairs = option_pairs({"damping": "0.5", "weights": "rate", "layers": ["conv1", "head"], "other": "1"}, METHOD)
    assert pairs == (("damping", "0.5"), ("layers", "conv1,head"))
    assert typed_options(View(config=pairs), METHOD)[0] == {"damping": 0.5, "layers": "conv1,head"}
