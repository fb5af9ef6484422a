"""Explain: the evidence, its filters and controls, and every state of a fit."""

from __future__ import annotations

import re

import pytest
from streamlit.testing.v1 import AppTest

from influence_core import service
from pages.components import jobs
from tests.screens.conftest import Opener, markup
from tests.screens.fake_service import FakeService

ROW = {"study": "digits", "id": "94"}


def side(app: AppTest, name: str) -> str:
    return next(part for part in markup(app).split("<section") if f'class="if-column if-{name}-column"' in part)


def scores(column: str) -> list[float]:
    return [float(found.replace("−", "-")) for found in re.findall(r'class="if-num">([+−][\d.]+)<', column)]


def control(app: AppTest, field: str):  # noqa: ANN201
    return next(box for box in app.selectbox if (box.key or "").startswith(f"w.{field}"))


def test_evidence_is_on_screen_without_a_click(opened: Opener) -> None:
    app = opened("explain")
    pro, opp = scores(side(app, "pro")), scores(side(app, "opp"))
    assert len(pro) == len(opp) == 5
    assert pro == sorted(pro, reverse=True) and min(pro) > 0
    assert opp == sorted(opp) and max(opp) < 0
    assert 'data-pick="379"' in markup(app) and markup(app).count('aria-current="true"') == 1
    assert app.query_params["id"] == "379"  # the first of the list, so that the address restores it


def test_every_column_says_method_units_and_measurement(opened: Opener) -> None:
    app = opened("explain", **ROW)
    for name in ("pro", "opp"):
        assert "Gradient cosine · order only · loss the model gives to the predicted label" in side(app, name)
        assert "Only the order means something" in side(app, name)
    page = markup(app)
    assert "Gradient cosine is the default here: a cosine is not drowned out" in page
    assert "Looks at 100% of the model&#x27;s parameters. Effective damping 0.010." in page


def test_cards_link_to_the_rows_own_page_and_keep_the_place(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW, status="wrong")
    links = re.findall(r'href="(row\?[^"]+)"', side(app, "pro"))
    assert len(links) == 5
    assert all(link.startswith("row?study=digits&amp;id=94&amp;status=wrong&amp;row=") for link in links)


@pytest.mark.parametrize(
    ("params", "count"),
    [({"status": "wrong"}, 25), ({"given": "3", "predicted": "8"}, 3), ({"text": "94"}, None)],
)
def test_filters_from_the_address(opened: Opener, params: dict[str, str], count: int | None) -> None:
    page = markup(opened("explain", study="digits", **params))
    listed = page.count("data-pick=")
    assert f">{listed} predictions<" in page or "first 60" in page
    assert count is None or listed == count


def test_filters_change_the_list_and_not_the_query(opened: Opener) -> None:
    app = opened("explain", **ROW)
    app.selectbox(key="w.status").set_value("confident-wrong").run()
    assert "Test row 94" in markup(app)
    assert app.query_params["status"] == "confident-wrong" and app.query_params["id"] == "94"
    app.text_input(key="w.text").set_value("no such row").run()
    assert "No prediction matches" in markup(app) and "Test row 94" in markup(app)
    app.button(key="clear_filters").click().run()
    assert markup(app).count("data-pick=") == 60 and dict(app.query_params) == {"study": "digits", "id": "94"}


def test_random_order_can_be_shuffled_again(opened: Opener) -> None:
    app = opened("explain", **ROW, order="random")
    before = re.findall(r'data-pick="(\d+)"', markup(app))
    app.button(key="shuffle").click().run()
    after = re.findall(r'data-pick="(\d+)"', markup(app))
    assert before != after and app.query_params["seed"] == "1"


def test_nothing_matches_and_nothing_is_chosen(opened: Opener) -> None:
    page = markup(opened("explain", study="digits", text="no such row"))
    assert "No prediction matches" in page and "Nothing to explain" in page


def test_controls_keep_the_place(opened: Opener) -> None:
    app = opened("explain", **ROW, status="wrong")
    control(app, "method").set_value("tracin_cp").run()
    control(app, "target").set_value("true").run()
    control(app, "measurement").set_value("margin").run()
    control(app, "k").set_value(3).run()
    assert dict(app.query_params) == {
        "study": "digits", "id": "94", "method": "tracin_cp", "measurement": "margin", "target": "true",
        "k": "3", "status": "wrong",
    }  # fmt: skip
    assert "TracIn over checkpoints · gradient product · margin the model gives to the true label" in side(app, "pro")
    assert len(scores(side(app, "pro"))) == 3
    assert "You chose TracIn over checkpoints. Gradient cosine is the default here" in markup(app)


def test_a_method_with_its_own_measure(opened: Opener) -> None:
    app = opened("explain", **ROW, method="knn_shapley", measurement="margin")
    assert [box.value for box in app.selectbox if box.label == "Measured as"] == ["k-NN accuracy"]
    assert app.query_params["measurement"] == "margin"  # kept for the next method


def test_options_are_applied_together_and_reset(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW)
    app.text_input(key="o.grad_cos.damping").set_value("0.5")
    app.multiselect(key="o.grad_cos.layers").set_value(["head", "conv1"])
    app.button(key="FormSubmitter:options_form-Apply").click().run()
    assert app.query_params["c.damping"] == "0.5" and app.query_params["c.layers"] == "head,conv1"
    assert "has not been computed yet" in markup(app)
    app.button(key="defaults").click().run()
    assert dict(app.query_params) == {"study": "digits", "id": "94"}
    assert app.text_input(key="o.grad_cos.damping").value == "0.01" and "if-pro-column" in markup(app)


def test_options_out_of_bounds_are_named(opened: Opener) -> None:
    app = opened("explain", **ROW, c__damping="-3", c__nope="1")
    page = markup(app)
    assert "c.damping=&#x27;-3&#x27;, but a number from 1e-08 to 10 is needed; using 0.01" in page
    assert "no such option" in page and "if-pro-column" in page


def test_a_whole_cell_is_one_query(opened: Opener) -> None:
    app = opened("explain", study="digits", given="3", predicted="8", cell="1")
    page = markup(app)
    assert "3 rows of one cell" in page and "mean over 3 rows" in page and "if-pro-column" in page
    app.button(key="whole_cell").click().run()
    assert "Why “8”?" in markup(app) and "cell" not in app.query_params
    app.button(key="whole_cell").click().run()
    assert app.query_params["cell"] == "1"


def test_previous_and_next_walk_the_list(opened: Opener) -> None:
    app = opened("explain", study="digits", status="wrong")
    first, second = re.findall(r'data-pick="(\d+)"', markup(app))[:2]
    assert app.button(key="step_Previous").disabled
    app.button(key="step_Next").click().run()
    assert app.query_params["id"] == second
    app.button(key="step_Previous").click().run()
    assert app.query_params["id"] == first


def test_no_proponents(opened: Opener, fake: FakeService) -> None:
    fake.lonely = True
    assert "No proponents" in side(opened("explain", **ROW), "pro")


def test_an_expensive_fit_shows_its_price_first(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW, method="if_ggn")
    assert "Influence function has not been computed yet" in markup(app)
    assert "About 40 s, 38 MB of disk" in markup(app) and fake.queue == []
    app.button(key="fit_start").click().run()
    assert 'role="progressbar"' in markup(app) and "Computing Influence function" in markup(app)
    assert fake.calls.count("touch_job") == 1
    fake.fit_seconds = 1e-9
    app.run().run()
    assert "if-pro-column" in markup(app) and "✓ Fit Influence function: done" in markup(app)


def test_a_cheap_fit_starts_by_itself_once(opened: Opener, fake: FakeService) -> None:
    fake.fit_seconds = jobs.CHEAP_SECONDS
    app = opened("explain", **ROW, method="if_ggn")
    assert len(fake.queue) == 1 and 'role="progressbar"' in markup(app)
    app.button(key="cancel_here_1").click().run()
    assert "Cancelled. What was finished is kept" in markup(app) and len(fake.queue) == 1
    assert [toast.value for toast in app.toast] == ["The job is cancelled; what was finished is kept."]
    app.button(key="fit_start").click().run()
    assert len(fake.queue) == 2


def test_a_failed_fit_says_why_and_offers_another_try(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW, method="if_ggn")
    app.button(key="fit_start").click().run()
    fake.fail_fit, fake.fit_seconds = True, 1e-9
    app.run()
    assert "Computing Influence function failed" in markup(app) and "The disk is full" in markup(app)
    assert app.button(key="fit_start").label == "Retry"
    fake.fail_fit = False
    app.button(key="fit_start").click().run().run()
    assert "if-pro-column" in markup(app)


def test_leaving_a_job_that_others_wait_for(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW, method="if_ggn")
    app.button(key="fit_start").click().run()
    fake.queue = [(job, started, "somebody else") for job, started, _ in fake.queue]
    app.button(key="cancel_here_1").click().run()
    assert "You left this job" in markup(app) and fake.queue[0][0].is_active
    app.button(key="fit_wait").click().run()
    assert "Computing Influence function" in markup(app)


def test_a_finished_job_can_be_dismissed(opened: Opener, fake: FakeService) -> None:
    app = opened("explain", **ROW, method="if_ggn")
    app.button(key="fit_start").click().run()
    fake.fit_seconds = 1e-9
    app.run()
    app.button(key="dismiss_1").click().run()
    assert fake.queue == [] and "No jobs." in markup(app)


@pytest.mark.parametrize("study", ["cells", "words"])
def test_tables_and_texts_draw_too(opened: Opener, study: str) -> None:
    page = markup(opened("explain", study=study))
    assert "if-pro-column" in page and "if-problem" not in page and "if-parts" in page


def test_the_shown_rows_are_sent_to_review_the_guilty_side_first(
    opened: Opener, fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[tuple] = []

    def save(*queue: object) -> str:
        saved.append(queue)
        return "f" * 32

    monkeypatch.setattr(service, "save_queue", save, raising=False)
    app = opened("explain", study="digits")
    app.button(key="review_shown").click().run()
    assert not app.exception
    ((study, title, split, rows, source),) = saved
    assert (study, split) == ("digits", "train") and title.startswith("Proponents and opponents by ")
    assert len(rows) == len(set(rows)) > 1 and source.startswith("Explain, ")
