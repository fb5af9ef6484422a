"""The foot of the overview: how the training went, and how good the model is for each group of people."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import charts, session
from pages.components.html import element, number, text


def overview(shown: service.Overview) -> None:
    """Draw what there is of the two, beside each other."""
    parts = [part for part, there in ((_training, shown.training is not None), (_groups, bool(shown.groups))) if there]
    if parts:
        for place, part in zip(st.columns(2, gap="large"), parts, strict=False):
            with place:
                part(shown)


def _training(shown: service.Overview) -> None:
    figures = shown.training
    if figures is None:
        return
    st.html(element("h2", "Training", element("small", "loss after every epoch; dots are checkpoints")))
    st.plotly_chart(
        charts.training_losses(figures, session.theme()),
        key="training",
        config=charts.CONFIG,
        alt=charts.losses_in_words(figures),
    )
    mark = "⚠ " if figures.is_warning else ""
    st.html(
        element(
            "div",
            element("p", text(mark + figures.words)),
            element("p", text(held_out(shown)), css="if-scale"),
            css="if-fit",
        )
    )


def held_out(shown: service.Overview) -> str:
    """Return the scores of the rows that the model was not trained on, in a sentence."""
    if shown.regression is not None:
        scores = {split: (number(r.value), number(r.low), number(r.high)) for split, r in shown.regression.r2.items()}
        name = "R²"
    else:
        scores = {s: (f"{r.value:.1%}", f"{r.low:.1%}", f"{r.high:.1%}") for s, r in shown.accuracy.items()}
        name = "Accuracy"
    said = [f"{split} {value} ({low} to {high})" for split, (value, low, high) in scores.items() if split != "train"]
    return f"{name} on rows that it was not trained on, with 95% intervals: {', '.join(said)}." if said else ""


def _groups(shown: service.Overview) -> None:
    st.html(element("h2", "By group", element("small", "test rows of each sensitive column, with 95% intervals")))
    st.html("".join(group_table(figures) for figures in shown.groups))


def group_table(figures: service.GroupFigures) -> str:
    """Return the quality of every group of one column as an HTML table."""
    head = (figures.column, "Rows", figures.measure.capitalize())
    lines = [
        element(
            "tr",
            element("th", text(name), scope="row"),
            element("td", f"{part.n:,}"),
            element("td", text(_value(figures, part.value)), element("small", text(_spread(figures, part)))),
        )
        for name, part in figures.groups
    ]
    names = element("tr", *(element("th", text(name), scope="col") for name in head))
    table = element("table", element("thead", names), element("tbody", *lines), css="if-methods")
    return element("div", table, css="if-scroll")


def _value(figures: service.GroupFigures, value: float) -> str:
    return f"{value:.1%}" if figures.measure == "accuracy" else number(value)


def _spread(figures: service.GroupFigures, part: service.Interval) -> str:
    return f"{_value(figures, part.low)} to {_value(figures, part.high)}"
