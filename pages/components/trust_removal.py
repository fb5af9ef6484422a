"""One prediction without its top proponents, on the screen Trust: choice, price, job, curves."""

from __future__ import annotations

from functools import partial

import streamlit as st

from influence_core import service
from pages.components import charts, errors, jobs, session, trust_figures
from pages.components.html import element, empty, text, thumbnail
from pages.components.trust_form import priced

_METHODS = "removal_methods"
_DEFAULTS = 3


def removal(study: str, page: service.RemovalPage, trusted: service.TrustPage) -> None:
    """Draw the removal curves of the chosen prediction, and what it takes to compute them."""
    st.html(element("h2", "One prediction without its top proponents"))
    if page.problem or page.datum is None:
        st.html(empty("No rows can be removed here", page.problem))
        return
    # The form comes as two lines, so that the list of methods is as wide as the figure under it.
    choice, form = st.columns([2, 5], gap="medium")
    with choice:
        _choice(study, page, page.datum)
    with form:
        methods = _methods(page, trusted)
    left, right = st.columns([2, 5], gap="medium")
    with left:
        _picture(page.datum)
        again = partial(service.resume_measuring, study)
        if not jobs.followed(study, page.job, "the removal curves", "removal", again, page.may_measure):
            _begin(study, page, str(page.datum.row_id), methods)
    with right:
        _curves(page)


def _curves(page: service.RemovalPage) -> None:
    if page.lines:
        st.html(element("p", element("b", text(page.words))))
        figure, words = trust_figures.removal(page, session.theme()), trust_figures.removal_in_words(page)
        st.plotly_chart(figure, key="removal_figure", config=charts.CONFIG, alt=words)
        st.html(element("p", text(_how(page)), css="if-scale"))
        return
    words = "The rows that a method holds responsible are taken out, most responsible first, and the model is trained "
    words += "again. If the method is right, the prediction falls sooner than without random rows."
    st.html(empty("Nothing has been removed for this prediction yet", words))


def _how(page: service.RemovalPage) -> str:
    said = "Each point is one model, trained again without these rows; below the line it predicts another class."
    if page.random is None:
        return said
    return f"{said} Grey: {page.random.draws} random removals, their mean and what 95% of them lie between."


def _choice(study: str, page: service.RemovalPage, datum: service.Datum) -> None:
    known = {str(row_id) for row_id in page.known}
    words = {str(one.row_id): _named(one) + (" ✓" if str(one.row_id) in known else "") for one in page.choices}
    here = str(datum.row_id)
    options = list(words) if here in words else [here, *words]
    words.setdefault(here, _named(datum))
    labels = str(len(known))  # other words need another widget
    st.selectbox(
        "Prediction, or type the id of a test row", options, format_func=lambda one: str(words.get(one, one)),
        accept_new_options=True,
        **session.widget("followed", here, partial(_chosen, study), labels=labels, among=options),
    )  # fmt: skip


def _picture(datum: service.Datum) -> None:
    verdict = element("span", "predicted ", element("b", text(datum.predicted)), css="if-said")
    given = element("span", "labelled ", element("b", text(datum.given)), css="if-said")
    picture = thumbnail(datum, "large")
    st.html(element("div", picture, element("div", verdict, given, css="if-main"), css="if-followed"))


def _named(datum: service.Datum) -> str:
    return f"row {datum.row_id}: {datum.given} → {datum.predicted}"


def _chosen(study: str, row: str | None) -> dict[str, object]:
    """Return the change of the view for a row that was picked or typed; one that does not exist changes nothing."""
    with errors.shown():
        page = service.removal(study, (row or "").strip())
        if page.datum is not None:
            return {"ids": (str(page.datum.row_id),), "cell": False, "typed": ""}
    return {}


def _methods(page: service.RemovalPage, trusted: service.TrustPage) -> list[str]:
    titles = {one.method: priced(one) for one in page.candidates}
    held = session.remembered(_METHODS, None)
    best = [line.method for line in trusted.lines if line.method in titles]
    cheap = [one.method for one in page.candidates if one.suggested and one.method not in best]
    default = [*best, *cheap][:_DEFAULTS]
    now = default if held is None else [name for name in held if name in titles]
    return st.multiselect("Methods", list(titles), format_func=titles.__getitem__,
                          **session.shown(_METHODS, now, shows="default"))  # fmt: skip


def _begin(study: str, page: service.RemovalPage, row: str, methods: list[str]) -> None:
    if methods:
        with errors.shown():
            st.html(element("p", text(service.removal_plan(study, row, methods)), css="if-scale"))
    st.button(
        "Remove and retrain", key="removal_start", icon=":material/science:", on_click=_start,
        args=(study, row, list(methods)), disabled=not (methods and page.may_measure),
        help=None if page.may_measure else "Only an owner of the study measures it.",
    )  # fmt: skip


def _start(study: str, row: str, methods: list[str]) -> None:
    with errors.shown():
        service.start_removal(study, row, methods, session.client())
