#!/usr/bin/env bash
# Finds a Chromium that Playwright can drive, or installs one, and writes its path into .venv/browser-path.
# Without one: a plain line, and exit status 1 where CI is set (browser tests are mandatory there).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
record=.venv/browser-path
log=.venv/browser-install.log

if [ ! -x "$python" ]; then
    echo 'error: .venv is missing; run make test, which makes it first' >&2
    exit 1
fi

# A browser counts only if it opens a page: Ubuntu's chromium package, for one, is a stub that asks for snap.
opens_a_page() {
    [ -n "$1" ] && [ -x "$1" ] && "$python" - "$1" >>"$log" 2>&1 <<'PYTHON'
import sys

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=sys.argv[1], args=["--no-sandbox", "--disable-gpu"], timeout=60_000
    )
    browser.new_page().goto("about:blank")
    browser.close()
PYTHON
}

# Prints the first installed browser that works.
installed_browser() {
    local name path
    for name in chromium chromium-browser google-chrome; do
        path=$(command -v "$name" || true)
        if opens_a_page "$path"; then
            echo "$path"
            return 0
        fi
    done
    return 1
}

# Prints where Playwright keeps its own Chromium, whether or not it is there yet.
playwright_browser() {
    "$python" -c '
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)' 2>>"$log"
}

keep() {
    printf '%s\n' "$1" >"$record"
    echo "browser: $1"
    exit 0
}

: >"$log"
known=$(cat "$record" 2>/dev/null || true)

if [ -n "${INFLUENCE_BROWSER:-}" ]; then
    if opens_a_page "$INFLUENCE_BROWSER"; then keep "$INFLUENCE_BROWSER"; fi
    why="INFLUENCE_BROWSER=$INFLUENCE_BROWSER does not start (details in $log)"
else
    if opens_a_page "$known"; then keep "$known"; fi
    if found=$(installed_browser); then keep "$found"; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo 'browser: none found, installing the chromium package'
        if apt-get update >>"$log" 2>&1 &&
            DEBIAN_FRONTEND=noninteractive apt-get install -y chromium >>"$log" 2>&1 &&
            found=$(installed_browser); then
            keep "$found"
        fi
    fi
    found=$(playwright_browser || true)
    if opens_a_page "$found"; then keep "$found"; fi
    echo 'browser: none found, installing the Chromium of Playwright'
    if "$python" -m playwright install chromium >>"$log" 2>&1 && opens_a_page "$found"; then keep "$found"; fi
    why="no Chromium was found and none could be installed (details in $log); install the chromium package or set INFLUENCE_BROWSER"
fi

rm -f "$record"
echo "browser tests cannot run: $why"
if [ -n "${CI:-}" ]; then exit 1; fi
