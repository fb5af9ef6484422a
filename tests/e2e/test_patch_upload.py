"""A patch downloaded, its decisions undone, and brought back by an upload; a file that is none changes nothing."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from influence_core import Study
from influence_core.reviews import Act, Decision, Reviews
from tests.e2e.conftest import AppServer
from tests.e2e.test_review import PATIENT

STANDING = ("SELECT d.row, d.action, d.label, d.comment FROM decisions d JOIN acts a ON a.seq = d.act "
            "WHERE a.standing = 1 ORDER BY d.row")  # fmt: skip


@pytest.fixture(scope="module")
def reviewed(
    demo_studies: Path, start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory
) -> AppServer:
    """Digits with five decisions of one act by ann."""
    studies = tmp_path_factory.mktemp("patch") / "studies"
    studies.mkdir()
    shutil.copytree(demo_studies / "digits", studies / "digits")
    study = Study(studies / "digits")
    ids, labels = study.task.ids("train").tolist(), study.column("train", study.header.label).tolist()
    made = [Decision("train", ids[i], "relabel", next(c for c in study.header.classes if c != str(labels[i])),
                     comment="<b>no</b>", given=str(labels[i])) for i in range(3)]  # fmt: skip
    made += [Decision("train", ids[3], "drop", given=str(labels[3])),
             Decision("train", ids[4], "keep", given=str(labels[4]))]  # fmt: skip
    Reviews(study.path).record("ann", [Act("desk", 1, "decide", tuple(made))])
    return start_server(studies)


def standing(server: AppServer) -> list[tuple]:
    db = sqlite3.connect(server.studies / "digits" / "reviews.sqlite")
    try:
        return db.execute(STANDING).fetchall()
    finally:
        db.close()


def settled(page: Page) -> None:
    expect(page.locator('.stApp[data-test-script-state="notRunning"]')).to_be_visible(timeout=PATIENT)


def test_a_patch_is_downloaded_undone_uploaded_and_applied(page: Page, reviewed: AppServer, tmp_path: Path) -> None:
    server, before = reviewed, standing(reviewed)
    assert len(before) == 5
    page.goto(f"{server.url}/decisions?study=digits")
    page.locator(".st-key-get_patch button").first.click(timeout=PATIENT)
    with page.expect_download(timeout=PATIENT) as got:
        page.locator(".st-key-patch_csv button").click(timeout=PATIENT)
    patch = tmp_path / "digits-patch.csv"
    got.value.save_as(patch)
    page.keyboard.press("Escape")

    page.locator(".st-key-undo_last button").first.click(timeout=PATIENT)
    expect(page.get_by_text("Undo: ")).to_have_count(0, timeout=PATIENT)
    settled(page)
    assert standing(server) == []

    panel = page.locator(".stExpander", has_text="Apply a patch")
    panel.get_by_text("Apply a patch").click(timeout=PATIENT)
    # What is no patch is said, and the good file beside it is not applied alone.
    hostile = tmp_path / "hostile.json"
    hostile.write_text(
        json.dumps([{"row_id": 1, "split": "locked", "action": "drop", "old_label": "1", "new_label": ""}])
    )
    panel.locator("input[type=file]").set_input_files([patch, hostile])
    expect(panel.locator(".if-problem")).to_contain_text("Locked rows are not cleaned", timeout=PATIENT)
    expect(panel.locator(".st-key-patch_apply")).to_have_count(0)
    panel.get_by_role("button", name=re.compile("hostile.json")).first.click()
    expect(panel.locator(".if-problem")).to_have_count(0, timeout=PATIENT)

    # Everything is told before it happens.
    expect(panel.get_by_text("Would be applied 5")).to_be_visible(timeout=PATIENT)
    expect(panel.locator(".if-patch tbody tr")).to_have_count(5)
    assert standing(server) == []
    panel.get_by_label("Your name").fill("ann")
    page.keyboard.press("Enter")
    button = panel.locator(".st-key-patch_apply button").first
    expect(button).to_be_enabled(timeout=PATIENT)
    expect(button).to_contain_text("Decide 5 rows so")
    button.dblclick()
    expect(panel.locator(".st-key-last_batch")).to_contain_text("5 rows decided as in", timeout=PATIENT)
    settled(page)
    assert standing(server) == before
    expect(panel.locator(".st-key-patch_apply")).to_have_count(0)

    # The same file again: it is so already.
    panel.locator("input[type=file]").set_input_files(patch)
    expect(panel.get_by_text("So already 5")).to_be_visible(timeout=PATIENT)
    expect(panel.locator(".st-key-patch_apply button").first).to_be_disabled()
    expect(panel.locator(".if-patch")).to_contain_text("decided so by ann")
    with page.expect_download(timeout=PATIENT) as lines:
        panel.locator(".st-key-get_patch_lines button").first.click(timeout=PATIENT)
        page.locator(".st-key-patch_lines_csv button").click(timeout=PATIENT)
    assert lines.value.path().read_text().count("So already") == 5
