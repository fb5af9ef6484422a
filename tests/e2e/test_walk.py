"""The walk of a first visit: a confident mistake, its training rows, another method, a row's card, reload, restart."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.e2e.conftest import AppServer

PATIENT = 60_000  # ms: a first fit on a busy machine


def proponents(page: Page, patience: int = PATIENT) -> list[str]:
    """Return the accessible names of the proponent cards, waiting (ms) until there are some."""
    cards = page.locator(".st-key-evidence a[aria-label^='Proponent']")
    expect(cards.first).to_be_visible(timeout=patience)
    return [str(card.get_attribute("aria-label")) for card in cards.all()]


def choose_method(page: Page, name: str) -> None:
    """Pick a method in the menu above the cards by the beginning of its name."""
    box = page.locator("[class*='st-key-w-method']").get_by_role("combobox")
    box.click()
    box.press_sequentially(name)  # the menu is long, and holds only what is in sight
    page.get_by_role("option", name=re.compile(f"^{name}")).first.click()


def test_from_the_first_screen_to_the_rows_behind_a_mistake_and_back(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/?study=digits")
    page.get_by_role("button", name="Explain the most confident mistake").click(timeout=PATIENT)
    expect(page).to_have_url(re.compile(r"/explain\?.*study=digits"))
    first = proponents(page)

    page.locator(".st-key-w-status").get_by_role("combobox").click()
    page.get_by_role("option", name=re.compile("confident", re.IGNORECASE)).first.click()
    expect(page).to_have_url(re.compile("status=confident-wrong"))
    expect(page.locator("a[data-pick]").first).to_be_visible()
    page.goto(f"{server.url}/explain?study=digits&status=wrong")
    picks = page.locator("a[data-pick]")
    expect(picks.nth(1)).to_be_visible(timeout=PATIENT)
    row = picks.nth(1).get_attribute("data-pick")
    picks.nth(1).click()
    expect(page).to_have_url(re.compile(rf"id={row}\b"))
    expect(page.locator(".st-key-heading")).to_contain_text(f"row {row}")
    second = proponents(page)
    assert second != first

    choose_method(page, "TracIn")
    expect(page).to_have_url(re.compile("method=tracin"), timeout=PATIENT)
    expect(page.locator(".st-key-evidence")).to_contain_text("TracIn", timeout=PATIENT)
    by_tracin = proponents(page)
    expect(page).to_have_url(re.compile(rf"id={row}\b"))

    before = page.url
    page.reload()
    assert proponents(page) == by_tracin
    assert page.url == before

    card = page.locator(".st-key-evidence a[aria-label^='Proponent']").first
    train_id = re.search(r"row (\S+),", str(card.get_attribute("aria-label")))
    assert train_id is not None
    card.click()
    expect(page).to_have_url(re.compile(r"/row\?"), timeout=PATIENT)
    expect(page.get_by_text(re.compile(rf"row {train_id[1]}\b", re.IGNORECASE)).first).to_be_visible(timeout=PATIENT)

    server.restart(signal.SIGKILL)
    page.goto(before)
    assert proponents(page) == by_tracin
    expect(page.locator(".st-key-heading")).to_contain_text(f"row {row}")


def test_a_job_survives_a_reload_and_a_second_browser_sees_it(
    page: Page, start_server: Callable[[Path], AppServer], demo_studies: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(demo_studies / "digits", tmp_path / "digits")
    server = start_server(tmp_path)
    page.goto(f"{server.url}/explain?study=digits&status=wrong&method=loo")
    start = page.get_by_role("button", name=re.compile("^start", re.IGNORECASE)).first
    bar = page.locator("[role='progressbar']").first
    expect(start.or_(bar).first).to_be_visible(timeout=PATIENT)
    if start.is_visible():  # a fit that is cheap on this machine starts by itself
        start.click()
    expect(bar).to_be_visible(timeout=PATIENT)
    page.reload()
    expect(page.locator("[role='progressbar']").first).to_be_visible(timeout=PATIENT)
    other = page.context.browser.new_page()  # type: ignore[union-attr]
    try:
        other.goto(page.url)
        expect(other.locator("[role='progressbar']").first).to_be_visible(timeout=PATIENT)
    finally:
        other.close()
    proponents(page, patience=200_000)


def test_bad_addresses_say_what_is_wrong_and_never_show_a_trace(page: Page, server: AppServer) -> None:
    bad = [
        "explain?study=digits&id=999999",
        "explain?study=digits&method=nonsense",
        "explain?study=digits&measurement=nonsense",
        "explain?study=digits&k=-3",
        "explain?study=..%2F..%2Fetc",
        "row?study=digits&row=%3Cimg%20src%3Dx%3E",
    ]
    for address in bad:
        page.goto(f"{server.url}/{address}")
        expect(page.locator("[role='alert'], [role='status']").first).to_be_visible(timeout=PATIENT)
        text = page.locator("body").inner_text()
        assert "Traceback" not in text, address
        assert 'File "' not in text, address
        assert page.locator("img[src='x']").count() == 0, address


def test_a_cell_of_the_confusion_matrix_is_one_query(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/?study=digits")
    cells = page.locator("td.if-mistake a")
    expect(cells.first).to_be_visible(timeout=PATIENT)
    counts = [int(cell.inner_text()) for cell in cells.all()]
    cells.nth(counts.index(max(counts))).click()
    expect(page).to_have_url(re.compile(r"given=.*predicted="), timeout=PATIENT)
    expect(page.locator("a[data-pick]")).to_have_count(max(counts), timeout=PATIENT)
    whole = page.locator(".st-key-whole_cell button").first
    expect(whole).to_be_visible(timeout=PATIENT)
    if "Explain whole" in whole.inner_text():  # a click on the matrix may have asked for the whole cell already
        whole.click()
    expect(page.locator(".st-key-heading")).to_contain_text(f"{max(counts)} test rows", timeout=PATIENT)
    assert proponents(page)


def test_a_table_study_shows_its_cells(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/explain?study=breast-cancer&status=wrong")
    assert proponents(page)
    expect(page.locator(".st-key-query")).to_contain_text(re.compile("mean|worst|error"))


def test_quick_clicks_end_at_the_last_one(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/explain?study=digits")
    proponents(page)
    rows = [str(link.get_attribute("data-pick")) for link in page.locator("a[data-pick]").all()]
    for pause in (0, 40, 150):  # ms: while the answer to the click before is on its way, in every phase of it
        for row in rows[1:12]:
            page.locator(f"a[data-pick='{row}']").click()
            page.wait_for_timeout(pause)
        expect(page.locator(".st-key-heading")).to_contain_text(f"row {rows[11]}", timeout=PATIENT)
        expect(page).to_have_url(re.compile(rf"id={rows[11]}\b"))
        last, rows = rows[11], [rows[0], *reversed(rows[1:])]
    page.go_back()
    expect(page).not_to_have_url(re.compile(rf"id={last}\b"))
    before = re.search(r"id=(\d+)", page.url)
    assert before is not None
    expect(page.locator(".st-key-heading")).to_contain_text(f"row {before[1]}", timeout=PATIENT)
