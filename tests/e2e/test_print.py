"""Compare on paper: one page with the key figures, for people who were not there, whatever the theme on screen."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser
from pypdf import PdfReader

from influence_core import Study
from influence_core.changes import Change
from influence_core.workflows.patches import patch_bytes
from tests.e2e.conftest import AppServer, command

WRONG = range(0, 120, 8)  # training rows with the other kind's name

FIGURES = (
    "original → mended labels", "95% interval", "Accuracy, locked (60 rows)", "The same prediction again",
    "Accuracy by class", "Change of the confusion matrix",
)  # fmt: skip


@pytest.fixture(scope="module")
def retrained(tmp_path_factory: pytest.TempPathFactory, start_server: Callable[[Path], AppServer]) -> AppServer:
    """A server over one study with a version in which the wrong labels are mended."""
    folder = tmp_path_factory.mktemp("paper")
    random = np.random.default_rng(5)
    lines, kinds = ["row,width,height,kind,split"], ("apple", "pear")
    for i in range(240):
        split, kind = "train" if i < 120 else "test" if i < 180 else "locked", i % 2
        x, y = random.normal(size=2) + (3 * kind - 1.5, 0)
        given = kinds[1 - kind] if i in WRONG else kinds[kind]
        lines.append(f"r{i:03d},{x:.4f},{y:.4f},{given},{split}")
    (folder / "fruit.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    study = folder / "studies" / "fruit"
    command("import", str(folder / "fruit.csv"), "--label", "kind", "--out", str(study))
    ids = set(Study(study).column("train", "id").tolist())
    mended = [Change("train", f"r{i:03d}", "relabel", kinds[1 - i % 2], kinds[i % 2]) for i in WRONG]
    assert {change.row for change in mended} <= ids
    (folder / "patch.csv").write_bytes(patch_bytes(mended, "csv"))
    command("retrain", str(study), "--patch", str(folder / "patch.csv"), "--name", "mended labels", "--seeds", "3")
    return start_server(folder / "studies")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_comparison_prints_on_one_page(retrained: AppServer, browser: Browser, theme: str) -> None:
    with browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=theme) as context:
        page = context.new_page()
        page.goto(f"{retrained.url}/compare?study=fruit&after=v1")
        page.locator(".st-key-compare .if-confusion").wait_for(timeout=60_000)
        page.locator(".st-key-again_after h3").first.wait_for(timeout=60_000)
        headline = page.locator(".if-headline").inner_text()
        for size in ("A4", "Letter"):
            (sheet,) = PdfReader(io.BytesIO(page.pdf(format=size, print_background=True))).pages
            said = " ".join(sheet.extract_text().split())
            for words in (*FIGURES, headline):
                assert words in said, f"{words!r} is not on the page of {size}"
            for words in ("Retrain", "Versions (", "Suspects", "Cache"):  # what can only be clicked
                assert words not in said
        page.emulate_media(media="print")
        ink, paper = page.evaluate(
            "() => [getComputedStyle(document.querySelector('.if-headline')).color,"
            " getComputedStyle(document.querySelector('.stApp')).backgroundColor]"
        )
        assert paper == "rgb(255, 255, 255)" and sum(map(int, ink[4:-1].split(", "))) < 150
