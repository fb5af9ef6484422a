"""The screen Trust: advice first, the measured table, the form that measures."""

from __future__ import annotations

from pages.components.trust import fidelity_figure
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService
from tests.screens.fake_trust import JOB


def test_advice_and_table_show_what_was_measured(opened: Opener) -> None:
    app = opened("trust", study="digits")
    page = markup(app)
    assert not app.exception and "tracks retraining best (0.92 of a possible 0.99)" in page
    assert page.index("SGD-influence") < page.index("Gradients &lt;script&gt;") and "<script>" not in page
    assert "0.88 to 0.95" in page and "0.99 is the most that any method can reach" in page


def test_an_empty_study_says_why_to_measure_and_what_it_costs(opened: Opener, fake: FakeService) -> None:
    fake.trusting.known = False
    app = opened("trust", study="digits")
    assert "Nothing has been measured" in markup(app) and "100 models to train" in markup(app)
    app.button(key="trust_start").click().run()
    assert fake.trusting.started == [("digits", ("grad_dot",), 50, 2)] and not app.exception


def test_dear_methods_and_those_that_cannot_run_say_so(opened: Opener, fake: FakeService) -> None:
    app = opened("trust", study="digits")
    offered = next(box for box in app.multiselect if box.key == "trust_methods").options
    assert offered == ["Gradient dot product (0.1 s)", "MAGIC (2.0 h and each row)"]
    assert "Cannot be measured here (1)" in [one.label for one in app.expander]
    assert "CosIn: &lt;script&gt;" in markup(app)


def test_points_carry_the_numbers_of_the_table(fake: FakeService) -> None:
    (points,) = fidelity_figure(fake.trusting.trust("digits"), "dark").data
    assert list(points.text) == ["1", "2"] and list(points.y) == [0.92, 0.54]


def test_only_owners_measure_and_only_where_something_can_be_retrained(opened: Opener, fake: FakeService) -> None:
    fake.trusting.owner = False
    assert opened("trust", study="digits").button(key="trust_start").disabled
    fake.trusting.problem = "The study has no training recipe."
    app = opened("trust", study="digits")
    assert "cannot be measured" in markup(app) and not [b for b in app.button if b.key == "trust_start"]


def test_a_measurement_under_way_takes_the_place_of_the_form(opened: Opener, fake: FakeService) -> None:
    fake.trusting.job = JOB
    app = opened("trust", study="digits")
    assert "Measuring methods" in markup(app) and not [b for b in app.button if b.key == "trust_start"]


def test_explain_says_how_far_its_method_can_be_believed(opened: Opener, fake: FakeService) -> None:
    page = markup(opened("explain", study="digits", method="tracin_cp"))
    assert "How far can I believe this?" in page and "trust?study=digits" in page
