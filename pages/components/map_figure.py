"""The map as a Plotly figure: pure, from the service's record; ids travel as custom data, the split as ``meta``."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from influence_core import service
from pages.components.html import signed

CONFIG = {
    "displayModeBar": True, "displaylogo": False, "scrollZoom": True, "doubleClick": "reset",
    # In full: Streamlit takes lasso and box out of the default list of a chart that reports nothing to it.
    "modeBarButtons": [["lasso2d", "select2d", "pan2d", "zoom2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]],
}  # fmt: skip
HEIGHT = 620
# Ten colours that stay apart for most colour-blind readers, then their paler sisters.
CATEGORIES = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee7733", "#44bb99", "#997700", "#8866cc",
    "#9db9d6", "#f5aab4", "#8cc49a", "#e2d896", "#b0e3f4", "#d18fb5", "#f5b48c", "#9edccb", "#c9b36b", "#bfaee3",
)  # fmt: skip
RIGHT_WRONG = {"right": "#7f8994", "wrong": "#d1495b"}
INK = {
    "light": {"ink": "#3d4852", "ghost": "#b9c0c7", "paper": "#ffffff", "pro": "#2166ac", "opp": "#b35806"},
    "dark": {"ink": "#c5ccd3", "ghost": "#4a545d", "paper": "#0f1416", "pro": "#67a9cf", "opp": "#f1a340"},
}
_SEQUENTIAL = {"light": "YlOrRd", "dark": "Inferno"}
_DIVERGING = {"light": ("#b35806", "#e3e0db", "#2166ac"), "dark": ("#f1a340", "#4a4a4a", "#67a9cf")}
_SHOWN = 22  # letters of a name in the legend


def map_figure(view: service.MapView, chosen: tuple[str, str] | None = None, theme: str = "light") -> go.Figure:
    """Return the map.

    Args:
        view: What is drawn.
        chosen: Split and id (as text) of the row to ring, if it is drawn.
        theme: "light" or "dark".
    """
    figure, ink = go.Figure(), INK[theme]
    if view.density is not None:
        _density(figure, view, ink)
    if len(view.ghosts):
        figure.add_scattergl(x=view.ghosts[:, 0], y=view.ghosts[:, 1], mode="markers", hoverinfo="skip",
                             showlegend=False, marker={"size": 4, "color": ink["ghost"], "opacity": 0.5})  # fmt: skip
    if view.colours.kind == "category":
        _categories(figure, view, ink)
    else:
        _scale(figure, view, ink, theme)
    _links(figure, view, ink)
    _ring(figure, view, chosen, ink)
    return _laid_out(figure, view, ink)


def _density(figure: go.Figure, view: service.MapView, ink: dict[str, str]) -> None:
    counts = np.log1p(np.asarray(view.density, np.float32))
    low_x, high_x, low_y, high_y = view.box
    rows, columns = counts.shape
    figure.add_heatmap(
        z=counts, x0=low_x + (high_x - low_x) / columns / 2, dx=(high_x - low_x) / columns,
        y0=low_y + (high_y - low_y) / rows / 2, dy=(high_y - low_y) / rows, hoverinfo="skip", showscale=False,
        colorscale=[[0, "rgba(128,128,128,0)"], [0.02, "rgba(128,128,128,.12)"], [1, ink["ink"]]], opacity=0.55,
    )  # fmt: skip


def _marker(is_test: bool, ink: dict[str, str], many: bool, **colour: object) -> dict[str, object]:
    size = 4 if many else 6
    if not is_test:
        return {"size": size, "opacity": 0.8, "line": {"width": 0}, **colour}
    return {"size": size + 2, "symbol": "diamond", "opacity": 0.95, "line": {"width": 1, "color": ink["ink"]}, **colour}


def _points(figure: go.Figure, view: service.MapView, rows: np.ndarray, is_test: bool, **options: object) -> None:
    points = view.points
    figure.add_scattergl(
        x=points.x[rows], y=points.y[rows], mode="markers", meta="test" if is_test else "train",
        customdata=[points.ids[i] for i in rows], text=[_plain(points.labels[i]) for i in rows],
        hovertemplate=f"{'test' if is_test else 'train'} row %{{customdata}}<br>labelled %{{text}}<extra></extra>",
        **options,
    )  # fmt: skip


def _categories(figure: go.Figure, view: service.MapView, ink: dict[str, str]) -> None:
    points, names, many = view.points, view.colours.names, len(view.points.x) > 5000
    for code, name in enumerate(names):
        colour = RIGHT_WRONG.get(name) if names == ("right", "wrong") else CATEGORIES[code % len(CATEGORIES)]
        shown = False
        for is_test in (False, True):
            rows = np.flatnonzero((points.codes == code) & (points.is_test == is_test))
            if len(rows):
                _points(figure, view, rows, is_test, name=_plain(_short(name)), legendgroup=str(code),
                        showlegend=not shown, marker=_marker(is_test, ink, many, color=colour))  # fmt: skip
                shown = True


def _scale(figure: go.Figure, view: service.MapView, ink: dict[str, str], theme: str) -> None:
    points, colours = view.points, view.colours
    known, many = np.isfinite(points.values), len(points.x) > 5000
    for is_test in (False, True):  # below those that have one
        name = "test" if is_test else "train"
        none = np.flatnonzero(~known & (points.is_test == is_test))
        if len(none):
            _points(figure, view, none, is_test, name=f"{name}, no value", showlegend=False, marker=_marker(
                is_test, ink, many, color=ink["ghost"]))  # fmt: skip
    for is_test in (False, True):
        name = "test" if is_test else "train"
        rows = np.flatnonzero(known & (points.is_test == is_test))
        if len(rows):
            # Plotly cannot draw a legend's sign for a scale.
            _points(figure, view, rows, is_test, name=name, showlegend=False, marker=_marker(
                is_test, ink, many, color=points.values[rows], coloraxis="coloraxis"))  # fmt: skip
    ends = _DIVERGING[theme]
    scale = [[i / 2, colour] for i, colour in enumerate(ends)] if colours.kind == "diverging" else _SEQUENTIAL[theme]
    figure.update_layout(coloraxis={
        "colorscale": scale, "cmin": colours.low, "cmax": colours.high,
        "colorbar": {"title": {"text": _plain(colours.title), "side": "right"}, "thickness": 10, "len": 0.6, "y": 0.35,
                     "outlinewidth": 0},
    })  # fmt: skip


def _links(figure: go.Figure, view: service.MapView, ink: dict[str, str]) -> None:
    if not len(view.query):
        return
    # All by WebGL: its layer lies above the others, so that marks drawn otherwise would be under the points.
    from_x, from_y = view.query.mean(0).tolist()
    for side, symbol in (("pro", "triangle-up"), ("opp", "triangle-down")):
        links = [link for link in view.links if (link.score > 0) == (side == "pro")]
        if not links:
            continue
        x = [value for link in links for value in (from_x, link.x, None)]
        y = [value for link in links for value in (from_y, link.y, None)]
        figure.add_scattergl(x=x, y=y, mode="lines", hoverinfo="skip", showlegend=False, legendgroup=side,
                           line={"width": 1.4, "color": ink[side]})  # fmt: skip
        figure.add_scattergl(
            x=[link.x for link in links], y=[link.y for link in links], mode="markers", meta="train",
            name={"pro": "proponents", "opp": "opponents"}[side], legendgroup=side,
            marker={"size": 11, "symbol": symbol, "color": ink[side], "line": {"width": 1, "color": ink["paper"]}},
            customdata=[link.row_id for link in links], unselected={"marker": {"opacity": 1}},
            text=[f"{_plain(link.label)}, score {signed(link.score)}" for link in links],
            hovertemplate="train row %{customdata}<br>labelled %{text}<extra></extra>",
        )  # fmt: skip
    figure.add_scattergl(
        x=view.query[:, 0], y=view.query[:, 1], mode="markers", name="explained", hoverinfo="skip",
        unselected={"marker": {"opacity": 1}},
        marker={"size": 15, "symbol": "star", "color": ink["ink"], "line": {"width": 1.5, "color": ink["paper"]}},
    )  # fmt: skip


def _ring(figure: go.Figure, view: service.MapView, chosen: tuple[str, str] | None, ink: dict[str, str]) -> None:
    points = view.points
    if chosen is None:
        return
    test = chosen[0] == "test"
    found = [i for i, row_id in enumerate(points.ids) if str(row_id) == chosen[1] and bool(points.is_test[i]) == test]
    if found:
        figure.add_scattergl(x=points.x[found], y=points.y[found], mode="markers", hoverinfo="skip", showlegend=False,
                           marker={"size": 17, "symbol": "circle-open", "color": ink["ink"],
                                   "line": {"width": 2.5}})  # fmt: skip


def _laid_out(figure: go.Figure, view: service.MapView, ink: dict[str, str]) -> go.Figure:
    low_x, high_x, low_y, high_y = view.box
    plain = {"showgrid": False, "zeroline": False, "showticklabels": False, "ticks": "", "fixedrange": False}
    figure.update_layout(
        height=HEIGHT, margin={"l": 2, "r": 2, "t": 30, "b": 2}, dragmode="lasso", hovermode="closest",
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(128,128,128,.05)", uirevision=view.key,
        font={"color": ink["ink"], "size": 12}, hoverlabel={"font": {"size": 12}}, showlegend=True,
        legend={"itemsizing": "constant", "y": 1, "yanchor": "top", "x": 1.01, "uirevision": view.colours.title,
                "font": {"size": 12}},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": ink["ghost"], "activecolor": ink["ink"]},
        newselection={"line": {"color": ink["ink"], "width": 1.5, "dash": "dot"}},
    )  # fmt: skip
    if view.colours.kind != "category":
        figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"})
    figure.update_xaxes(range=[low_x, high_x], **plain)
    return figure.update_yaxes(range=[low_y, high_y], **plain)


def map_in_words(view: service.MapView) -> str:
    """Return what the map shows, for readers who do not see it."""
    shown = len(view.points.x)
    drawn = "all drawn" if view.density is None else f"{shown:,} drawn as points"
    count = f"{view.n_matching:,} rows, {drawn}" if shown else "No rows"
    return f"Map of {count}, coloured by {view.colours.title}. {view.words} {view.query_words}".strip()


def _short(name: str) -> str:
    return name if len(name) <= _SHOWN else name[: _SHOWN - 1] + "…"


def _plain(name: str) -> str:
    # Plotly draws a small set of HTML tags in labels; a class called "<b>" must appear as its letters.
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
