"""Overview: what the study is, how good the model is, and where to start."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import classes, quality, regression, session, tables, tour
from pages.components.html import element, text

view = session.view()
overview = service.overview(view.study)
worst, worst_name, worst_status = overview.confidently_wrong, "most confident mistake", "confident-wrong"
if overview.regression is not None:
    worst, worst_name, worst_status = overview.regression.largest_errors, "largest error", "largest-errors"

st.html(
    element(
        "header",
        element("h1", "Why did the model say that?"),
        element(
            "p",
            "Pick a prediction and see which training rows pushed the model there ",
            element("b", "▲", css="if-pro-ink"),
            " and which pulled against it ",
            element("b", "▼", css="if-opp-ink"),
            ".",
        ),
        element("p", element("b", text(overview.study.title)), " · ", text(overview.description), css="if-scale"),
        css="if-hero",
    )
)
with st.container(horizontal=True, gap="small", key="start"):
    if worst:
        st.button(
            f"Explain the {worst_name}", type="primary", icon=":material/search_insights:", key="start_worst",
            on_click=session.go, args=("explain",),
            kwargs={"ids": (str(worst[0].row_id),), "cell": False, "status": worst_status},
        )  # fmt: skip
    else:
        st.button("Explain a prediction", type="primary", key="start_any", on_click=session.go, args=("explain",))
    st.button("Take the tour", icon=":material/explore:", key="start_tour", on_click=tour.begin)
tour.show()

st.html(tables.figures(overview))
if overview.notes:
    with st.expander(f"What the import did ({len(overview.notes)})", icon=":material/info:"):
        st.html(element("ul", *(element("li", text(note)) for note in overview.notes), css="if-notes"))
if overview.regression is not None:
    regression.overview(overview.regression)
else:
    classes.overview(overview)
quality.overview(overview)
