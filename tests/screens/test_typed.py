"""A visitor's own input: the form, what it makes of the query, and the address that brings it back."""

from __future__ import annotations

import re

import pytest
from streamlit.testing.v1 import AppTest

from pages.components.html import plain_label
from pages.components.view import View, changed, params_of_view, view_from_params
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService
from tests.screens.test_explain import control, scores, side

TOKEN = "0123456789abcdef" * 2


def enter(app: AppTest, text: str) -> AppTest:
    app.text_area[0].set_value(text)
    return app.button(key="typed_enter").click().run()


def test_a_typed_text_becomes_the_query_and_can_be_changed_again(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", study="words")
    assert not app.text_area
    app.button(key="try_own").click().run()
    assert app.text_area[0].value == ""
    enter(app, "one <b>two</b>")
    token = app.query_params["typed"]
    assert fake.typed[token] == {"text": "one <b>two</b>"}
    page = markup(app)
    assert "Your input" in page and "one &lt;b&gt;two&lt;/b&gt;" in page and "<b>two</b>" not in page
    card = page.split('<article class="if-query"')[1].split("</article>")[0]
    assert "predicted <b>" in card and "labelled" not in card and "as labelled" not in card
    assert "kind: &lt;new&gt; is not known." in card
    assert 'aria-current="true"' not in page and scores(side(app, "pro"))
    assert not any("given" in name.lower() for name in control(app, "target").options)
    before = app.query_params["typed"]
    assert app.text_area[0].value == "one <b>two</b>"  # still there, to be changed
    enter(app, "one three")
    assert app.query_params["typed"] != before
    app.button(key="typed_close").click().run()
    assert not app.text_area and "one three" in markup(app)


def test_the_address_brings_a_typed_row_back_and_a_lost_one_says_so(opened: Opener, fake: FakeService) -> None:
    fake.typed[TOKEN] = {"text": "hello there"}
    app = opened("explain", study="words", typed=TOKEN, target="true")
    assert "hello there" in markup(app) and not app.exception
    links = re.findall(r'href="(row\?[^"]+)"', side(app, "pro"))
    assert links and all(f"typed={TOKEN}" in link for link in links)  # the way back keeps it
    picks = re.findall(r'href="(explain\?[^"]+)"', markup(app))
    assert picks and not any("typed=" in link for link in picks)
    lost = opened("explain", study="words", typed="f" * 32)
    assert "This input is not kept any more" in markup(lost) and not lost.exception
    assert "data-pick=" in markup(lost)  # the list on the left is still there
    broken = opened("explain", study="words", typed="../../etc")
    assert "32 digits from 0 to f" in markup(broken) and "typed" not in broken.query_params


def test_a_row_of_the_study_can_be_changed(opened: Opener) -> None:
    app = opened("explain", study="cells", id="4")
    app.button(key="change_it").click().run()
    values = [box.value for box in app.text_input if str(box.key).startswith("t.")]
    assert values and "0.5" not in values
    page = markup(app)
    assert "Starts from test row 4; an empty field is a missing value. The other 3 columns keep their values." in page
    (kind,) = (box for box in app.selectbox if str(box.key).startswith("t."))
    assert kind.label == "\\<b\\>kind\\_" and kind.options == ["a", "<i>"]
    app.button(key="typed_enter").click().run()
    assert "typed" in app.query_params and "Your input" in markup(app)
    app.button(key="step_Next").click().run()
    assert "typed" not in app.query_params and "Your input</span>" not in markup(app)


def test_what_cannot_be_used_is_said_in_the_form_and_nothing_changes(opened: Opener) -> None:
    app = opened("explain", study="words", id="4")
    app.button(key="try_own").click().run()
    enter(app, "")
    page = markup(app)
    assert "The text cannot be used" in page and "It is &lt;empty&gt;." in page
    assert "typed" not in app.query_params and "Test row 4" in page and not app.exception


def test_an_image_is_chosen_as_a_file(opened: Opener) -> None:
    app = opened("explain", study="digits")
    app.button(key="try_own").click().run()
    assert len(app.get("file_uploader")) == 1 and "Any picture" in markup(app)


def test_another_study_has_no_open_form(opened: Opener) -> None:
    app = opened("explain", study="words")
    app.button(key="try_own").click().run()
    control_of_study = next(box for box in app.selectbox if box.key == "influence.study")
    control_of_study.set_value("cells").run()
    assert not app.text_area and app.query_params["study"] == "cells"


@pytest.mark.parametrize("asked", [{"ids": ("3",)}, {"cell": True}, {"ids": ()}])
def test_asking_for_rows_of_the_study_puts_the_input_aside(asked: dict) -> None:
    view = View(typed=TOKEN, ids=("1",))
    assert changed(view, **asked).typed == ""
    assert changed(view, k=9).typed == changed(view, ids=("1",), typed=TOKEN).typed == TOKEN
    assert view_from_params(params_of_view(view)) == (view, ())


def test_a_name_is_no_markdown() -> None:
    assert plain_label("**a** [x](http://y) <b>\n$z$") == r"\*\*a\*\* \[x\]\(http\:\/\/y\) \<b\> \$z\$"
    assert plain_label(" ") == "–"
