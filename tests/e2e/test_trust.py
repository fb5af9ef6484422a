"""Trust in a browser: questions and methods chosen by price, a job that moves, then advice and a removal curve."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from influence_core import Study
from influence_core.workflows.trust import measured
from tests.e2e.conftest import AppServer
from tests.small_studies import table_study

PATIENT = 120_000
METHODS = ("Gradient dot product", "Influence functions (Gauss-Newton)", "TracIn")


@pytest.fixture(scope="module")
def trusted(start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory) -> AppServer:
    studies = tmp_path_factory.mktemp("trust") / "studies"
    table_study(studies / "table")
    return start_server(studies)


def choose(page: Page, key: str, titles: tuple[str, ...]) -> None:
    """Empty a list of methods and choose some by their titles."""
    box = page.locator(f".st-key-{key}")
    still = page.locator('.stApp[data-test-script-state="notRunning"]')  # a run that draws could take a click away
    expect(still).to_be_visible(timeout=PATIENT)
    box.get_by_role("button", name="Clear all").click(timeout=PATIENT)
    expect(box.get_by_role("button", name=re.compile("^Remove "))).to_have_count(0, timeout=PATIENT)
    for title in titles:
        expect(still).to_be_visible(timeout=PATIENT)
        box.get_by_role("combobox").click()
        box.get_by_role("combobox").fill(title)
        page.get_by_role("option", name=re.compile(rf"^{re.escape(title)} ·")).first.click(timeout=PATIENT)
    page.keyboard.press("Escape")
    for title in titles:
        expect(box.get_by_text(re.compile(rf"^{re.escape(title)} ·")).first).to_be_visible(timeout=PATIENT)


def moved(page: Page, key: str) -> None:
    """Wait until the job's bar stands in the form's place, and has reported work."""
    bar = page.locator(f".st-key-{key}_job").get_by_role("progressbar")
    expect(bar).to_be_visible(timeout=PATIENT)
    page.wait_for_function(
        f"""() => {{
            const bar = document.querySelector(".st-key-{key}_job [role=progressbar]");
            return !bar || Number(bar.getAttribute("aria-valuenow")) > 0;
        }}""",
        timeout=PATIENT,
    )


def test_what_is_measured_is_advised_and_believed(page: Page, trusted: AppServer) -> None:
    folder = trusted.studies / "table"
    page.goto(f"{trusted.url}/trust?study=table")
    expect(page.get_by_text("Nothing has been measured on this study yet")).to_be_visible(timeout=PATIENT)

    # Every question has its price; one more of them is asked, of three methods.
    expect(page.get_by_text(re.compile(r"Tracks retraining · 100 retrainings, about"))).to_be_visible(timeout=PATIENT)
    page.locator(".st-key-trust_ask_mislabel label").click()
    choose(page, "trust_methods", METHODS)
    expect(page.get_by_text(re.compile(r"100 models to train, 3 methods to fit"))).to_be_visible(timeout=PATIENT)
    page.locator(".st-key-trust_start button").click(timeout=PATIENT)
    moved(page, "trust")

    # The table is the legend of the figure; the advice is made from its numbers, which are those of the engine.
    expect(page.locator(".if-headline")).to_contain_text("On this model,", timeout=PATIENT)
    known = measured(Study.open(folder)).fidelity
    assert set(known["method"]) == {"grad_dot", "if_ggn", "tracin_cp"}
    rows = page.locator(".st-key-trust_fidelity tbody tr")
    expect(rows).to_have_count(3, timeout=PATIENT)
    for place, value in enumerate(known["value"]):
        expect(rows.nth(place)).to_contain_text(f"{value:.2f}")
    expect(page.locator(".st-key-trust_figure .textpoint text")).to_have_text(["1", "2", "3"], timeout=PATIENT)
    expect(page.get_by_text("average precision")).to_be_visible(timeout=PATIENT)
    page.get_by_role("radio", name="Top rows in common").click(timeout=PATIENT)
    expect(page.get_by_text("proponents that two methods have in common")).to_be_visible(timeout=PATIENT)

    # One prediction loses its proponents.
    choose(page, "removal_methods", METHODS[:1])
    expect(page.get_by_text("Up to 210 retrainings")).to_be_visible(timeout=PATIENT)
    page.locator(".st-key-removal_start button").click(timeout=PATIENT)
    expect(page.locator(".st-key-removal_figure .legendtext")).to_have_text(
        ["Random rows, mean of 20", "1 Gradient dot product"], timeout=PATIENT
    )
    expect(page.get_by_text(re.compile(r"of 20 random removals of up to \d+ rows"))).to_be_visible(timeout=PATIENT)
    (row,) = measured(Study.open(folder)).followed

    # Explain says it beside the method's name.
    page.goto(f"{trusted.url}/explain?study=table&id={row}&method=grad_dot")
    value = float(known.set_index("method")["value"]["grad_dot"])
    said = page.get_by_role("link", name=re.compile(r"Gradient dot product tracks retraining"))
    expect(said).to_contain_text(f"{value:.2f}", timeout=PATIENT)


def test_a_narrow_window_stacks_and_cuts_nothing_off(page: Page, trusted: AppServer) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    page.goto(f"{trusted.url}/trust?study=table")
    expect(page.locator(".st-key-trust_start button")).to_be_visible(timeout=PATIENT)
    main = page.locator("[data-testid=stMain]")
    assert main.evaluate("node => node.scrollWidth <= node.clientWidth + 1")
