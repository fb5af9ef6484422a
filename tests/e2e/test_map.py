"""The map in a browser: a lasso drawn by mouse selects the rows inside, and only its corners go up."""

from __future__ import annotations

import math
import re
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
CHART = ".st-key-map_chart canvas[data-drawn]"
MAX_BYTES = 5_000
# From data to the page's pixels, as the chart has it now.
_PLACE = """
() => {
  const map = window.__influenceMap, box = map.field.getBoundingClientRect(), w = map.window;
  return { ...w, left: box.left, top: box.top, width: box.width, height: box.height };
}
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


class Chart:
    """The map in a page: its rows, and where they are on screen."""

    def __init__(self, page: Page, server: AppServer) -> None:
        self.page, self.study = page, Study(server.studies / "digits")
        self.xy = projection(self.study.task, Run(store=self.study.store), ProjectionConfig(kind="pca")).xy
        self.side = page.locator(".st-key-map_side")

    def open(self, url: str) -> None:
        self.page.goto(f"{url}/?study=digits")  # a fresh server knows its pages after the first run
        expect(self.page.locator(".st-key-screens")).to_be_visible(timeout=PATIENT)
        self.page.goto(f"{url}/map?study=digits&drawn=pca")
        expect(self.page.locator(CHART).first).to_be_visible(timeout=PATIENT)
        expect(self.page.locator('.stApp[data-test-script-state="notRunning"]')).to_be_visible(timeout=PATIENT)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        w = self.page.evaluate(_PLACE)
        return (w["left"] + w["width"] * (x - w["x0"]) / (w["x1"] - w["x0"]),
                w["top"] + w["height"] * (w["y1"] - y) / (w["y1"] - w["y0"]))  # fmt: skip

    def drag(self, places: list[list[float]]) -> None:
        pixels = [self.pixel(x, y) for x, y in places]
        self.page.mouse.move(*pixels[0])
        self.page.mouse.down()
        for pixel in pixels[1:]:
            self.page.mouse.move(*pixel)
        self.page.mouse.up()

    def counted(self) -> int:
        expect(self.side).to_contain_text("in the region", timeout=PATIENT)
        return int(self.page.locator(".if-region h2").inner_text().split()[0].replace(",", ""))


@pytest.fixture
def chart(page: Page, map_server: AppServer) -> Chart:
    found = Chart(page, map_server)
    found.open(map_server.url)
    return found


def test_a_lasso_selects_the_rows_inside_and_sends_only_its_corners(
    page: Page, chart: Chart, map_server: AppServer
) -> None:
    sent: list[int] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(len(frame))))
    chart.open(map_server.url)
    xy = np.concatenate([chart.xy["train"], chart.xy["test"]])
    centre, reach = np.median(xy, 0), 0.6 * xy.std(0)
    angles = np.linspace(0, 2 * math.pi, 60)
    drawn = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
    before = len(sent)
    chart.drag(drawn.tolist())
    counted = chart.counted()
    inside = int(Outline(drawn).contains_points(xy).sum())
    # The browser leaves out corners closer than half a pixel to the line.
    edge = int(Outline(centre + 1.02 * (drawn - centre)).contains_points(xy).sum())
    core = int(Outline(centre + 0.98 * (drawn - centre)).contains_points(xy).sum())
    assert inside > 100 and core <= counted <= edge
    expect(page.locator('.stApp[data-test-script-state="notRunning"]')).to_be_visible(timeout=PATIENT)
    assert 0 < sum(sent[before:]) <= MAX_BYTES, sent[before:]
    expect(chart.side).to_contain_text(" train ")
    page.mouse.dblclick(*chart.pixel(*centre.tolist()))
    expect(chart.side).to_contain_text("Nothing chosen", timeout=PATIENT)


def test_a_box_on_a_zoomed_map_counts_what_is_in_it(page: Page, chart: Chart) -> None:
    xy = np.concatenate([chart.xy["train"], chart.xy["test"]])
    x, y = np.median(xy, 0).tolist()
    page.mouse.move(*chart.pixel(x, y))
    page.mouse.wheel(0, -400)
    page.wait_for_function("() => window.__influenceMap.window.x1 < window.__influenceMap.data.box[1]")
    now = page.evaluate(_PLACE)
    assert abs(chart.pixel(x, y)[0] - (now["left"] + now["width"] * (x - now["x0"]) / (now["x1"] - now["x0"]))) < 1e-6
    page.get_by_role("button", name="Box").click()
    dx, dy = 0.2 * (now["x1"] - now["x0"]), 0.2 * (now["y1"] - now["y0"])
    corners = [[x - dx, y - dy], [x + dx, y - dy], [x + dx, y + dy], [x - dx, y + dy]]
    chart.drag([corners[0], [x, y], corners[2]])
    inside = [int(Outline(np.array([x, y]) + k * (np.array(corners) - [x, y])).contains_points(xy).sum())
              for k in (0.98, 1.02)]  # fmt: skip
    assert 0 < inside[0] <= chart.counted() <= inside[1]
    assert page.evaluate(_PLACE) == now  # an answer leaves the zoom as it is
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("() => window.__influenceMap.window.x1 === window.__influenceMap.data.box[1]")


def test_a_click_on_a_point_shows_its_card_beside_the_map(page: Page, chart: Chart) -> None:
    xy = chart.xy["train"]
    best = int(xy[:, 0].argmax())
    row = chart.study.task.ids("train")[best]
    page.mouse.move(*chart.pixel(*xy[best].tolist()))
    tip = page.locator(".st-key-map_chart .tip")
    expect(tip).to_contain_text(f"train row {row}")
    task = chart.study.task
    label = task.class_names[int(task.split("train").targets[best])]
    expect(tip).to_contain_text(f"labelled {label}")
    page.mouse.down()
    page.mouse.up()
    expect(chart.side).to_contain_text(f"row {row}", timeout=PATIENT)
    # A class that is hidden is neither pointed at nor clicked.
    page.locator(".st-key-map_chart .legend button").first.wait_for()
    page.locator(".st-key-map_chart .legend button", has_text=re.compile(f"^{re.escape(label)}$")).click()
    page.mouse.move(*chart.pixel(*xy[best].tolist()))
    page.mouse.move(*(value + 1 for value in chart.pixel(*xy[best].tolist())))
    expect(tip).not_to_contain_text(f"train row {row}")
