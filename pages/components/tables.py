"""Figures, confusion matrix and methods as HTML tables: read out, reached by Tab, coloured by the theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from influence_core import service
from pages.components.html import element, number, percent, text

CELLS_SHOWN = 30  # classes; a larger matrix shows those with the most mistakes


def figures(overview: service.Overview) -> str:
    """Return the study's figures as a line of tiles: rows, how good the model is with interval, model."""
    study = overview.study
    tiles = [(f"{study.n_train:,}", "training rows", f"{study.n_test:,} test · {study.n_locked:,} locked")]
    tiles += _class_tiles(overview) if overview.regression is None else _number_tiles(overview.regression)
    tiles.append((f"{overview.n_params:,}", "parameters", f"{overview.model}, {overview.n_checkpoints} checkpoints"))
    if overview.planted_share is not None:
        tiles.append((f"⚑ {percent(overview.planted_share)}", "labels flipped", "on purpose, in training"))
    cells = (
        element("div", element("b", text(value)), element("span", text(name)), element("small", text(more), title=more))
        for value, name, more in tiles
    )
    return element("div", *cells, css="if-figures")


def _class_tiles(overview: service.Overview) -> list[tuple[str, str, str]]:
    study = overview.study
    tiles = [(f"{study.n_classes}", "classes", ", ".join(overview.classes))]
    if "test" in overview.accuracy:
        share = overview.accuracy["test"]
        spread = f"{100 * share.low:.1f}–{share.high:.1%}, 95% interval"
        tiles.append((f"{share.value:.1%}", "test accuracy", spread))
    tiles.append((f"{overview.n_wrong:,}", "wrong predictions", f"of {study.n_test:,} test rows"))
    return tiles


def _number_tiles(figures: service.RegressionFigures) -> list[tuple[str, str, str]]:
    r2, mae = figures.r2["test"], figures.mae["test"]
    return [
        (number(r2.value), "test R²", f"{_spread(r2)}, 95% interval; 1 is perfect, 0 says the mean"),
        (number(mae.value), "mean absolute error", f"{_spread(mae)}, 95% interval, on {mae.n:,} test rows"),
    ]


def _spread(interval: service.Interval) -> str:
    return f"{number(interval.low)} to {number(interval.high)}"


def split_table(figures: service.RegressionFigures) -> str:
    """Return R squared and mean absolute error of every split, with their intervals."""
    head = ("Split", "Rows", "R²", "Mean absolute error")
    lines = [
        element(
            "tr",
            element("th", text(split), scope="row"),
            element("td", f"{r2.n:,}"),
            *(element("td", number(part.value), element("small", _spread(part))) for part in (r2, figures.mae[split])),
        )
        for split, r2 in figures.r2.items()
    ]
    names = element("tr", *(element("th", name, scope="col") for name in head))
    table = element("table", element("thead", names), element("tbody", *lines), css="if-methods")
    return element("div", table, css="if-scroll")


def confusion(counts: np.ndarray, classes: Sequence[str], link: Callable[[str, str], str]) -> str:
    """Return the confusion matrix; every cell with rows in it links to its predictions.

    Args:
        counts: ``[n_classes, n_classes]`` rows given, columns predicted.
        classes: Class names, in the order of ``counts``.
        link: From ``(given, predicted)`` to the link of that cell.
    """
    mistakes = counts - np.diag(np.diag(counts))
    loud = np.argsort(-(mistakes.sum(0) + mistakes.sum(1)), kind="stable")[:CELLS_SHOWN]
    shown = np.sort(loud)
    top = max(int(mistakes.max(initial=0)), 1)
    head = "".join(element("th", text(classes[c]), scope="col") for c in shown)
    lines = [
        element("tr", "<td></td>", head),
        *(
            element(
                "tr",
                element("th", text(classes[g]), scope="row"),
                *(_cell(int(counts[g, p]), int(g), int(p), classes, top, link) for p in shown),
            )
            for g in shown
        ),
    ]
    left = len(classes) - len(shown)
    note = element("p", f"{left} classes with fewer mistakes are not shown.", css="if-scale") if left else ""
    caption = element("caption", "Confusion matrix of the test rows: given labels in rows, predictions in columns")
    return element("div", element("table", caption, *lines, css="if-confusion"), note, css="if-scroll")


def _cell(
    count: int, given: int, predicted: int, classes: Sequence[str], top: int, link: Callable[[str, str], str]
) -> str:
    if not count:
        return element("td", "·", css="if-zero")
    names = classes[given], classes[predicted]
    right = given == predicted
    words = f"{count} rows labelled {names[0]}, predicted {names[1]}"
    anchor = element("a", str(count), href=link(*names), data_go="1", title=f"{words}: explain", aria_label=words)
    # The share of tint, not the colour, comes from the data: the theme keeps the contrast.
    tint = "" if right else f' style="--tint:{15 + 35 * count / top:.0f}%"'
    return f'<td class="{"if-diagonal" if right else "if-mistake"}"{tint}>{anchor}</td>'


def method_table(methods: Sequence[service.MethodView], default: str, link: Callable[[str], str]) -> str:
    """Return all methods: what each answers, its family, units, and whether it can run here and why not."""
    head = "".join(
        element("th", name, scope="col") for name in ("Method", "What it answers", "Family", "Units", "Here")
    )
    lines = []
    for method in methods:
        usable = method.available and method.pairwise
        name = text(method.title)
        title = element("a", name, href=link(method.id), data_go="1") if usable else name
        star = element("span", "default", css="if-badge if-right") if method.id == default else ""
        what = text(method.summary) + element("small", text(method.reference))
        if method.utility:
            what += element("small", text(f"Explains {method.utility}."))
        units = element("span", text(method.units)) + element("small", text(method.units_in_words))
        lines.append(
            element(
                "tr",
                element("th", title, " ", star, element("small", text(method.id)), scope="row"),
                element("td", what),
                element("td", text(method.family)),
                element("td", units),
                element("td", _standing(method)),
                css="" if method.available else "if-off",
            )
        )
    table = element("table", element("thead", element("tr", head)), element("tbody", *lines), css="if-methods")
    return element("div", table, css="if-scroll")


def _standing(method: service.MethodView) -> str:
    if not method.available:
        return element("span", "✗ not available", css="if-state") + element("small", text(method.reason))
    if not method.pairwise:
        return element("span", "✓ ranks rows", css="if-state") + element("small", "no scores for one prediction")
    if method.fitted:
        return element("span", "✓ ready", css="if-state") + element("small", "answers at once")
    return element("span", "○ not fitted yet", css="if-state") + element("small", "first use starts a job")
