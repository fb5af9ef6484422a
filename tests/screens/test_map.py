"""The screen Map, and what its chart is given."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import streamlit as st

from influence_core import service
from pages.components import map as component
from pages.components import map_picture, session
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


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(b64decode(text), kind)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_point_is_drawn_once_with_its_id_label_and_colour(theme: str) -> None:
    found = view()
    picture = map_picture.map_picture(found, ("test", "5"), theme)
    points, drawn = found.points, picture["points"]
    np.testing.assert_array_equal(unpacked(drawn["x"], "<f4"), np.float32(points.x))
    np.testing.assert_array_equal(unpacked(drawn["y"], "<f4"), np.float32(points.y))
    test = unpacked(drawn["test"], "u1").astype(bool)
    assert sorted(int(row) for row, of_test in zip(drawn["ids"], test, strict=True) if of_test) == list(
        range(found.n_rows["test"])
    )
    assert [drawn["labels"][i] for i in unpacked(drawn["label"], "<u4")] == list(points.labels)
    code = unpacked(drawn["code"], "<u2")
    np.testing.assert_array_equal(code, points.codes)
    assert picture["legend"] == [(i, name) for i, name in enumerate(found.colours.names)]
    assert len(set(picture["colours"])) == len(picture["colours"]) == 11  # ten classes, and grey for none
    assert picture["ring"] == np.flatnonzero(points.is_test)[5] and picture["key"] == found.key
    assert map_picture.map_picture(found, ("test", "no such row"))["ring"] == -1


def test_a_point_without_a_category_is_drawn_grey_and_listed() -> None:
    found = view()
    codes = found.points.codes.copy()
    codes[3] = -1
    picture = map_picture.map_picture(replace(found, points=replace(found.points, codes=codes)))
    assert unpacked(picture["points"]["code"], "<u2")[3] == 10 and picture["legend"][-1] == (10, "none")
    assert picture["colours"][10] == map_picture.INK["light"]["ghost"]


@pytest.mark.parametrize("kind", ["sequential", "diverging"])
def test_a_scale_runs_from_its_low_to_its_high_end_and_grey_means_none(kind: str) -> None:
    found = view()
    values = np.linspace(-3.0, 3.0, len(found.points.x))
    values[7] = np.nan
    colours = replace(found.colours, kind=kind, names=(), low=-2.0, high=2.0)
    picture = map_picture.map_picture(replace(found, colours=colours, points=replace(found.points, values=values)))
    code = unpacked(picture["points"]["code"], "<u2").astype(int)
    n = len(picture["scale"]["ramp"])
    assert code[7] == n and picture["colours"][n] == map_picture.INK["light"]["ghost"]
    share = np.clip((np.delete(values, 7) + 2) / 4, 0, 1)
    assert np.abs(np.delete(code, 7) - share * (n - 1)).max() <= 0.5 + 1e-9
    assert picture["legend"] == [] and picture["scale"]["high"].endswith("2.00")
    if kind == "diverging":
        assert (picture["scale"]["ramp"][0], picture["scale"]["ramp"][-1]) == ("rgb(179, 88, 6)", "rgb(33, 102, 172)")


def test_equal_views_make_equal_bytes() -> None:
    assert json.dumps(map_picture.map_picture(view())) == json.dumps(map_picture.map_picture(view()))


def test_the_query_has_lines_to_both_sides_and_the_ground_is_darker_where_more_rows_are() -> None:
    query = service.ExplainRequest(ids=(94,), method="grad_cos")
    density = np.array([[0, 1], [5, 50]])
    picture = map_picture.map_picture(view(query=query, density=density))
    alpha = unpacked(picture["density"]["alpha"], "u1").reshape(picture["density"]["shape"])
    assert alpha[0, 0] == 0 and 0 < alpha[0, 1] < alpha[1, 0] < alpha[1, 1] <= 255 * 0.55 + 1
    assert {link["pro"] for link in picture["links"]} == {True, False} and len(picture["query"]) == 1
    assert all(("+" in link["words"]) == link["pro"] for link in picture["links"])
