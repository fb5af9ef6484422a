"""What a visitor sees when something is wrong: one calm sentence, and the rest of the page."""

from __future__ import annotations

import logging

import pytest

from pages.components import shell, view
from tests.screens.conftest import ROOT, Opener, markup
from tests.screens.fake_data import HOSTILE
from tests.screens.fake_service import FakeService


@pytest.mark.parametrize("screen", view.SCREENS)
def test_a_bad_address_is_named_and_the_rest_of_it_holds(opened: Opener, screen: str) -> None:
    app = opened(screen, study="digits", k="abc", id="94", split="nowhere", magic="1")
    page = markup(app)
    assert "The address says k=&#x27;abc&#x27;, but a whole number from 1 to 100 is needed; using 5 instead." in page
    assert "split=&#x27;nowhere&#x27;" in page and "&#x27;magic&#x27; that does not exist" in page
    assert app.query_params["id"] == "94" and "k" not in app.query_params
    assert not app.exception


def test_the_notice_about_the_address_goes_with_the_next_change(opened: Opener) -> None:
    app = opened("explain", study="digits", k="abc", id="94")
    assert "if-notice" in markup(app)
    app.selectbox(key="w.status").set_value("wrong").run()
    assert "if-notice" not in markup(app)


def test_unknown_names_fall_back(opened: Opener) -> None:
    app = opened("explain", study="gone", method="magic", given="eleven")
    page = markup(app)
    assert (
        "study=&#x27;gone&#x27;" in page and "method=&#x27;magic&#x27;" in page and "given=&#x27;eleven&#x27;" in page
    )
    assert "if-pro-column" in page and dict(app.query_params) == {"study": "digits", "id": "379"}


def test_an_unknown_row_leaves_the_list(opened: Opener) -> None:
    page = markup(opened("explain", study="digits", id="99999"))
    assert "There is no test row &#x27;99999&#x27;" in page and "What to do" in page
    assert page.count("data-pick=") == 60


def test_an_unknown_row_on_its_own_page(opened: Opener) -> None:
    assert "There is no train row" in markup(opened("row", study="digits", row="99999"))


def test_a_fault_in_the_program_shows_no_trace(
    opened: Opener, fake: FakeService, caplog: pytest.LogCaptureFixture
) -> None:
    fake.broken = "explain"
    with caplog.at_level(logging.ERROR, logger="influence.pages"):
        app = opened("explain", study="digits", id="94")
    assert "Something went wrong here" in markup(app)
    assert "secret detail" not in markup(app) and not app.exception
    assert "secret detail" in caplog.text and "Traceback" in caplog.text
    assert markup(app).count("data-pick=") == 60  # the rest of the screen stands


@pytest.mark.parametrize("screen", view.SCREENS)
def test_hostile_words_stay_words(opened: Opener, screen: str) -> None:
    page = markup(opened(screen, study="words", row="3", text=HOSTILE))
    assert "<script" not in page and "<img src=x" not in page and "<b>bold" not in page
    quiet = ("methods", "import", "review", "map", "compare")  # no words of the study among their HTML
    assert "&lt;" in page or screen in quiet


def test_every_screen_is_found_on_a_fresh_server() -> None:
    for screen in view.SCREENS[1:]:
        assert "app.py" in (ROOT / "pages" / f"{screen}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("screen", view.SCREENS)
def test_every_screen_has_help(opened: Opener, screen: str) -> None:
    app = opened(screen)
    title = shell.TITLES[screen][0]
    assert any(element.value.startswith(f"**{title}**") for element in app.sidebar.markdown)
