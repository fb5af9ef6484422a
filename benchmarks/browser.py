"""In the app: a click on a prediction until its proponents are painted, beside an empty rerun, in headless Chromium."""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.timing import Report

CLICKS = 40
# Resolves in the frame after the heading names the clicked row and the first proponent card differs from before.
_CLICK = """
async (row) => {
  const heading = () => document.querySelector('.st-key-heading')?.innerText ?? '';
  const card = () => document.querySelector(".st-key-evidence a[aria-label^='Proponent']");
  const before = card()?.getAttribute('aria-label') + card()?.getAttribute('href');
  const started = performance.now();
  document.querySelector(`a[data-pick="${row}"]`).click();
  while (true) {
    await new Promise(requestAnimationFrame);
    const now = card();
    const named = new RegExp(`row ${row}$`, 'm').test(heading());
    if (named && now && now.getAttribute('aria-label') + now.getAttribute('href') !== before) break;
    if (performance.now() - started > 20000) throw new Error('no proponents after 20 s');
  }
  await new Promise(requestAnimationFrame);
  return performance.now() - started;
}
"""
# The floor: an app of one button and one number; a click until the number has changed on screen.
EMPTY_APP = """
import streamlit as st
st.session_state.n = st.session_state.get("n", 0)
def more(): st.session_state.n += 1
st.button("more", on_click=more)
st.html(f"<p id='n'>{st.session_state.n}</p>")
"""
_RERUN = """
async () => {
  const shown = () => document.querySelector('#n')?.innerText;
  const before = shown(), started = performance.now();
  document.querySelector('[data-testid="stButton"] button').click();
  while (shown() === before) await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return performance.now() - started;
}
"""


def run(report: Report) -> None:
    """Measure both in turn."""
    from playwright.sync_api import sync_playwright

    from tests.e2e.conftest import CHROMIUM_ARGUMENTS, AppServer, browser_path, build_demo

    path = browser_path()
    if path is None:
        report.add("browser", "no browser was found", "not measured")
        return
    with tempfile.TemporaryDirectory() as work, sync_playwright() as playwright:
        folder = Path(work)
        build_demo("digits", folder / "studies" / "digits")
        server = AppServer(folder / "studies", folder / "log")
        server.start()
        browser = playwright.chromium.launch(executable_path=str(path), args=CHROMIUM_ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{server.url}/explain?study=digits")
            page.locator(".st-key-evidence a[aria-label^='Proponent']").first.wait_for(timeout=120_000)
            floor = _empty_app(browser, folder)
            rows = [str(link.get_attribute("data-pick")) for link in page.locator("a[data-pick]").all()][1:]
            clicks, reruns = [], []
            for i in range(CLICKS):
                clicks.append(page.evaluate(_CLICK, rows[i % len(rows)]))
                reruns.append(floor.evaluate(_RERUN))
        finally:
            browser.close()
            server.close()
            _stop()
    clicks, reruns = sorted(clicks[5:]), sorted(reruns[5:])
    p95 = lambda values: values[int(0.95 * (len(values) - 1))]  # noqa: E731
    report.add("browser", "empty rerun, median / p95", f"{reruns[len(reruns) // 2]:.0f} / {p95(reruns):.0f} ms")
    report.add(
        "browser",
        "click on a prediction to proponents painted, median / p95",
        f"{clicks[len(clicks) // 2]:.0f} / {p95(clicks):.0f} ms",
        "aim: p95 <= 400 ms",
        p95(clicks) <= 400,
    )


_processes = []


def _empty_app(browser, folder: Path):  # noqa: ANN001, ANN202
    """Serve the empty app beside the real one and open it."""
    import subprocess
    import sys

    from tests.e2e.conftest import free_port

    (folder / "empty.py").write_text(EMPTY_APP)
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "streamlit",
        "run",
        str(folder / "empty.py"),
        "--server.port",
        str(port),
        "--server.headless",
        "true",
        "--server.address",
        "127.0.0.1",
    ]
    _processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    page = browser.new_page()
    for _ in range(60):
        try:
            page.goto(f"http://127.0.0.1:{port}")
            page.locator("#n").wait_for(timeout=5000)
            return page
        except Exception:  # noqa: BLE001  (not up yet)
            page.wait_for_timeout(500)
    raise RuntimeError("the empty app did not start")


def _stop() -> None:
    for process in _processes:
        process.terminate()
        process.wait(10)
