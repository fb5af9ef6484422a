"""The screen Trust: advice first, the measured table, the form that measures, one prediction without its proponents."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from pages.components import trust_figures
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService
from tests.screens.fake_trust import JOB, FakeTrust


def buttons(app: AppTest) -> set[str]:
    return {str(button.key) for button in app.button}


def test_advice_and_table_show_what_was_measured(opened: Opener) -> None:
    app = opened("trust", study="digits")
    page = markup(app)
    assert not app.exception and "tracks retraining best (0.92 of a possible 0.99)" in page
    assert page.index("SGD-influence") < page.index("Gradients &lt;script&gt;") and "<script>" not in page
    assert "0.88 to 0.95" in page and "0.99 is the most that any method can reach" in page
    assert "answering for 100 predictions" in page and "SOURCE" in page


def test_an_empty_study_says_why_to_measure_and_what_it_costs(opened: Opener, fake: FakeService) -> None:
    fake.trusting.known = False
    app = opened("trust", study="digits")
    assert "Nothing has been measured" in markup(app) and "100 models to train" in markup(app)
    app.button(key="trust_start").click().run()
    assert fake.trusting.started == [("digits", ("grad_dot",), ("lds", "agreement"), 50, 2)] and not app.exception


def test_questions_are_chosen_by_their_price_and_the_impossible_say_why(opened: Opener, fake: FakeService) -> None:
    app = opened("trust", study="digits")
    boxes = {str(box.key): box for box in app.checkbox}
    assert "price of loo" in boxes["trust_ask_loo"].label and boxes["trust_ask_lds"].value
    assert boxes["trust_ask_mislabel"].disabled and "No planted errors" in boxes["trust_ask_mislabel"].label
    assert "<script>" not in boxes["trust_ask_mislabel"].label.replace("\\<", "")
    app.checkbox(key="trust_ask_loo").check().run()
    app.checkbox(key="trust_ask_lds").uncheck().run()
    app.multiselect(key="trust_methods").set_value(["grad_dot", "gas"]).run()
    app.button(key="trust_start").click().run()
    assert fake.trusting.started == [("digits", ("grad_dot", "gas"), ("agreement", "loo"), 50, 2)]
    app.checkbox(key="trust_ask_lds").check().run()
    assert "says nothing of GAS: its scores are an order" in markup(app)


def test_an_absurd_cost_is_said_and_has_to_be_wanted(opened: Opener, fake: FakeService) -> None:
    app = opened("trust", study="digits")
    assert any("MAGIC" in option and "very dear" in option for option in app.multiselect(key="trust_methods").options)
    app.multiselect(key="trust_methods").set_value(["magic"]).run()
    assert "about 2.5 hours" in markup(app) and app.button(key="trust_start").disabled
    app.checkbox(key="trust_anyway").check().run()
    app.button(key="trust_start").click().run()
    assert fake.trusting.started[0][1] == ("magic",)


def test_only_owners_measure_and_only_where_something_can_be_retrained(opened: Opener, fake: FakeService) -> None:
    fake.trusting.owner = False
    app = opened("trust", study="digits")
    assert app.button(key="trust_start").disabled and app.button(key="removal_start").disabled
    fake.trusting.problem = "The study has no training recipe."
    app = opened("trust", study="digits")
    assert "No rows can be removed here" in markup(app) and "removal_start" not in buttons(app)
    assert all(box.disabled for box in app.checkbox)


def test_a_measurement_under_way_takes_the_place_of_the_form(opened: Opener, fake: FakeService) -> None:
    fake.trusting.job = JOB
    fake.queue = [(JOB, time.monotonic(), "me")]
    app = opened("trust", study="digits")
    assert "how far the methods can be believed" in markup(app) and "trust_start" not in buttons(app)


def test_the_form_is_as_it_was_when_it_comes_back(opened: Opener, fake: FakeService) -> None:
    app = opened("trust", study="digits")
    app.multiselect(key="trust_methods").set_value(["gas"]).run()
    app.number_input(key="trust_subsets").set_value(80).run()
    app.checkbox(key="trust_ask_loo").check().run()
    fake.trusting.job = JOB
    fake.queue = [(JOB, time.monotonic(), "me")]
    app.run()
    assert "trust_start" not in buttons(app)
    fake.trusting.job, fake.queue = None, []
    app.run()
    assert app.multiselect(key="trust_methods").value == ["gas"] and app.checkbox(key="trust_ask_loo").value
    assert app.number_input(key="trust_subsets").value == 80


@pytest.mark.parametrize(("state", "said"), [("cancelled", "Cancelled."), ("failed", "It broke.")])
def test_a_measurement_that_ended_early_goes_on_from_there(
    opened: Opener, fake: FakeService, state: str, said: str
) -> None:
    fake.trusting.job = replace(JOB, state=state, is_active=False, message="It broke.")
    app = opened("trust", study="digits")
    assert said in markup(app) and "trust_start" in buttons(app)
    app.button(key="trust_again").click().run()
    assert fake.trusting.started == [("digits", 9)] and not app.exception


def test_another_metric_and_the_other_agreement_are_one_click_away(opened: Opener) -> None:
    app = opened("trust", study="digits")
    assert "0.97" in markup(app) and "<script>" not in markup(app)
    app.segmented_control(key="trust_metric").set_value("randomised").run()
    assert "The noise of the truth." in markup(app) and "0.03" in markup(app)
    assert "rank all training rows" in markup(app)
    app.segmented_control(key="trust_agreed").set_value("Top rows in common").run()
    assert "top 10 proponents that two methods have in common" in markup(app) and not app.exception


def test_a_prediction_is_chosen_and_its_proponents_removed(opened: Opener, fake: FakeService) -> None:
    app = opened("trust", study="digits")
    assert "Removing the top 7 rows flips this prediction." in markup(app) and "20 random removals" in markup(app)
    (picked,) = [box for box in app.selectbox if str(box.key).startswith("w.followed")]
    assert picked.value == "4"
    picked.set_value("7").run()
    assert app.query_params["id"] == "7"
    app.multiselect(key="removal_methods").set_value(["gas"]).run()
    assert "Up to 1 retrainings for row 7" in markup(app)
    app.button(key="removal_start").click().run()
    assert fake.trusting.started == [("digits", "7", ("gas",))] and not app.exception


def test_a_row_that_is_not_there_is_said_and_the_rest_stays(opened: Opener) -> None:
    app = opened("trust", study="digits", id="nobody")
    assert "Unknown row id" in markup(app) and "tracks retraining best" in markup(app)


def test_a_removal_under_way_keeps_the_known_curves(opened: Opener, fake: FakeService) -> None:
    fake.trusting.removing = replace(JOB, key="removal-key")
    fake.queue = [(fake.trusting.removing, time.monotonic(), "me")]
    app = opened("trust", study="digits")
    assert "the removal curves" in markup(app) and "removal_start" not in buttons(app)
    assert "Removing the top 7 rows" in markup(app)


def test_explain_says_how_far_its_method_can_be_believed(opened: Opener, fake: FakeService) -> None:
    page = markup(opened("explain", study="digits", method="tracin_cp"))
    assert "How far can I believe this?" in page and "trust?study=digits" in page


def test_points_that_would_hide_each_other_are_drawn_apart() -> None:
    points = [(0.0, 0.5), (0.0, 0.5), (0.01, 0.52), (0.0, 0.9), (2.0, 0.5)]
    placed = trust_figures.apart(points, 4.0, 1.0)
    assert placed[0] == 0.0 and placed[3] == 0.0 and placed[4] == 2.0
    near = sorted(placed[:3])
    assert np.diff(near).min() >= 0.05 * 4.0 - 1e-9


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figures_carry_numbers_and_the_band_of_random_rows(theme: str) -> None:
    fake = FakeTrust()
    page = fake.trust("digits")
    figure = trust_figures.fidelity(page, theme)
    assert figure.data[0].text == ("1", "2") and figure.data[0].y == (0.92, 0.54)
    assert "1 SGD-influence: 0.92" in trust_figures.fidelity_in_words(page)
    curves = trust_figures.removal(fake.removal("digits"), theme)
    band, random, method = curves.data
    assert band.y == (2.0, 1.7, 1.5, 2.1, 2.1, 2.0) and random.y == (2.0, 1.9, 1.8)
    assert method.name == "1 SGD-influence" and method.x == pytest.approx([0, 5**0.5, 3])
    assert page.agreement is not None
    square = trust_figures.agreement(page.agreement, page.agreement.shared, True, theme)
    assert np.asarray(square.data[0].z).tolist() == [[0.5, 0.0], [0.0, 0.5]] and square.data[0].x == ("1", "2")
