"""A browser that loads its widgets slowly: clicks in the meantime leave the filters as the address has them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route, expect

from influence_core import Run, Study
from influence_core.workflows.suspects import suspects
from tests.e2e.conftest import AppServer
from tests.e2e.test_review import PATIENT


@pytest.fixture(scope="module")
def server(
    demo_studies: Path, start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory
) -> AppServer:
    studies = tmp_path_factory.mktemp("slow") / "studies"
    studies.mkdir()
    shutil.copytree(demo_studies / "digits", studies / "digits")
    suspects(Study(studies / "digits").task, Run(store=Study(studies / "digits").store))
    return start_server(studies)


def test_a_click_before_the_filters_are_drawn_resets_none(page: Page, server: AppServer) -> None:
    held: list[Route] = []
    page.route(re.compile(r"/static/js/Selectbox\.[^/]*\.js"), lambda route: held.append(route))
    page.goto(f"{server.url}/suspects?study=digits&agree=2&labelled=9")
    expect(page.locator(".if-suspects")).to_be_visible(timeout=PATIENT)
    review = page.get_by_role("button", name=re.compile(r"Review these [\d,]+"))
    count = int(re.sub(r"\D", "", review.inner_text()))
    assert count < 200  # of 1,000: the filters hold
    assert held, "the select boxes came some other way: this test no longer delays them"
    page.get_by_role("button", name=re.compile(r"Relabel [\d,]+…")).click(timeout=PATIENT)
    expect(page.locator('.stApp[data-test-script-state="notRunning"]')).to_be_visible(timeout=PATIENT)
    for route in held:
        route.continue_()
    box = page.locator(".st-key-suspect_filters")
    agreeing = box.get_by_role("combobox", name="Detectors that say")
    expect(agreeing).to_have_value(re.compile("at least 2 of"), timeout=PATIENT)
    page.keyboard.press("Escape")
    box.get_by_text("Likely errors only").click(timeout=PATIENT)  # any other change reports all the boxes
    expect(page).to_have_url(re.compile("likely=1"), timeout=PATIENT)
    expect(page).to_have_url(re.compile("agree=2"))
    expect(page).to_have_url(re.compile("labelled=9"))
    expect(agreeing).to_have_value(re.compile("at least 2 of"))
