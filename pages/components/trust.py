"""The screen Trust: which method to believe here, from retraining rather than from its name."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from influence_core import service
from pages.components import charts, errors, jobs, session
from pages.components.html import element, empty, text

PAPER = {"light": "#ffffff", "dark": "#0f1416"}
_CHOSEN, _SUBSETS, _SEEDS = "trust_methods", "trust_subsets", "trust_seeds"


def result(page: service.TrustPage) -> None:
    """Draw the advice, the table beside the figure, and how far methods agree."""
    st.html(element("header", element("h1", "Trust"), css="if-hero"))
    if not page.lines:
        words = "Methods disagree, and on deep networks many are wrong. Measuring trains your model again on random "
        words += "halves of the data and compares what happened with what each method had said."
        st.html(empty("Nothing has been measured on this study yet", words))
        return
    st.html(element("p", element("b", text(page.advice)), css="if-headline"))
    with st.container(key="trust_result"):
        left, right = st.columns([3, 2], gap="medium")
    with left:
        st.html(_table(page))
    with right:
        figure = fidelity_figure(page, session.theme())
        st.plotly_chart(figure, key="trust_figure", config=charts.CONFIG, alt="Fidelity against seconds, by method.")
    if len(page.compared) > 1:
        with st.expander("How far the methods agree with each other"):
            figure = agreement_figure(page, session.theme())
            st.plotly_chart(figure, key="trust_agreement", config=charts.CONFIG, alt="Rank correlations by pair.")
    if page.unmeasured:
        with st.expander(f"Not measured ({len(page.unmeasured)})"):
            st.html(element("ul", *(element("li", text(f"{title}: {why}")) for title, why in page.unmeasured)))


def _table(page: service.TrustPage) -> str:
    lines = []
    for place, line in enumerate(page.lines, 1):
        interval = f"{line.low:.2f} to {line.high:.2f}" if np.isfinite(line.low) else "–"
        took = f"{line.seconds:.2g} s" if np.isfinite(line.seconds) else "–"
        cells = (cell.replace("-", "−") for cell in (f"{line.value:.2f}", interval, took))
        lines.append(element("tr", element("td", str(place), css="if-num"),
                             element("th", text(line.title), scope="row", title=text(line.note)),
                             *(element("td", text(cell), css="if-num") for cell in cells)))  # fmt: skip
    head = ("", "Method", "Tracks retraining", "95% interval", "Scores took")
    names = element("tr", *(element("th", name, scope="col") for name in head))
    best = next((line.ceiling for line in page.lines if np.isfinite(line.ceiling)), float("nan"))
    noise = f" Retraining itself is noisy: {best:.2f} is the most that any method can reach." if best == best else ""
    words = "Rank correlation with what retraining on random halves did, averaged over test rows; 1 is perfect." + noise
    table = element("table", element("thead", names), element("tbody", *lines), css="if-methods")
    return element("div", table, css="if-scroll") + element("p", text(words), css="if-scale")


def fidelity_figure(page: service.TrustPage, theme: str) -> go.Figure:
    """Return fidelity against the seconds of the scores, with intervals, under the ceiling of the truth."""
    colours = charts.COLOURS[theme]
    numbered = [(i, line) for i, line in enumerate(page.lines, 1) if np.isfinite(line.seconds)]
    lines = [line for _, line in numbered]
    figure = go.Figure()
    figure.add_scatter(  # the numbers are those of the table: names would lie over each other
        x=[max(line.seconds, 1e-3) for line in lines], y=[line.value for line in lines], mode="markers+text",
        text=[str(i) for i, _ in numbered], textfont={"size": 10, "color": PAPER[theme]}, cliponaxis=False,
        error_y={
            "array": [line.high - line.value for line in lines],
            "arrayminus": [line.value - line.low for line in lines], "thickness": 1,
        },
        marker={"size": 18, "color": colours["pro"]}, customdata=[line.title for line in lines],
        hovertemplate="%{customdata}: %{y:.2f} in %{x:.2g} s<extra></extra>",
    )  # fmt: skip
    ceiling = next((line.ceiling for line in page.lines if np.isfinite(line.ceiling)), None)
    if ceiling is not None:
        figure.add_hline(y=ceiling, line={"dash": "dot", "width": 1, "color": colours["ink"]},
                         annotation_text="what noise allows", annotation_font_size=10)  # fmt: skip
    figure.update_xaxes(type="log", dtick="D2", title="seconds for the scores", gridcolor="rgba(127,127,127,.15)")
    figure.update_yaxes(title="tracks retraining", gridcolor="rgba(127,127,127,.15)", range=_range(page))
    return _styled(figure, colours["ink"], 320)


def _range(page: service.TrustPage) -> list[float]:
    lows = [min(line.low if np.isfinite(line.low) else line.value, line.value) for line in page.lines]
    return [min(0.0, *lows) - 0.05, 1.08]


def agreement_figure(page: service.TrustPage, theme: str) -> go.Figure:
    """Return the rank correlations between methods as a square."""
    names = list(page.compared)
    figure = go.Figure(go.Heatmap(
        z=page.agreement, x=names, y=names, zmin=-1, zmax=1, colorscale="RdBu", showscale=False,
        texttemplate="%{z:.2f}", hovertemplate="%{x} and %{y}: %{z:.2f}<extra></extra>",
    ))  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    return _styled(figure, charts.COLOURS[theme]["ink"], 120 + 34 * len(names))


def _styled(figure: go.Figure, ink: str, height: int) -> go.Figure:
    return figure.update_layout(
        height=height, margin={"l": 10, "r": 10, "t": 24, "b": 10}, showlegend=False, font={"color": ink, "size": 12},
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip


def measure(study: str, page: service.TrustPage) -> None:
    """Draw the form that measures, with its price, or the job on its way."""
    st.html(element("h2", "Measure"))
    if page.problem:
        st.html(empty("This study cannot be measured", page.problem))
        return
    if page.job is not None and page.job.is_active:
        st.html(jobs.progress(page.job, page.job.title))
        return
    if page.job is not None:
        st.html(element("p", text(page.job.message), css="if-failed", role="alert"))
    titles = {one.method: f"{one.title} ({_seconds(one.seconds)}{' and each row' * one.per_query})"
              for one in page.candidates}  # fmt: skip
    session.hold(_CHOSEN, [one.method for one in page.candidates if one.suggested])
    chosen = st.multiselect("Methods, with the estimate of their fit", list(titles), format_func=titles.__getitem__,
                            key=_CHOSEN)  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="trust_line"):
        session.hold(_SUBSETS, 50)
        session.hold(_SEEDS, 2)
        subsets = st.number_input("Random halves", 10, 500, key=_SUBSETS, step=10, width=150)
        seeds = st.number_input("Trainings of each", 1, 10, key=_SEEDS, width=150)
        st.button(
            "Measure", type="primary", key="trust_start", icon=":material/science:", on_click=_start,
            args=(study, chosen, int(subsets), int(seeds)), disabled=not (chosen and page.may_measure),
            help=None if page.may_measure else "Only an owner of the study measures it.",
        )  # fmt: skip
    if chosen:
        with errors.shown():
            plan = service.measuring_plan(study, chosen, int(subsets), int(seeds))
            st.html(element("p", text(plan), css="if-scale"))

    if page.impossible:
        with st.expander(f"Cannot be measured here ({len(page.impossible)})"):
            st.html(element("ul", *(element("li", text(f"{title}: {why}")) for title, why in page.impossible)))


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else (
        f"{seconds / 3600:.1f} h")  # fmt: skip


def _start(study: str, chosen: list[str], subsets: int, seeds: int) -> None:
    with errors.shown():
        service.start_measuring(study, chosen, session.client(), subsets, seeds)
