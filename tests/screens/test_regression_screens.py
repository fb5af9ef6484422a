"""The screens of a regression: numbers instead of classes, errors instead of mistakes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from influence_core import service
from pages.components import charts, tables
from pages.components.forms import suited
from pages.components.view import View
from tests.screens.conftest import Opener, markup
from tests.screens.fake_numbers import FakeNumbers, numbers
from tests.screens.fake_service import install


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeNumbers:
    """In place of the fake service of the other tests."""
    found = FakeNumbers()
    install(found, monkeypatch.setattr)
    return found


def worst() -> int:
    return int(np.abs(numbers().error("test")).argmax())


def figures() -> service.RegressionFigures:
    found = FakeNumbers().overview("prices").regression
    assert found is not None
    return found


def boxes(app: Any, label: str) -> list:
    return [box for box in app.selectbox if box.label == label]


def test_the_overview_shows_errors_instead_of_mistakes(opened: Opener) -> None:
    app = opened()
    page = markup(app)
    for words in ("0.444", "0.213 to 0.611, 95% interval", "42.1", "35.6 to 49.2", "Largest errors", "By split"):
        assert words in page
    for words in ("if-confusion", "Class balance", "confidently", "wrong predictions", "accuracy", "sure"):
        assert words not in page
    assert page.count("if-tile") == 8 and page.count('scope="row"') == 3
    assert "Prices &lt;b&gt;" in page and "2 rows &lt;i&gt;without&lt;/i&gt; a label were left out." in page
    assert [item.label for item in app.expander] == ["What the import did (1)"]


def test_one_click_explains_the_largest_error(opened: Opener) -> None:
    app = opened()
    assert app.button(key="start_worst").label == "Explain the largest error"
    assert f'href="explain?study=prices&amp;id={worst()}&amp;status=largest-errors"' in markup(app)
    app.button(key="start_worst").click().run()
    page = markup(app)
    assert f"Test row {worst()}" in page and "if-pro-column" in page and page.count("data-pick=") == 10
    assert dict(app.query_params) == {"study": "prices", "id": str(worst()), "status": "largest-errors"}


def test_explain_asks_why_a_number(opened: Opener, fake: FakeNumbers) -> None:
    app = opened("explain", study="prices")
    page, i = markup(app), worst()
    assert f"<h1>Why {numbers().predicted['test'][i]:.1f}?</h1>" in page
    assert app.query_params["id"] == str(i)  # the first of the list, ordered by error
    given = f"{numbers().given['test'][i]:.0f}"
    assert f"brought it closer to {given}" in page and f"drove it away from {given}" in page
    assert page.count("Gradient cosine · order only · minus the squared error") == 4  # as text and as title
    assert "if-bars" in page and 'aria-label="Probabilities"' not in page and "as labelled" not in page
    assert not boxes(app, "Target") and not boxes(app, "Given label") and not boxes(app, "Predicted label")
    assert [box.options for box in boxes(app, "Measured as")] == [["Minus the squared error"]]
    assert [box.options for box in boxes(app, "Show")] == [["All", "Largest errors"]]
    assert [box.options for box in boxes(app, "Order")] == [["Error", "Row id", "Random"]]
    assert all((r.target, r.measurement) == ("true", "loss") for r in fake.requests) and fake.requests


def test_the_list_says_how_far_each_number_is_off(opened: Opener) -> None:
    page = markup(opened("explain", study="prices"))
    listed = re.findall(r'class="if-side">([+−][\d.]+)<small>row (\d+)', page)
    assert len(listed) == 60
    for shown, row in listed:
        assert float(shown.replace("−", "-")) == pytest.approx(numbers().error("test")[int(row)], rel=0.01)
    sizes = [abs(float(shown.replace("−", "-"))) for shown, _ in listed]
    assert sizes == sorted(sizes, reverse=True) and "if-is-wrong" not in page


def test_filters_of_a_regression_reach_the_address(opened: Opener) -> None:
    app = opened("explain", study="prices", id="3")
    boxes(app, "Show")[0].set_value("largest-errors").run()
    boxes(app, "Order")[0].set_value("id").run()
    assert dict(app.query_params) == {"study": "prices", "id": "3", "status": "largest-errors", "order": "id"}
    rows = [int(row) for row in re.findall(r'data-pick="(\d+)"', markup(app))]
    assert rows == sorted(rows) and len(rows) == 10


def test_choices_of_a_classification_in_the_address_do_no_harm(opened: Opener) -> None:
    address = {"status": "wrong", "order": "confidence", "given": "3", "predicted": "8", "cell": "1", "target": "7"}
    page = markup(opened("explain", study="prices", id="3", measurement="margin", **address))
    assert "if-problem" not in page and "if-pro-column" in page and "Test row 3" in page


def test_a_set_of_rows(opened: Opener) -> None:
    page = markup(opened("explain", study="prices", id=["3", "4"]))
    assert "mean over 2 rows" in page and "brought it closer to the given numbers" in page
    assert "the predictions closer to the given numbers, negative drove it away" in page


def test_a_fit_is_offered_here_too(opened: Opener, fake: FakeNumbers) -> None:
    app = opened("explain", study="prices", id="3", method="if_ggn")
    assert "Influence function has not been computed yet" in markup(app)
    app.button(key="fit_start").click().run()
    assert 'role="progressbar"' in markup(app)
    fake.fit_seconds = 1e-9
    app.run().run()
    assert "if-pro-column" in markup(app)


def test_a_row_has_an_error_and_no_probabilities(opened: Opener) -> None:
    page = markup(opened("row", study="prices", row="3"))
    error = numbers().error("train")[3]
    shown = float(re.findall(r"error ([+−][\d.]+)<", page)[0].replace("−", "-"))
    assert shown == pytest.approx(error, rel=0.01)
    assert "Squared error" in page and "4,197 · rank 67 of 300" in page
    assert "Probabilities" not in page and "%" not in re.sub(r"width:[\d.]+%", "", page.split("if-own")[1])


def test_methods_that_need_classes_say_so(opened: Opener) -> None:
    assert "needs class labels" in markup(opened("methods", study="prices"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_points_and_residuals_hold_every_row(theme: str) -> None:
    found = figures()
    line, points = charts.predicted_against_given(found, theme).data
    np.testing.assert_array_equal(points.x, numbers().given["test"])
    np.testing.assert_array_equal(points.y, numbers().predicted["test"])
    assert list(points.customdata) == [str(i) for i in found.ids] and tuple(line.x) == tuple(line.y)
    assert line.x[0] < min(*points.x, *points.y) and line.x[1] > max(*points.x, *points.y)
    (bars,) = charts.residuals(found, theme).data
    assert sum(bars.y) == 100 and bars.x[0] == pytest.approx(found.edges[:2].mean())
    assert points.marker.color not in (charts.COLOURS[theme]["pro"], charts.COLOURS[theme]["opp"])


def test_points_and_residuals_in_words() -> None:
    error = numbers().error("test")
    assert "100 test rows as points" in charts.points_in_words(figures())
    assert f"from −{-error.min():.0f} to +{error.max():.0f}." in charts.residuals_in_words(figures())


def test_a_split_without_spread_shows_a_dash() -> None:
    nothing = service.Interval(float("nan"), float("nan"), float("nan"), 3)
    found = figures()
    found.r2["locked"] = nothing
    assert "<td>–<small>– to –</small></td>" in tables.split_table(found)


def test_a_view_keeps_only_the_choices_of_its_kind_of_study() -> None:
    view = View(status="largest-errors", order="error", given="a", target="b", k=7)
    assert suited(view, False) == View(given="a", target="b", k=7)
    assert suited(view, True) == View(status="largest-errors", order="error", target="true", k=7)
    assert suited(View(status="wrong", cell=True), True) == View(order="error", target="true")
    assert suited(View(status="wrong", order="id"), False) == View(status="wrong", order="id")
