"""At the review desk: a key until the next card with its evidence is painted, in headless Chromium.

On a study of images and on one of texts, beside an empty rerun of the same app in the same browser: what a desk would
cost at least that asked the server for every card.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.suspects import SMS
from benchmarks.timing import Report

PRESSES, WARM_UP, PAUSE = 120, 5, 250  # PAUSE: ms between presses, four decisions a second
KEYS = ("k", "a", "d", "u")
BAR = 50
# From the key's own time stamp until a frame after the one that shows the next card, its picture decoded and every kind
# of evidence there. Also the browser's own figure for the press (Event Timing, in steps of 8 ms).
_WATCH = """
() => {
  const root = () => window.__influenceReview.desk.root;
  const body = () => root().querySelector('.desk');
  const complete = () => {
    const sides = [...body().querySelectorAll('.right section')];
    const shown = sides.length >= 3 && sides.every((s) => s.querySelector('li, p.soft')) &&
      sides.some((s) => s.querySelector('li'));
    return shown && body().querySelector('.verdict') && [...body().querySelectorAll('img')].every((i) => i.complete);
  };
  window.__times = []; window.__events = [];
  document.addEventListener('keydown', async (event) => {
    const from = body().dataset.at, started = event.timeStamp;
    while (body().dataset.at === from || !complete()) {
      await new Promise(requestAnimationFrame);
      if (performance.now() - started > 20000) { window.__times.push(NaN); return; }
    }
    await new Promise(requestAnimationFrame); // the loop's own frame has been painted when this one begins
    window.__times.push(performance.now() - started);
  }, { capture: true });
  new PerformanceObserver((list) => {
    for (const e of list.getEntries()) if (e.name === 'keydown') window.__events.push(e.duration);
  }).observe({ type: 'event', durationThreshold: 16 });
}
"""
_RERUN = """
async () => {
  const desk = window.__influenceReview.desk, started = performance.now();
  await new Promise((done) => {
    desk.take = (data) => { delete desk.take; desk.take(data); done(); };
    desk.out({ reviewer: desk.reviewer, acts: [], want: null, again: Date.now() });
  });
  await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame); // painted when this one begins
  return performance.now() - started;
}
"""


def run(report: Report) -> None:
    """Measure both studies in turn."""
    from playwright.sync_api import sync_playwright

    from tests.e2e.conftest import CHROMIUM_ARGUMENTS, AppServer, browser_path

    path = browser_path()
    if path is None:
        report.add("review", "no browser was found", "not measured")
        return
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        studies = Path(work) / "studies"
        kinds = _studies(studies, Path(work), report)
        server = AppServer(studies, Path(work) / "log")
        server.start()
        browser = playwright.chromium.launch(executable_path=str(path), args=CHROMIUM_ARGUMENTS)
        try:
            for name, kind in kinds.items():
                _report(report, kind, *_measured(browser, server.url, name))
        finally:
            browser.close()
            server.close()


def _studies(folder: Path, work: Path, report: Report) -> dict[str, str]:
    """Build the studies with everything that a card can show; return their names with what their rows are."""
    from tests.e2e.conftest import build_demo

    build_demo("digits", folder / "digits")
    kinds = {"digits": "images"}
    if SMS.exists():
        _command("import", str(SMS), "--label", "spam", "--out", str(folder / "texts"))
        kinds["texts"] = "texts"
    else:
        report.add("review", f"texts: {SMS.name} is not in the shared data folder", "not measured")
    for name in kinds:
        _command("suspects", str(folder / name))
        _command("fit", str(folder / name), "--method", "gas")
    return kinds


def _command(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "influence_core", *arguments], check=True, capture_output=True)


def _measured(browser: Any, url: str, study: str) -> tuple[list[float], list[float], list[float]]:
    """Press keys on cards and rerun in turn; return both times and the browser's own figure of the presses, in ms."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(f"{url}/review?study={study}&queue=suspects")
    page.get_by_label("Your name").fill("bench", timeout=120_000)
    page.keyboard.press("Enter")
    page.locator(".verdict").wait_for(timeout=120_000)
    page.wait_for_function("Number(window.__influenceReview.desk.cards.size) >= 20", timeout=120_000)
    page.wait_for_timeout(2000)
    page.evaluate(_WATCH)
    reruns = []
    for i in range(PRESSES + WARM_UP):
        page.keyboard.press(KEYS[i % len(KEYS)])
        page.wait_for_timeout(PAUSE)
        page.wait_for_function(f"window.__times.length > {i}", timeout=30_000)
        if i % 4 == 0:
            reruns.append(page.evaluate(_RERUN))
    times, events = page.evaluate("[window.__times, window.__events]")
    page.close()
    return times[WARM_UP:], reruns[2:], events[WARM_UP:]


def _report(report: Report, kind: str, times: list[float], reruns: list[float], events: list[float]) -> None:
    report.add("review", f"{kind}: empty rerun of the same app, median / p95", _figures(reruns))
    at = _share(times, 0.95)
    report.add(
        "review", f"{kind}: key to next card with its evidence painted, {len(times)} presses, median / p95",
        _figures(times), f"p95 <= {BAR} ms", at <= BAR,
    )  # fmt: skip
    report.add("review", f"{kind}: the browser's own figure of these presses, median / p95", _figures(events))


def _share(values: Sequence[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]


def _figures(values: Sequence[float]) -> str:
    return f"{_share(values, 0.5):.0f} / {_share(values, 0.95):.0f} ms" if values else "–"
