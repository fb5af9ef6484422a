"""The screen Suspects: its states, filters that reach the service, links, escaping, the way to review."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from influence_core import service
from influence_core.errors import BadInput
from pages.components import own_probabilities
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService
from tests.screens.fake_suspects import JOB, NEEDED, FakeSuspects


@pytest.fixture
def listed(fake: FakeService, monkeypatch: pytest.MonkeyPatch) -> FakeSuspects:
    monkeypatch.setattr(service, "job", lambda study, job_id: JOB)
    return fake.suspicion


def select(app: AppTest, label: str) -> Any:
    return next(box for box in app.selectbox if box.label == label)


def test_the_list_says_how_many_why_and_what_they_feed(opened: Opener, listed: FakeSuspects) -> None:
    page = markup(opened("suspects", study="digits"))
    assert "About 30 rows look mislabelled" in page and "Of 1,200 train rows (2.5%)." in page
    assert "Expected, by this order: first 60: 90% wrong" in page
    assert "97%" in page and "the model said 3 until epoch 40" in page and "A note." in page
    assert "&lt;b&gt;3&lt;/b&gt;" in page and "<b>3</b> " not in page
    assert 'href="row?study=digits&amp;row=0"' in page and page.count("feeds mistakes") == 1
    assert "explain?study=digits&amp;id=4" in page
    assert "KNN-Shapley value is not here: it needs labels." in page and "in-sample" in page


@pytest.mark.parametrize(("label", "value", "change"), [
    ("Ordered by", "loss", {"column": "loss"}),
    ("Labelled", "1", {"given": "1"}),
    ("Suggested", "8", {"suggested": "8"}),
    ("Detectors that say “mislabelled”", 2, {"agree": 2}),
    ("One of which is", "neighbour_votes", {"flagged": "neighbour_votes"}),
    ("Slice by", "age", {"sliced": "age"}),
])  # fmt: skip
def test_filters_reach_the_service_and_the_address(
    opened: Opener, listed: FakeSuspects, label: str, value: Any, change: dict[str, Any]
) -> None:
    app = opened("suspects", study="digits", page="1")
    assert listed.asked[-1].page == 1
    select(app, label).set_value(value).run()
    assert listed.asked[-1] == replace(service.SuspectFilter(), **change)
    assert set(app.query_params) == {
        "study",
        {"column": "by", "given": "labelled", "sliced": "slice"}.get(next(iter(change)), *change),
    }


def test_a_pair_of_classes_a_slice_and_the_likely_ones_are_one_address(opened: Opener, listed: FakeSuspects) -> None:
    app = opened("suspects", study="digits", labelled="1", suggested="8", slice="age", group="men", likely="1")
    asked = service.SuspectFilter(given="1", suggested="8", sliced="age", group="men", likely=True)
    assert listed.asked[-1] == asked
    assert select(app, "Slice").options == ["all", "men · 700", "women · 500"]
    select(app, "Slice").set_value("women").run()
    assert listed.asked[-1] == replace(asked, group="women")
    select(app, "Slice by").set_value("<i>sex").run()  # another column has other slices
    assert listed.asked[-1] == replace(asked, sliced="<i>sex", group="")
    app.toggle(key="w.likely").set_value(False).run()
    assert listed.asked[-1] == replace(asked, sliced="<i>sex", group="", likely=False)
    assert "likely" not in app.query_params and "group" not in app.query_params
    opened("suspects", study="digits", group="men")  # a slice of no column
    assert listed.asked[-1] == service.SuspectFilter()


def test_what_is_unsure_is_called_not_this_class(opened: Opener, listed: FakeSuspects) -> None:
    page = markup(opened("suspects", study="digits"))
    assert page.count("not ") >= 1 and re.search(
        r"→ <b[^>]*>not \d</b><span[^>]*> 80%</span> <small[^>]*>perhaps 9 30%", page
    )
    assert re.search(r"<b>\d</b> <small[^>]*>perhaps 9 10%</small>", page)
    assert page.count(", rather 9") == 4  # two sure rows, each named as card and as link


def test_a_detector_without_in_sample_mark_has_none(opened: Opener, listed: FakeSuspects) -> None:
    page = markup(opened("suspects", study="digits", by="neighbour_votes"))
    assert "What is near. Unit: lead in votes." in page and ">in-sample</span>" not in page


def test_an_empty_list_says_what_to_do(opened: Opener, listed: FakeSuspects) -> None:
    app = opened("suspects", study="digits", search="nothing")
    assert "No row passes the filters" in markup(app) and app.button(key="review_these").disabled


def test_pages_are_turned(opened: Opener, listed: FakeSuspects) -> None:
    app = opened("suspects", study="digits")
    assert "1–24 of 70" in markup(app) and app.button(key="page_back").disabled
    app.button(key="page_next").click().run()
    app.button(key="page_next").click().run()
    assert listed.asked[-1].page == 2 and "49–70 of 70" in markup(app) and app.button(key="page_next").disabled


def test_review_takes_the_filtered_rows_along(opened: Opener, listed: FakeSuspects) -> None:
    app = opened("suspects", study="digits", by="loss")
    app.button(key="review_these").click().run()
    assert listed.done == [("queue", "digits", "train", (4, 2), "suspects by loss")]


def opened_together(app: AppTest) -> AppTest:
    app.session_state["together"] = True
    return app.run()


def test_the_list_is_relabelled_in_three_actions_and_taken_back_in_one(
    opened: Opener, fake: FakeService, listed: FakeSuspects
) -> None:
    app = opened("suspects", study="digits", labelled="1")
    assert not listed.done  # nothing is prepared before it is asked for
    opened_together(app)
    page = markup(app)
    assert "67 rows are left out: no suggestion for &lt;them&gt; is" in page and "wrong: 91%" in page
    assert app.button(key="together_do").disabled  # nobody has said who they are
    app.text_input(key="together_name").input("ann").run()
    assert app.button(key="together_do").label == "Relabel 3 rows"
    app.selectbox(key="together_what").select("relabel 8").run()
    assert app.button(key="together_do").label == "Relabel 3 rows to “8”"
    app.button(key="together_do").click().run()
    ((_, (reviewer, _, batch, again)),) = fake.reviews.written
    assert (reviewer, batch.rows, batch.labels, again) == ("ann", (4, 2, 9), ("8", "8", "8"), False)
    assert batch.evidence == {"filter": "1"} and listed.asked[-1].given == "1"
    page = markup(app)
    assert "3 rows relabel: &lt;b&gt;bold&lt;/b&gt;" in page and "<script>" not in page
    assert not app.session_state["together"]  # it closes when it is done
    assert opened_together(app).text_input(key="together_name").value == "ann"
    app.button(key="undo_batch").click().run()
    assert fake.reviews.written[-1] == ("undo_batch", ("ann", f"batch {fake.reviews.written[0][1][1]}", 1))
    assert not [button for button in app.button if button.key == "undo_batch"]


@pytest.mark.parametrize(("what", "label"), [("keep", "Keep 3 rows"), ("drop", "Drop 3 rows")])
def test_a_list_can_be_kept_or_dropped(opened: Opener, listed: FakeSuspects, what: str, label: str) -> None:
    app = opened_together(opened("suspects", study="digits"))
    app.selectbox(key="together_what").select(what).run()
    assert app.button(key="together_do").label == label and listed.done[-1] == ("batch", what, "")


def test_rows_that_somebody_decided_about_are_spared_unless_they_are_asked_for(
    opened: Opener, fake: FakeService, listed: FakeSuspects
) -> None:
    fake.reviews.decided, fake.reviews.spared = 2, 2
    app = opened_together(opened("suspects", study="digits"))
    app.text_input(key="together_name").input("ann").run()
    assert app.button(key="together_do").label == "Relabel 1 row"
    app.toggle(key="together_again").set_value(True).run()
    assert app.button(key="together_do").label == "Relabel 3 rows"
    app.toggle(key="together_again").set_value(False).run()
    app.button(key="together_do").click().run()
    assert fake.reviews.written[-1][1][3] is False and "2 rows decided already" in app.toast[0].value
    fake.reviews.decided = 3
    assert opened_together(opened("suspects", study="digits")).button(key="together_do").disabled


def test_a_list_of_numbers_can_be_kept_or_dropped(
    opened: Opener, listed: FakeSuspects, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = service.overview("digits")
    monkeypatch.setattr(service, "overview", lambda study: replace(plain, classes=()))
    app = opened_together(opened("suspects", study="digits"))
    assert app.selectbox(key="together_what").options == ["Keep all as labelled", "Drop all"]


def test_what_was_decided_stands_on_the_card(opened: Opener, listed: FakeSuspects) -> None:
    listed.decided = (
        service.Decided("ann", "relabel", "<b>8</b>", None, "", 1e9),
        service.Decided("ben", "keep", None, None, "", 1e9),
    )
    assert "ann: → &lt;b&gt;8&lt;/b&gt; · ben: kept" in markup(opened("suspects", study="digits"))


def test_what_it_costs_comes_first_and_starts_on_a_click(opened: Opener, listed: FakeSuspects) -> None:
    listed.answer = NEEDED
    app = opened("suspects", study="digits")
    assert "About 90 seconds. Once." in markup(app) and not listed.done
    app.button(key="fit_start").click().run()
    assert listed.done == [("start", "digits", False)]


@pytest.mark.parametrize(("state", "words"), [
    ("running", "looking for label errors"), ("failed", "The disk is full."), ("cancelled", "goes on from there"),
])  # fmt: skip
def test_jobs_are_shown_in_their_state(opened: Opener, listed: FakeSuspects, state: str, words: str) -> None:
    job = replace(JOB, state=state, is_active=state == "running", message="The disk is full." * (state == "failed"))
    listed.answer = replace(NEEDED, job=job)
    assert words in markup(opened("suspects", study="digits"))


def test_a_cheap_search_starts_by_itself_once(opened: Opener, listed: FakeSuspects) -> None:
    listed.answer = replace(NEEDED, seconds=2.0)
    opened("suspects", study="digits").run()
    assert listed.done == [("start", "digits", False)]


def test_out_of_fold_numbers_are_offered_and_never_start_by_themselves(opened: Opener, listed: FakeSuspects) -> None:
    listed.more = replace(NEEDED, seconds=2.0, method_title="Out-of-fold suspects", key="other")
    app = opened("suspects", study="digits")
    assert "In-sample, from a model that saw these labels: Combined, Training loss." in markup(app) and not listed.done
    app.button(key="more_start").click().run()
    assert listed.done == [("start", "digits", True)]


def test_probabilities_of_ones_own_are_taken_and_removed(
    opened: Opener, listed: FakeSuspects, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = opened("suspects", study="digits")
    assert app.button(key="pred_probs_use").disabled and len(app.get("file_uploader")) == 1
    own_probabilities._take("digits", type("File", (io.BytesIO,), {"name": "<b>x</b>.csv"})(b"id,3\n"))
    assert listed.done == [("save", "<b>x</b>.csv", b"id,3\n")]
    listed.refuses = BadInput("The probabilities do not fit", "<i>dog</i> is no class.", "Name the classes.")
    own_probabilities._take("digits", type("File", (io.BytesIO,), {"name": "x.csv"})(b"id,3\n"))
    app.session_state["kept.probabilities refused"] = ("digits", "They do not fit", "<i>dog</i> is no class.", "Name.")
    page = markup(app.run())
    assert "They do not fit" in page and "&lt;i&gt;dog&lt;/i&gt;" in page and app.expander[-1].proto.expanded
    listed.refuses = None
    listed.own = service.OwnProbabilities("<b>x</b>.csv", "ann@x.org", 1e9, "")
    app = opened("suspects", study="digits")
    assert "come from &lt;b&gt;x&lt;/b&gt;.csv, given by ann@x.org 2001-09-09 01:46 (UTC)." in markup(app)
    app.button(key="pred_probs_remove").click().run()
    assert listed.done[-1] == ("remove", "digits")
    listed.own = service.OwnProbabilities("", "", 0.0, "They are of other rows.")
    assert "They are of other rows." in markup(opened("suspects", study="digits"))


def test_who_does_not_own_the_study_only_sees_where_they_come_from(
    opened: Opener, listed: FakeSuspects, fake: FakeService
) -> None:
    fake.compare.rights = "reviewer"
    assert "Your own out-of-fold" not in str(opened("suspects", study="digits").expander)
    listed.own = service.OwnProbabilities("x.csv", "", 1e9, "")
    app = opened("suspects", study="digits")
    assert "come from x.csv, given 2001" in markup(app) and not app.get("file_uploader")


def test_a_refusal_is_one_panel(opened: Opener, listed: FakeSuspects) -> None:
    listed.answer = BadInput("No label can be checked here", "No <detector> can run.", "Give checkpoints.")
    page = markup(opened("suspects", study="digits"))
    assert "No label can be checked here" in page and "&lt;detector&gt;" in page and "Traceback" not in page


def test_a_regression_has_no_classes(opened: Opener, listed: FakeSuspects) -> None:
    listed.likely = None
    assert "Rows that fit worst" in markup(opened("suspects", study="digits"))


def test_further_lists(opened: Opener, listed: FakeSuspects) -> None:
    page = markup(opened("suspects", study="digits", list="duplicates"))
    assert "Near-duplicates: 1" in page and "the same as · 0" in page and page.count("if-suspect-link") == 2
    assert "No test row is nearly the same" in markup(opened("suspects", study="digits", list="leakage"))
