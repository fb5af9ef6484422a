"""Check it on Explain: closed at first, a form with its price, a job, and what was found on one axis."""

from __future__ import annotations

import re
from dataclasses import replace

from influence_core import service
from influence_core.service.views import Interval
from pages.components.check import card, strip
from tests.screens.conftest import Opener, markup
from tests.screens.fake_checks import JOB, MADE
from tests.screens.fake_service import FakeService

ROW = {"study": "digits", "id": "94"}


def test_it_is_one_button_under_the_evidence_and_costs_nothing_until_it_is_pressed(
    opened: Opener, fake: FakeService
) -> None:
    app = opened("explain", **ROW)
    assert not app.exception and "see what becomes of this prediction" in markup(app)
    assert fake.checking.asked == [] and not [b for b in app.button if b.key == "check_start"]
    app.button(key="check_toggle").click().run()
    assert "15 models to train, about 5 seconds." in markup(app)
    assert fake.checking.asked[-1] == service.CheckRequest()
    app.button(key="check_toggle").click().run()
    assert not [b for b in app.button if b.key == "check_start"]


def test_the_form_asks_what_is_chosen_and_starts_it(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW)
    app.button(key="check_toggle").click().run()
    assert app.selectbox(key="check_side").options == ["5 proponents", "5 opponents"]
    app.selectbox(key="check_action").set_value("flip").run()
    assert app.selectbox(key="check_label").options == ["as Suspects suggests", "3", "8"]
    app.selectbox(key="check_label").set_value("8").run()
    app.selectbox(key="check_side").set_value("opponents").run()
    app.number_input(key="check_seeds").set_value(3).run()
    app.number_input(key="check_draws").set_value(2).run()
    app.button(key="check_start").click().run()
    wanted = service.CheckRequest("flip", "opponents", "8", 0.5, 3, 2)
    assert fake.checking.started == [("digits", ("94",), wanted)] and not app.exception
    assert "Computing the check" in markup(app) or "Finishing" in markup(app)
    assert not [b for b in app.button if b.key == "check_start"]  # closed: its progress is what matters now


def test_weights_are_asked_for_only_where_rows_get_lighter(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW)
    app.button(key="check_toggle").click().run()
    assert not [b for b in app.number_input if b.key == "check_weight"]
    app.selectbox(key="check_action").set_value("downweight").run()
    app.number_input(key="check_weight").set_value(0.25).run()
    assert fake.checking.asked[-1] == service.CheckRequest("downweight", weight=0.25)


def test_what_cannot_be_done_says_why(opened: Opener, fake: FakeService) -> None:
    fake.checking.problem = "It needs a training recipe, and the study has none."
    app = opened("explain", **ROW)
    assert "It needs a training recipe" in markup(app) and not [b for b in app.button if b.key == "check_toggle"]
    fake.checking.problem, fake.checking.offer = "", service.CheckOffer("", "Too <few> rows.")
    app = opened("explain", **ROW)
    app.button(key="check_toggle").click().run()
    assert "Too &lt;few&gt; rows." in markup(app) and app.button(key="check_start").disabled
    fake.checking.offer, fake.checking.owner = service.CheckOffer("1 model."), False
    app = opened("explain", **ROW)
    app.button(key="check_toggle").click().run()
    assert app.button(key="check_start").disabled and "1 model. Only an owner" in markup(app)


def test_numbers_have_no_labels_to_flip_and_convex_models_one_training(opened: Opener, fake: FakeService) -> None:
    fake.checking.classifies, fake.checking.converged = False, True
    app = opened("explain", **ROW)
    app.button(key="check_toggle").click().run()
    assert app.selectbox(key="check_action").options == ["Drop", "Down-weight"]
    assert not [b for b in app.number_input if b.key == "check_seeds"] and fake.checking.asked[-1].seeds == 1


def test_what_was_found_is_shown_with_everything_escaped(opened: Opener, fake: FakeService) -> None:
    fake.checking.made = (MADE, replace(MADE, key="older"))
    app = opened("explain", **ROW)
    page = markup(app)
    assert page.count("Without these 5 rows the model says 3 instead of 8 in 4 of 5 trainings.") == 2
    assert "Earlier checks of this prediction (1)" in [one.label for one in app.expander]
    assert "<script>" not in page and "other prediction in 4 of 5" in page and "▼ it falls" in page


def test_a_job_that_failed_or_was_cancelled_is_told(opened: Opener, fake: FakeService) -> None:
    fake.checking.job = replace(JOB, state="failed", is_active=False, message="It <broke>.")
    assert "It &lt;broke&gt;." in markup(opened("explain", **ROW))
    fake.checking.job = replace(JOB, state="cancelled", is_active=False)
    assert "starting again goes on from there" in markup(opened("explain", **ROW))


def test_nothing_is_offered_before_there_is_evidence(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW, method="if_ggn")
    assert not [b for b in app.button if b.key == "check_toggle"] and not app.exception


def test_all_changes_are_on_one_axis() -> None:
    places = [float(value) for value in re.findall(r"left:([\d.]+)%", strip(MADE))]
    assert min(places) >= 2 and max(places) <= 98
    zeros = re.findall(r'if-none" style="left:([\d.]+)%', strip(MADE))
    assert len(zeros) == 4 and len(set(zeros)) == 1
    low, width = -0.75, 0.04 + 0.75
    (point,) = re.findall(r'if-point" style="left:([\d.]+)%', strip(MADE))
    assert float(point) == round(2 + 96 * (-0.42 - low) / width, 2)
    assert strip(MADE).count("if-each") == 10 and strip(MADE).count("if-mean") == 2


def test_a_single_pair_has_no_interval_and_nothing_moved_is_drawn() -> None:
    nan = float("nan")
    once = service.Moved(Interval(0.0, nan, nan, 1), (0.0,), 0)
    none = service.Moved(Interval(nan, nan, nan, 0), (), 0)
    shown = card(replace(MADE, actual=once, random=none, foreseen=(), converged=True, findings=(), notes=()))
    assert "if-reach" not in shown and "nan" not in shown and "random" not in shown.split("if-strip")[1]
    assert "whatever the seed" in shown
