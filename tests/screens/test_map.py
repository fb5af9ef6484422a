"""The screen Map, and its figure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import streamlit as st

from influence_core import service
from pages.components import map as component
from pages.components import map_figure, session
from tests.screens.conftest import Opener, markup
from tests.screens.fake_map import FUNCTIONS, FakeMap
from tests.screens.fake_service import FakeService

CORNERS = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]


@pytest.fixture
def fake_map(fake: FakeService, monkeypatch: pytest.MonkeyPatch) -> FakeMap:
    found = FakeMap(datum=fake.datum)
    for name in FUNCTIONS:
        monkeypatch.setattr(service, name, getattr(found, name))
    monkeypatch.setattr(service, "known_reviewer", lambda study: "ann", raising=False)
    return found


def drawn(app: Any, corners: Any = CORNERS, key: str = "pca-key") -> Any:
    app.session_state["kept.map region"] = {"key": key, "corners": corners}
    return app.run()


def test_the_map_says_what_it_shows_and_asks_for_a_region(opened: Opener, fake_map: FakeMap) -> None:
    app = opened("map", study="digits")
    page = markup(app)
    assert not app.exception and "Nothing chosen" in page and "Two numbers of each row" in page
    assert [box.label for box in app.selectbox[:7]] == ["Layer", "Drawn by", "Colour", "Rows", "Predictions",
                                                        "Labelled", "Predicted"]  # fmt: skip
    assert not fake_map.started


def test_the_address_brings_the_choice_and_the_query(opened: Opener, fake_map: FakeMap) -> None:
    app = opened("map", study="digits", place="input", drawn="pca", colour="suspicion", rows="test", id="94")
    page = markup(app)
    assert "Test row 94 with its strongest" in page and "Suspects have not been computed yet" in page
    assert [box.value for box in app.selectbox[:4]] == ["input", "pca", "suspicion", "test"]


def test_umap_starts_by_itself_where_it_is_cheap_and_has_a_price_where_it_is_not(
    opened: Opener, fake_map: FakeMap
) -> None:
    fake_map.umap, fake_map.seconds = "missing", 900.0
    app = opened("map", study="digits")
    assert "Map by UMAP has not been computed yet. About 30 seconds" in markup(app) and not fake_map.started
    app.button(key="project_umap").click().run()
    assert fake_map.started == ["umap"]
    fake_map.seconds, fake_map.started = 30.0, []
    opened("map", study="digits")
    assert fake_map.started == ["umap"]


def test_a_failed_and_a_waiting_projection(opened: Opener, fake_map: FakeMap) -> None:
    fake_map.umap = "failed"
    app = opened("map", study="digits")
    assert "The disk is full" in markup(app) and app.button(key="project_umap").label == "Retry"
    fake_map.waiting, fake_map.umap, fake_map.seconds = True, "missing", 900.0
    app = opened("map", study="digits")
    assert app.button(key="project_pca").label == "Compute it" and "Nothing chosen" not in markup(app)


def test_a_region_is_counted_and_can_be_relabelled_in_one_act(
    opened: Opener, fake: FakeService, fake_map: FakeMap
) -> None:
    app = drawn(opened("map", study="digits", id="94"))
    page = markup(app)
    assert "9 rows in the region" in page and "7 train · 2 test" in page and "1 predicted wrong" in page
    assert "7 train rows together push it there" in page and "+0.500" in page
    assert fake_map.polygons[-1] == CORNERS
    app.selectbox(key="relabel_to").select("4").run()
    button = app.button(key="relabel_do")
    assert button.label == "Relabel 6 rows to “4”" and not fake.reviews.written
    assert "1 row is left out: labelled 4 already." in markup(app)
    button.click().run()
    ((_, (reviewer, first, batch, again)),) = fake.reviews.written
    assert reviewer == "ann" and batch.rows == tuple(range(1, 7)) and set(batch.labels) == {"4"} and not again
    assert batch.evidence == {"screen": "map", "place": "penultimate", "drawn": "umap", "corners": CORNERS}
    app.button(key="relabel_do").click().run()
    assert first != fake.reviews.written[-1][1][1]
    app.button(key="undo_batch").click().run()
    assert fake.reviews.written[-1][0] == "undo_batch" and len(fake.reviews.lines) == 1


def test_a_region_is_sent_to_review(opened: Opener, fake_map: FakeMap, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    gone: list[Any] = []

    def save(*given: Any) -> str:
        saved.append(given)
        return "a" * 32

    monkeypatch.setattr(service, "save_queue", save, raising=False)
    monkeypatch.setattr(session, "go", lambda screen, **changes: gone.append((screen, changes)))
    app = drawn(opened("map", study="digits"))
    app.button(key="review_test").click().run()
    assert saved == [("digits", "2 test rows from the map", "test", (0, 1), "a region of the map")]
    assert gone == [("review", {"queue": "a" * 32})]


def test_a_region_of_another_map_or_of_no_form_is_not_asked_about(opened: Opener, fake_map: FakeMap) -> None:
    for app in (drawn(opened("map", study="digits"), key="other"), drawn(opened("map", study="digits"), corners=[])):
        assert "Nothing chosen" in markup(app)
    assert not fake_map.polygons


def test_a_clicked_row_is_beside_the_map(opened: Opener, fake_map: FakeMap) -> None:
    page = markup(opened("map", study="digits", split="test", row="94"))
    assert "Test row 94" in page and "Draw its influences" in page
    assert "Draw its influences" not in markup(opened("map", study="digits", split="train", row="3"))


def test_what_the_component_reports_changes_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    state: dict[str, Any] = {component._KEY: {"row": {"split": "test", "id": "94"}, "region": {"key": "k"}}}
    monkeypatch.setattr(st, "session_state", state)
    component._clicked()
    component._drawn()
    assert (session.view().split, session.view().row) == ("test", "94")
    assert session.kept(component._REGION) == {"key": "k"}


def view(**options: Any) -> service.MapView:
    found = FakeMap().map_points("digits", service.MapRequest(query=options.pop("query", None)))
    assert isinstance(found, service.MapView)
    return replace(found, **options)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_point_is_drawn_once_with_its_id(theme: str) -> None:
    found = view()
    figure = map_figure.map_figure(found, ("test", "5"), theme)
    traces = [trace for trace in figure.data if trace.meta in ("train", "test")]
    assert sum(len(trace.x) for trace in traces) == len(found.points.x)
    ids = [int(i) for trace in traces if trace.meta == "test" for i in trace.customdata]
    assert sorted(ids) == list(range(found.n_rows["test"]))
    for trace in traces:
        assert set(trace.text) == {trace.name}  # of a class, only its rows
    assert len([trace for trace in traces if trace.showlegend]) == 10
    ring = figure.data[-1]
    place = [i for i, test in enumerate(found.points.is_test) if test][5]
    assert list(ring.x) == [found.points.x[place]] and ring.marker.symbol == "circle-open"
    assert figure.layout.uirevision == found.key and figure.layout.dragmode == "lasso"


def test_equal_views_make_equal_bytes() -> None:
    assert map_figure.map_figure(view()).to_json() == map_figure.map_figure(view()).to_json()


def test_the_query_has_lines_to_both_sides_and_density_lies_below() -> None:
    query = service.ExplainRequest(ids=(94,), method="grad_cos")
    figure = map_figure.map_figure(view(query=query, density=np.ones((4, 4), int)))
    assert figure.data[0].type == "heatmap"
    assert [t.name for t in figure.data if t.name in ("proponents", "opponents", "explained")] == [
        "proponents", "opponents", "explained"]  # fmt: skip


def test_names_that_look_like_html_are_letters() -> None:
    found = view()
    colours = replace(found.colours, names=("<b>x</b>", *found.colours.names[1:]))
    names = [trace.name for trace in map_figure.map_figure(replace(found, colours=colours)).data]
    assert "&lt;b&gt;x&lt;/b&gt;" in names and "<b>x</b>" not in names
