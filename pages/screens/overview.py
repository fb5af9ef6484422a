"""Overview: what the study is, how good the model is, and where to start."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import cards, charts, session, tables, tour
from pages.components.html import element, empty, text

view = session.view()
overview = service.overview(view.study)
worst = overview.confidently_wrong

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
            "Explain the most confident mistake", type="primary", icon=":material/search_insights:", key="start_worst",
            on_click=session.go, args=("explain",),
            kwargs={"ids": (str(worst[0].row_id),), "cell": False, "status": "confident-wrong"},
        )  # fmt: skip
    else:
        st.button("Explain a prediction", type="primary", key="start_any", on_click=session.go, args=("explain",))
    st.button("Take the tour", icon=":material/explore:", key="start_tour", on_click=tour.begin)
tour.show()

st.html(tables.figures(overview))
left, right = st.columns(2, gap="large")
with left:
    st.html(element("h2", "Where it goes wrong", element("small", "rows given, columns predicted; click a number")))
    st.html(
        tables.confusion(
            overview.confusion,
            overview.classes,
            lambda given, predicted: session.href(
                "explain", ids=(), cell=True, given=given, predicted=predicted, status="all", text=""
            ),
        )
    )
with right:
    st.html(element("h2", "Most confidently wrong", element("small", "one click explains it")))
    if worst:
        st.html(
            cards.prediction_grid(
                worst,
                lambda datum: session.href("explain", ids=(str(datum.row_id),), cell=False, status="confident-wrong"),
            )
        )
    else:
        st.html(empty("No mistakes", "The model is right on every test row; explain any prediction instead."))
st.html(element("h2", "Class balance", element("small", "share of each class in every split")))
st.plotly_chart(
    charts.class_balance(overview, session.theme()),
    key="balance",
    config=charts.CONFIG,
    alt=charts.balance_in_words(overview),
)
