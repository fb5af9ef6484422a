"""From a file on disk to the first proponents on screen, as a visitor does it: interactions and seconds counted."""

from __future__ import annotations

import re
import time
from pathlib import Path

from playwright.sync_api import Page, expect

INTERACTIONS, SECONDS = 6, 90.0
PATIENT = 120_000  # ms: a busy machine


class Visit:
    """A visitor's way through the app, from the moment the address is typed.

    Attributes:
        interactions: Clicks, and files chosen.
    """

    def __init__(self, page: Page, url: str) -> None:
        """Open the app's first page."""
        self.page, self.interactions = page, 0
        page.goto(url)
        self._start = time.monotonic()

    def click(self, name: str) -> None:
        self.page.get_by_role("button", name=name).click(timeout=PATIENT)
        self.interactions += 1

    def choose(self, file: Path, said: str) -> None:
        """Open the Import screen of an empty app, choose a file, and wait for what the preview says of it."""
        self.click("Import your data")
        expect(self.page).to_have_url(re.compile(r"/import\b"), timeout=PATIENT)
        self.page.locator("input[type=file]").set_input_files(file, timeout=PATIENT)
        self.interactions += 1
        self.page.get_by_text(said).first.wait_for(timeout=PATIENT)
        expect(self.page).to_have_url(re.compile(r"upload=[0-9a-f]{32}"), timeout=PATIENT)

    def imported(self) -> None:
        """Start the import, and open the explanation that the finished one offers."""
        self.click("Import and train")
        expect(self.page.get_by_role("progressbar")).to_be_visible(timeout=PATIENT)
        self.click("Explain the most confident mistake")

    def reached(self, study: str) -> None:
        """Wait for the first proponent of a study, and check what it took to get there."""
        card = self.page.locator(".st-key-evidence a[aria-label^='Proponent']").first
        expect(card).to_be_visible(timeout=PATIENT)
        took = time.monotonic() - self._start
        assert self.interactions <= INTERACTIONS
        assert took <= SECONDS, f"{took:.0f} s to the first proponents"
        expect(self.page).to_have_url(re.compile(rf"/explain\?.*study={study}\b"), timeout=PATIENT)
        print(f"{study}: {self.interactions} interactions, {took:.1f} s")

    def already(self, seconds: float) -> None:
        """Count what the visitor did before the app was opened."""
        self._start -= seconds
