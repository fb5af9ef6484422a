"""The review desk driven by keys: every press counts once, and no crash loses a decision or doubles one."""

from __future__ import annotations

import re
import signal
import sqlite3
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from influence_core import service
from tests.e2e.conftest import AppServer

PATIENT = 60_000
WAITING = "Object.keys(localStorage).filter((key) => key.startsWith('influence.act.')).length"


def rows(server: AppServer, query: str) -> list[tuple]:
    file = server.studies / "digits" / "reviews.sqlite"
    if not Path(file).exists():
        return []
    db = sqlite3.connect(file)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def acts(server: AppServer, reviewer: str) -> list[tuple]:
    return rows(server, f"SELECT kind, tab, number FROM acts WHERE reviewer = '{reviewer}' ORDER BY seq")


def open_desk(page: Page, server: AppServer, reviewer: str) -> None:
    page.goto(f"{server.url}/review?study=digits&queue=loss")
    page.get_by_label("Your name").fill(reviewer, timeout=PATIENT)
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    # A press counts where a card is on screen: on a busy machine the second batch of cards takes a moment.
    expect(page.locator(".desk")).to_have_attribute("data-cards", re.compile(r"[3-9]\d|\d{3}"), timeout=PATIENT)


def delivered(page: Page) -> None:
    page.wait_for_function(f"{WAITING} === 0", timeout=PATIENT)


def test_twenty_quick_presses_count_once_each_and_undo_works(page: Page, server: AppServer) -> None:
    open_desk(page, server, "ann")
    for _ in range(20):
        page.keyboard.press("k")
        page.wait_for_timeout(40)
    delivered(page)
    found = acts(server, "ann")
    assert [(kind, number) for kind, _, number in found] == [("decide", number) for number in range(1, 21)], found
    about = rows(server, "SELECT row FROM decisions d JOIN acts a ON a.seq = d.act WHERE reviewer = 'ann'")
    assert len({row for (row,) in about}) == 20

    for _ in range(8):
        page.keyboard.down("k")  # held: all but the first are repeats
    page.keyboard.up("k")
    delivered(page)
    assert len(acts(server, "ann")) == 21

    page.keyboard.press("m")
    page.keyboard.type("kkd1")
    page.keyboard.press("Enter")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("d")
    page.get_by_role("button", name="Close").click()
    page.wait_for_timeout(1000)
    assert len(acts(server, "ann")) == 21
    page.keyboard.press("d")
    delivered(page)
    last = (
        "SELECT action, comment FROM decisions d JOIN acts a ON a.seq = d.act WHERE reviewer = 'ann' ORDER BY act DESC"
    )
    assert rows(server, last)[0] == ("drop", "kkd1")

    page.reload()
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    page.keyboard.press("z")
    page.keyboard.press("z")
    delivered(page)
    standing = "SELECT count(*) FROM acts WHERE reviewer = 'ann' AND kind = 'decide' AND standing = 1"
    assert rows(server, standing) == [(20,)]


def test_a_crash_in_the_middle_loses_nothing_and_doubles_nothing(page: Page, server: AppServer) -> None:
    open_desk(page, server, "bob")
    page.wait_for_timeout(2000)
    for i in range(14):
        if i == 5:
            server.stop(signal.SIGKILL)
        page.keyboard.press("d")
        page.wait_for_timeout(40)
    assert page.evaluate(WAITING) >= 9
    expect(page.locator(".unsaved")).to_be_visible()
    server.start()
    page.reload()
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    delivered(page)
    found = acts(server, "bob")
    assert sorted(number for _, _, number in found) == list(range(1, 15))
    about = rows(server, "SELECT row FROM decisions d JOIN acts a ON a.seq = d.act WHERE reviewer = 'bob'")
    assert len(about) == len(set(about)) == 14


def test_a_second_tab_decides_beside_the_first(page: Page, server: AppServer) -> None:
    open_desk(page, server, "eve")
    other = page.context.new_page()
    other.goto(page.url)
    expect(other.locator(".verdict")).to_be_visible(timeout=PATIENT)
    page.keyboard.press("k")
    delivered(page)
    other.keyboard.press("d")
    delivered(other)
    found = acts(server, "eve")
    assert len(found) == 2 and len({tab for _, tab, _ in found}) == 2
    about = rows(server, "SELECT row, action FROM decisions d JOIN acts a ON a.seq = d.act WHERE reviewer = 'eve' "
                         "ORDER BY act")  # fmt: skip
    assert about[0][0] == about[1][0] and [action for _, action in about] == ["keep", "drop"]


def test_undo_says_beforehand_what_it_will_undo_on_both_screens(
    page: Page, server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_desk(page, server, "una")
    line, undo = page.locator(".step"), page.get_by_role("button", name="Undo", exact=False)
    expect(line).to_have_text("Nothing to undo yet.")
    card = "window.__influenceReview.desk.card()"
    row, given, suggested = page.evaluate(f"[{card}.row_id, {card}.given, {card}.suggested]")
    words = f"'{given}' → '{suggested}' on row {row}"
    page.keyboard.press("a")
    expect(line).to_have_text(f"Undo: {words}, just now", timeout=1000)  # before the server has answered, too
    delivered(page)
    expect(line).to_have_text(f"Undo: {words}, just now")
    expect(undo).to_have_attribute("title", f"Undo: {words}, just now")
    row, given = page.evaluate(f"[{card}.row_id, {card}.given]")
    page.keyboard.press("d")
    expect(line).to_have_text(f"Undo: dropped row {row}, just now")
    page.keyboard.press("z")
    expect(page.locator(".said")).to_have_text(f"Undone: dropped row {row}.")
    expect(line).to_have_text(f"Undo: {words}, just now")
    expect(page.get_by_role("button", name="Redo")).to_have_attribute("title", f"Redo: dropped row {row}, just now")
    delivered(page)

    # A batch of 37 rows that was made elsewhere, and a new visit.
    monkeypatch.setenv("INFLUENCE_STUDIES", str(server.studies))
    ids = service.queue("digits", "loss").row_ids[100:137]
    decisions = [{"split": "train", "row": i, "action": "relabel", "label": "3"} for i in ids]
    service.record_acts("digits", "una", [{"tab": "elsewhere", "number": 1, "decisions": decisions}])
    page.reload()
    expect(line).to_have_text("Undo: relabelled 37 rows as '3', just now", timeout=PATIENT)

    other = page.context.new_page()
    other.goto(f"{server.url}/decisions?study=digits")
    whose = other.get_by_role("combobox", name="Whose last act")
    whose.click(timeout=PATIENT)
    other.get_by_role("option", name="una").click()
    said = other.locator(".st-key-undo_line")
    expect(said).to_contain_text("Undo: relabelled 37 rows as '3', just now", timeout=PATIENT)
    # What is undone on one screen is not undone once more on the other by whoever still reads the old words.
    page.keyboard.press("z")
    delivered(page)
    expect(page.locator(".said")).to_have_text("Undone: relabelled 37 rows as '3'.", timeout=PATIENT)
    expect(line).to_have_text(f"Undo: {words}, just now", timeout=PATIENT)
    other.get_by_role("button", name="Undo").click()
    expect(other.get_by_role("alert").first).to_contain_text("Nothing was undone", timeout=PATIENT)
    expect(said).to_contain_text(f"Undo: {words}, just now", timeout=PATIENT)
    other.get_by_role("button", name="Undo").click()
    expect(said).to_contain_text("Nothing is left to undo.", timeout=PATIENT)
    assert rows(server, "SELECT count(*) FROM acts WHERE reviewer = 'una' AND standing = 1 AND kind = 'decide'") == [
        (0,)
    ]


def test_what_a_class_means_stands_on_its_button_and_in_the_guidelines(page: Page, server: AppServer) -> None:
    file = server.studies / "digits" / "class_definitions.json"
    file.write_text('{"3": "Two <b>open</b> bows.", "7": "A bar."}', encoding="utf-8")
    try:
        open_desk(page, server, "dee")
        button = page.locator(".classes button", has_text=re.compile(r"^3")).first
        expect(button).to_have_attribute("title", re.compile(r"^Two <b>open</b> bows\."))
        page.locator(".desk summary", has_text="Guidelines").click()
        guide = page.locator(".guide")
        expect(guide.locator("dt")).to_have_text(["3", "7"])
        expect(guide.locator("dd")).to_have_text(["Two <b>open</b> bows.", "A bar."])
        page.keyboard.press("ArrowRight")
        expect(page.locator(".desk")).to_contain_text("row 2 of")
        expect(guide).to_be_visible()  # what was opened stays open from card to card
    finally:
        file.unlink()
