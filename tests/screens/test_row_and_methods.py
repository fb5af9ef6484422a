"""A row's own page, and the table of methods."""

from __future__ import annotations

import pytest

from tests.screens.conftest import Opener, markup
from tests.screens.fake_data import material
from tests.screens.fake_service import FakeService


def test_a_training_row(opened: Opener, fake: FakeService) -> None:
    flipped = int(material("digits").planted.argmax())
    card = fake.row_card("digits", "train", flipped, "grad_cos")
    page = markup(opened("row", study="digits", row=str(flipped), id="94"))
    assert f"Train row {flipped}" in page and f"flipped on purpose · truth {card.datum.truth}" in page
    assert f"rank {card.loss_rank} of 900 (1 = highest)" in page
    assert page.count("if-card if-row") == 6 + 5 + 5
    assert "▲ Helps most" in page and "▼ Hurts most" in page
    assert 'href="explain?study=digits&amp;id=94&amp;row=' in page  # back to where one came from


def test_a_test_row_links_to_its_explanation(opened: Opener) -> None:
    page = markup(opened("row", study="digits", split="test", row="94"))
    assert "Explain this prediction" in page and 'href="explain?study=digits&amp;id=94&amp;split=test' in page
    assert "Helps most" not in page


def test_a_row_before_its_method_is_fitted(opened: Opener, fake: FakeService) -> None:
    page = markup(opened("row", study="digits", row="3", method="if_ggn"))
    assert page.count("Open one of its explanations once to fit this method.") == 2


def test_no_row_chosen(opened: Opener) -> None:
    app = opened("row")
    assert "No row chosen" in markup(app)
    app.button(key="to_explain").click().run()
    assert "if-pro-column" in markup(app)


@pytest.mark.parametrize("study", ["cells", "words"])
def test_rows_of_tables_and_texts(opened: Opener, study: str) -> None:
    page = markup(opened("row", study=study, row="3"))
    assert "if-own" in page and "if-problem" not in page


def test_methods_say_what_they_are_and_whether_they_run(opened: Opener) -> None:
    page = markup(opened("methods", study="digits", id="94"))
    assert "5 of 6 can run on this study" in page
    assert 'href="explain?study=digits&amp;id=94&amp;method=tracin_cp"' in page
    assert "Needs a recipe to retrain; this study has none." in page and "method=loo" not in page
    assert "no scores for one prediction" in page and "method=loss" not in page
    assert "first use starts a job" in page and "answers at once" in page
    assert page.count(">default<") == 1
