"""The overview of a regression: predicted against given numbers, the largest errors, the residuals."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import cards, charts, session, tables
from pages.components.html import element


def overview(figures: service.RegressionFigures) -> None:
    """Draw how far the model's numbers are off, and the rows where they are off most."""
    left, right = st.columns(2, gap="large")
    shown, total = len(figures.ids), figures.r2["test"].n
    which = "all test rows" if shown == total else f"{shown:,} of {total:,} test rows at random"
    with left:
        st.html(element("h2", "Predicted against given", element("small", f"{which}; on the diagonal is right")))
        st.plotly_chart(
            charts.predicted_against_given(figures, session.theme()),
            key="points",
            config=charts.CONFIG,
            alt=charts.points_in_words(figures),
        )
    with right:
        st.html(element("h2", "Largest errors", element("small", "one click explains it")))
        st.html(
            cards.prediction_grid(
                figures.largest_errors,
                lambda datum: session.href("explain", ids=(str(datum.row_id),), cell=False, status="largest-errors"),
            )
        )
    left, right = st.columns(2, gap="large")
    with left:
        st.html(element("h2", "Residuals", element("small", "right of zero the model says too much, left too little")))
        st.plotly_chart(
            charts.residuals(figures, session.theme()),
            key="residuals",
            config=charts.CONFIG,
            alt=charts.residuals_in_words(figures),
        )
    with right:
        st.html(element("h2", "By split", element("small", "with 95% bootstrap intervals")))
        st.html(tables.split_table(figures))
