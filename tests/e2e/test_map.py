"""The map in a browser: a lasso drawn by mouse selects the rows inside, and only its corners go up."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from playwright.sync_api import Page, expect

from influence_core import Run, Study
from influence_core.workflows.projection import ProjectionConfig, projection
from tests.e2e.conftest import AppServer

PATIENT = 60_000
PLOT = ".st-key-map_chart .js-plotly-plot"
MAX_BYTES = 5_000
# From data to the page's pixels, as the chart has it now.
_PIXELS = f"""
() => {{
  const plot = document.querySelector("{PLOT}"), box = plot.getBoundingClientRect(), l = plot._fullLayout;
  return {{ x: l.xaxis.range, y: l.yaxis.range, left: box.left + l._size.l, top: box.top + l._size.t,
           width: l.xaxis._length, height: l.yaxis._length }};
}}
"""


@pytest.fixture(scope="module")
def map_server(
    demo_studies: Path, start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory
) -> AppServer:
    studies = tmp_path_factory.mktemp("map") / "studies"
    studies.mkdir()
    shutil.copytree(demo_studies / "digits", studies / "digits")
    study = Study(studies / "digits")
    projection(study.task, Run(store=study.store), ProjectionConfig(kind="pca"))
    return start_server(studies)


def test_a_lasso_selects_the_rows_inside_and_sends_only_its_corners(page: Page, map_server: AppServer) -> None:
    sent: list[int] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(len(frame))))
    page.goto(f"{map_server.url}/?study=digits")  # a fresh server knows its pages after the first run
    expect(page.locator(".st-key-screens")).to_be_visible(timeout=PATIENT)
    page.goto(f"{map_server.url}/map?study=digits&drawn=pca")
    expect(page.locator(f"{PLOT} .nsewdrag").first).to_be_visible(timeout=PATIENT)
    page.wait_for_function("() => window.__influenceMap && window.__influenceMap.send")
    page.wait_for_timeout(500)
    place = page.evaluate(_PIXELS)
    study = Study(map_server.studies / "digits")
    found = projection(study.task, Run(store=study.store), ProjectionConfig(kind="pca")).xy
    xy = np.concatenate([found["train"], found["test"]])
    centre, reach = np.median(xy, 0), 0.6 * xy.std(0)
    angles = np.linspace(0, 2 * math.pi, 60)
    drawn = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
    pixels = [
        (place["left"] + place["width"] * (x - place["x"][0]) / (place["x"][1] - place["x"][0]),
         place["top"] + place["height"] * (place["y"][1] - y) / (place["y"][1] - place["y"][0]))
        for x, y in drawn.tolist()
    ]  # fmt: skip
    before = len(sent)
    page.mouse.move(*pixels[0])
    page.mouse.down()
    for pixel in pixels[1:]:
        page.mouse.move(*pixel)
    page.wait_for_timeout(200)
    page.mouse.up()
    expect(page.locator(".st-key-map_side")).to_contain_text("rows in the region", timeout=PATIENT)
    counted = int(page.locator(".if-region h2").inner_text().split()[0].replace(",", ""))
    inside = int(Outline(drawn).contains_points(xy).sum())
    # The browser keeps whole pixels and leaves out corners closer than that to the line.
    edge = int(Outline(centre + 1.02 * (drawn - centre)).contains_points(xy).sum())
    core = int(Outline(centre + 0.98 * (drawn - centre)).contains_points(xy).sum())
    assert inside > 100 and core <= counted <= edge
    page.wait_for_timeout(500)
    assert 0 < sum(sent[before:]) <= MAX_BYTES, sent[before:]
    expect(page.locator(".st-key-map_side")).to_contain_text(" train ")


def test_a_click_on_a_point_shows_its_card_beside_the_map(page: Page, map_server: AppServer) -> None:
    page.goto(f"{map_server.url}/map?study=digits&drawn=pca")
    expect(page.locator(f"{PLOT} .nsewdrag").first).to_be_visible(timeout=PATIENT)
    page.wait_for_function("() => window.__influenceMap && window.__influenceMap.send")
    page.wait_for_timeout(500)
    place = page.evaluate(_PIXELS)
    study = Study(map_server.studies / "digits")
    xy = projection(study.task, Run(store=study.store), ProjectionConfig(kind="pca")).xy["train"]
    x, y = xy[xy[:, 0].argmax()].tolist()
    page.mouse.move(place["left"] + place["width"] * (x - place["x"][0]) / (place["x"][1] - place["x"][0]),
                    place["top"] + place["height"] * (place["y"][1] - y) / (place["y"][1] - place["y"][0]))  # fmt: skip
    page.wait_for_timeout(300)
    page.mouse.down()
    page.mouse.up()
    row = study.task.ids("train")[xy[:, 0].argmax()]
    expect(page.locator(".st-key-map_side")).to_contain_text(f"row {row}", timeout=PATIENT)
