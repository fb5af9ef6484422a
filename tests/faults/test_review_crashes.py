"""Reviewing by keys while the server is killed twenty times, pages are refreshed and a second tab decides as well.

The oracle is what was pressed: the tab's name, the number of the press, what it was and about which row, read off the
page before the key goes down. Afterwards the log on disk must hold exactly that.
"""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, sync_playwright

from tests.e2e.conftest import CHROMIUM_ARGUMENTS, AppServer, browser_path, build_demo, no_browser

CRASHES = 20
PATIENT = 120_000
REVIEWER = "ann"
ACTIONS = {"k": "keep", "d": "drop", "u": "unsure", "z": "undo"}
WAITING = "Object.keys(localStorage).filter((key) => key.startsWith('influence.act.')).length"
DESK = "window.__influenceReview?.desk"
# Where the next key goes: [tab, number of the last act, row on screen or null].
PLACE = f"(() => {{ const d = {DESK}; return [d.outbox.tab, d.outbox.number, d.card()?.row_id ?? null]; }})()"

pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.timeout(2400)]
Pressed = dict[tuple[str, int], tuple[str, int | None]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AppServer]:
    build_demo("digits", tmp_path / "studies" / "digits")
    running = AppServer(tmp_path / "studies", tmp_path / "log.txt")
    running.start()
    yield running
    running.close()


@pytest.fixture
def context() -> Iterator[BrowserContext]:
    path = browser_path()
    if path is None:
        no_browser("no Chromium was found (see make test)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser.new_context(viewport={"width": 1280, "height": 800})
        browser.close()


class Reviewer:
    """Someone at one tab, who writes down every key that they press."""

    def __init__(self, page: Page, url: str, pressed: Pressed) -> None:
        self.page, self.pressed, self.skipped = page, pressed, 0
        page.goto(url)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function(f"{DESK}?.reviewer ? {DESK}.cards.size > 30 : !!{DESK}", timeout=PATIENT)
        if not self.page.evaluate(f"{DESK}.reviewer"):
            self.page.get_by_label("Your name").fill(REVIEWER)
            self.page.keyboard.press("Enter")
            self.page.wait_for_function(f"{DESK}.cards.size > 30", timeout=PATIENT)

    def press(self, key: str) -> None:
        """Press a key and note it; not where the desk says that it is loading, which takes no decisions."""
        tab, number, row = self.page.evaluate(PLACE)
        if row is None:
            self.skipped += 1
            return
        self.page.keyboard.press(key)
        self.pressed[tab, number + 1] = (ACTIONS[key], None if key == "z" else row)

    def reload(self) -> None:
        self.page.reload()
        self.ready()

    def delivered(self) -> None:
        self.page.wait_for_function(f"{WAITING} === 0", timeout=PATIENT)


def logged(server: AppServer) -> list[tuple]:
    """Every act with its decision's row: tab, number, kind or action, row, standing, target."""
    db = sqlite3.connect(server.studies / "digits" / "reviews.sqlite")
    try:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        select = (
            "SELECT a.reviewer, a.tab, a.number, coalesce(d.action, a.kind), d.row, a.standing, a.target, a.seq "
            "FROM acts a LEFT JOIN decisions d ON d.act = a.seq ORDER BY a.seq"
        )
        return db.execute(select).fetchall()
    finally:
        db.close()


def test_twenty_crashes_lose_nothing_and_double_nothing(server: AppServer, context: BrowserContext) -> None:
    chance, pressed = random.Random(7), Pressed()
    url = f"{server.url}/review?study=digits&queue=loss"
    people = [Reviewer(context.new_page(), url, pressed), Reviewer(context.new_page(), url, pressed)]
    unsaved = 0
    for _ in range(CRASHES):
        crash = chance.randint(2, 10)
        for i in range(14):
            chance.choice(people).press(chance.choice("kkdduuz"))
            if i == crash:
                time.sleep(chance.uniform(0, 0.4))  # before, during or after the message, the write, the answer
                server.stop(signal.SIGKILL)
            time.sleep(chance.uniform(0.02, 0.15))
        unsaved += people[0].page.evaluate(WAITING)
        if chance.random() < 0.3:  # refreshed while nobody answers
            people[0].page.evaluate("location.reload()")
            time.sleep(0.5)
        server.start()
        for person in people:
            if person is people[0] or chance.random() < 0.3:
                person.page.goto(url) if person.page.url != url else person.reload()
            person.ready()
    for person in people:
        person.delivered()
    assert unsaved > CRASHES  # the crashes came between

    found = logged(server)
    assert {who for who, *_ in found} == {REVIEWER}
    numbers = [(tab, number) for _, tab, number, *_ in found]
    assert len(numbers) == len(set(numbers)), "an act is there twice"
    said = {(tab, number): (what, None if row is None else json.loads(row)) for _, tab, number, what, row, *_ in found}
    assert said == pressed, {key: (pressed.get(key), said.get(key)) for key in pressed.keys() ^ said.keys()}
    assert len(pressed) > CRASHES * 10 and len({tab for tab, _ in pressed}) > 5
    undone = [target for *_, what, _, _, target, _ in found if what == "undo" and target is not None]
    standing = [seq for *_, what, _, stands, _, seq in found if what != "undo" and stands == 1]
    assert undone and len(set(undone)) == len(undone) and not set(undone) & set(standing)
    assert len(standing) + len(undone) == sum(what != "undo" for what, _ in pressed.values())
    for tab in {tab for tab, _ in pressed}:  # a tab's acts are in the order in which they were pressed
        order = [number for _, name, number, *_ in found if name == tab]
        assert order == sorted(order) == list(range(1, len(order) + 1))
