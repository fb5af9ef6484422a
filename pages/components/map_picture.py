"""What the map's component draws: pure, from the service's record, as numbers and plain words."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
from plotly.colors import sample_colorscale

from influence_core import service
from pages.components.html import number, signed

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
_SHADES = 64  # of a scale
_DARKEST = 0.2  # of the dark theme's scale: below, points are as black as the ground
_MANY = 5000  # points that are drawn smaller


def map_picture(
    view: service.MapView, chosen: tuple[str, str] | None = None, theme: str = "light",
    corners: list[list[float]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the map for the component; arrays as base64 of little-endian numbers.

    Args:
        view: What is drawn.
        chosen: Split and id (as text) of the row to ring, if it is drawn.
        theme: "light" or "dark".
        corners: What is drawn around rows.
    """
    points, is_category = view.points, view.colours.kind == "category"
    colours, codes = (_categories if is_category else _shades)(view, theme)
    labels, label = np.unique(np.asarray(points.labels, object).astype(str), return_inverse=True)
    drawn = {
        "x": _packed(points.x, "<f4"), "y": _packed(points.y, "<f4"), "test": _packed(points.is_test, "u1"),
        "code": _packed(codes, "<u2"), "label": _packed(label, "<u4"), "ids": list(points.ids),
        "labels": labels.tolist(),
    }  # fmt: skip
    return {
        "key": view.key, "title": view.colours.title, "words": map_in_words(view), "box": list(view.box),
        "density": None if view.density is None else _density(view.density),
        "ghosts": _packed(view.ghosts, "<f4"), "points": drawn, "size": 4 if len(points.x) > _MANY else 6,
        "colours": colours, "legend": _legend(view.colours.names, codes) if is_category else [],
        "scale": None if is_category else _scale(view.colours, colours),
        "links": [_link(link) for link in view.links], "query": view.query.tolist(),
        "ring": _ring(points, chosen), "ink": INK[theme], "regression": view.is_regression, "corners": corners or [],
    }  # fmt: skip


def _packed(values: np.ndarray, kind: str) -> str:
    return b64encode(np.ascontiguousarray(values, np.dtype(kind)).tobytes()).decode("ascii")


def _density(counts: np.ndarray) -> dict[str, Any]:
    """Return how dark each place is, by the logarithm of its rows; heights go up."""
    depth = np.log1p(np.asarray(counts, np.float64))
    alpha = np.where(depth > 0, 0.07 + 0.48 * depth / max(depth.max(), 1e-9), 0)
    return {"shape": list(counts.shape), "alpha": _packed(np.rint(255 * alpha), "u1")}


def _categories(view: service.MapView, theme: str) -> tuple[list[str], np.ndarray]:
    """Return a colour for each category, and a grey one for none; and each point's place among them."""
    names = view.colours.names
    is_right = names == ("right", "wrong")
    own = [RIGHT_WRONG[name] if is_right else CATEGORIES[i % len(CATEGORIES)] for i, name in enumerate(names)]
    codes = np.asarray(view.points.codes, np.int64)
    return [*own, INK[theme]["ghost"]], np.where(codes < 0, len(names), codes)


def _shades(view: service.MapView, theme: str) -> tuple[list[str], np.ndarray]:
    """Return the shades of a scale, and a grey one for no value; and each point's place among them."""
    colours, values = view.colours, np.asarray(view.points.values, np.float64)
    named = list(_DIVERGING[theme]) if colours.kind == "diverging" else _SEQUENTIAL[theme]
    low = _DARKEST if theme == "dark" and colours.kind == "sequential" else 0
    shades = sample_colorscale(named, np.linspace(low, 1, _SHADES).tolist())
    known = np.isfinite(values)
    share = (np.where(known, values, colours.low) - colours.low) / max(colours.high - colours.low, 1e-300)
    place = np.rint(np.clip(share, 0, 1) * (_SHADES - 1)).astype(np.int64)
    return [*shades, INK[theme]["ghost"]], np.where(known, place, _SHADES)


def _legend(names: tuple[str, ...], codes: np.ndarray) -> list[tuple[int, str]]:
    seen = set(np.unique(codes).tolist())
    listed = [(code, name) for code, name in enumerate(names) if code in seen]
    return [*listed, (len(names), "none")] if len(names) in seen else listed


def _scale(colours: service.MapColours, shades: list[str]) -> dict[str, Any]:
    written = signed if colours.kind == "diverging" else number
    return {"low": written(colours.low), "high": written(colours.high), "ramp": shades[:-1]}


def _link(link: service.MapLink) -> dict[str, Any]:
    words = f"labelled {link.label}, score {signed(link.score)}"
    return {"x": link.x, "y": link.y, "id": link.row_id, "words": words, "pro": link.score > 0}


def _ring(points: service.MapPoints, chosen: tuple[str, str] | None) -> int:
    if chosen is None:
        return -1
    test = chosen[0] == "test"
    found = (i for i, row in enumerate(points.ids) if str(row) == chosen[1] and bool(points.is_test[i]) == test)
    return next(found, -1)


def map_in_words(view: service.MapView) -> str:
    """Return what the map shows, for readers who do not see it."""
    shown = len(view.points.x)
    drawn = "all drawn" if view.density is None else f"{shown:,} drawn as points"
    count = f"{view.n_matching:,} rows, {drawn}" if shown else "No rows"
    return f"Map of {count}, coloured by {view.colours.title}. {view.words} {view.query_words}".strip()
