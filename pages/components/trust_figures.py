"""The figures of the screen Trust, as pure functions: records in, Plotly figures out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from influence_core import service
from pages.components import charts
from pages.components.map_picture import CATEGORIES

GRID = "rgba(127,127,127,.18)"
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
_NEAR_X, _NEAR_Y = 0.05, 0.075  # of the axes: discs that are nearer would hide each other
_SIZE = 19
# Least, middle and most of a square; dark enough at both ends for light numbers, in either theme.
_SQUARE = {"light": ("#b35806", "#f2f2f0", "#2166ac"), "dark": ("#a0621a", "#2b3336", "#2f78ad")}
_PAPER = {"light": "#ffffff", "dark": "#0f1416"}


def fidelity(page: service.TrustPage, theme: str) -> go.Figure:
    """Return fidelity against cost, under the ceiling of the truth; a disc carries its method's number in the table."""
    colours = charts.COLOURS[theme]
    numbered = [(n, line) for n, line in enumerate(page.lines, 1) if math.isfinite(line.seconds)]
    lines = [line for _, line in numbered]
    low, high = _range(lines)
    costs = np.log10([max(line.seconds, 1e-3) for line in lines])
    left, right = (float(costs.min()) - 0.25, float(costs.max()) + 0.25) if lines else (-1.0, 1.0)
    span = max(right - left, 1.0)
    places = apart([(float(cost), line.value) for cost, line in zip(costs, lines, strict=True)], span, high - low)
    figure = go.Figure()
    figure.add_scatter(
        x=[10**x for x in places], y=[line.value for line in lines], mode="markers+text",
        text=[str(n) for n, _ in numbered], textposition="middle center", cliponaxis=False,
        textfont={"size": 11, "color": _PAPER[theme]},
        error_y={
            "array": [_length(line.high - line.value) for line in lines], "thickness": 1.2, "width": 3,
            "arrayminus": [_length(line.value - line.low) for line in lines], "color": colours["pro"],
        },
        marker={"size": _SIZE, "color": colours["pro"], "opacity": 1, "line": {"width": 1, "color": _PAPER[theme]}},
        customdata=[(line.title, line.seconds) for line in lines],
        hovertemplate="%{text} %{customdata[0]}: %{y:.2f}, %{customdata[1]:.2g} s<extra></extra>",
    )  # fmt: skip
    ceiling = next((line.ceiling for line in page.lines if math.isfinite(line.ceiling)), None)
    if ceiling is not None:
        figure.add_hline(
            y=ceiling, line={"dash": "dot", "width": 1, "color": colours["ink"]}, annotation_font_size=11,
            annotation_text="the most that noise allows", annotation_position="top left",
        )  # fmt: skip
    middle = (left + right) / 2
    ends = [middle - span / 2, max(middle + span / 2, max(places, default=0.0) + 0.1)]
    decades = range(math.floor(ends[0]), math.ceil(ends[1]) + 1)
    steps = (0.0,) if ends[1] - ends[0] > 2 else (0.0, math.log10(3))  # a third of a decade where one would stand alone
    ticks = [t + step for t in decades for step in steps if ends[0] <= t + step <= ends[1]]
    figure = _styled(figure, colours, 330)
    figure.update_xaxes(type="log", range=ends, showgrid=True, gridcolor=GRID, title={"text": "cost", "standoff": 6},
                        tickvals=[10.0**t for t in ticks], ticktext=[_seconds(10.0**t) for t in ticks])  # fmt: skip
    return figure.update_yaxes(range=[low, high], zeroline=True, zerolinecolor=GRID, title="tracks retraining")


def _length(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _seconds(value: float) -> str:
    if value >= 3600:
        return f"{value / 3600:.0f} h"
    return f"{value / 60:.0f} min" if value >= 100 else f"{value:g} s"


def apart(points: Sequence[tuple[float, float]], width: float, height: float) -> list[float]:
    """Return where to draw points along x so that no disc hides another: those on top of others move to the right.

    Args:
        points: ``(x, y)``.
        width: Of the axes, in the unit of x.
        height: Of the axes, in the unit of y.
    """
    placed: list[tuple[float, float]] = []
    for x, y in points:
        while any(abs(x - a) < _NEAR_X * width and abs(y - b) < _NEAR_Y * height for a, b in placed):
            x += _NEAR_X * width / 2
        placed.append((x, y))
    return [x for x, _ in placed]


def _range(lines: Sequence[service.TrustLine]) -> tuple[float, float]:
    lows = [line.low if math.isfinite(line.low) else line.value for line in lines]
    return min(0.0, *lows, 0.0) - 0.06, 1.1


def fidelity_in_words(page: service.TrustPage) -> str:
    """Return what the figure shows, for readers who do not see it."""
    said = [f"{n} {line.title}: {line.value:.2f} for {line.seconds:.2g} s" for n, line in enumerate(page.lines, 1)]
    return f"Fidelity against cost. {'; '.join(said)}."


def agreement(found: service.Agreement, values: np.ndarray, share: bool, theme: str) -> go.Figure:
    """Return how far methods say the same as a square; numbers stand for the titles along the top.

    Args:
        found: Whose methods.
        values: ``[k, k]``, its rank correlations or shares.
        share: Whether they are shares, from 0, and no correlations, from -1.
        theme: "light" or "dark".
    """
    colours, k = charts.COLOURS[theme], len(found.titles)
    numbers = [str(n) for n in found.numbers]
    names = [f"{_short(title)}  {n}" for n, title in zip(numbers, found.titles, strict=True)]
    least, middle, most = _SQUARE[theme]
    scale = [[0, middle], [1, most]] if share else [[0, least], [0.5, middle], [1, most]]
    kind = "share of top rows" if share else "rank correlation"
    figure = go.Figure(go.Heatmap(
        z=values, x=numbers, y=names, zmin=0 if share else -1, zmax=1, colorscale=scale, showscale=False, xgap=2,
        ygap=2, texttemplate="%{z:.2f}" if k <= 14 else None, hoverongaps=False,
        customdata=[[(one, other) for other in found.titles] for one in found.titles],
        hovertemplate=f"%{{customdata[0]}} and %{{customdata[1]}}: {kind} %{{z:.2f}}<extra></extra>",
    ))  # fmt: skip
    figure = _styled(figure, colours, 60 + 30 * k)
    figure.update_xaxes(type="category", side="top", showgrid=False)
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False, automargin=True)
    return figure.update_layout(margin={"l": 10, "r": 10, "t": 30, "b": 6})


def _short(title: str, letters: int = 30) -> str:
    return title if len(title) <= letters else f"{title[: letters - 1]}…"


def removal(page: service.RemovalPage, theme: str) -> go.Figure:
    """Return the margin of the predicted class against the rows removed; below the line the prediction has flipped.

    Few rows matter most, so that the axis of counts is that of their square roots.
    """
    colours = charts.COLOURS[theme]
    figure = go.Figure()
    if page.random is not None:
        x = [math.sqrt(count) for count in page.random.counts]
        band = page.random.low + page.random.high[::-1]
        figure.add_scatter(x=x + x[::-1], y=band, fill="toself", mode="lines", line={"width": 0}, hoverinfo="skip",
                           fillcolor="rgba(127,127,127,.22)", showlegend=False)  # fmt: skip
        _curve(figure, page.random, f"Random rows, mean of {page.random.draws}",
               {"color": "rgb(127,127,127)", "dash": "solid"}, "circle-open")  # fmt: skip
    for n, line in enumerate(page.lines):
        dash = {"color": CATEGORIES[n % 10], "dash": _DASHES[n % len(_DASHES)]}
        _curve(figure, line, f"{n + 1} {line.title}", dash, _SYMBOLS[n % len(_SYMBOLS)])
    figure.add_hline(y=0, line={"width": 1.5, "color": colours["ink"]}, annotation_text="flips below",
                     annotation_position="bottom left", annotation_font_size=11)  # fmt: skip
    counts = sorted(
        {count for line in (*page.lines, *((page.random,) if page.random else ())) for count in line.counts}
    )
    figure = _styled(figure, colours, 360)
    figure.update_xaxes(title={"text": "rows removed", "standoff": 6}, tickvals=[math.sqrt(c) for c in counts],
                        ticktext=[f"{c:,}" for c in counts], showgrid=True, gridcolor=GRID, zeroline=False)  # fmt: skip
    figure.update_yaxes(title="margin of the predicted class", zeroline=False)
    return figure.update_layout(
        showlegend=True, legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}, margin={"t": 12}
    )


def _curve(figure: go.Figure, line: service.RemovalLine, name: str, dash: dict[str, str], symbol: str) -> None:
    figure.add_scatter(
        x=[math.sqrt(count) for count in line.counts], y=line.margins, mode="lines+markers", name=_short(name, 40),
        line={"width": 2, **dash}, marker={"symbol": symbol, "size": 8, "color": dash["color"]},
        customdata=line.counts,
        hovertemplate=f"{_short(name, 40)}: %{{y:.3~g}} without %{{customdata}} rows<extra></extra>",
    )  # fmt: skip


def removal_in_words(page: service.RemovalPage) -> str:
    """Return what the curves show, for readers who do not see them."""
    every = (*page.lines, *((page.random,) if page.random else ()))
    said = [
        f"{line.title}: margin {line.margins[0]:.2f} at first, {line.margins[-1]:.2f} without {line.counts[-1]:,} rows"
        for line in every
    ]
    return f"Margin against rows removed. {'; '.join(said)}."


def _styled(figure: go.Figure, colours: dict, height: int) -> go.Figure:
    figure = charts.calm(figure, colours, height)
    return figure.update_layout(margin={"l": 56, "r": 12, "t": 14, "b": 44})
