"""Charts as data: nothing lost between the records and the figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from influence_core import service
from pages.components import charts
from tests.screens.fake_service import FakeService

REQUEST = service.ExplainRequest(ids=("94",), method="grad_cos", k=5)


def explanation() -> service.Explanation:
    found = FakeService().explain("digits", REQUEST)
    assert isinstance(found, service.Explanation)
    return found


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_histogram_holds_every_row_and_marks_the_shown_ones(theme: str) -> None:
    found = explanation()
    figure = charts.score_histogram(found, theme)
    pro, opp, up, down = figure.data
    rows = np.concatenate([pro.customdata, opp.customdata])[:, 0]
    assert rows.sum() == found.n_train == 900
    np.testing.assert_allclose(10 ** np.concatenate([pro.y, opp.y]) - 1, rows, atol=1e-9)
    assert min(pro.x) > 0 >= max(opp.x)
    assert list(up.x) == [row.score for row in found.proponents]
    assert list(down.customdata) == [str(row.datum.row_id) for row in found.opponents]
    assert pro.marker.color == up.marker.color == charts.COLOURS[theme]["pro"]
    assert opp.marker.color == down.marker.color == charts.COLOURS[theme]["opp"]
    assert up.marker.symbol != down.marker.symbol
    assert max(up.y) < 0 <= min(min(pro.y), min(opp.y))


def test_the_histogram_survives_one_value_for_all() -> None:
    flat = replace(explanation(), counts=np.array([900]), edges=np.array([-0.5, 0.5]), proponents=(), opponents=())
    figure = charts.score_histogram(flat)
    assert sum(len(trace.x) for trace in figure.data) == 1
    assert "marked" not in charts.histogram_in_words(flat)


def test_the_histogram_in_words_names_its_ends() -> None:
    found = explanation()
    words = charts.histogram_in_words(found)
    assert "900 training rows" in words
    assert f"{found.edges[-1]:+.3f}" in words and f"{found.proponents[0].score:+.3f}" in words


def test_class_balance_shows_shares_that_sum_to_one() -> None:
    overview = FakeService().overview("digits")
    figure = charts.class_balance(overview)
    assert [trace.name for trace in figure.data] == ["train", "test", "locked"]
    for trace, counts in zip(figure.data, overview.class_counts.values(), strict=True):
        np.testing.assert_allclose(sum(trace.y), 1.0, atol=1e-12)
        assert tuple(trace.customdata) == counts
    assert "train: 0 " in charts.balance_in_words(overview)


def test_class_names_are_no_markup_in_a_chart() -> None:
    figure = charts.class_balance(FakeService().overview("words"))
    assert all("<" not in name for name in figure.data[0].x)


def test_charts_are_transparent_and_silent() -> None:
    figure = charts.score_histogram(explanation())
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert charts.CONFIG["displayModeBar"] is False
