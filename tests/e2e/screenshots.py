"""Pictures of every screen, from the running app: ``python -m tests.e2e.screenshots [folder]``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from influence_core import Run, Study
from influence_core.workflows.projection import ProjectionConfig, projection
from influence_core.workflows.suspects import suspects
from tests.e2e.conftest import CHROMIUM_ARGUMENTS, DEMOS, AppServer, browser_path, build_demo

SCREENS = {
    "overview": ("?study=digits", "td.if-mistake"),
    "explain": ("explain?study=digits&status=wrong", ".st-key-evidence a[aria-label^='Proponent']"),
    "explain-table": ("explain?study=breast-cancer&status=wrong", ".st-key-evidence a[aria-label^='Proponent']"),
    "suspects": ("suspects?study=digits", ".if-suspects"),
    "map": ("map?study=digits&drawn=umap", ".st-key-map_chart canvas[data-drawn]"),
    "methods": ("methods?study=digits", "table"),
}
SIZES = {"": (1280, 800), "-wide": (1920, 1080)}


def main() -> None:
    """Take every screen in light and dark at 1280 and 1920 pixels."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    folder.mkdir(parents=True, exist_ok=True)
    path = browser_path()
    if path is None:
        sys.exit("no browser was found: run make test once, or install chromium")
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        studies = Path(work) / "studies"
        for name in DEMOS:
            build_demo(name, studies / name)
        _computed(studies / "digits")
        server = AppServer(studies, Path(work) / "log")
        server.start()
        browser = playwright.chromium.launch(executable_path=str(path), args=CHROMIUM_ARGUMENTS)
        try:
            for theme in ("light", "dark"):
                for suffix, (width, height) in SIZES.items():
                    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
                    take_all(page, server.url, folder, f"{theme}{suffix}")
                    page.close()
        finally:
            browser.close()
            server.close()


def _computed(folder: Path) -> None:
    """Compute what the screens of the digits would ask for first."""
    study = Study(folder)
    run = Run(store=study.store)
    suspects(study.task, run)
    projection(study.task, run, ProjectionConfig(kind="umap"))


def take_all(page: Page, url: str, folder: Path, suffix: str) -> None:
    """Take every screen once it has settled; the row's card is reached through a proponent."""
    for name, (address, settled) in SCREENS.items():
        page.goto(f"{url}/{address}")
        page.locator(settled).first.wait_for(timeout=90_000)
        page.wait_for_timeout(2000)
        page.screenshot(path=folder / f"{name}-{suffix}.png")
        if name == "explain":
            page.locator(settled).first.click()
            page.wait_for_url("**/row?**")
            page.wait_for_timeout(4000)
            page.screenshot(path=folder / f"row-{suffix}.png")


if __name__ == "__main__":
    main()
