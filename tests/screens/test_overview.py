"""The first screen: what this is, how good the model is, where to start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from influence_core import service
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService


def test_the_study_at_a_glance(opened: Opener) -> None:
    page = markup(opened())
    for words in ("900", "training rows", "94.4%", "92.4–96.4%, 95% interval", "650", "⚑ 9%", "Handwritten digits"):
        assert words in page
    assert "explain?study=digits&amp;cell=1&amp;given=3&amp;predicted=8" in page


def test_the_start_button_explains_the_most_confident_mistake(opened: Opener, fake: FakeService) -> None:
    worst = fake.overview("digits").confidently_wrong[0]
    app = opened()
    app.button(key="start_worst").click().run()
    assert f"Test row {worst.row_id}" in markup(app)
    assert app.query_params["id"] == str(worst.row_id)


def test_every_wrong_prediction_is_one_click_away(opened: Opener, fake: FakeService) -> None:
    page = markup(opened())
    for datum in fake.overview("digits").confidently_wrong:
        assert f'href="explain?study=digits&amp;id={datum.row_id}&amp;status=confident-wrong"' in page


def test_the_tour_walks_to_its_end(opened: Opener) -> None:
    app = opened()
    assert not [m for m in app.markdown if "1 of 5" in m.value]
    app.button(key="start_tour").click().run()
    for step in range(1, 5):
        assert [m for m in app.markdown if f"{step} of 5" in m.value]
        app.button(key="tour_next").click().run()
    app.button(key="tour_done").click().run()
    assert not [m for m in app.markdown if "of 5" in m.value]


def test_no_studies_says_how_to_build_one(opened: Opener, fake: FakeService) -> None:
    fake.names = ()
    app = opened()
    assert "No studies yet" in markup(app)
    assert app.code[0].value == "python -m influence_core demo digits --out studies/digits"


def test_a_model_without_mistakes(opened: Opener, fake: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    right = replace(fake.overview("digits"), confidently_wrong=(), n_wrong=0)
    monkeypatch.setattr(service, "overview", lambda study: right)
    app = opened()
    assert "No mistakes" in markup(app)
    app.button(key="start_any").click().run()
    assert "if-pro-column" in markup(app)


def test_another_study_starts_with_a_clean_view(opened: Opener) -> None:
    app = opened("explain", id="3", given="3", k="10")
    app.selectbox(key="influence.study").set_value("cells").run()
    assert dict(app.query_params) == {"study": "cells", "id": "133", "k": "10"}
    assert "malignant" in markup(app)


@pytest.mark.parametrize("study", ["digits", "cells", "words"])
def test_every_kind_of_study_draws(opened: Opener, study: str) -> None:
    page = markup(opened(study=study))
    assert "Something went wrong" not in page and "if-problem" not in page
    assert page.count("if-tile") >= 1


def test_training_and_groups_stand_at_the_foot(opened: Opener, fake: FakeService) -> None:
    words = "It has <partly> learned its rows by heart."
    fake.training = service.TrainingFigures((0.9, 0.5, 0.4), (1, 3), words, True)
    intervals = service.Interval(0.9, 0.85, 0.94, 200), service.Interval(0.5, 0.1, 0.9, 4)
    fake.groups = (service.GroupFigures("<b>sex</b>", "accuracy", (("f", intervals[0]), ("m", intervals[1]))),)
    page = markup(opened())
    assert "⚠ It has &lt;partly&gt; learned" in page and "&lt;b&gt;sex&lt;/b&gt;" in page and "<b>sex</b>" not in page
    assert "test 94.4% (92.4% to 96.4%)" in page and "85.0% to 94.0%" in page and "90.0%" in page


def test_without_losses_and_sensitive_columns_nothing_is_drawn(opened: Opener) -> None:
    page = markup(opened())
    assert "By group" not in page and "loss after every epoch" not in page
