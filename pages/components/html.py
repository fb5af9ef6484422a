"""Small pieces of HTML, all text escaped here and nowhere else: thumbnails, labels, bars, tips.

Every function returns a string for ``st.html``; colours and sizes are classes of ``assets/style.css``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from influence_core import service

PICTURES = ("data:image/png;base64,", "data:image/jpeg;base64,")
TEXT_SHOWN = 301  # letters on a small card: what the service cuts a text to, with its ellipsis


def text(value: object) -> str:
    """Return ``value`` as HTML text, safe inside elements and quoted attributes."""
    return escape(str(value), quote=True)


def element(tag: str, *inside: str, css: str = "", **attributes: str) -> str:
    """Return ``<tag class=css ...>inside</tag>``; ``inside`` is HTML, attribute values are plain text.

    A trailing underscore in an attribute's name is dropped and the others become hyphens (``data_go`` is ``data-go``).
    """
    named = {"class": css} if css else {}
    named |= {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    head = "".join(f' {name}="{text(value)}"' for name, value in named.items())
    return f"<{tag}{head}>{''.join(inside)}</{tag}>"


def number(value: float, digits: int = 3) -> str:
    """Return a number with at least ``digits`` significant digits and a true minus sign."""
    if not math.isfinite(value):
        return "–"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        shown = f"{value:.{digits - 1}e}"
    elif size >= 10 ** (digits - 1):
        shown = f"{value:,.0f}"
    else:
        shown = f"{value:#.{digits}g}".removesuffix(".")
    return shown.replace("-", "−", 1) if value < 0 else shown


def signed(value: float, digits: int = 3) -> str:
    """Return a number that always carries its sign."""
    return ("+" if value > 0 else "") + number(value, digits)


def percent(share: float) -> str:
    """Return a share in whole percent, but never 100% or 0% for what is not quite that."""
    if 0 < share < 0.01:
        return "<1%"
    if 0.99 < share < 1:
        return ">99%"
    return f"{share:.0%}"


def thumbnail(datum: service.Datum, size: str = "small") -> str:
    """Return the row's picture, or nothing for tables and texts; ``size`` is "small", "medium" or "large"."""
    if not datum.image or not datum.image.startswith(PICTURES):
        return ""
    return f'<img class="if-thumb if-{size}" src="{text(datum.image)}" alt="{text(datum.alt)}">'


def extract(datum: service.Datum, cells: int = 2) -> str:
    """Return the row's text or its most telling cells, short enough for a card; empty for images."""
    if datum.text is not None:
        return element("span", text(datum.text[:TEXT_SHOWN]), css="if-extract if-words")
    shown = datum.cells[:cells]
    return (
        element("span", text(" · ".join(f"{name} {value}" for name, value in shown)), css="if-extract") if shown else ""
    )


def noise_badge(datum: service.Datum, short: bool = False) -> str:
    """Return the badge of a label that was flipped on purpose; empty where it was not, or nobody knows."""
    if not datum.planted:
        return ""
    truth = f" · truth {datum.truth}" if datum.truth is not None else ""
    shown = f"⚑ truth {datum.truth}" if short and datum.truth is not None else f"⚑ flipped on purpose{truth}"
    tip = f"This label was flipped on purpose when the study was built{truth}."
    return element("span", text(shown), css="if-badge if-noise", title=tip)


def verdict(datum: service.Datum) -> str:
    """Return a mark that says whether the prediction agrees with the given label; of a number, by how much not."""
    if datum.error is not None:
        return element("span", f"error {signed(datum.error)}", css="if-badge", title="predicted minus given")
    if datum.given == datum.predicted:
        return element("span", "✓ as labelled", css="if-badge if-right")
    return element("span", "✗ not as labelled", css="if-badge if-wrong")


def tip(words: str) -> str:
    """Return a question mark that explains on hover and on keyboard focus."""
    return element("span", "?", css="if-tip", tabindex="0", role="note", aria_label=words, data_tip=words)


def probability_bars(probabilities: Sequence[tuple[str, float]], given: str, limit: int = 4) -> str:
    """Return small bars of the most probable classes; the given label is marked and always among them."""
    shown = list(probabilities[:limit])
    shown += [pair for pair in probabilities[limit:] if pair[0] == given][:1]
    lines = []
    for name, share in shown:
        mark = element("span", "given", css="if-given") if name == given else ""
        bar = f'<span class="if-bar"><i style="width:{100 * min(max(share, 0.0), 1.0):.1f}%"></i></span>'
        lines.append(
            element(
                "li",
                element("span", text(name), css="if-name", title=name),
                bar,
                element("span", percent(share), css="if-num"),
                mark,
            )
        )
    return element("ul", *lines, css="if-bars", aria_label="Probabilities")


def signed_bars(parts: Sequence[tuple[str, float]], limit: int = 6) -> str:
    """Return bars of signed contributions, to the right for and to the left against."""
    top = max((abs(value) for _, value in parts), default=0.0) or 1.0
    lines = []
    for name, value in parts[:limit]:
        side = "if-for" if value > 0 else "if-against"
        bar = f'<span class="if-bar if-mid"><i class="{side}" style="width:{50 * abs(value) / top:.1f}%"></i></span>'
        figure = element("span", signed(value, 2), css="if-num")
        lines.append(element("li", element("span", text(name), css="if-name", title=name), bar, figure))
    return element("ul", *lines, css="if-bars")


def empty(title: str, advice: str) -> str:
    """Return a calm panel for a place where there is nothing to show; both arguments are plain text."""
    return element("div", element("b", text(title)), element("p", text(advice)), css="if-empty", role="status")


def plain_label(name: str) -> str:
    """Return a name for the label of a widget, which is Markdown: every sign that could mean something is escaped."""
    shown = "".join(f"\\{letter}" if letter in "\\`*_{}[]()<>#+-.!|~$:&@=^/\"'%" else letter for letter in name[:80])
    return " ".join(shown.split()) or "–"
