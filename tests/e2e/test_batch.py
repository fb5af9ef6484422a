"""A list relabelled in one tab while a review desk is open in another: the desk sees it, both keep what they did."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from influence_core import Run, Study
from influence_core.workflows.suspects import suspects
from tests.e2e.conftest import AppServer
from tests.e2e.test_review import PATIENT, delivered

BATCH = "SELECT seq, n_rows, standing FROM acts WHERE n_rows > 1 ORDER BY seq"
ABOUT = ("SELECT d.row, d.action, d.label, a.tab FROM decisions d JOIN acts a ON a.seq = d.act "
         "WHERE a.standing = 1 ORDER BY d.act")  # fmt: skip


@pytest.fixture(scope="module")
def batch_server(
    demo_studies: Path, start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory
) -> AppServer:
    studies = tmp_path_factory.mktemp("batch") / "studies"
    studies.mkdir()
    shutil.copytree(demo_studies / "digits", studies / "digits")
    study = Study(studies / "digits")
    suspects(study.task, Run(store=study.store))
    return start_server(studies)


def read(server: AppServer, query: str) -> list[tuple]:
    db = sqlite3.connect(server.studies / "digits" / "reviews.sqlite")
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def arrived(page: Page) -> None:
    """Wait until the list is there, and whole."""
    expect(page.locator(".if-suspects")).to_be_visible(timeout=PATIENT)
    expect(page.locator('.stApp[data-test-script-state="notRunning"]')).to_be_visible(timeout=PATIENT)


def test_a_list_is_relabelled_beside_a_live_desk_and_taken_back(page: Page, batch_server: AppServer) -> None:
    server = batch_server
    page.goto(f"{server.url}/?study=digits")  # a fresh server knows its pages after the first run
    expect(page.locator(".st-key-screens")).to_be_visible(timeout=PATIENT)
    # The desk: the same list, in order; two rows are decided by hand, the third is on screen.
    page.goto(f"{server.url}/review?study=digits&queue=suspects")
    page.get_by_label("Your name").fill("ann", timeout=PATIENT)
    page.keyboard.press("Enter")
    desk = page.locator(".desk")
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    expect(desk).to_have_attribute("data-cards", re.compile(r"[3-9]\d|\d{3}"), timeout=PATIENT)
    page.keyboard.press("k")
    page.keyboard.press("d")
    delivered(page)
    expect(desk.locator(".mine")).to_have_count(0)

    # The other tab: the list is relabelled in three actions.
    other = page.context.new_page()
    other.goto(f"{server.url}/suspects?study=digits&agree=2")
    title = other.get_by_role("button", name=re.compile(r"Relabel [\d,]+…"))
    arrived(other)
    title.click()
    name = other.get_by_label("Your name")
    name.fill("ann", timeout=PATIENT)
    name.press("Enter")
    confirm = other.locator(".st-key-together_do button")
    expect(confirm).to_be_enabled(timeout=PATIENT)
    count = int(re.sub(r"\D", "", confirm.inner_text()))
    confirm.dblclick()
    expect(other.locator(".st-key-last_batch")).to_contain_text(f"{count} rows relabelled", timeout=PATIENT)
    assert [line[1:] for line in read(server, BATCH)] == [(count, 1)]  # one act, though it was clicked twice
    about = read(server, ABOUT)
    assert len(about) == count + 2 == len({row for row, *_ in about})
    assert [action for _, action, *_ in about[:2]] == ["keep", "drop"]

    # Back at the desk: the card that was on screen all along says so, before any press.
    page.bring_to_front()
    page.evaluate("window.dispatchEvent(new Event('focus'))")  # headless tabs all have it
    expect(desk.locator(".mine")).to_contain_text("You decided: →", timeout=PATIENT)
    expect(desk).to_contain_text(f"{count + 2} decided")
    page.keyboard.press("u")  # a press on a decided card is one more decision, and holds
    page.keyboard.press("ArrowRight")
    delivered(page)
    assert [line[1:] for line in read(server, BATCH)] == [(count, 1)]
    # The desk's undo takes back its own last press, not the batch that another tab wrote in between.
    page.keyboard.press("z")
    page.keyboard.press("z")
    delivered(page)
    standing = read(server, ABOUT)
    assert [action for _, action, _, tab in standing if not tab.startswith("batch")] == ["keep"]
    assert sum(tab.startswith("batch") for *_, tab in standing) == count

    # One undo for the batch, in the tab that wrote it; the desk is told again.
    other.bring_to_front()
    other.locator(".st-key-undo_batch button").click()
    expect(other.locator(".st-key-last_batch")).to_have_count(0, timeout=PATIENT)
    (kept,) = read(server, ABOUT)
    assert kept[1] == "keep"
    page.bring_to_front()
    page.evaluate("window.dispatchEvent(new Event('focus'))")
    expect(desk).to_contain_text("1 decided", timeout=PATIENT)
    page.keyboard.press("ArrowRight")
    expect(desk.locator(".mine")).to_have_count(0, timeout=PATIENT)
    assert json.loads(kept[0]) == Study(server.studies / "digits").task.ids("train")[
        suspects(Study(server.studies / "digits").task, Run(store=Study(server.studies / "digits").store)).order()[0]
    ]  # fmt: skip


def test_a_batch_is_undone_later_on_the_screen_of_decisions(page: Page, batch_server: AppServer) -> None:
    server = batch_server
    page.goto(f"{server.url}/suspects?study=digits&agree=3")
    arrived(page)
    page.get_by_role("button", name=re.compile(r"Relabel [\d,]+…")).click(timeout=PATIENT)
    page.get_by_label("Your name").fill("bea", timeout=PATIENT)
    page.keyboard.press("Enter")
    page.locator(".st-key-together_do button").click(timeout=PATIENT)
    expect(page.locator(".st-key-last_batch")).to_be_visible(timeout=PATIENT)
    page.goto(f"{server.url}/decisions?study=digits")
    page.get_by_text("Decided together").click(timeout=PATIENT)
    page.locator(".st-key-undo_batch_0 button").click(timeout=PATIENT)
    expect(page.get_by_text("Decided together")).to_have_count(0, timeout=PATIENT)
    assert not [line for line in read(server, BATCH) if line[2] == 1]
