"""The whole loop, by keys: a wrong prediction, the rows that made it, their labels, a retraining, the prediction again.

Apples are on the left, pears on the right, and a few apples grow far above, where nine of twelve training rows say
pear: the three apples up there among the test rows are taken for pears until those labels are mended.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

from influence_core import Study, attribute, service
from tests.e2e.conftest import AppServer, command
from tests.e2e.test_review import PATIENT, WAITING

ROW = "r212"
FLIPPED = {f"r{i}" for i in range(200, 209)}


@pytest.fixture(scope="module")
def orchard(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[Path], AppServer]) -> AppServer:
    """A server over one study, imported from a file by the command line."""
    folder = tmp_path_factory.mktemp("orchard")
    generator = np.random.default_rng(3)
    lines = ["row,width,height,kind,split"]

    def grow(n: int, at: tuple[float, float], kind: str, split: str, spread: float = 0.6) -> None:
        for _ in range(n):
            x, y = generator.normal(size=2) * spread + at
            lines.append(f"r{len(lines) - 1:03d},{x:.4f},{y:.4f},{kind},{split}")

    for split, n in (("train", 60), ("test", 20), ("locked", 20)):
        grow(n, (-3, 0), "apple", split)
        grow(n, (3, 0), "pear", split)
    for n, kind, split in ((9, "pear", "train"), (3, "apple", "train"), (3, "apple", "test"), (6, "apple", "locked")):
        grow(n, (0, 6), kind, split, 0.4)
    (folder / "fruit.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command("import", str(folder / "fruit.csv"), "--label", "kind", "--out", str(folder / "studies" / "fruit"))
    return start_server(folder / "studies")


def predicted(study: Study) -> str:
    task = study.task
    place = torch.tensor([task.ids("test").tolist().index(ROW)])
    return study.header.classes[int(task.predicted("test", place))]


def standing(server: AppServer) -> dict[str, str]:
    """Return what the log says of each row now: row -> its new label."""
    db = sqlite3.connect(server.studies / "fruit" / "reviews.sqlite")
    try:
        found = db.execute(
            "SELECT d.row, d.action, d.label FROM decisions d JOIN acts a ON a.seq = d.act "
            "WHERE a.kind = 'decide' AND a.standing = 1 ORDER BY a.seq"
        ).fetchall()
    finally:
        db.close()
    assert {action for _, action, _ in found} <= {"relabel"}
    return {row.strip('"'): label for row, _, label in found}


def saved(page: Page, kind: str) -> bytes:
    """Return a file that Decisions offers, as a person downloads it."""
    page.get_by_role("button", name=kind).click()
    with page.expect_download(timeout=PATIENT) as download:
        page.get_by_role("button", name="csv", exact=True).locator("visible=true").click()
    content = Path(download.value.path()).read_bytes()
    page.keyboard.press("Escape")
    return content


def test_a_wrong_prediction_is_mended(
    page: Page, orchard: AppServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = orchard.studies / "fruit"
    monkeypatch.setenv("INFLUENCE_STUDIES", str(orchard.studies))
    default, _ = service.default_method("fruit")
    assert predicted(Study.open(folder)) == "pear", "the prediction is right to begin with"

    # The rows that speak against the true answer, the worst first, are sent to the desk.
    page.goto(f"{orchard.url}/explain?study=fruit&id={ROW}&target=true&k=12")
    page.locator(".st-key-review_shown button").locator("visible=true").first.click(timeout=PATIENT)
    page.get_by_label("Your name").fill("ann", timeout=PATIENT)
    page.keyboard.press("Enter")
    expect(page.locator(".verdict")).to_be_visible(timeout=PATIENT)
    expect(page.locator(".desk")).to_have_attribute("data-cards", re.compile(r"1[2-9]|2\d"), timeout=PATIENT)

    # The worst opponent, ten more, and two steps back: one key each.
    for key in ["a", *["a"] * 10, "z", "z"]:
        page.keyboard.press(key)
        page.wait_for_timeout(60)
    page.wait_for_function(f"{WAITING} === 0", timeout=PATIENT)
    mended = standing(orchard)
    with_scores = attribute(Study.open(folder), default, [ROW]).scores[0]
    worst = Study.open(folder).task.ids("train")[int(with_scores.argmin())]
    assert next(iter(mended)) == worst, "the first card is not the worst opponent"
    assert len(mended) == 9 and set(mended) == FLIPPED and set(mended.values()) == {"apple"}

    # Retrained by one button; the same prediction again.
    page.goto(f"{orchard.url}/compare?study=fruit&again={ROW}")
    page.get_by_role("button", name="Retrain on the corrected data").click(timeout=PATIENT)
    before, after = (page.locator(f".st-key-again_{side}") for side in ("before", "after"))
    expect(after).to_contain_text("predicted apple", timeout=120_000)
    expect(before).to_contain_text("predicted pear", timeout=PATIENT)
    assert predicted(Study.open(folder).version("v1")) == "apple"

    # What was done leaves as a patch, which gives the same data when it is replayed on the original.
    page.goto(f"{orchard.url}/decisions?study=fruit")
    expect(page.get_by_text("9 relabel")).to_be_visible(timeout=PATIENT)
    patch, cleaned = tmp_path / "patch.csv", saved(page, "Cleaned data")
    patch.write_bytes(saved(page, "Patch"))
    assert patch.read_text(encoding="utf-8").count("apple") == 9
    replayed = tmp_path / "replayed.csv"
    command("replay", str(folder), "--patch", str(patch), "--out", str(replayed))
    assert replayed.read_bytes() == cleaned
    for row in FLIPPED:
        (line,) = [line for line in cleaned.decode("utf-8-sig").splitlines() if line.startswith(f"{row},")]
        assert "apple" in line
