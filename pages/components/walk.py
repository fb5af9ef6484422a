"""Walking through predictions: the list, what is being explained, previous and next."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from influence_core import service
from pages.components import cards, session, typed
from pages.components.forms import filter_of
from pages.components.html import element, empty, text
from pages.components.view import MAX_IDS, View


def prediction_list(listing: service.PredictionList, view: View) -> None:
    """Draw the list of predictions and, for a confusion cell, the button that explains it as a whole."""
    shown = len(listing.rows)
    count = (
        f"{listing.total:,} prediction{'s' * (listing.total != 1)}"
        if shown == listing.total
        else f"first {shown} of {listing.total:,}"
    )
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="list_head"):
        st.html(element("p", text(count), css="if-scale"))
        if (view.given or view.predicted) and listing.total > 1:
            st.button(
                "✓ Explaining all" if view.cell else "Explain whole cell", key="whole_cell",
                type="primary" if view.cell else "secondary",
                on_click=session.update, kwargs={"cell": not view.cell}, help="One query: the mean over all these rows",
            )  # fmt: skip
    typed.way_in()
    with st.container(height=480, border=False, key="picks"):
        if listing.rows:
            st.html(cards.pick_list(listing.rows, _pick, mark_first=not (view.ids or view.cell or view.typed)))
        else:
            st.html(empty("No prediction matches", "Loosen a filter, or clear the search."))
            st.button("Clear the filters", key="clear_filters", on_click=session.update, kwargs=_CLEAR)


_CLEAR = {"status": "all", "given": "", "predicted": "", "text": "", "cell": False}


def _pick(datum: service.Datum) -> str:
    return session.href("explain", ids=(str(datum.row_id),), cell=False)


def query_ids(view: View, listing: service.PredictionList) -> tuple[tuple[str, ...], View]:
    """Return the ids of the explained rows, and the view that names them.

    A cell is all its rows, whatever else is filtered. With nothing chosen yet, the first prediction of the list is,
    so that evidence is on screen without a click.
    """
    if view.typed:
        return (view.typed,), view
    if view.cell and (view.given or view.predicted):
        cell = replace(filter_of(view), status="all", text="", order="id", limit=MAX_IDS)
        rows = service.predictions(view.study, cell).rows
        return tuple(str(datum.row_id) for datum in rows), view
    if not view.ids and listing.rows:
        first = (str(listing.rows[0].row_id),)
        session.settle(ids=first)
        view = replace(view, ids=first)
    return view.ids, view


def heading(query: service.QueryView, listing: service.PredictionList, view: View) -> None:
    """Draw the question in words, and the buttons to the previous and next prediction."""
    first = query.data[0]
    if query.n_rows == 1:
        said = text(first.predicted) if first.error is not None else f"“{text(first.predicted)}”"
        question = element("h1", "Why ", said, "?")
    else:
        question = element("h1", "Why these?")
    title = element("span", text(query.title), css="if-scale")
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="heading_line"):
        st.html(element("div", question, title, css="if-question"))
        if query.n_rows == 1:
            typed.change(first)
        ids = [str(datum.row_id) for datum in listing.rows]
        here = ids.index(view.ids[0]) if len(view.ids) == 1 and not view.cell and view.ids[0] in ids else -1
        _step("Previous", ":material/chevron_left:", "K", ids[here - 1] if here > 0 else None)
        _step("Next", ":material/chevron_right:", "J", ids[here + 1] if here + 1 < len(ids) else None)


def _step(label: str, icon: str, shortcut: str, row_id: str | None) -> None:
    st.button(
        label, icon=icon, shortcut=shortcut, key=f"step_{label}", disabled=row_id is None, on_click=session.update,
        kwargs={"ids": (row_id,) if row_id else (), "cell": False}, help=f"{label} prediction of the list ({shortcut})",
    )  # fmt: skip
