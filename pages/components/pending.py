"""Imports on their way, how they ended, and what there is to do then."""

from __future__ import annotations

from typing import Any

import streamlit as st

from influence_core import service
from pages.components import errors, jobs, session
from pages.components.html import element, percent, text
from pages.components.roles import from_import
from pages.components.studies import literal
from pages.components.view import View


def imports(view: View) -> None:
    """Draw every import that is no study yet, whoever began it, and the one that has just become one."""
    items = service.pending_imports()
    for item in items:
        with st.container(key=f"pending_{item.name}", border=True):
            if item.job.is_active:
                if not view.made:
                    view = session.settle(made=item.name)  # so that its end is shown here too
                st.fragment(_watch, run_every=jobs.POLL_SECONDS)(item.name, [0])
            else:
                _ended(item)
    if view.made and all(item.name != view.made for item in items):
        made = next((card for card in service.studies() if card.name == view.made), None)
        if made is not None:
            _done(made)
        else:
            errors.notices([f"There is no import {view.made!r}: it was discarded, or never begun."])


def _watch(name: str, ticks: list[int]) -> None:
    """Poll one import; when it ends, the whole page is drawn once more. ``ticks``: as in ``jobs``."""
    ticks[0] += 1
    with errors.shown():
        item = service.pending_import(name)
        over = item is None or not item.job.is_active
        if ticks[0] > 1 and (over or session.take_redraw()):
            st.rerun()
        if item is None or over:
            st.html(element("div", element("b", "Finishing …"), css="if-fit"))
            return
        st.html(jobs.progress(item.job, f"Importing {item.title}"))
        st.html(element("p", "You can close this page: the import goes on and is found here again.", css="if-scale"))
        st.button(
            "Stopping …" if item.stopping else "Cancel", key=f"import_cancel_{name}", disabled=item.stopping,
            on_click=_cancel, args=(name,),
        )  # fmt: skip


def _cancel(name: str) -> None:
    with errors.shown():
        service.cancel_import(name)
        session.say("The import is cancelled; the file is kept for another try.")
    session.ask_redraw()


def _ended(item: service.PendingImport) -> None:
    failed = item.job.state == "failed"
    said = (
        item.job.message
        if failed
        else "Cancelled. No study was made; the file and what was finished are kept for another try."
    )
    title = f"Importing {item.title} {'failed' if failed else 'was cancelled'}"
    lines = [element("b", text(title))]
    lines.append(element("p", text(said), css="if-failed", role="alert") if failed else element("p", text(said)))
    if not item.file:
        lines.append(element("p", "The uploaded file is gone: discard this import and choose the file again."))
    st.html(element("div", *lines, css="if-fit", role="status"))
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Import again", key=f"import_retry_{item.name}", type="primary", disabled=not item.file, on_click=_retry,
            args=(item,),
        )  # fmt: skip
        st.button(
            _change_words(item), key=f"import_change_{item.name}", disabled=not item.file, on_click=_change,
            args=(item,),
        )  # fmt: skip
        st.button("Discard", key=f"import_discard_{item.name}", type="tertiary", on_click=_discard, args=(item,))


def _retry(item: service.PendingImport) -> None:
    with errors.shown():
        service.retry_import(item.name)
        session.update(made=item.name)


def _change(item: service.PendingImport) -> None:
    with errors.shown():
        changes = from_import(item.roles, service.preview(item.token))
        session.update(**{"roles": (), "task": "", "reading": ""} | changes, upload=item.token, title=item.title,
                       made="")  # fmt: skip


def _change_words(item: service.PendingImport) -> str:
    if "features" in item.roles:
        return "Change the columns"
    return "Change the label" if "label" in item.roles else "Change the choices"


def _discard(item: service.PendingImport) -> None:
    with errors.shown():
        service.discard_import(item.name)
        session.say(f"The import of {literal(item.title)} is discarded.")
        now = session.view()
        mine = {"upload": "", "roles": (), "task": "", "reading": "", "title": ""} if now.upload == item.token else {}
        session.update(made="" if now.made == item.name else now.made, **mine)


def _done(card: service.StudyCard) -> None:
    """Draw the new study's figures and the way to the first explanation; a model that is off says so here."""
    with st.container(key="import_done", border=True):
        st.html(element("div", element("b", text(f"✓ {card.title} is ready")), css="if-fit", role="status"))
        said, buttons = st.container(), st.container(horizontal=True, gap="small")
        with said, errors.shown():
            overview = service.overview(card.name)
            st.html(element("p", text(figures(overview)), css="if-scale"))
            label, changes = first_question(overview)
            buttons.button(
                label, type="primary", icon=":material/search_insights:", key="import_explain",
                on_click=session.go, args=("explain",), kwargs=vars(View(study=card.name)) | changes,
            )  # fmt: skip
        buttons.button(
            "Open the overview", key="import_overview", on_click=session.go, args=("overview",),
            kwargs=vars(View(study=card.name)),
        )  # fmt: skip


def figures(overview: service.Overview) -> str:
    """Return size and quality of a study in one sentence."""
    card = overview.study
    rows = f"{card.n_train:,} train, {card.n_test:,} test and {card.n_locked:,} locked rows"
    if overview.regression is not None:
        return f"{rows}; R² on test {overview.regression.r2['test'].value:.2f}."
    return f"{rows}; {percent(overview.accuracy['test'].value)} of the test rows are predicted as labelled."


def first_question(overview: service.Overview) -> tuple[str, dict[str, Any]]:
    """Return the words of the button that leads to an explanation, and the changes of the view that it makes."""
    worst, name, status = overview.confidently_wrong, "most confident mistake", "confident-wrong"
    if overview.regression is not None:
        worst, name, status = overview.regression.largest_errors, "largest error", "largest-errors"
    if not worst:
        return "Explain a prediction", {}
    return f"Explain the {name}", {"ids": (str(worst[0].row_id),), "status": status}
