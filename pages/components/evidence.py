"""The evidence on Explain: the query's card, proponents and opponents, the histogram of all scores, export."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from influence_core import service
from pages.components import cards, charts, errors, jobs, session
from pages.components.html import element, text

UNITS = {
    "measurement": "Estimates how much the measurement would drop if this row were left out of training.",
    "gradient": "A gradient product: how much training steps on this row moved the model in the query's direction. "
    "Compare rows with each other, not with other methods.",
    "value": "A share of a vote's success credited to this row. Compare rows with each other, not with other methods.",
    "rank": "Only the order means something: the sizes cannot be compared with other queries or methods.",
}
SCALES = {"measurement": "as leave-one-out", "gradient": "gradient product", "value": "value", "rank": "order only"}
FORMATS = {"csv": "text/csv", "json": "application/json", "parquet": "application/vnd.apache.parquet"}


def default_line(
    study: str, method: service.MethodView, methods: Sequence[service.MethodView], default: str, reason: str
) -> None:
    """Say which method is the default, and why, or that another one was chosen; and how far it can be believed."""
    title = next((other.title for other in methods if other.id == default), default)
    chosen = "" if method.id == default else f"You chose {method.title}. "
    sentence = f"{chosen}{title} is the default here: {reason.rstrip('.')}."
    known = service.fidelity(study, method.id)
    believed = f"{method.title} {known} here." if known else "How far can I believe this?"
    link = element("a", text(believed), href=session.href("trust"), data_go="1")
    st.html(element("p", text(f"{sentence} "), link, css="if-scale if-why", title=sentence))


def answer(study: str, result: service.Explanation | service.FitNeeded, request: service.ExplainRequest) -> None:
    """Draw proponents beside opponents, or the panel of the fit that is needed first."""
    if isinstance(result, service.FitNeeded):
        jobs.fit_panel(study, result, request)
        return
    top = max((abs(row.score) for row in (*result.proponents, *result.opponents)), default=0.0)
    measured = result.measured.removeprefix("the ")
    scale = f"{result.method_title} · {SCALES.get(result.units, result.units)} · {measured}"
    pro, opp, signs = _what_sides_did(result.query)
    meaning = f"{UNITS.get(result.units, '')} {signs} Units: {result.units_in_words}."
    sides = (("pro", result.proponents, pro), ("opp", result.opponents, opp))
    columns = (cards.ranked_column(side, rows, top, (words, scale, meaning), _row) for side, rows, words in sides)
    st.html(element("div", *columns, css="if-facing"))


def _what_sides_did(query: service.QueryView) -> tuple[str, str, str]:
    """Return what proponents and opponents did, and what the signs mean; a number is explained by its error."""
    first = query.data[0]
    if first.error is None:
        signs = "Positive pushed towards it, negative pulled away."
        return cards.SIDES["pro"][2], cards.SIDES["opp"][2], signs
    to = f"to {first.given}" if query.n_rows == 1 else "to the given numbers"
    which = "prediction" if query.n_rows == 1 else "predictions"
    signs = f"Positive brought the {which} closer {to}, negative drove it away."
    return f"brought it closer {to}", f"drove it away from {to.removeprefix('to ')}", signs


def _row(datum: service.Datum) -> str:
    return session.href("row", split=datum.split, row=str(datum.row_id))


def query(study: str, shown: service.QueryView, request: service.ExplainRequest) -> None:
    """Draw the explained prediction and, for a single row, which parts of its input it rests on."""
    if shown.n_rows > 1:
        st.html(cards.query_card(shown))
        return
    with st.container(horizontal=True, gap="small", key="query_line"):
        st.html(cards.query_card(shown))
        with st.container(key="attribution"), errors.shown():
            row = shown.data[0]
            st.html(cards.attribution_card(service.input_attribution(study, row.split, row.row_id, request.target)))


def export(study: str, result: service.Explanation | service.FitNeeded, request: service.ExplainRequest) -> None:
    """Offer all scores of this query as a file, made only when it is asked for."""
    with st.popover("Export", icon=":material/download:", key="export", disabled=isinstance(result, service.FitNeeded)):
        st.html(element("p", "All scores of this query, by row id.", css="if-scale"))
        for name, mime in FORMATS.items():
            st.download_button(
                name, service.on_behalf(partial(service.export_scores, study, request, name)),
                f"scores-{request.method}.{name}", mime,
                key=f"export_{name}", on_click="ignore", width="stretch",
            )  # fmt: skip


def review(study: str, result: service.Explanation | service.FitNeeded, request: service.ExplainRequest) -> None:
    """Offer to review the shown rows, those that pull towards a mistake first."""
    if isinstance(result, service.FitNeeded) or "@" in study:
        return
    sides = ("opponents", "proponents") if request.target == "true" else ("proponents", "opponents")
    shown = [row.datum.row_id for side in sides for row in getattr(result, side)]
    st.button(
        "Review", icon=":material/rate_review:", key="review_shown", on_click=_review,
        args=(study, shown, result.method_title, sides),
        help=f"Opens the review desk with the shown {sides[0]}, then the {sides[1]}: one key per row.",
    )  # fmt: skip


def _review(study: str, shown: list[int | str], method: str, sides: tuple[str, str]) -> None:
    with errors.shown():
        title = f"{sides[0].capitalize()} and {sides[1]} by {method}"
        session.go("review", queue=service.save_queue(study, title, "train", shown, f"Explain, {method}"))


def figures(result: service.Explanation | service.FitNeeded) -> None:
    """Draw the histogram of all scores, and what the scores look at."""
    if isinstance(result, service.FitNeeded):
        return
    share = result.share_in_words.rstrip(".")
    facts = [f"{share[:1].upper()}{share[1:]}.", *result.notes, f"Answered in {1000 * result.seconds:.0f} ms."]
    rows = f"{result.n_train:,} training rows, counts on a log scale; shown rows marked"
    title = element("h2", "All scores", element("small", rows))
    st.html(element("div", title, element("p", text(" ".join(facts)), css="if-scale"), css="if-between"))
    st.plotly_chart(
        charts.score_histogram(result, session.theme()),
        key="histogram",
        config=charts.CONFIG,
        alt=charts.histogram_in_words(result),
    )
