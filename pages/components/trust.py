"""The screen Trust: which method to believe here, from retraining rather than from its name."""

from __future__ import annotations

import math

import streamlit as st

from influence_core import service
from pages.components import charts, session, trust_figures
from pages.components.html import element, empty, number, text

_METRIC, _AGREED = "trust_metric", "trust_agreed"
_RANKS, _SHARED = "Rank correlation", "Top rows in common"


def result(page: service.TrustPage) -> None:
    """Draw the advice, the table beside the figure, what the other metrics found, and how far methods agree."""
    st.html(element("header", element("h1", "Trust"), css="if-hero"))
    if not (page.lines or page.tables or page.agreement):
        words = "Methods disagree, and on deep networks many are wrong. Measuring trains your model again on random "
        words += "halves of the data and compares what happened with what each method had said."
        st.html(empty("Nothing has been measured on this study yet", words))
    if page.lines:
        st.html(element("p", element("b", text(page.advice)), css="if-headline"))
        with st.container(key="trust_fidelity"):
            left, right = st.columns([6, 5], gap="medium")
            with left:
                st.html(fidelity_table(page))
            with right:
                figure, words = trust_figures.fidelity(page, session.theme()), trust_figures.fidelity_in_words(page)
                st.plotly_chart(figure, key="trust_figure", config=charts.CONFIG, alt=words)
    if page.tables:
        _other_metrics(page)
    if page.agreement is not None:
        _agreement(page.agreement)
    if page.unmeasured:
        with st.expander(f"Tried, but not measured ({len(page.unmeasured)})", key="trust_unmeasured"):
            st.html(reasons(page.unmeasured))


def reasons(pairs: tuple[tuple[str, str], ...]) -> str:
    """Return titles and reasons as a list, in HTML."""
    lines = (element("li", element("b", text(title)), " ", text(why)) for title, why in pairs)
    return element("ul", *lines, css="if-notes")


def fidelity_table(page: service.TrustPage) -> str:
    """Return the table of fidelity, which is the figure's legend, as HTML."""
    lines = []
    for n, line in enumerate(page.lines, 1):
        interval = f"{line.low:.2f} to {line.high:.2f}" if math.isfinite(line.low) else "–"
        cells = (said.replace("-", "−") for said in (f"{line.value:.2f}", interval, duration(line.seconds)))
        lines.append(element("tr", element("td", str(n), css="if-num"),
                             element("th", text(line.title), scope="row", title=line.note),
                             *(element("td", text(cell), css="if-num") for cell in cells)))  # fmt: skip
    head = ("", "Method", "Tracks retraining", "95% interval", "Cost")
    names = element("tr", *(element("th", name, scope="col") for name in head))
    ceiling = next((line.ceiling for line in page.lines if math.isfinite(line.ceiling)), None)
    noise = f" Retraining itself is noisy: {ceiling:.2f} is the most that any method can reach." if ceiling else ""
    words = f"Rank correlation with what retraining on {page.truth} did, averaged over test rows; 1 is perfect.{noise} "
    words += "Cost is the time of fitting and of answering for 100 predictions, as measured."
    table = element("table", element("thead", names), element("tbody", *lines), css="if-methods if-tight")
    return element("div", table, css="if-scroll") + element("p", text(words), css="if-scale")


def duration(seconds: float) -> str:
    """Return measured seconds with two digits: "0.31 s", "12 s", "3.4 min"."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{number(seconds, 2)} s"
    return f"{number(seconds / 60, 2)} min" if seconds < 6000 else f"{number(seconds / 3600, 2)} h"


def _other_metrics(page: service.TrustPage) -> None:
    titles = {table.metric: table.title for table in page.tables}
    st.html(element("h2", "Other questions"))
    held = session.entered([_METRIC]).get(_METRIC)
    tied = session.shown(_METRIC, held if held in titles else page.tables[0].metric, shows="default")
    chosen = st.segmented_control("Question", list(titles), format_func=titles.__getitem__,
                                  label_visibility="collapsed", required=True, **tied)  # fmt: skip
    table = next((one for one in page.tables if one.metric == chosen), page.tables[0])
    st.html(metric_table(table))


def metric_table(table: service.MetricTable) -> str:
    """Return what one metric found out, as HTML."""
    lines = []
    for title, figures, note in table.rows:
        cells = []
        for value, low, high in figures:
            interval = element("small", f"{_figure(low)} to {_figure(high)}") if math.isfinite(low) else ""
            cells.append(element("td", text(_figure(value)), interval))
        lines.append(element("tr", element("th", text(title), scope="row", title=note), *cells))
    names = element("tr", *(element("th", text(name), scope="col") for name in ("Method", *table.columns)))
    words = " ".join(part for part in (table.words, table.floor) if part)
    shown = element("table", element("thead", names), element("tbody", *lines), css="if-methods if-tight")
    return element("p", text(words), css="if-scale") + element("div", shown, css="if-scroll")


def _figure(value: float) -> str:
    """Return a share or correlation with two decimals, a count of rows as it is."""
    return f"{value:.2f}".replace("-", "−") if abs(value) <= 1 else number(value, 3)


def _agreement(found: service.Agreement) -> None:
    st.html(element("h2", "How far the methods agree with each other"))
    tied = session.shown(_AGREED, session.entered([_AGREED]).get(_AGREED) or _RANKS, shows="default")
    chosen = st.segmented_control("Agreement by", [_RANKS, _SHARED], label_visibility="collapsed", required=True,
                                  **tied)  # fmt: skip
    share = chosen == _SHARED
    values = found.shared if share else found.ranks
    words = f"The share of the top {found.top} proponents that two methods have in common, averaged over test rows."
    if not share:
        words = "How alike two methods rank all training rows, averaged over test rows: 1 the same order, 0 unrelated."
    st.html(element("p", text(f"{words} Two that agree may both be wrong."), css="if-scale"))
    figure = trust_figures.agreement(found, values, share, session.theme())
    st.plotly_chart(figure, key="trust_agreement", config=charts.CONFIG, alt=f"{chosen} of pairs of methods.")
