"""Cards: a row of data with what is known about it, drawn as HTML and linked to its own place.

Pure functions from records to HTML. Links carry ``data-go``: with the links component they act inside the session,
without it, or opened in a new tab, they are plain links to the same view.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from influence_core import service
from pages.components.html import (
    element,
    empty,
    extract,
    noise_badge,
    number,
    percent,
    probability_bars,
    signed,
    signed_bars,
    text,
    thumbnail,
    tip,
    verdict,
)

Link = Callable[[service.Datum], str]

_NOTES = 3
TEXT_SHOWN = 20_000  # letters of a whole text; a browser gets slow far above

SIDES = {
    "pro": ("▲", "Proponents", "pushed the model there"),
    "opp": ("▼", "Opponents", "pulled against it"),
}


def pick_list(rows: Sequence[service.Datum], link: Link, mark_first: bool = False) -> str:
    """Return the list of predictions on the left of Explain.

    The links component marks the current one, so that a click changes nothing here. It cannot know the one that is
    explained when nothing is chosen yet: that is the first, marked by ``mark_first``.
    """
    items = []
    for place, datum in enumerate(rows):
        wrong = datum.error is None and datum.given != datum.predicted
        labels = element("b", text(datum.predicted))
        if wrong or datum.error is not None:
            labels += element("span", " ≠ ", text(datum.given), css="if-not", title="predicted, but labelled")
        row_number = element("small", f"row {text(datum.row_id)}")
        words = f"Row {datum.row_id}: predicted {datum.predicted}, labelled {datum.given}, {_strength(datum)}"
        items.append(
            element(
                "a",
                thumbnail(datum),
                element("span", element("span", labels, css="if-labels"), extract(datum, 1), css="if-main"),
                element("span", _strength(datum), row_number, css="if-side"),
                css="if-pick if-is-wrong" if wrong else "if-pick",
                href=link(datum),
                data_go="1",
                data_pick=str(datum.row_id),
                **({"aria_current": "true"} if mark_first and place == 0 else {}),
                aria_label=words,
            )
        )
    return element("nav", *items, css="if-picks", aria_label="Predictions")


def _strength(datum: service.Datum) -> str:
    """Return how sure the model is, or how far a number is off."""
    return percent(datum.confidence) if datum.error is None else signed(datum.error)


def _how_far(datum: service.Datum) -> str:
    return f"{_strength(datum)} sure" if datum.error is None else f"error {_strength(datum)}"


def prediction_grid(rows: Sequence[service.Datum], link: Link) -> str:
    """Return the most confidently wrong predictions, or the largest errors, as a grid of clickable cards."""
    cards = [
        element(
            "a",
            thumbnail(datum, "medium"),
            element(
                "span",
                element("span", "said ", element("b", text(datum.predicted)), css="if-said"),
                element("span", "labelled ", element("b", text(datum.given)), css="if-said"),
                extract(datum, 1),
                element("small", f"{_how_far(datum)} · row {text(datum.row_id)}"),
                css="if-main",
            ),
            css="if-card if-tile",
            href=link(datum),
            data_go="1",
            aria_label=f"Explain row {datum.row_id}: said {datum.predicted}, labelled {datum.given}",
        )
        for datum in rows
    ]
    return element("div", *cards, css="if-grid")


def ranked_card(row: service.RankedRow, side: str, top: float, link: Link) -> str:
    """Return one training row with its rank, label and score; the bar compares it with ``top``, the largest |score|."""
    datum = row.datum
    width = 100 * min(abs(row.score) / top, 1.0) if top > 0 else 0.0
    says = "" if datum.given == datum.predicted else f" · model says {text(datum.predicted)}"
    facts = element("small", f"row {text(datum.row_id)}{says}")
    kind = SIDES[side][1][:-1] if side in SIDES else "Neighbour"
    words = f"{kind} {row.rank}: row {datum.row_id}, labelled {datum.given}, score {signed(row.score)}"
    return element(
        "a",
        element("span", str(row.rank), css="if-rank"),
        thumbnail(datum),
        element(
            "span",
            element("span", element("b", text(datum.given), css="if-label"), noise_badge(datum, True), css="if-labels"),
            extract(datum, 2),
            facts,
            css="if-main",
        ),
        element(
            "span",
            element("span", signed(row.score), css="if-num"),
            f'<span class="if-bar"><i class="if-{side}" style="width:{width:.1f}%"></i></span>',
            css="if-score",
        ),
        css="if-card if-row",
        href=link(datum),
        data_go="1",
        aria_label=words,
    )


def ranked_column(
    side: str, rows: Sequence[service.RankedRow], top: float, scale: tuple[str, str, str], link: Link
) -> str:
    """Return proponents or opponents with their heading.

    Args:
        side: "pro" or "opp".
        rows: Strongest first.
        top: Largest |score| of both columns, so that the bars of both can be compared.
        scale: What this side did; what the scores are, in a few words: method, measurement, units; what a score means.
        link: From a row to its own page.
    """
    symbol, title, _ = SIDES[side]
    words, measured, meaning = scale
    name = element("span", f"{symbol} {title}", css=f"if-{side}-ink")
    heading = element("h3", name, element("small", text(words)), tip(meaning))
    note = element("p", text(measured), css="if-scale", title=measured)
    if not rows:
        opposite = "above" if side == "pro" else "below"
        body = empty(f"No {title.lower()}", f"No training row scores {opposite} zero for this query and method.")
    else:
        body = element("div", *(ranked_card(row, side, top, link) for row in rows), css="if-stack")
    return element("section", heading, note, body, css=f"if-column if-{side}-column", aria_label=title)


def plain_column(title: str, note: str, rows: Sequence[service.RankedRow], side: str, link: Link, none: str) -> str:
    """Return a titled stack of ranked cards; ``none`` says why there are none."""
    top = max((abs(row.score) for row in rows), default=0.0)
    cards = "".join(ranked_card(row, side, top, link) for row in rows)
    body = element("div", cards, css="if-stack") if rows else empty("Nothing to show yet", none)
    ink = f"if-{side}-ink" if side in SIDES else ""
    symbol = f"{SIDES[side][0]} " if side in SIDES else ""
    heading = element("h3", element("span", symbol + text(title), css=ink or "if-plain"))
    return element(
        "section",
        heading,
        element("p", text(note), css="if-scale"),
        body,
        css=f"if-column if-{side}-column",
        aria_label=title,
    )


def query_card(query: service.QueryView) -> str:
    """Return the explained prediction: input, labels and probabilities; a set shows its first few rows."""
    first = query.data[0]
    if query.n_rows == 1:
        picture = thumbnail(first, "large") or element("div", cells_table(first, 6), css="if-input")
        given = "labelled " if first.split != "typed" else "you expect "
        labels = element("span", "predicted ", element("b", text(first.predicted)), css="if-said")
        if first.given or first.split != "typed":
            labels += element("span", given, element("b", text(first.given)), css="if-said") + verdict(first)
        labels += noise_badge(first)
    else:
        picture = element("div", *(thumbnail(d, "medium") or extract(d, 1) for d in query.data), css="if-mosaic")
        labels = element("span", f"mean over {query.n_rows} rows", css="if-said")
    bars = probability_bars(query.probabilities, first.given, 4) if query.probabilities else ""
    notes = "".join(element("p", text(note), css="if-scale") for note in query.notes[:_NOTES])
    if len(query.notes) > _NOTES:
        notes += element("p", f"And {len(query.notes) - _NOTES} more such columns.", css="if-scale")
    return element(
        "article",
        picture,
        element("div", element("div", labels, css="if-facts"), bars, notes),
        css="if-query",
        aria_label=query.title,
    )


def cells_table(datum: service.Datum, limit: int) -> str:
    """Return the cells of a table row, or its text."""
    if datum.text is not None:
        cut = "" if len(datum.text) <= TEXT_SHOWN else f" … ({len(datum.text) - TEXT_SHOWN:,} more letters)"
        return element("p", text(datum.text[:TEXT_SHOWN] + cut), css="if-text")
    lines = (element("tr", element("th", text(n), scope="row"), element("td", text(v))) for n, v in datum.cells[:limit])
    return element("table", *lines, css="if-cells")


def attribution_card(attribution: service.InputAttribution) -> str:
    """Return which parts of the input the prediction rests on."""
    if attribution.image:
        inside = (
            f'<img class="if-thumb if-large" src="{text(attribution.image)}" alt="{text(attribution.alt)}">'
            if attribution.image.startswith("data:image/png;base64,")
            else ""
        )
    elif not attribution.parts:
        inside = element("p", text(attribution.note), css="if-scale")
    else:
        inside = signed_bars(attribution.parts, 5)
    caption = element(
        "figcaption",
        element("b", "What it looked at ", tip(attribution.note)),
        element("span", text(attribution.method)),
    )
    kind = "if-attribution" if attribution.image else "if-attribution if-parts"
    return element("figure", inside, caption, css=kind, aria_label=attribution.alt)


def own_card(card: service.RowCard) -> str:
    """Return a row on its own page: large input, labels, truth, loss and its rank."""
    datum = card.datum
    loss = "Loss" if datum.error is None else "Squared error"
    sure = f" ({percent(datum.confidence)})" if datum.error is None else ""
    facts = [
        ("Labelled", text(datum.given) + noise_badge(datum)),
        ("Predicted", f"{text(datum.predicted)}{sure} {verdict(datum)}"),
        (loss, f"{number(card.loss)} · rank {card.loss_rank:,} of {card.n_rows:,} (1 = highest)"),
    ]
    if datum.planted is False:
        facts.insert(1, ("Label check", "not flipped on purpose"))
    lines = "".join(element("div", element("dt", text(name)), element("dd", value)) for name, value in facts)
    picture = thumbnail(datum, "huge") or cells_table(datum, 10)
    chances = ""
    if card.probabilities:
        chances = element("div", element("h4", "Probabilities"), probability_bars(card.probabilities, datum.given, 6))
    return element(
        "article",
        element("div", picture, css="if-input"),
        element("div", element("dl", lines, css="if-list"), css="if-main"),
        chances,
        css="if-own",
        aria_label=datum.alt,
    )
