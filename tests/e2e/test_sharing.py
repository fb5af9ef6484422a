"""A shared server in a real browser: two people sign in, each sees their own studies and no trace of the other's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from pages.components import shell
from tests.e2e.conftest import AppServer
from tests.e2e.identity_provider import IdentityProvider

PATIENT = 60_000  # ms
ANN, BOB = "ann@example.org", "bob@example.org"
FILE = f"""
[studies.breast-cancer]
viewer = ["{ANN}"]
[studies.digits]
reviewer = ["{BOB}"]
"""


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with IdentityProvider().running() as provider:
        yield provider


@pytest.fixture
def shared(
    demo_studies: Path, start_server: Callable[..., AppServer], tmp_path: Path, provider: IdentityProvider
) -> AppServer:
    studies = tmp_path / "studies"
    for name in ("breast-cancer", "digits"):
        shutil.copytree(demo_studies / name, studies / name)
    (studies / "access.toml").write_text(FILE, encoding="utf-8")
    provider.write_secrets(tmp_path / "secrets.toml", "http://127.0.0.1:{port}")
    return start_server(studies, arguments=["--secrets.files", str(tmp_path / "secrets.toml")])


def signed_in(page: Page, server: AppServer, provider: IdentityProvider, person: str) -> None:
    provider.person = {"email": person, "email_verified": True, "name": person.partition("@")[0].title()}
    page.goto(server.url)
    page.get_by_role("button", name="Sign in").click(timeout=PATIENT)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible(timeout=PATIENT)


def offered(page: Page) -> list[str]:
    page.locator("[data-testid='stSidebar'] [data-testid='stSelectbox']").first.get_by_role("combobox").click()
    options = page.get_by_role("option")
    expect(options.first).to_be_visible()
    found = options.all_inner_texts()
    page.keyboard.press("Escape")
    return found


def told(page: Page, server: AppServer, screen: str, study: str) -> str:
    """What an address with a study says to whoever is signed in; the name of the study is left out."""
    page.goto(f"{server.url}/{screen}?study={study}&id=3&row=3")
    notice = page.locator(".if-notice, .if-problem, .if-empty").first
    expect(notice).to_be_visible(timeout=PATIENT)
    body = page.locator("body").inner_text()
    assert "Handwritten" not in body and "digits" not in body.replace("study='digits'", "").lower(), screen
    return notice.inner_text().replace(study, "*")


def test_two_people_see_their_own_studies_only(
    page: Page, browser: Browser, shared: AppServer, provider: IdentityProvider
) -> None:
    page.goto(f"{shared.url}/explain?study=digits&id=3")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=PATIENT)
    assert "digits" not in page.locator("body").inner_text().lower()

    signed_in(page, shared, provider, ANN)
    (mine,) = offered(page)
    assert "cancer" in mine
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB")
    try:
        other = context.new_page()
        signed_in(other, shared, provider, BOB)
        (theirs,) = offered(other)
        assert "digits" in theirs.lower() and theirs != mine
    finally:
        context.close()

    unknown = told(page, shared, "overview", "nothing")
    for screen in shell.TITLES:
        if screen not in ("import", "studies"):  # are about no study
            assert told(page, shared, screen, "digits") == unknown, screen
    page.goto(f"{shared.url}/studies?study=digits")
    expect(page.get_by_text(mine).first).to_be_visible(timeout=PATIENT)
    assert theirs not in page.locator("body").inner_text()

    # A download is made in a thread of its own, which must know whose it is.
    page.goto(f"{shared.url}/explain?study=breast-cancer")
    expect(page.locator(".st-key-evidence a[aria-label^='Proponent']").first).to_be_visible(timeout=PATIENT)
    page.get_by_role("button", name="Export").click()
    with page.expect_download(timeout=PATIENT) as download:
        page.get_by_role("button", name=re.compile("csv", re.IGNORECASE)).click()
    assert download.value.path().read_text(encoding="utf-8").startswith("train_id,score,")

    (shared.studies / "access.toml").write_text(FILE.replace(ANN, BOB), encoding="utf-8")
    page.reload()
    expect(page.get_by_text("No study is shared with you yet")).to_be_visible(timeout=PATIENT)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("button", name="Sign in")).to_be_visible(timeout=PATIENT)


def test_a_demo_writes_nothing_and_can_be_reset(
    page: Page, demo_studies: Path, start_server: Callable[..., AppServer], tmp_path: Path
) -> None:
    studies = tmp_path / "studies"
    shutil.copytree(demo_studies / "breast-cancer", studies / "breast-cancer")
    shutil.rmtree(studies / "breast-cancer" / "cache", ignore_errors=True)
    before = sorted((path.relative_to(studies), path.stat().st_mtime_ns) for path in studies.rglob("*"))
    # Open to the network on purpose: a demo is for anybody.
    server = start_server(studies, environment={"INFLUENCE_DEMO": "1"}, arguments=["--server.address", "0.0.0.0"])
    page.goto(f"{server.url}/explain")
    expect(page.locator(".st-key-evidence a[aria-label^='Proponent']").first).to_be_visible(timeout=PATIENT)
    expect(page.get_by_text("nothing is kept")).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_text("back to how it was")).to_be_visible(timeout=PATIENT)
    page.goto(f"{server.url}/import")
    expect(page.get_by_text("You cannot import data here")).to_be_visible(timeout=PATIENT)
    assert page.locator("input[type=file]").count() == 0
    assert sorted((path.relative_to(studies), path.stat().st_mtime_ns) for path in studies.rglob("*")) == before


def test_a_server_that_others_can_reach_shows_nothing_without_sign_in(
    page: Page, demo_studies: Path, start_server: Callable[..., AppServer]
) -> None:
    server = start_server(demo_studies, arguments=["--server.address", "0.0.0.0"])
    page.goto(f"{server.url}/explain?study=digits")
    expect(page.get_by_text("This server shows no studies yet")).to_be_visible(timeout=PATIENT)
    body = page.locator("body").inner_text()
    assert "digits" not in body and "cancer" not in body
