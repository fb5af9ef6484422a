"""The screens Review and Decisions on the fake service; keys and painting are tested in a real browser."""

from __future__ import annotations

from influence_core.service.review_views import BatchLine
from tests.screens.conftest import Opener, markup
from tests.screens.fake_reviews import HOSTILE
from tests.screens.fake_service import FakeService


def test_the_desk_is_drawn_for_a_queue(opened: Opener) -> None:
    app = opened("review", study="digits", queue="suspects")
    assert not app.exception and "if-problem" not in markup(app)


def test_nothing_decided_yet_says_where_to_go(opened: Opener, fake: FakeService) -> None:
    fake.reviews.nothing = True
    app = opened("decisions", study="digits")
    assert not app.exception and "Nothing was decided yet" in markup(app)


def test_decisions_show_progress_agreement_conflicts_and_the_log(opened: Opener) -> None:
    page = markup(opened("decisions", study="digits"))
    assert "9 keep" in page and "1 in conflict" in page and "kappa 0.40 on 5 shared rows" in page
    assert "train row 7, labelled 3" in page and "<td>ann</td>" in page and "<td>12</td>" in page


def test_a_conflict_is_resolved_by_a_click_of_an_owner(opened: Opener, fake: FakeService) -> None:
    app = opened("decisions", study="digits")
    next(button for button in app.button if button.label.startswith("ann: keep")).click().run()
    assert fake.reviews.written == [("resolve_conflict", ("train", 7, "keep", None, None))] and not app.exception


def test_reviewers_resolve_nothing(opened: Opener, fake: FakeService) -> None:
    fake.reviews.owner = False
    app = opened("decisions", study="digits")
    assert all(button.disabled for button in app.button if button.label.startswith(("ann:", "ben:")))


def test_the_last_act_is_undone_by_name(opened: Opener, fake: FakeService) -> None:
    app = opened("decisions", study="digits")
    app.selectbox(key="undo_whose").set_value("ann").run()
    assert "Undo: relabelled 37 rows as &#x27;&lt;b&gt;bold" in markup(app) and "2 min ago" in markup(app)
    app.button(key="undo_last").click().run()
    assert fake.reviews.written == [("undo_last", ("ann", 11))] and not app.exception
    assert app.toast[0].value.startswith(r"Undone\: train row 7") and r"\<img src\=x\>" in app.toast[0].value


def test_where_nothing_is_left_to_undo_the_button_is_off(opened: Opener, fake: FakeService) -> None:
    app = opened("decisions", study="digits")
    whose = app.selectbox(key="undo_whose")
    whose.set_value(next(name for name in whose.options if name != "ann")).run()
    assert app.button(key="undo_last").disabled and "Nothing is left to undo." in markup(app)
    fake.reviews.nothing = True
    assert not [button for button in opened("decisions", study="digits").button if button.key == "undo_last"]


def test_a_batch_is_undone_by_itself_long_after(opened: Opener, fake: FakeService) -> None:
    assert "Decided together" not in markup(opened("decisions", study="digits"))
    fake.reviews.lines = [BatchLine("ann", "batch 2", 1, 1e9, 37, f"37 rows relabelled to “{HOSTILE}”"),
                          BatchLine("ben", "batch 1", 1, 1e9, 2, "2 rows dropped")]  # fmt: skip
    app = opened("decisions", study="digits")
    assert "Decided together (2)" in [box.label for box in app.expander] and HOSTILE not in markup(app)
    app.button(key="undo_batch_1").click().run()
    assert fake.reviews.written == [("undo_batch", ("ben", "batch 1", 1))] and not app.exception


def test_the_list_of_suspects_holds_still_until_it_is_taken_anew(opened: Opener, fake: FakeService) -> None:
    app = opened("review", study="digits", queue="suspects")
    assert "has changed since you began" not in markup(app)
    fake.reviews.lists = 1
    app.run()
    assert "has changed since you began" in markup(app)
    app.button(key="review_refresh").click().run()
    assert "has changed since you began" not in markup(app) and not app.exception


def test_the_log_is_searched(opened: Opener) -> None:
    app = opened("decisions", study="digits")
    app.text_input(key="decisions_name").input("ben").run()
    assert "train row 7: relabel" not in markup(app)


def test_guidelines_are_saved(opened: Opener, fake: FakeService) -> None:
    app = opened("decisions", study="digits")
    app.text_area(key="guidelines_digits").input("A seven has a bar.").run()
    app.button(key="save_guidelines").click().run()
    assert fake.reviews.written == [("save_guidelines", ("A seven has a bar.",))] and not app.exception


def test_an_owner_says_what_a_class_means_and_others_read_it(opened: Opener, fake: FakeService) -> None:
    fake.reviews.meanings = {"3": HOSTILE}
    app = opened("decisions", study="digits")
    assert "<dt>3</dt><dd>&lt;b&gt;bold" in markup(app) and HOSTILE not in markup(app)
    app.selectbox(key="definition_class").set_value("3").run()
    field = next(box for box in app.text_input if str(box.key).startswith("definition_digits"))
    assert field.value == HOSTILE
    field.input("Two open bows.").run()
    app.button(key="save_definition").click().run()
    assert fake.reviews.written == [("save_class_definition", ("3", "Two open bows."))] and not app.exception
    fake.reviews.owner = False
    app = opened("decisions", study="digits")
    assert "<dt>3</dt>" in markup(app) and not [b for b in app.button if b.key == "save_definition"]


def test_what_is_typed_about_one_study_is_none_of_anothers(opened: Opener, fake: FakeService) -> None:
    app = opened("decisions", study="digits")
    app.text_area(key="guidelines_digits").input("A seven has a bar.").run()
    app.selectbox(key="influence.study").set_value("cells").run()
    keys = [box.key for box in app.text_area if str(box.key).startswith("guidelines_")]
    assert keys == ["guidelines_cells"] and app.text_area(key="guidelines_cells").value == HOSTILE


def test_rows_are_dealt_by_an_owner(opened: Opener, fake: FakeService) -> None:
    app = opened("decisions", study="digits")
    assert "Of 100 rows in “Suspects”, everybody sees 20; of the others: ann 43, &lt;b&gt;" in markup(app)
    app.text_area(key="dealing_names").input("ann\nben\n").run()
    app.slider(key="dealing_share").set_value(30).run()
    app.button(key="save_dealing").click().run()
    assert fake.reviews.written == [("save_dealing", (["ann", "ben"], 0.3))] and not app.exception
    fake.reviews.owner = False
    assert opened("decisions", study="digits").button(key="save_dealing").disabled
