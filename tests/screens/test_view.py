"""The address: everything comes back, and a bad part costs nothing but itself."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pages.components import view as views
from pages.components.view import View, checked_view, href, params_of_view, view_from_href, view_from_params

TEXT = some.text(some.characters(min_codepoint=32, exclude_categories=("Cs",)), max_size=30)
NAME = some.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True)
VIEWS = some.builds(
    View,
    study=TEXT,
    ids=some.lists(TEXT.filter(bool), unique=True, max_size=4).map(tuple),
    typed=some.from_regex("[0-9a-f]{32}|", fullmatch=True),
    cell=some.booleans(),
    method=TEXT,
    measurement=some.sampled_from(views.MEASUREMENTS),
    target=TEXT.filter(bool),
    k=some.integers(1, views.MAX_K),
    status=some.sampled_from(views.STATUSES),
    given=TEXT,
    predicted=TEXT,
    text=TEXT,
    order=some.sampled_from(views.ORDERS),
    seed=some.integers(0, views.MAX_SEED),
    split=some.sampled_from(views.SPLITS),
    row=TEXT,
    config=some.dictionaries(NAME, TEXT, max_size=3).map(lambda found: tuple(sorted(found.items()))),
)


@given(VIEWS)
def test_params_bring_back_the_view(view: View) -> None:
    assert view_from_params(params_of_view(view)) == (view, ())


@given(VIEWS, some.sampled_from(views.SCREENS))
def test_links_bring_back_view_and_screen(view: View, screen: str) -> None:
    link = href(screen, view)
    assert view_from_href(link) == (screen, view, ())
    assert not urlsplit(link).netloc and not link.startswith("/")  # holds under any base path


@given(some.dictionaries(some.text(max_size=12), some.lists(some.text(max_size=40), max_size=3), max_size=6))
def test_any_address_gives_a_view_and_says_what_it_dropped(params: dict[str, list[str]]) -> None:
    view, problems = view_from_params(params)
    again, nothing = view_from_params(params_of_view(view))
    assert (again, nothing) == (view, ())
    assert len(problems) <= len(params)


def test_defaults_leave_no_trace() -> None:
    assert params_of_view(View()) == {}
    assert href("overview", View()) == "./"
    assert href("explain", View(ids=("a b&c",))) == "explain?id=a+b%26c"


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("k", "abc", "a whole number from 1 to 100"),
        ("k", "0", "a whole number from 1 to 100"),
        ("k", "101", "a whole number from 1 to 100"),
        ("k", "5_0", "a whole number"),
        ("k", "٣", "a whole number"),
        ("k", "", "a whole number"),
        ("cell", "yes", "0 or 1"),
        ("status", "WRONG", "one of all, wrong, confident-wrong, right"),
        ("measurement", "__import__", "one of loss"),
        ("order", "up", "one of confidence"),
        ("seed", "-1", "a whole number"),
        ("split", "secret", "one of train, test, locked"),
        ("method", "x" * 300, "at most 200"),
        ("text", "a\x00b", "printable"),
        ("c.damping", "x" * 300, "at most 200"),
    ],
)
def test_a_bad_value_is_named_and_nothing_else_is_lost(name: str, value: str, needed: str) -> None:
    kept = {"id": ["17"], "study": ["digits"]}
    view, problems = view_from_params({**kept, name: [value]})
    assert view == View(study="digits", ids=("17",))
    assert len(problems) == 1 and name in problems[0] and needed in problems[0]


def test_unknown_parameters_are_named() -> None:
    view, problems = view_from_params({"k": ["3"], "utm": ["x"], "c.": ["1"], "c.a-b": ["1"]})
    assert view == View(k=3)
    assert [p.split()[5] for p in problems] == ["'utm'", "'c.'", "'c.a-b'"]


def test_the_last_of_repeated_values_counts_and_ids_stay_unique() -> None:
    view, _ = view_from_params({"k": ["3", "7"], "id": ["1", "2", "1", ""]})
    assert view.k == 7 and view.ids == ("1", "2")


def test_too_many_ids_are_refused() -> None:
    view, problems = view_from_params({"id": [str(i) for i in range(views.MAX_IDS + 1)]})
    assert view.ids == () and "at most 1000 row ids" in problems[0]


def test_a_link_to_nowhere_opens_the_overview() -> None:
    assert view_from_href("https://elsewhere/admin?k=3")[0] == "overview"
    assert view_from_href("https://host/base/explain/?k=3") == ("explain", View(k=3), ())


def test_names_the_study_does_not_have_are_replaced_and_named() -> None:
    asked = View(study="gone", given="7", predicted="x", method="magic", target="9", k=3)
    view, problems = checked_view(asked, ["digits", "cells"], ["7", "8"], ["grad_cos"])
    assert view == View(study="digits", given="7", k=3)
    assert [p.split()[3].partition("=")[0] for p in problems] == ["study", "predicted", "method", "target"]


def test_known_names_pass() -> None:
    asked = View(study="cells", given="7", method="grad_cos", target="true")
    assert checked_view(asked, ["digits", "cells"], ["7"], ["grad_cos"]) == (asked, ())
