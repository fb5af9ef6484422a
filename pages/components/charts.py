"""Figures as pure functions: records in, Plotly figures out. Colours follow the theme; ids travel as custom data."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from influence_core import service
from pages.components.html import number, signed

COLOURS = {
    "light": {"pro": "#2166ac", "opp": "#b35806", "ink": "#3d4852", "splits": ("#5b6470", "#9aa3ad", "#cdd2d8")},
    "dark": {"pro": "#67a9cf", "opp": "#f1a340", "ink": "#c5ccd3", "splits": ("#b6bec7", "#7f8994", "#535c66")},
}
CONFIG = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}


def score_histogram(explanation: service.Explanation, theme: str = "light", height: int = 150) -> go.Figure:
    """Return the histogram of all scores with the shown rows marked under it.

    Bars right of zero are proponents, left of it opponents. Heights are log10(1 + count), because nearly all rows score
    near zero and the few that matter would be invisible on a linear scale; unlike a logarithmic axis, this one has a
    floor, under which the marks stand.

    Args:
        explanation: Uses ``counts`` [bins], ``edges`` [bins + 1] and both ranked sides.
        theme: "light" or "dark".
        height: Pixels.
    """
    colours = COLOURS[theme]
    counts, edges = np.asarray(explanation.counts, float), np.asarray(explanation.edges, float)
    centres, widths = (edges[:-1] + edges[1:]) / 2, np.diff(edges)
    figure = go.Figure()
    for side, chosen in (("pro", centres > 0), ("opp", centres <= 0)):
        figure.add_bar(
            x=centres[chosen],
            y=np.log10(1 + counts[chosen]),
            width=widths[chosen] * 0.92,
            marker={"color": colours[side], "opacity": 0.75, "line": {"width": 0}},
            customdata=np.stack([counts[chosen], edges[:-1][chosen], edges[1:][chosen]], axis=1),
            hovertemplate="%{customdata[0]} rows score %{customdata[1]:.3g} to %{customdata[2]:.3g}<extra></extra>",
        )
    top = float(np.log10(1 + counts.max(initial=1.0)))
    for side, symbol in (("pro", "triangle-up"), ("opp", "triangle-down")):
        rows = explanation.proponents if side == "pro" else explanation.opponents
        figure.add_scatter(
            x=[row.score for row in rows],
            y=[-0.09 * top] * len(rows),
            mode="markers",
            marker={"symbol": symbol, "size": 9, "color": colours[side], "line": {"width": 0}},
            customdata=[str(row.datum.row_id) for row in rows],
            hovertemplate="row %{customdata}: %{x:.3g}<extra></extra>",
        )
    ticks = [0.0, *(10.0**n for n in range(int(top) + 1))]
    figure.update_yaxes(
        range=[-0.18 * top, top * 1.05],
        tickvals=[float(np.log10(1 + tick)) for tick in ticks],
        ticktext=[f"{tick:,.0f}" for tick in ticks],
        zeroline=True,
        zerolinewidth=1,
        zerolinecolor="rgba(128,128,128,.5)",
    )
    figure.update_xaxes(zeroline=True, zerolinewidth=1, title={"text": _axis_title(explanation), "standoff": 4})
    return calm(figure, colours, height).update_layout(bargap=0)


def _axis_title(explanation: service.Explanation) -> str:
    return f"score ({explanation.method_title}, {explanation.units})"


def histogram_in_words(explanation: service.Explanation) -> str:
    """Return what the histogram shows, for readers who do not see it."""
    scores = [row.score for row in (*explanation.proponents, *explanation.opponents)]
    low, high = (signed(float(edge)) for edge in (explanation.edges[0], explanation.edges[-1]))
    marked = f" The marked rows score from {signed(min(scores))} to {signed(max(scores))}." if scores else ""
    return f"Histogram of the scores of all {explanation.n_train:,} training rows, from {low} to {high}.{marked}"


def class_balance(overview: service.Overview, theme: str = "light", height: int = 230) -> go.Figure:
    """Return the share of every class in each split, so that splits of different size can be compared."""
    colours = COLOURS[theme]
    figure = go.Figure()
    for (split, counts), colour in zip(overview.class_counts.items(), colours["splits"], strict=False):
        shares = np.asarray(counts, float) / max(sum(counts), 1)
        figure.add_bar(
            name=split,
            x=[_plain(name) for name in overview.classes],
            y=shares,
            marker={"color": colour},
            customdata=list(counts),
            hovertemplate=f"{split}: %{{customdata}} rows (%{{y:.1%}})<extra></extra>",
        )
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(type="category")
    figure = calm(figure, colours, height)
    return figure.update_layout(
        showlegend=True,
        barmode="group",
        bargap=0.3,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )


def balance_in_words(overview: service.Overview) -> str:
    """Return the class balance as a sentence per split."""
    lines = []
    for split, counts in overview.class_counts.items():
        pairs = ", ".join(f"{name} {count}" for name, count in zip(overview.classes, counts, strict=False))
        lines.append(f"{split}: {pairs}.")
    return "Rows per class. " + " ".join(lines)


def predicted_against_given(figures: service.RegressionFigures, theme: str = "light", height: int = 340) -> go.Figure:
    """Return a point per test row, given number to the right and predicted upwards, on the same scale.

    A perfect model's points lie on the dotted diagonal.
    """
    colours = COLOURS[theme]
    both = np.concatenate([figures.given, figures.predicted])
    low, high = float(both.min()), float(both.max())
    margin = 0.04 * (high - low) or 1.0
    ends = [low - margin, high + margin]
    figure = go.Figure()
    figure.add_scatter(
        x=ends, y=ends, mode="lines", hoverinfo="skip", line={"dash": "dot", "width": 1, "color": colours["splits"][1]}
    )
    figure.add_scatter(
        x=figures.given,
        y=figures.predicted,
        mode="markers",
        marker={"size": 7, "opacity": 0.6, "color": colours["splits"][0], "line": {"width": 0}},
        customdata=[_plain(str(row_id)) for row_id in figures.ids],
        hovertemplate="row %{customdata}: given %{x:.4~g}, predicted %{y:.4~g}<extra></extra>",
    )
    figure = calm(figure, colours, height).update_layout(margin={"l": 76})
    figure.update_xaxes(range=ends, title={"text": "given", "standoff": 4}, showgrid=True)
    figure.update_xaxes(gridcolor="rgba(128,128,128,.18)", zeroline=False)
    return figure.update_yaxes(range=ends, title={"text": "predicted", "standoff": 12}, zeroline=False)


def points_in_words(figures: service.RegressionFigures) -> str:
    """Return what the points show, for readers who do not see them."""
    given, predicted = (
        f"from {number(float(values.min()))} to {number(float(values.max()))}"
        for values in (figures.given, figures.predicted)
    )
    return f"{len(figures.ids):,} test rows as points: given numbers {given}, predicted ones {predicted}."


def training_losses(figures: service.TrainingFigures, theme: str = "light", height: int = 190) -> go.Figure:
    """Return the mean training loss of every epoch as a line, with the epochs whose weights were kept marked on it.

    The axis of losses begins at 0, so that a loss that hardly fell looks like it.
    """
    colours, epochs = COLOURS[theme], list(range(1, len(figures.losses) + 1))
    hover = "epoch %{x}: loss %{y:.4~g}<extra></extra>"
    figure = go.Figure()
    figure.add_scatter(x=epochs, y=figures.losses, mode="lines", line={"width": 2, "color": colours["splits"][0]},
                       hovertemplate=hover)  # fmt: skip
    kept = [epoch for epoch in figures.recorded if 1 <= epoch <= len(figures.losses)]
    figure.add_scatter(
        x=kept,
        y=[figures.losses[epoch - 1] for epoch in kept],
        mode="markers",
        marker={"size": 8, "color": colours["splits"][0], "line": {"width": 0}},
        hovertemplate=f"weights kept, {hover}",
    )
    figure = calm(figure, colours, height).update_layout(margin={"l": 60})
    figure.update_xaxes(title={"text": "epoch", "standoff": 4}, rangemode="tozero", zeroline=False)
    return figure.update_yaxes(title={"text": "training loss", "standoff": 12}, rangemode="tozero", zeroline=False)


def losses_in_words(figures: service.TrainingFigures) -> str:
    """Return what the line shows, for readers who do not see it."""
    first, last = number(figures.losses[0]), number(figures.losses[-1])
    return f"Training loss over {len(figures.losses)} epochs, from {first} to {last}. {figures.words}"


def residuals(figures: service.RegressionFigures, theme: str = "light", height: int = 230) -> go.Figure:
    """Return the histogram of predicted minus given over all test rows; right of zero the model says too much."""
    colours = COLOURS[theme]
    counts, edges = np.asarray(figures.counts, float), np.asarray(figures.edges, float)
    figure = go.Figure()
    figure.add_bar(
        x=(edges[:-1] + edges[1:]) / 2,
        y=counts,
        width=np.diff(edges) * 0.92,
        marker={"color": colours["splits"][0], "line": {"width": 0}},
        customdata=np.stack([edges[:-1], edges[1:]], axis=1),
        hovertemplate="%{y} rows are off by %{customdata[0]:.3~g} to %{customdata[1]:.3~g}<extra></extra>",
    )
    figure = calm(figure, colours, height).update_layout(bargap=0, margin={"l": 76})
    title = {"text": "predicted − given", "standoff": 4}
    figure.add_vline(0.0, line={"width": 1, "color": colours["ink"], "dash": "dot"})
    figure.update_yaxes(title={"text": "test rows", "standoff": 12})
    return figure.update_xaxes(zeroline=False, title=title)


def residuals_in_words(figures: service.RegressionFigures) -> str:
    """Return what the residuals show, for readers who do not see them."""
    low, high = (signed(float(edge)) for edge in (figures.edges[0], figures.edges[-1]))
    return f"Histogram of predicted minus given over {int(figures.counts.sum()):,} test rows, from {low} to {high}."


def _plain(name: str) -> str:
    # Plotly draws a small set of HTML tags in labels; a class called "<b>" must appear as its letters.
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def calm(figure: go.Figure, colours: dict, height: int) -> go.Figure:
    """Return ``figure`` without background, menu or wasted margin, in the ink of the theme."""
    figure.update_layout(
        height=height,
        margin={"l": 48, "r": 8, "t": 6, "b": 34},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        dragmode=False,
        uirevision="keep",
        font={"color": colours["ink"], "size": 12},
        hoverlabel={"font": {"size": 12}},
    )
    figure.update_xaxes(showgrid=False, fixedrange=True)
    return figure.update_yaxes(fixedrange=True, gridcolor="rgba(128,128,128,.18)")
