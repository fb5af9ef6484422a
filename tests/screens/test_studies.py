"""The screen Studies: what is used, renaming in place, taking along, freeing, and nothing deleted by one click."""

from __future__ import annotations

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

from influence_core.errors import BadInput
from pages.components import studies
from pages.components.sidebar import told_apart
from tests.screens.conftest import Opener, markup
from tests.screens.fake_keeping import FakeKeeping, line
from tests.screens.fake_service import FakeService


@pytest.fixture
def keeping(fake: FakeService) -> FakeKeeping:
    def gone(name: str) -> None:
        fake.names = tuple(other for other in fake.names if other != name)

    fake.keeping.gone = gone
    return fake.keeping


def keys(app: AppTest) -> set[str]:
    return {str(button.key) for button in app.button}


def test_every_study_says_what_it_is_and_uses(opened: Opener, keeping: FakeKeeping) -> None:
    page = markup(opened("studies", study="cells"))
    assert "3 studies use 5.3 MB of the disk, 3.6 MB of it for results that can be computed again." in page
    assert "image · 10 classes · multi-layer perceptron · 1,200 train, 300 test, 280 locked rows" in page
    assert "1.8 MB cache, 40 kB reviews" in page and "no cache" in page and 'width:75.0%"' in page
    assert "<b>x</b>" not in page and "Cells &lt;b&gt;x&lt;/b&gt;" in page
    marked = [part for part in page.split('class="if-study"')[1:] if ">open</span>" in part]
    assert len(marked) == 1 and "Cells" in marked[0]
    assert page.count("at work") == 1


def test_opening_goes_to_the_overview_of_the_study(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies", study="digits", id="3")
    app.button(key="study_open_words").click().run()
    assert dict(app.query_params) == {"study": "words"} and "Why did the model say that?" in markup(app)


def test_a_title_is_changed_in_place(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies")
    app.text_input(key="study_title_digits").set_value("Zahlen <i>& mehr</i> [x](http://y)")
    app.button(key="study_save_digits").click().run()
    assert keeping.done == [("rename", "digits", "Zahlen <i>& mehr</i> [x](http://y)")]
    assert "Zahlen &lt;i&gt;&amp; mehr&lt;/i&gt;" in markup(app)
    assert "\\[x\\]\\(http\\:\\/\\/y\\)" in app.toast[0].value  # a toast reads Markdown: no link, no picture


def test_a_refused_change_is_one_panel(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies")
    keeping.refuses = BadInput("This name cannot be used", "It is <empty>.", "Choose another one.")
    app.button(key="study_save_digits").click().run()
    assert "This name cannot be used" in markup(app) and "&lt;empty&gt;" in markup(app)
    assert len(app.toast) == 0 and keeping.done == []


def test_the_size_of_a_download_follows_what_goes_along(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies")
    buttons = {button.proto.id: button.proto.label for button in app.get("download_button")}
    assert list(buttons.values()) == ["Download about 600 kB"] * 3
    assert {box.key for box in app.checkbox} == {"study_cache_digits", "study_cache_words", "study_reviews_words"}
    app.checkbox(key="study_cache_words").check()
    app.checkbox(key="study_reviews_words").check().run()
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["Download about 600 kB"] * 2 + ["Download about 2.4 MB"]


def test_what_is_too_large_shows_the_command(opened: Opener, keeping: FakeKeeping) -> None:
    keeping.too_large = True
    app = opened("studies")
    assert not app.get("download_button")
    assert app.code[0].value == "python -m influence_core backup studies/digits --out digits.zip"
    assert "Above 500 MB it is made on the server:" in markup(app)


def test_the_cache_alone_is_cleared(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies")
    assert "Frees 1.8 MB. The results of Digits are computed again when asked for." in markup(app)
    assert (
        app.button(key="study_clear_cells").disabled and app.button(key="study_clear_words").disabled
    )  # none; at work
    app.button(key="study_clear_digits").click().run()
    assert keeping.done == [("clear", "digits")] and "1.8 MB are free again" in app.toast[0].value
    assert app.button(key="study_clear_digits").disabled


def test_deleting_names_the_study_and_what_it_frees(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies", study="digits", id="3", k="7")
    assert "Digits (digits) is deleted with its rows, model, reviews and results. Frees <b>2.4 MB</b>" in markup(app)
    assert app.button(key="study_delete_words").disabled
    assert "Leave-one-out waits or runs: cancel it under Jobs first" in markup(app)
    assert keeping.done == []
    app.button(key="study_delete_digits").click().run()
    assert keeping.done == [("delete", "digits")] and "2.4 MB are free again" in app.toast[0].value
    assert dict(app.query_params) == {"study": "cells", "k": "7"}
    assert "The address says" not in markup(app) and "2 studies use" in markup(app)


def test_deleting_another_study_leaves_the_view(opened: Opener, keeping: FakeKeeping) -> None:
    app = opened("studies", study="digits", id="3")
    app.button(key="study_delete_cells").click().run()
    assert dict(app.query_params) == {"study": "digits", "id": "3"}


def test_deleting_the_last_study_leads_to_the_first_import(
    opened: Opener, fake: FakeService, keeping: FakeKeeping
) -> None:
    fake.names, keeping.lines = ("digits",), keeping.lines[:1]
    app = opened("studies")
    app.button(key="study_delete_digits").click().run()
    assert "No studies yet" in markup(app)


def test_a_study_that_does_not_open_says_why_and_can_be_deleted(opened: Opener, keeping: FakeKeeping) -> None:
    keeping.lines[1] = line("cells", "cells", problem="The study is from a newer version: <9>.", kind="", rows={})
    app = opened("studies")
    assert "The study is from a newer version: &lt;9&gt;." in markup(app)
    assert app.button(key="study_open_cells").disabled and not app.button(key="study_delete_cells").disabled
    assert len(app.get("download_button")) == 2


def test_what_belongs_to_others_can_only_be_opened(opened: Opener, keeping: FakeKeeping) -> None:
    keeping.lines = [replace(item, owned=False) for item in keeping.lines]
    app = opened("studies")
    assert {key for key in keys(app) if key.startswith("study_")} == {
        f"study_open_{name}" for name in ("digits", "cells", "words")
    }
    assert not app.get("download_button")


@pytest.mark.parametrize(
    ("words", "expected"),
    [("Plain Ünïcode 12", "Plain Ünïcode 12"), ("**b** `c`", r"\*\*b\*\* \`c\`"), (":red[x]", r"\:red\[x\]")],
)
def test_titles_are_no_markdown(words: str, expected: str) -> None:
    assert studies.literal(words) == expected


def test_studies_of_one_title_are_told_apart_by_their_names() -> None:
    titles = {"fruit": "fruit.csv", "more": "fruit.csv", "digits": "Digits"}
    assert told_apart(titles) == {"fruit": "fruit.csv (fruit)", "more": "fruit.csv (more)", "digits": "Digits"}
