"""Compare: nothing to do, retraining offered, under way, done and failed; two versions on one page."""

from __future__ import annotations

from dataclasses import replace

import pytest

from influence_core import service
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService
from tests.screens.fake_versions import FakeVersions, job, made_version, waiting


@pytest.fixture
def versions(fake: FakeService) -> FakeVersions:
    return fake.compare


def test_without_decisions_it_says_what_to_do_first(opened: Opener, versions: FakeVersions) -> None:
    app = opened("compare")
    assert not app.exception and "No decision changes a row yet" in markup(app)
    assert "retrain" not in [button.key for button in app.button]


def test_a_study_that_cannot_be_retrained_says_why(opened: Opener, versions: FakeVersions) -> None:
    versions.offered = replace(versions.offered, problem="It needs a <recipe>.")
    page = markup(opened("compare"))
    assert "cannot be retrained" in page and "It needs a &lt;recipe&gt;." in page


def test_the_offer_says_what_it_trains_and_one_press_starts_it(opened: Opener, versions: FakeVersions) -> None:
    waiting(versions)
    app = opened("compare")
    page = markup(app)
    for words in ("41 relabelled, 2 dropped training rows; 1 test rows corrected", "11 models to train, about a minute",
                  "3 rows on which reviewers disagree"):  # fmt: skip
        assert words in page
    app.text_input(key="retrain_name").set_value("after review").run()
    app.button(key="retrain").click().run()
    assert versions.done == [("retrain", "digits", "after review")]
    assert not app.exception and "retrain" not in [button.key for button in app.button]  # it is under way


def test_a_name_that_cannot_be_used_is_said_and_nothing_starts(opened: Opener, versions: FakeVersions) -> None:
    waiting(versions)
    app = opened("compare")
    app.text_input(key="retrain_name").set_value("  ").run()
    app.button(key="retrain").click().run()
    assert "This name cannot be used" in markup(app) + str([error.value for error in app.error])
    assert versions.done == [] and not app.exception and "retrain" in [button.key for button in app.button]


def test_somebody_who_does_not_own_the_study_cannot_start_it(opened: Opener, versions: FakeVersions) -> None:
    versions.offered = replace(waiting(versions), owned=False)
    versions.rights, versions.made = "reviewer", [made_version("v1", "one")]
    app = opened("compare")
    assert app.button(key="retrain").disabled
    keys = [button.key for button in app.button]
    assert "version_open_v1" in keys and "version_delete_v1" not in keys


def test_a_running_job_shows_how_far_it_is(opened: Opener, versions: FakeVersions) -> None:
    versions.offered = replace(waiting(versions), job=job("running"))
    app = opened("compare")
    assert not app.exception and "Retraining: corrected" in markup(app)
    assert "retrain" not in [button.key for button in app.button]


def test_a_failed_job_says_why_and_can_be_started_again(opened: Opener, versions: FakeVersions) -> None:
    versions.offered = replace(waiting(versions), job=job("failed", "The disk is full: 0 <MB> free. Free some."))
    app = opened("compare")
    assert "The disk is full: 0 &lt;MB&gt; free." in markup(app)
    app.button(key="retrain").click().run()
    assert versions.done == [("retrain", "digits", "corrected")]


def test_before_and_after_with_intervals_on_one_page(opened: Opener, versions: FakeVersions) -> None:
    waiting(versions)
    versions.finish("after <review>")
    app = opened("compare")
    page = markup(app)
    expected = (
        "original → after &lt;review&gt;", "After 43 corrected training rows", "90.0%", "94.0%", "+4.0 points",
        "+1.0 to +7.0", "Agrees with its training labels", "ant &lt;x&gt;", "are in a version already",
        "The most confident mistake of", "0 of 3 models", "3 of 3 models", "+5.0", "had predicted a fall by",
        "Digits &lt;title&gt;", "outlined is worse",
    )  # fmt: skip
    for words in expected:
        assert words in page, words
    assert not app.exception and "Alarm" not in page and "not shown to be better" not in page


def test_the_alarm_and_the_doubt(opened: Opener, versions: FakeVersions) -> None:
    versions.made = [made_version("v1", "one")]
    versions.locked = service.Paired(0.9, 0.88, -0.02, -0.05, 0.01, 280)
    page = markup(opened("compare"))
    assert "⚠ Alarm" in page and "fell (-2.0 points" in page
    versions.locked = service.Paired(0.9, 0.91, 0.01, -0.02, 0.04, 280)
    page = markup(opened("compare"))
    assert "Alarm" not in page and "not shown to be better" in page


def test_the_reader_picks_another_row_and_it_is_said_that_it_was_picked(opened: Opener, versions: FakeVersions) -> None:
    versions.made = [made_version("v1", "one")]
    app = opened("compare")
    assert "test row 9" in markup(app)
    app.selectbox(key="w.again").set_value("4").run()
    assert "test row 4" in markup(app) and "You chose this row." in markup(app)
    assert app.query_params["again"] == ["4"] or app.query_params["again"] == "4"


def test_any_two_versions_can_be_compared_and_the_address_keeps_them(opened: Opener, versions: FakeVersions) -> None:
    versions.made = [made_version("v1", "one"), made_version("v2", "two")]
    assert "original → two" in markup(opened("compare"))
    assert "one → two" in markup(opened("compare", before="v1", after="v2"))
    assert "original → two" in markup(opened("compare", before="v2", after="v2"))


def test_versions_are_renamed_and_deleted(opened: Opener, versions: FakeVersions) -> None:
    versions.made = [made_version("v1", "one"), made_version("v2", "two")]
    app = opened("compare", before="v1", after="v2")
    app.text_input(key="version_name_v1").set_value("first").run()
    app.button(key="version_rename_v1").click().run()
    app.button(key="version_delete_v2").click().run()
    assert versions.done == [("rename", "digits", "v1", "first"), ("delete", "digits", "v2")]
    assert "original → first" in markup(app) and not app.exception
