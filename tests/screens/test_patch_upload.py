"""The upload of patches on the screen of decisions, on the fake service."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from influence_core import service
from tests.screens.conftest import Opener, markup
from tests.screens.fake_reviews import HOSTILE
from tests.screens.fake_service import FakeService

PATCH = b"row_id,split,action,old_label,new_label\n"


def given(opened: Opener, *contents: bytes) -> AppTest:
    app = opened("decisions", study="digits")
    uploader = next(box for box in app.file_uploader if str(box.key).startswith("patches_"))
    uploader.set_value([(f"p{i}.csv", content, "text/csv") for i, content in enumerate(contents)]).run()
    return app


def test_nothing_is_said_or_offered_without_a_file(opened: Opener) -> None:
    app = opened("decisions", study="digits")
    assert "Apply a patch" in [box.label for box in app.expander]
    assert not [button for button in app.button if button.key == "patch_apply"] and not app.exception


def test_what_would_happen_is_told_before_it_is_applied_as_one_act(opened: Opener, fake: FakeService) -> None:
    app = given(opened, PATCH, PATCH)
    page = markup(app)
    assert "The first 20 of 30" in page and "why fits" in page and "why moved" not in page
    assert HOSTILE not in page and "The study has no class" in page and "The content of 2 rows is not compared" in page
    assert app.button(key="patch_apply").disabled and app.button(key="patch_apply").label == "Decide 30 rows so"
    assert fake.reviews.written == []
    app.segmented_control(key="patch_state").set_value("moved").run()
    assert "why moved" in markup(app) and "why fits" not in markup(app)
    app.toggle(key="patch_follow").set_value(True).run()
    assert "why fits" in markup(app) and app.button(key="patch_apply").label == "Decide 31 rows so"
    app.toggle(key="patch_again").set_value(True).run()
    app.text_input(key="patch_name").input("ann").run()
    assert app.button(key="patch_apply").label == "Decide 32 rows so"
    app.button(key="patch_apply").click().run()
    ((what, (name, token, names, follow, again)),) = fake.reviews.written
    assert (what, name, names, follow, again) == ("apply_patch", "ann", ("p0.csv", "p1.csv"), True, True) and token
    assert not app.exception and "30 rows decided as in" in app.toast[0].value and r"\<script\>" in app.toast[0].value
    assert not [button for button in app.button if button.key == "patch_apply"]  # the files are let go


def test_what_is_no_patch_is_said_there_and_the_rest_of_the_screen_stays(opened: Opener, fake: FakeService) -> None:
    app = given(opened, PATCH, b"id,label\n")
    page = markup(app)
    assert "This is no patch" in page and "p1.csv has no column row_id" in page and "Log" in page
    assert not [button for button in app.button if button.key == "patch_apply"] and fake.reviews.written == []


def test_where_nothing_fits_the_button_is_off(opened: Opener, fake: FakeService) -> None:
    fake.reviews.fitting = False
    app = given(opened, PATCH)
    app.text_input(key="patch_name").input("ann").run()
    assert "Nothing in it is left to apply." in markup(app) and app.button(key="patch_apply").disabled
    app.toggle(key="patch_again").set_value(True).run()
    assert not app.button(key="patch_apply").disabled


def test_viewers_look_and_have_no_button(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "role", lambda study: "viewer")
    app = given(opened, PATCH)
    assert "why fits" in markup(app) and "Reviewers and owners of the study may apply it." in markup(app)
    assert not [button for button in app.button if button.key in ("patch_apply", "undo_last")] and not app.exception
