"""Row: a training or test row on its own page, its neighbours, and the test rows it helps and hurts."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import cards, forms, session
from pages.components.html import element, empty, text

view = session.view()
methods = service.methods(view.study)
method = forms.chosen_method(view, methods, service.default_method(view.study)[0])


def own_page(datum: service.Datum) -> str:
    """Return the link to a training row's own page."""
    return session.href("row", split=datum.split, row=str(datum.row_id))


def explanation(datum: service.Datum) -> str:
    """Return the link to the explanation of a test row."""
    return session.href("explain", ids=(str(datum.row_id),), cell=False)


if not view.row:
    st.html(empty("No row chosen", "Open Explain and click a proponent or an opponent; its own card appears here."))
    st.button("Open Explain", type="primary", key="to_explain", on_click=session.go, args=("explain",))
else:
    card = service.row_card(view.study, view.split, view.row, method.id)
    back = element("a", "← Back to the explanation", href=session.href("explain"), data_go="1", css="if-link")
    forth = element("a", "Explain this prediction →", href=explanation(card.datum), data_go="1", css="if-link")
    st.html(
        element(
            "div",
            element("h1", f"{view.split.capitalize()} row {text(card.datum.row_id)}"),
            element("div", back, forth if view.split == "test" else "", css="if-links"),
            css="if-question if-between",
        )
    )
    st.html(cards.own_card(card))
    near = cards.plain_column(
        "Nearest training rows", "cosine similarity in the model's last hidden layer", card.neighbours, "near",
        own_page, "This model has no hidden layer to compare rows in.",
    )  # fmt: skip
    columns = [near]
    if view.split == "train":
        scale = f"{card.method_title} · {method.units_in_words}"
        for title, side, rows in (("Helps most", "pro", card.helps), ("Hurts most", "opp", card.hurts)):
            columns.append(cards.plain_column(title, scale, rows, side, explanation, card.affected_note))
    st.html(element("div", *columns, css="if-facing"))
