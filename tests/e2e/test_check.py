"""Check it in a browser: rows changed at a price that is shown, a job that moves, and what came of it beside it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from influence_core import Measurement, Rows, Run, Study, attribute, registry
from influence_core.workflows.check import Asked, check
from influence_core.workflows.check_records import Action, Check, Pairs, kept_checks
from pages.components.html import signed
from tests.e2e.conftest import AppServer
from tests.e2e.identity_provider import IdentityProvider
from tests.e2e.test_sharing import ANN, signed_in
from tests.small_studies import table_study

PATIENT = 60_000  # ms
METHOD, SEEDS, DRAWS = "if_ggn", 2, 3
MEASUREMENT = Measurement("loss", "predicted")


@pytest.fixture(scope="module")
def checked(start_server: Callable[[Path], AppServer], tmp_path_factory: pytest.TempPathFactory) -> AppServer:
    """The app over a small study whose rows have been scored; a copy of it stands beside, for the engine alone."""
    folder = tmp_path_factory.mktemp("check")
    study = table_study(folder / "studies" / "table")
    attribute(study, METHOD, asked_row(study), measurement=MEASUREMENT, run=Run(store=study.store))
    shutil.copytree(study.path, folder / "beside")
    return start_server(folder / "studies")


def asked_row(study: Study) -> Rows:
    return Rows("test", (study.task.ids("test").tolist()[0],))


def by_hand(folder: Path, action: Action, side: str, labels: tuple[str, ...] = ()) -> Check:
    """What the engine finds of the rows that it ranks itself."""
    study = Study.open(folder)
    run, rows = Run(store=study.store), asked_row(study)
    ranked = attribute(study, METHOD, rows, measurement=MEASUREMENT, run=run)
    ids = tuple((ranked.proponents if side == "proponents" else ranked.opponents)(5).ids[0])
    method = registry.made(METHOD, {}, study.task)
    to = labels * len(ids)
    return check(study, Asked(rows, MEASUREMENT, method, ids, action, to, 0.5, side, SEEDS, DRAWS), run)


def kept(server: AppServer) -> Check:
    """The newest check of the row that the app has kept."""
    study = Study.open(server.studies / "table")
    return kept_checks(study, asked_row(study))[0]


def opened(page: Page, server: AppServer) -> None:
    (row,) = asked_row(Study.open(server.studies / "table")).ids
    page.goto(f"{server.url}/explain?study=table&id={row}&method={METHOD}")
    expect(page.locator(".st-key-evidence a[aria-label^='Proponent']")).to_have_count(5, timeout=PATIENT)


def choose(page: Page, key: str, option: str) -> None:
    page.locator(f".st-key-{key}").get_by_role("combobox").click(timeout=PATIENT)
    page.get_by_role("option", name=option, exact=True).click(timeout=PATIENT)


def number(page: Page, key: str, value: int) -> None:
    box = page.locator(f".st-key-{key}").get_by_role("spinbutton")
    box.fill(str(value), timeout=PATIENT)
    box.press("Enter")


def moved(page: Page) -> None:
    """Wait until the job's bar stands in the panel, and has reported work (or all of it)."""
    expect(page.locator(".st-key-check_job").get_by_role("progressbar")).to_be_visible(timeout=PATIENT)
    page.wait_for_function(
        """() => {
            const bar = document.querySelector(".st-key-check_job [role=progressbar]");
            return !bar || Number(bar.getAttribute("aria-valuenow")) > 0;
        }""",
        timeout=PATIENT,
    )


def same(found: Pairs, other: Pairs) -> None:
    assert found.seeds == other.seeds and found.said_before == other.said_before
    assert found.said_after == other.said_after
    assert found.before == pytest.approx(other.before, rel=1e-6)
    assert found.changes == pytest.approx(other.changes, rel=1e-4, abs=1e-7)


def shows(card: Locator, found: Check) -> None:
    """Every number of a check is on its card: foreseen, happened, and what random rows do."""
    expect(card.locator(".if-headline")).to_have_text(found.headline, timeout=PATIENT)
    lines = card.locator(".if-strip li:not(.if-heads)")
    expect(lines).to_have_count(len(found.foreseen) + 2)
    for place, one in enumerate(found.foreseen):
        assert one.change is not None
        expect(lines.nth(place)).to_contain_text(one.title)
        expect(lines.nth(place).locator(".if-num")).to_have_text(signed(one.change))
    for line, part in ((card.locator(".if-actual"), found.actual), (card.locator(".if-random"), found.random)):
        change = part.change
        expect(line.locator(".if-num")).to_have_text(signed(change.value))
        expect(line.locator(".if-interval")).to_have_text(f"{signed(change.low)} to {signed(change.high)}")
        expect(line).to_contain_text(f"{part.flips} of {change.n}")
        expect(line.locator(".if-each")).to_have_count(change.n)
    for sentence in found.findings:
        expect(card.get_by_text(sentence)).to_be_visible()


def test_dropped_and_relabelled_rows_are_priced_trained_and_kept(page: Page, checked: AppServer) -> None:
    beside = checked.studies.parent / "beside"  # the app has never seen it
    opened(page, checked)
    page.locator(".st-key-check_toggle button").click(timeout=PATIENT)
    expect(page.get_by_text(re.compile(r"15 models to train, about"))).to_be_visible(timeout=PATIENT)
    number(page, "check_seeds", SEEDS)
    number(page, "check_draws", DRAWS)
    expect(page.get_by_text(re.compile(r"7 models to train, about"))).to_be_visible(timeout=PATIENT)
    page.locator(".st-key-check_start button").click(timeout=PATIENT)
    moved(page)

    cards = page.locator(".if-check")
    expect(cards).to_have_count(1, timeout=PATIENT)
    dropped, engine = kept(checked), by_hand(beside, "drop", "proponents")
    assert dropped.changed == engine.changed and len(dropped.changed) == 5 and dropped.action == "drop"
    same(dropped.actual, engine.actual)
    same(dropped.random, engine.random)
    assert [one.change for one in dropped.foreseen] == pytest.approx([one.change for one in engine.foreseen], rel=1e-4)
    shows(cards.first, engine)

    # It is there for whoever comes again, and costs nothing to ask for again.
    page.reload()
    expect(cards).to_have_count(1, timeout=PATIENT)
    shows(cards.first, engine)
    page.locator(".st-key-check_toggle button").click(timeout=PATIENT)
    number(page, "check_seeds", SEEDS)
    number(page, "check_draws", DRAWS)
    expect(page.get_by_text("This check was made already")).to_be_visible(timeout=PATIENT)
    expect(page.locator(".st-key-check_start button")).to_be_disabled()

    # Other labels on the same rows are another check beside it; the models on the data as it is serve both.
    choose(page, "check_action", "Relabel")
    choose(page, "check_label", "cat")
    expect(page.get_by_text(re.compile(r"5 models to train \(2 more are there already\)"))).to_be_visible(
        timeout=PATIENT
    )
    page.locator(".st-key-check_start button").click(timeout=PATIENT)
    earlier = page.get_by_text("Earlier checks of this prediction (1)")
    expect(earlier).to_be_visible(timeout=PATIENT)
    relabelled, engine = kept(checked), by_hand(beside, "flip", "proponents", ("cat",))
    assert relabelled.changed == dropped.changed and set(relabelled.labels) == {"cat"}
    same(relabelled.actual, engine.actual)
    assert relabelled.actual.before == dropped.actual.before and relabelled.actual.after != dropped.actual.after
    shows(cards.first, engine)
    earlier.click()
    shows(cards.nth(1), dropped)


def test_a_narrow_window_cuts_nothing_off(page: Page, checked: AppServer) -> None:
    page.set_viewport_size({"width": 800, "height": 900})
    opened(page, checked)
    page.locator(".st-key-check_toggle button").click(timeout=PATIENT)
    expect(page.locator(".st-key-check_start button")).to_be_visible(timeout=PATIENT)
    main = page.locator("[data-testid=stMain]")
    assert main.evaluate("node => node.scrollWidth <= node.clientWidth + 1")


def test_a_viewer_sees_the_price_and_the_result_but_trains_nothing(
    page: Page, checked: AppServer, start_server: Callable[..., AppServer], tmp_path: Path
) -> None:
    studies = tmp_path / "studies"
    shutil.copytree(checked.studies.parent / "beside", studies / "table", ignore=shutil.ignore_patterns("checks"))
    made = by_hand(studies / "table", "drop", "proponents")
    (studies / "access.toml").write_text(f'[studies.table]\nviewer = ["{ANN}"]\n', encoding="utf-8")
    with IdentityProvider().running() as provider:
        provider.write_secrets(tmp_path / "secrets.toml", "http://127.0.0.1:{port}")
        server = start_server(studies, arguments=["--secrets.files", str(tmp_path / "secrets.toml")])
        signed_in(page, server, provider, ANN)
        opened(page, server)
        shows(page.locator(".if-check"), made)
        page.locator(".st-key-check_toggle button").click(timeout=PATIENT)
        expect(page.get_by_text(re.compile(r"9 models to train \(6 more are there already\)"))).to_be_visible(
            timeout=PATIENT
        )
        expect(page.get_by_text("Only an owner of the study trains models.")).to_be_visible()
        expect(page.locator(".st-key-check_start button")).to_be_disabled()
