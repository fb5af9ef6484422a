"""The overview of a classification: where it goes wrong, the most confident mistakes, the class balance."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import cards, charts, session, tables
from pages.components.html import element, empty


def overview(shown: service.Overview) -> None:
    """Draw the confusion matrix beside the most confident mistakes, and the class balance under them."""
    left, right = st.columns(2, gap="large")
    with left:
        st.html(element("h2", "Where it goes wrong", element("small", "rows given, columns predicted; click a number")))
        st.html(
            tables.confusion(
                shown.confusion,
                shown.classes,
                lambda given, predicted: session.href(
                    "explain", ids=(), cell=True, given=given, predicted=predicted, status="all", text=""
                ),
            )
        )
    with right:
        st.html(element("h2", "Most confidently wrong", element("small", "one click explains it")))
        if shown.confidently_wrong:
            st.html(
                cards.prediction_grid(
                    shown.confidently_wrong,
                    lambda datum: session.href(
                        "explain", ids=(str(datum.row_id),), cell=False, status="confident-wrong"
                    ),
                )
            )
        else:
            st.html(empty("No mistakes", "The model is right on every test row; explain any prediction instead."))
    st.html(element("h2", "Class balance", element("small", "share of each class in every split")))
    st.plotly_chart(
        charts.class_balance(shown, session.theme()),
        key="balance",
        config=charts.CONFIG,
        alt=charts.balance_in_words(shown),
    )
