"""A visitor's own input in a browser: changed, explained, changed again, and back after a reload and a restart."""

from __future__ import annotations

import re
import signal

from playwright.sync_api import Page, expect

from tests.e2e.conftest import AppServer
from tests.e2e.test_walk import PATIENT, proponents

PREDICTED = re.compile(r"predicted (malignant|benign)")


def said(page: Page) -> str:
    """Return what the model says of the explained row."""
    found = PREDICTED.search(page.locator(".st-key-query").inner_text())
    assert found is not None
    return found[1]


def explain(page: Page) -> None:
    """Press the form's button and wait until the address names another input."""
    before = page.url
    page.get_by_role("button", name="Explain this").click()
    page.wait_for_function("before => location.href !== before", arg=before, timeout=PATIENT)
    expect(page.locator(".st-key-heading")).to_contain_text("Your input", timeout=PATIENT)


def test_a_row_is_changed_until_the_model_says_something_else(page: Page, server: AppServer, browser) -> None:  # noqa: ANN001
    page.goto(f"{server.url}/explain?study=breast-cancer&given=benign&predicted=benign")
    proponents(page)
    page.get_by_role("button", name="Change it").click()
    worst = page.get_by_label("worst area", exact=True)
    expect(worst).to_be_visible(timeout=PATIENT)
    assert float(worst.input_value()) < 1500
    for name, value in (("worst area", "9000"), ("worst texture", "90"), ("worst radius", "70")):
        page.get_by_label(name, exact=True).fill(value)
    explain(page)
    expect(page.locator(".st-key-query")).to_contain_text("predicted malignant", timeout=PATIENT)
    expect(page.locator(".st-key-query")).not_to_contain_text("labelled")
    as_malignant = proponents(page)
    assert all("labelled malignant" in name for name in as_malignant)
    malignant = page.url

    page.get_by_label("worst area", exact=True).fill("nan")
    page.get_by_role("button", name="Explain this").click()
    expect(page.get_by_role("alert")).to_contain_text("'nan' is no finite number", timeout=PATIENT)
    assert page.url == malignant

    for name, value in (("worst area", "500"), ("worst texture", "15"), ("worst radius", "12")):
        page.get_by_label(name, exact=True).fill(value)
    explain(page)
    expect(page.locator(".st-key-query")).to_contain_text("predicted benign", timeout=PATIENT)
    assert proponents(page) != as_malignant

    page.go_back()
    expect(page.locator(".st-key-query")).to_contain_text("predicted malignant", timeout=PATIENT)
    page.reload()
    assert proponents(page) == as_malignant and page.url == malignant

    server.restart(signal.SIGKILL)
    other = browser.new_context()  # somebody who was sent the address
    try:
        visitor = other.new_page()
        visitor.goto(malignant)
        assert proponents(visitor) == as_malignant
        assert said(visitor) == "malignant"
    finally:
        other.close()
