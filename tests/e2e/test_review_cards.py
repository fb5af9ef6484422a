"""Cards of texts, of wide tables and of numbers at the review desk: nothing is cut off, and what differs is marked."""

from __future__ import annotations

import csv
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import AppServer, command
from tests.e2e.test_review import PATIENT, WAITING

WIDE = 40
# Everything inside the desk that reaches beyond its right edge, in words; boxes that scroll may be longer inside.
CUT_OFF = """
() => {
  const root = window.__influenceReview.desk.root, body = root.querySelector('.desk');
  const edge = body.getBoundingClientRect().right + 1, found = [];
  for (const part of body.querySelectorAll('*')) {
    const box = part.getBoundingClientRect(), words = part.textContent.slice(0, 40);
    if (box.width && box.right > edge) found.push(`${part.tagName}.${part.className}: ${words}`);
  }
  return found;
}
"""


def written(file: Path, names: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([names, *rows])
    return file


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[Path], AppServer]) -> AppServer:
    """A server over a wide table with gaps and words, long texts, and a regression; imported by the command line."""
    folder = tmp_path_factory.mktemp("shelves")
    generator = np.random.default_rng(5)
    rows, n = [], 160
    for i in range(n):
        good = i % 2
        numbers = (generator.normal(size=WIDE - 2) + 0.6 * good).round(3).tolist()
        for hole in generator.choice(WIDE - 2, 3, replace=False):
            numbers[hole] = ""
        place = "a very long name of a place that has many words in it" if generator.random() < 0.5 else "Oslo"
        rows.append([f"w{i}", *numbers, place, "fine" if good else "poor"])
    names = ["row", *(f"measured_quantity_{j}" for j in range(WIDE - 2)), "place", "grade"]
    command("import", str(written(folder / "wide.csv", names, rows)), "--label", "grade",
            "--out", str(folder / "studies" / "wide"))  # fmt: skip
    command("fit", str(folder / "studies" / "wide"), "--method", "gas")

    words = {
        "calm": "the sea lies still and the wind is low".split(),
        "loud": "hammers ring while engines roar".split(),
    }
    texts = []
    for i in range(120):
        kind = ("calm", "loud")[i % 2]
        length = 1500 if i < 4 else 12
        text = " ".join(generator.choice(words[kind], length)) + (" " + "x" * 900 if i < 2 else f" {i}")
        texts.append([f"t{i}", text, kind if i % 15 else ("loud", "calm")[i % 2]])
    command("import", str(written(folder / "texts.csv", ["row", "text", "kind"], texts)), "--label", "kind",
            "--out", str(folder / "studies" / "texts"))  # fmt: skip

    prices = []
    for i in range(150):
        area, rooms = generator.uniform(20, 200), int(generator.integers(1, 8))
        price = 30 * area + 100 * rooms + generator.normal() * 40
        prices.append(
            [f"h{i}", round(area, 1), rooms, round(price * (10 if i == 7 else 1), 2), "train" if i < 120 else "test"]
        )
    command("import", str(written(folder / "prices.csv", ["row", "area", "rooms", "price", "split"], prices)),
            "--label", "price", "--out", str(folder / "studies" / "prices"))  # fmt: skip
    return start_server(folder / "studies")


def desk(page: Page, server: AppServer, study: str, reviewer: str) -> None:
    page.goto(f"{server.url}/review?study={study}&queue=loss")
    page.get_by_label("Your name").fill(reviewer, timeout=PATIENT)
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    expect(page.locator(".desk")).to_have_attribute("data-cards", re.compile(r"[2-9]\d|\d{3}"), timeout=PATIENT)


def decided(server: AppServer, study: str, reviewer: str) -> list[tuple]:
    db = sqlite3.connect(server.studies / study / "reviews.sqlite")
    try:
        return db.execute(
            "SELECT row, action, label FROM decisions d JOIN acts a ON a.seq = d.act "
            "WHERE reviewer = ? AND standing = 1 ORDER BY act", (reviewer,),
        ).fetchall()  # fmt: skip
    finally:
        db.close()


@pytest.mark.parametrize("width", [1400, 800])
@pytest.mark.parametrize("study", ["wide", "texts", "prices"])
def test_nothing_of_a_card_is_cut_off(page: Page, shelves: AppServer, study: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    desk(page, shelves, study, "ann")
    for _ in range(4):
        assert page.evaluate(CUT_OFF) == []
        expect(page.locator(".right section")).to_have_count(4)
        top = page.locator(".right section h3").first.bounding_box()
        assert top is not None and top["y"] < 900, "the evidence begins below the screen"
        page.keyboard.press("ArrowRight")


def test_columns_that_differ_from_the_nearest_rows_come_first_and_are_marked(page: Page, shelves: AppServer) -> None:
    desk(page, shelves, "wide", "ann")
    head = page.locator(".cells thead th").all_inner_texts()
    assert head == ["column", "this row", "nearest 6"]
    lines = page.locator(".cells tbody tr").all()
    assert len(lines) == WIDE - 1 and "differs" in str(lines[0].get_attribute("class"))
    marked = [("differs" in str(line.get_attribute("class"))) for line in lines]
    assert marked == sorted(marked, reverse=True) and 0 < sum(marked) < WIDE - 1
    expect(lines[0].locator("td").first).to_contain_text("≠")
    value = re.compile(r"^(≠)?[−-]?\d")
    between = re.compile(r"^(\S+) to (\S+?)(, \d missing)?$")
    checked = 0
    for line, differs in zip(lines, marked, strict=True):
        mine, near = line.locator("td").all_inner_texts()
        found = between.match(near)
        if found and value.match(mine):
            number = float(mine.removeprefix("≠"))
            inside = float(found[1]) <= number <= float(found[2])
            assert inside != differs, (mine, near)
            checked += 1
    assert checked > 20
    beside = page.locator(".right section").first.locator("li").first
    expect(beside.locator(".cell")).to_have_count(4)
    expect(beside).to_contain_text(f"of {WIDE - 1} equal")
    assert "there," in str(beside.locator(".cell").first.get_attribute("title"))


def test_a_number_is_typed_and_a_wrong_one_is_refused_with_the_reason(page: Page, shelves: AppServer) -> None:
    desk(page, shelves, "prices", "pat")
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("given")
    expect(verdict).to_contain_text("the model says")
    expect(verdict).to_contain_text("error−")  # ten times too dear: what the model says is far below
    expect(page.locator(".why")).to_contain_text("Row h7: number 1 of")
    field = page.get_by_label("The right number")
    page.keyboard.press("3")  # a digit begins the number: there are no classes to pick
    expect(field).to_be_focused()
    page.keyboard.type(",5")
    page.keyboard.press("Enter")
    expect(page.locator(".classes .said")).to_contain_text("“3,5” is no number")
    assert page.locator(".desk").get_attribute("data-at") == "0"
    page.keyboard.press("Escape")
    expect(field).to_have_value("")
    page.keyboard.press("n")
    page.keyboard.type("1,234.5")
    page.keyboard.press("Enter")
    expect(page.locator(".desk")).to_have_attribute("data-at", "1")
    page.keyboard.press("a")
    expect(page.locator(".desk")).to_have_attribute("data-at", "2")
    # The given number, written in another way, is no change.
    given = page.locator(".verdict .pair b").first.inner_text()
    page.keyboard.press("n")
    # Slowly: the decision before is acknowledged in the meantime, which takes neither letters nor the field.
    page.keyboard.type(f"{given}000" if "." in given else f"{given}.000", delay=150)
    page.keyboard.press("Enter")
    page.wait_for_function(f"{WAITING} === 0", timeout=PATIENT)
    found = decided(shelves, "prices", "pat")
    assert found[0] == ('"h7"', "relabel", "1,234.5")
    assert [action for _, action, _ in found] == ["relabel", "relabel", "keep"]
