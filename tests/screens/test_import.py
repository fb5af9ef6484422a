"""The screen Import: choosing, correcting, running, failed, cancelled and done; nothing started that cannot work."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from influence_core.errors import BadInput
from influence_core.service import views
from pages.components.roles import chosen_roles, ordered, with_import, with_role
from pages.components.view import View
from tests.screens.conftest import Opener, markup
from tests.screens.fake_imports import TOKEN, FakeImports, packed, pictures, table
from tests.screens.fake_service import FakeService


@pytest.fixture
def imports(fake: FakeService) -> FakeImports:
    return fake.imports


def role_box(app: AppTest, place: int):  # noqa: ANN201
    return app.selectbox(key=f"w.role.{place}")


def test_without_studies_importing_comes_first(opened: Opener, fake: FakeService) -> None:
    fake.names = ()
    app = opened()
    assert "No studies yet" in markup(app)
    app.button(key="first_import").click().run()
    assert "Import your data" in markup(app) and len(app.get("file_uploader")) == 1


def test_without_studies_a_running_import_is_found_again(opened: Opener, fake: FakeService) -> None:
    fake.names = ()
    fake.imports.put("running")
    app = opened()
    assert app.button(key="first_import").label == "Show the import"
    app.button(key="first_import").click().run()
    assert "Importing Title of mine" in markup(app)


def test_a_chosen_file_is_kept_and_described(opened: Opener, imports: FakeImports) -> None:
    app = opened("import")
    app.file_uploader[0].upload("mine.csv", b"a,b\n1,2\n", "text/csv").run()
    assert imports.uploads == [("mine.csv", b"a,b\n1,2\n")]
    assert dict(app.query_params)["upload"] == TOKEN
    page = markup(app)
    assert "1,200 rows · 4 columns" in page and "Read as Windows-1252." in page
    assert "<b>note</b>" not in page and "&lt;b&gt;note&lt;/b&gt;" in page  # a column's name is no markup
    assert "<i>long</i>" not in page
    assert [role_box(app, n).value for n in range(4)] == ["id", "shown", "feature", "label"]


def test_the_guess_is_started_with_one_click(opened: Opener, imports: FakeImports) -> None:
    app = opened("import", upload=TOKEN)
    assert not app.button(key="import_start").disabled
    app.button(key="import_start").click().run()
    assert imports.started == [(TOKEN, {"label": "won", "task": "classification", "features": ["age"]}, "")]
    assert dict(app.query_params) == {"study": "digits", "made": "mine"}
    assert "Importing Title of mine" in markup(app) and "40% · 12 s left" in markup(app)


def test_choices_go_to_the_address_and_come_back(opened: Opener, imports: FakeImports) -> None:
    app = opened("import", upload=TOKEN)
    role_box(app, 1).set_value("ignored").run()
    app.text_input(key="w.title").set_value("Mine & yours").run()
    app.selectbox(key="w.task").set_value("regression").run()
    address = {name: app.query_params[name] for name in ("upload", "r.1", "title", "task")}
    assert address == {"upload": TOKEN, "r.1": "ignored", "title": "Mine & yours", "task": "regression"}
    again = opened("import", **{name.replace(".", "__"): value for name, value in address.items()})
    assert role_box(again, 1).value == "ignored" and again.text_input(key="w.title").value == "Mine & yours"
    again.button(key="import_start").click().run()
    assert imports.started[0][1]["task"] == "regression" and imports.started[0][2] == "Mine & yours"


def test_another_label_frees_the_old_one_and_guesses_the_answer_anew(opened: Opener) -> None:
    app = opened("import", upload=TOKEN, task="regression")
    app.selectbox(key="w.label").set_value("age").run()
    assert [role_box(app, n).value for n in (2, 3)] == ["label", "feature"]
    assert "task" not in app.query_params


def test_a_problem_stands_under_its_column_and_nothing_can_be_started(opened: Opener) -> None:
    app = opened("import", upload=TOKEN)
    role_box(app, 0).set_value("feature").run()
    page = markup(app)
    assert page.index("if-import-column") < page.index("A feature cannot be used") < page.index("&lt;b&gt;note")
    assert app.button(key="import_start").disabled


def test_without_a_label_the_screen_says_so(opened: Opener) -> None:
    app = opened("import", upload=TOKEN, r__3="shown")
    assert "No column is the label" in markup(app) and app.button(key="import_start").disabled
    assert app.selectbox(key="w.label").value is None


def test_many_columns_come_in_parts(opened: Opener, imports: FakeImports) -> None:
    imports.shown = table(n_more=76)
    app = opened("import", upload=TOKEN)
    assert markup(app).count('class="if-import-column"') == 40
    assert "The first 30 of 80 columns." in markup(app)
    app.selectbox(key="import_part_0").set_value(1).run()
    assert "x75" in markup(app) and role_box(app, 79).value == "feature"


@pytest.mark.parametrize("upload", ["f" * 32, TOKEN])
def test_a_file_that_cannot_be_shown_leaves_a_way_out(opened: Opener, imports: FakeImports, upload: str) -> None:
    if upload == TOKEN:
        imports.unreadable = BadInput("A row is too long", "Line 7 has 9 cells.", "Correct it.")
    app = opened("import", upload=upload)
    assert ("Line 7 has 9 cells." if upload == TOKEN else "A day has passed.") in markup(app)
    app.button(key="import_other").click().run()
    assert imports.dropped == [upload] and "upload" not in app.query_params and len(app.get("file_uploader")) == 1


def test_a_file_that_a_pending_import_needs_is_not_deleted(opened: Opener, imports: FakeImports) -> None:
    imports.put("failed")
    opened("import", upload=TOKEN).button(key="import_other").click().run()
    assert imports.dropped == []


def test_a_running_import_can_be_cancelled_and_tried_again(opened: Opener, imports: FakeImports) -> None:
    imports.put("running")
    app = opened("import")
    assert app.query_params["made"] == "mine"  # so that its end is shown here, whoever began it
    app.button(key="import_cancel_mine").click().run()
    assert "Importing Title of mine was cancelled" in markup(app)
    app.button(key="import_retry_mine").click().run()
    assert imports.items["mine"].job.is_active


def test_a_failed_import_says_why_and_its_columns_can_be_changed(opened: Opener, imports: FakeImports) -> None:
    imports.put("failed", message="The label <won> has only one value.")
    app = opened("import")
    assert "The label &lt;won&gt; has only one value." in markup(app) and 'role="alert"' in markup(app)
    app.button(key="import_change_mine").click().run()
    assert [role_box(app, n).value for n in range(4)] == ["shown", "text", "label", "ignored"]
    assert app.selectbox(key="w.task").value == "regression"
    assert app.text_input(key="w.title").value == "Title of mine"


def test_a_discarded_import_is_gone(opened: Opener, imports: FakeImports) -> None:
    imports.put("cancelled")
    app = opened("import", made="mine", upload=TOKEN)
    app.button(key="import_discard_mine").click().run()
    assert not imports.items and "Title of mine" not in markup(app)
    assert "made" not in app.query_params and "upload" not in app.query_params


def test_without_its_file_an_import_can_only_be_discarded(opened: Opener, imports: FakeImports) -> None:
    imports.put("failed", file="")
    app = opened("import")
    assert app.button(key="import_retry_mine").disabled and app.button(key="import_change_mine").disabled
    assert not app.button(key="import_discard_mine").disabled


def test_a_made_study_leads_to_its_worst_mistake(opened: Opener, fake: FakeService) -> None:
    app = opened("import", made="cells")
    worst = fake.overview("cells").confidently_wrong[0]
    assert "✓" in markup(app) and "are predicted as labelled" in markup(app)
    app.button(key="import_explain").click().run()
    assert "if-pro-column" in markup(app)
    assert dict(app.query_params) == {"study": "cells", "id": str(worst.row_id), "status": "confident-wrong"}


def test_an_import_that_is_nowhere_is_named(opened: Opener) -> None:
    assert "There is no import" in markup(opened("import", made="gone"))


def test_roles_of_an_import_come_back_whole() -> None:
    file = table()
    roles = {"label": "age", "id": None, "text": "<b>note</b>", "split": "key", "features": [], "ignored": ["won"]}
    view = View(roles=with_import(roles, file))
    assert chosen_roles(view, file) == {"key": "split", "<b>note</b>": "text", "age": "label", "won": "ignored"}


def test_only_one_column_has_a_role_of_one() -> None:
    file, view = table(n_more=3), View()
    for name, role in (("x0", "label"), ("x1", "id"), ("x2", "label"), ("x1", "text"), ("key", "id")):
        view = View(**vars(view) | with_role(view, file, name, role))
        held = list(chosen_roles(view, file).values())
        assert all(held.count(single) <= 1 for single in ("label", "id", "text", "split"))
    assert chosen_roles(view, file)["x0"] == "feature" and chosen_roles(view, file)["x1"] == "text"
    assert [place for place, _ in ordered(file)][:2] == [3, 0]  # by the guess: choices do not move the lines


def test_columns_that_may_give_the_label_away_are_left_out_with_one_click(opened: Opener, imports: FakeImports) -> None:
    imports.leaks = ("age",)
    app = opened("import", upload=TOKEN)
    page = markup(app)
    assert "A column may give the label away" in page and "alone it tells &lt;all&gt;." in page
    assert role_box(app, 2).value == "feature"  # nothing is dropped by itself
    app.button(key="import_without").click().run()
    assert role_box(app, 2).value == "ignored" and app.query_params["r.2"] == "ignored"
    assert "may give the label away" not in markup(app)


def test_the_cost_stands_beside_the_button(opened: Opener) -> None:
    assert "About 7 s, 2 MB on disk, 400 MB of memory." in markup(opened("import", upload=TOKEN))


def test_a_sensitive_feature_is_marked_and_comes_back(opened: Opener, imports: FakeImports) -> None:
    app = opened("import", upload=TOKEN)
    role_box(app, 2).set_value("sensitive-feature").run()
    assert app.query_params["r.2"] == "sensitive-feature"
    app.button(key="import_start").click().run()
    assert imports.started[0][1]["sensitive"] == ["age"]
    roles = {"label": "won", "features": ["age"], "sensitive": ["age", "key"], "weight": "<b>note</b>"}
    shown = chosen_roles(View(roles=with_import(roles, table())), table())
    assert shown == {"key": "sensitive", "<b>note</b>": "weight", "age": "sensitive-feature", "won": "label"}


def test_how_a_text_is_read_can_be_chosen_only_where_there_is_one(opened: Opener, imports: FakeImports) -> None:
    app = opened("import", upload=TOKEN)
    assert all(box.key != "w.reading" for box in app.selectbox)
    role_box(app, 1).set_value("text").run()
    app.selectbox(key="w.reading").set_value("meaning").run()
    app.button(key="import_start").click().run()
    assert imports.started[0][1]["reading"] == "meaning"


def test_a_large_file_shows_how_far_it_is_read_and_a_way_out(opened: Opener, imports: FakeImports) -> None:
    imports.progress = views.Reading("looking at the columns", 0.4)
    app = opened("import", upload=TOKEN)
    assert "1,200 rows" not in markup(app) and not app.exception
    app.button(key="import_other").click().run()
    assert imports.dropped == [TOKEN] and len(app.get("file_uploader")) == 1


def test_images_are_counted_shown_and_started(opened: Opener, imports: FakeImports) -> None:
    imports.shown = pictures()
    app = opened("import", upload=TOKEN)
    page = markup(app)
    assert "2,000 images · 28 × 28 pixels" in page and "3 files left out: &lt;i&gt;a&lt;/i&gt;." in page
    assert "2 classes" in page and "1,500" in page and "&lt;b&gt;dog&lt;/b&gt;" in page and "<b>dog</b>" not in page
    assert page.count("<figure") == 2 and 'alt="Image labelled cat"' in page and "elsewhere" not in page
    assert "About 20 s." in page
    app.button(key="import_start").click().run()
    assert imports.started == [(TOKEN, {"label": "folder"}, "")]
    assert dict(app.query_params) == {"study": "digits", "made": "mine"}


def test_another_label_of_images_goes_to_the_address_and_comes_back(opened: Opener, imports: FakeImports) -> None:
    imports.shown = pictures()
    app = opened("import", upload=TOKEN)
    app.selectbox(key="w.label").set_value("<b>age</b>").run()
    assert app.query_params["r.1"] == "label" and "A number is learned." in markup(app)
    again = opened("import", upload=TOKEN, r__1="label", title="Pets")
    assert again.selectbox(key="w.label").value == "<b>age</b>"
    again.button(key="import_start").click().run()
    assert imports.started == [(TOKEN, {"label": "<b>age</b>"}, "Pets")]
    far = markup(opened("import", upload=TOKEN, r__7="label"))
    assert "names label 8, which these images do not have" in far


def test_images_without_a_label_cannot_be_started(opened: Opener, imports: FakeImports) -> None:
    imports.shown = pictures(label="")
    app = opened("import", upload=TOKEN)
    assert "The images have no label" in markup(app) and app.button(key="import_start").disabled
    assert app.selectbox(key="w.label").value is None


def test_of_many_classes_the_most_and_least_frequent_are_shown(opened: Opener, imports: FakeImports) -> None:
    imports.shown, imports.classes = pictures(), tuple((f"c{n}", 10 + n) for n in range(40))
    page = markup(opened("import", upload=TOKEN))
    assert "40 classes: the most and least frequent" in page
    counts = page[page.index("if-class-counts") : page.index("if-thumbs")]
    assert all(name in counts for name in (">c39<", ">c34<", ">c5<", ">c0<")) and ">c20<" not in counts


@pytest.mark.parametrize(("cache", "taken"), [(0, False), (4096, True)])
def test_a_packed_study_says_what_it_is_and_is_put_into_place(
    opened: Opener, imports: FakeImports, cache: int, taken: bool
) -> None:
    imports.shown = packed(reviews=2048, cache=cache)
    app = opened("import", upload=TOKEN)
    page = markup(app)
    assert "a packed study: classification, table · 1,200 train, 300 test rows" in page and "linear model" in page
    assert "&lt;b&gt;Old&lt;/b&gt; study" in page and "<i>there</i>" not in page and "stays off" not in page
    assert app.checkbox(key="import_reviews").value
    if cache:
        assert not app.checkbox(key="import_cache").value  # results are believed as they stand: asked for, not given
        app.checkbox(key="import_cache").check().run()
    app.button(key="import_start").click().run()
    assert imports.started == [(TOKEN, {"reviews": True, "cache": taken}, "<b>Old</b> study")]


def test_a_packed_study_with_code_of_its_own_says_how_to_switch_it_on(opened: Opener, imports: FakeImports) -> None:
    imports.shown = packed(reference="mine.models:make_net")
    app = opened("import", upload=TOKEN)
    page = markup(app)
    assert "stays off" in page and "--model mine.models:make_net" in page and "MODELS=mine.models:make_net" in page
    assert not app.checkbox  # it has neither reviews nor results
    app.button(key="import_start").click().run()
    assert imports.started[0][1] == {"reviews": False, "cache": False}


def test_the_choices_of_a_failed_import_come_back_with_how_the_text_is_read(
    opened: Opener, imports: FakeImports
) -> None:
    imports.put("failed", message="The disk is full.")
    imports.items["mine"].roles["reading"] = "meaning"  # type: ignore[index]
    app = opened("import")
    app.button(key="import_change_mine").click().run()
    assert app.query_params["reading"] == "meaning" and app.selectbox(key="w.reading").value == "meaning"


def test_the_label_of_a_failed_import_of_images_can_be_changed(opened: Opener, imports: FakeImports) -> None:
    imports.shown = pictures()
    imports.put("failed", message="Too few rows.")
    imports.items["mine"].roles.clear()  # type: ignore[attr-defined]
    imports.items["mine"].roles["label"] = "<b>age</b>"  # type: ignore[index]
    app = opened("import")
    assert app.button(key="import_change_mine").label == "Change the label"
    app.button(key="import_change_mine").click().run()
    assert app.selectbox(key="w.label").value == "<b>age</b>"


def test_a_title_is_no_markup_where_it_is_said(opened: Opener, imports: FakeImports) -> None:
    imports.put("cancelled", name="![x](http://elsewhere/x.png)")
    app = opened("import")
    app.button(key="import_discard_![x](http://elsewhere/x.png)").click().run()
    assert "![x]" not in app.toast[0].value and "elsewhere" in app.toast[0].value
