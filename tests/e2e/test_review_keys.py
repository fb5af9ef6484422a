"""Keys of the review desk that are changed, and classes that are added on the spot, typed in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from influence_core import service
from tests.e2e.conftest import AppServer
from tests.e2e.test_review import PATIENT, acts, delivered, open_desk, rows

LAST = "SELECT action, label FROM decisions d JOIN acts a ON a.seq = d.act WHERE reviewer = '{}' ORDER BY act DESC"


def dialog(page: Page) -> Locator:
    return page.locator("dialog[open]")


def place(page: Page) -> str | None:
    return page.locator(".desk").get_attribute("data-at")


def remap(page: Page, action: str, key: str) -> None:
    dialog(page).get_by_label(action, exact=True).press(key)


def test_keys_are_changed_and_stay_changed(page: Page, server: AppServer) -> None:
    open_desk(page, server, "kim")
    page.keyboard.press("?")
    said = dialog(page).get_by_role("status")
    remap(page, "Drop", "k")
    expect(said).to_have_text("K is the key of “Keep”: give that another key first.")
    expect(dialog(page).get_by_label("Drop", exact=True)).to_have_value("D")
    for key, why in (("5", "Digits pick classes"), ("c", "C and R belong to the page"), ("F5", "F5 cannot be used")):
        remap(page, "Drop", key)
        expect(said).to_contain_text(why)
        expect(dialog(page).get_by_label("Drop", exact=True)).to_have_value("D")
    remap(page, "Drop", "Control+j")
    expect(said).to_contain_text("without Ctrl")
    remap(page, "Keep", "j")
    expect(said).to_have_text("")
    remap(page, "Drop", "k")  # free by now
    remap(page, "Unsure", " ")
    expect(dialog(page).get_by_label("Unsure", exact=True)).to_have_value("Space")
    page.keyboard.press("Escape")
    expect(dialog(page)).to_have_count(0)
    assert acts(server, "kim") == [] and place(page) == "0", "keys pressed in the dialog decided about a row"

    for name, key in (("Keep", "J"), ("Drop", "K"), ("Unsure", "Space")):
        expect(page.locator(".actions button", has_text=name).locator("kbd")).to_have_text(key)
    page.keyboard.press("d")  # stands for nothing any more
    for i, key in enumerate(("j", "k", " ")):
        page.keyboard.press(key)
        expect(page.locator(".desk")).to_have_attribute("data-at", str(i + 1))
    delivered(page)
    query = "SELECT action FROM decisions d JOIN acts a ON a.seq = d.act WHERE reviewer = 'kim' ORDER BY act"
    assert rows(server, query) == [("keep",), ("drop",), ("unsure",)]

    page.reload()
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    expect(page.locator(".actions button", has_text="Drop").locator("kbd")).to_have_text("K")
    page.keyboard.press("k")
    delivered(page)
    assert rows(server, LAST.format("kim"))[0][0] == "drop"

    # Keys that another program, or an older page, left half changed are not believed: two actions on one key.
    page.evaluate("localStorage.setItem('influence.review.keys', JSON.stringify({ keep: 'd', drop: 'd', undo: 7 }))")
    page.reload()
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    expect(page.locator(".actions button", has_text="Keep").locator("kbd")).to_have_text("K")
    page.keyboard.press("?")
    dialog(page).get_by_role("button", name="Left hand").click()
    expect(page.locator(".actions button", has_text="Keep").locator("kbd")).to_have_text("Q")
    page.keyboard.press("?")
    weight = dialog(page).get_by_label("Down-weight to")
    weight.fill("7")
    weight.press("Tab")
    expect(dialog(page).get_by_role("status")).to_have_text("A weight is a number from 0 to 1.")


def add(page: Page, name: str) -> None:
    """Type a name into the dialog as a person does, and press Enter."""
    if not dialog(page).count():
        page.keyboard.press("n")
        expect(page.get_by_label("Class", exact=True)).to_be_focused()
    page.get_by_label("Class", exact=True).fill("")
    page.keyboard.type(name)
    page.keyboard.press("Enter")


def test_a_class_is_added_on_the_spot_gets_a_key_and_is_used(page: Page, server: AppServer) -> None:
    page.goto(f"{server.url}/review?study=breast-cancer&queue=loss")
    page.get_by_label("Your name").fill("nia", timeout=PATIENT)
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    for name, why in (
        ("", "Type a name."), ("   ", "Type a name."), ("Benign", "“Benign” is the class “benign” in another spelling"),
        ("  MALIGNANT ", "is the class “malignant” in another spelling"),
        ("crack " * 40, "A name has at most 200 letters; this one has 239."), ("un\u200bclear", "invisible characters"),
    ):  # fmt: skip
        add(page, name)
        expect(dialog(page).get_by_role("status")).to_contain_text(why)
    page.wait_for_timeout(500)
    assert place(page) == "0" and page.locator('[data-testid="stDialog"]').count() == 0, "letters reached the page"

    add(page, "unclear  cells")
    expect(dialog(page)).to_have_count(0)
    expect(page.locator(".desk")).to_have_attribute("data-at", "1")
    made = page.locator("button.class", has_text="unclear cells")
    expect(made.locator("kbd")).to_have_text("3")
    expect(made).to_contain_text("new")
    page.keyboard.press("3")
    expect(page.locator(".desk")).to_have_attribute("data-at", "2")
    add(page, "Unclear Cells")
    expect(dialog(page).get_by_role("status")).to_contain_text("is the class “unclear cells” in another spelling")
    page.keyboard.press("Escape")
    # A name that is there already is chosen, not added once more.
    given = page.locator(".verdict b").first.inner_text()
    add(page, given)
    expect(page.locator("button.class")).to_have_count(4)  # two classes, the new one, and "New…"
    page.wait_for_function(
        "Object.keys(localStorage).every((key) => !key.startsWith('influence.act.'))", timeout=PATIENT
    )

    # It is there for the next visit, and for others.
    for reviewer in ("nia", "oli"):
        page.evaluate(f"localStorage.setItem('influence.reviewer', JSON.stringify('{reviewer}'))")
        page.reload()
        expect(page.locator("button.class", has_text="unclear cells").locator("kbd")).to_have_text("3", timeout=PATIENT)


def test_where_digits_name_classes_a_new_one_has_a_key_with_shift(
    page: Page, server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_desk(page, server, "dot")
    add(page, "smudge")
    made = page.locator("button.class", has_text="smudge")
    expect(made.locator("kbd")).to_have_text("⇧1", timeout=PATIENT)
    page.keyboard.press("Shift+Digit1")
    expect(page.locator(".desk")).to_have_attribute("data-at", "2")
    delivered(page)
    assert rows(server, LAST.format("dot"))[:2] == [("relabel", "smudge")] * 2

    # What the server refuses stands open again, with the reason.
    monkeypatch.setenv("INFLUENCE_STUDIES", str(server.studies))
    page.evaluate("window.__influenceReview.desk.label('\\u0664\\u200b')")
    delivered(page)
    expect(page.locator(".said")).to_contain_text("invisible characters", timeout=PATIENT)
    assert place(page) == "2" and page.locator(".mine", has_text="You decided").count() == 0
    twin = service.record_acts(
        "digits", "dot", [{"tab": "x", "number": 1, "decisions": [
            {"split": "train", "row": service.queue("digits", "loss").row_ids[9], "action": "relabel", "label": "７"}]}]
    )  # fmt: skip
    assert "'７' is the class '7' in another spelling" in twin.refused[0][2]
