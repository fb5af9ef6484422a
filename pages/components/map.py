"""The screen *Map*: its controls, the chart, and beside it what was drawn around or clicked.

The chart is a component of its own. Streamlit's sends every selected point up (127 bytes each, and above the message
limit the connection is lost); this one sends the corners of what was drawn, and is there two seconds earlier.
"""

from __future__ import annotations

from functools import cache

import streamlit as st
from streamlit.components import v2

from influence_core import service
from pages.components import batches, errors, jobs, map_picture, session, theme
from pages.components.cards import prediction_grid
from pages.components.html import element, number, percent, signed, text
from pages.components.view import View

PLACES = {"penultimate": "Last hidden layer", "input": "Raw input", "gradients": "Gradients"}
DRAWN = {"umap": "UMAP", "pca": "PCA"}
COLOURS = {
    "label": "Given label", "prediction": "Prediction", "correct": "Right or wrong", "loss": "Loss",
    "suspicion": "Suspicion", "self-influence": "Self-influence", "influence": "Influence on the prediction",
}  # fmt: skip
SPLITS = {"": "Train and test", "train": "Train", "test": "Test"}
STATUSES = {"all": "All", "wrong": "Wrong", "right": "Right"}
CHEAP_SECONDS = 90.0  # UMAP this short starts by itself
_KEY = "map_region"
_REGION = "map region"
_MIX_SHOWN = 8
_CARDS_AT_ONCE = 100_000  # rows of a study


def request(view: View, method: str) -> service.MapRequest:
    """Return what the view asks to be drawn."""
    ids = (view.typed,) if view.typed else view.ids
    query = None
    if ids:
        query = service.ExplainRequest(
            ids, view.method or method, "typed" if view.typed else "test", "mean" if len(ids) > 1 else None,
            view.measurement, view.target, view.k, dict(view.config),
        )  # fmt: skip
    status = view.status if view.status in STATUSES else "wrong" if view.status == "confident-wrong" else "all"
    return service.MapRequest(
        view.place, view.drawn, view.colour, view.rows, view.given or None, view.predicted or None, status, query
    )


def controls(view: View, classes: tuple[str, ...]) -> None:
    """Draw what chooses the map, its colours and its rows."""
    choices = (("Layer", "place", PLACES), ("Drawn by", "drawn", DRAWN), ("Colour", "colour", COLOURS),
               ("Rows", "rows", SPLITS))  # fmt: skip
    for label, field, options in choices:
        st.selectbox(label, list(options), format_func=options.__getitem__,
                     **session.widget(field, getattr(view, field), among=list(options)))  # fmt: skip
    if not classes:
        return
    status = view.status if view.status in STATUSES else "all"
    st.selectbox("Predictions", list(STATUSES), format_func=STATUSES.__getitem__,
                 **session.widget("status", status, labels="map", among=list(STATUSES)))  # fmt: skip
    for label, field in (("Labelled", "given"), ("Predicted", "predicted")):
        named = ["", *classes]
        st.selectbox(label, named, format_func=lambda name: name or "Any",
                     **session.widget(field, getattr(view, field), labels="map", among=named))  # fmt: skip


def chart(view: View, shown: service.MapView) -> None:
    """Draw the points, and listen to what is drawn around them."""
    chosen = (view.split, view.row) if view.row else None
    component = v2.component("influence_map", html='<div class="map"></div>', css=_part("map.css"),
                             js=_part("outline.js", "map.js"))  # fmt: skip
    data = map_picture.map_picture(shown, chosen, session.theme(), region(shown))
    with st.container(key="map_chart"):
        component(key=_KEY, data=data, on_region_change=_drawn, on_row_change=_clicked)


@cache
def _part(*names: str) -> str:
    return "\n".join((theme.ASSETS / "map" / name).read_text(encoding="utf-8") for name in names)


def _drawn() -> None:
    session.keep(_REGION, session.reported(_KEY, "region"))


def _clicked() -> None:
    row = session.reported(_KEY, "row") or {}
    session.update(split="test" if row.get("split") == "test" else "train", row=str(row.get("id", ""))[:200])


def region(shown: service.MapView) -> list[list[float]]:
    """Return the corners drawn on this map; empty for none, or where they were drawn on another."""
    kept = session.kept(_REGION)
    if not isinstance(kept, dict) or kept.get("key") != shown.key:
        return []
    return kept.get("corners") or []


def facts(shown: service.MapView) -> None:
    """Draw what the axes and colours say, and what stands in the way of the choice."""
    total = sum(shown.n_rows.values())
    rows = f"{shown.n_matching:,} of {total:,} rows" if shown.n_matching < total else f"{total:,} rows"
    if shown.density is not None:
        rows += f", {len(shown.points.x):,} of them as points; darker ground means more rows"
    lines = [f"{rows}. {shown.words} Circles are train rows, diamonds test rows.", shown.colours.words]
    st.html(element("p", text(" ".join(lines)), css="if-scale"))
    for note in (shown.colours.note, shown.query_words):
        if note:
            st.html(element("p", text(note), css="if-scale"))


def projecting(study: str, asked: service.MapRequest, needed: service.MapNeeded) -> None:
    """Draw a projection's progress, or its price and a button; a cheap one starts by itself."""
    job = needed.job
    if job is None and needed.seconds <= CHEAP_SECONDS and session.first_time(f"auto {study} {needed.key}"):
        job = service.start_projection(study, asked, needed.kind, session.client())
    with st.container(key="projecting", border=needed.kind == "pca"):
        if job is not None and job.is_active and not session.has_left(job.id):
            title = f"the {needed.title[0].lower()}{needed.title[1:]}"
            st.fragment(jobs.watch, run_every=jobs.POLL_SECONDS)(study, job.id, title, [0])
            return
        failed = job is not None and job.state == "failed"
        why = job.message if job is not None and failed else f"{needed.title} has not been computed yet."
        st.html(element("p", text(f"{why} {needed.in_words}"), css="if-scale"))
        st.button("Retry" if failed else "Compute it", key=f"project_{needed.kind}", on_click=_start,
                  args=(study, asked, needed.kind))  # fmt: skip


def _start(study: str, asked: service.MapRequest, kind: str) -> None:
    with errors.shown():
        service.start_projection(study, asked, kind, session.client())


def row_card(study: str, view: View) -> None:
    """Draw the clicked row, with the ways on."""
    datum = service.map_cards(study, ((view.split, view.row),))[0]
    ways = [element("a", "Its own page →", href=session.href("row"), data_go="1", css="if-link")]
    if view.split == "test":
        explain = session.href("explain", ids=(view.row,), cell=False)
        ways.append(element("a", "Explain it →", href=explain, data_go="1", css="if-link"))
        drawn = session.href("map", ids=(view.row,), cell=False, colour="influence")
        ways.append(element("a", "Draw its influences →", href=drawn, data_go="1", css="if-link"))
    st.html(element("h2", f"{view.split.capitalize()} row {text(view.row)}"))
    st.html(prediction_grid((datum,), lambda row: session.href("row")))
    st.html(element("div", *ways, css="if-links"))


def selection(
    study: str, asked: service.MapRequest, corners: list[list[float]], shown: service.MapView
) -> None:  # fmt: skip
    """Draw what lies in the region, and what can be done with it."""
    found = service.rows_in_polygon(study, asked, corners)
    title = element("h2", f"{found.total:,} row{'s' * (found.total != 1)} in the region")
    st.html(element("div", title, *(element("p", line) for line in _figures(found)), css="if-region"))
    if found.mix:
        st.html(element("div", *(_bar(name, count, found) for name, count in found.mix[:_MIX_SHOWN]), css="if-mix"))
        if len(found.mix) > _MIX_SHOWN:
            st.html(element("p", f"and {len(found.mix) - _MIX_SHOWN} more classes", css="if-scale"))
    st.html(element("div", *_influence(found), css="if-region"))
    if not found.total:
        return
    batches.last(study)
    _send(study, asked, corners, found)
    if shown.classes and found.count["train"]:
        _relabelling(study, asked, corners, (found, shown.classes))
    # The first card of a large study waits until the model has seen every row.
    small = sum(shown.n_rows.values()) <= _CARDS_AT_ONCE
    if st.toggle("Show those with the greatest loss", value=small, key="region_rows"):
        cards = service.map_cards(study, found.examples[:8])
        st.html(prediction_grid(cards, lambda row: session.href("map", split=row.split, row=str(row.row_id))))


def _figures(found: service.MapSelection) -> list[str]:
    lines = [f"{found.count['train']:,} train · {found.count['test']:,} test"]
    if found.n_wrong is not None and found.total:
        lines.append(f"{found.n_wrong:,} predicted wrong ({percent(found.n_wrong / found.total)})")
    if found.mean_loss is not None:
        lines.append(f"mean loss {number(found.mean_loss)}")
    if found.numbers is not None:
        low, mean, high = (number(value) for value in found.numbers)
        lines.append(f"given numbers from {low} to {high}, mean {mean}")
    return lines


def _bar(name: str, count: int, found: service.MapSelection) -> str:
    share = count / max(found.total, 1)
    bar = f'<span class="if-bar"><i style="width:{100 * share:.1f}%"></i></span>'
    return element("div", element("span", text(name)), bar, element("span", f"{count:,} · {percent(share)}",
                   css="if-num"), css="if-mix-row")  # fmt: skip


def _influence(found: service.MapSelection) -> list[str]:
    group = found.influence
    if group is None:
        return [element("p", text(found.influence_note), css="if-scale")]
    side, did = ("pro", "push it there") if group.total > 0 else ("opp", "pull against it")
    value = element("b", signed(group.total), css=f"if-{side}-ink")
    words = f"{group.n_train:,} train rows together {did}; all training rows: {signed(group.everything)}."
    scale = f"{group.method_title} · {group.units} · {group.measured}"
    return [element("p", f"Influence on {text(group.title)}: ", value), element("p", text(words)),
            element("p", text(scale), css="if-scale", title=group.units_in_words)]  # fmt: skip


def _send(study: str, asked: service.MapRequest, corners: list[list[float]], found: service.MapSelection) -> None:
    for split, count in found.count.items():
        if count:
            st.button(f"Send {count:,} {split} row{'s' * (count != 1)} to review", key=f"review_{split}",
                      icon=":material/rate_review:", on_click=_review, args=(study, asked, corners, split))  # fmt: skip


def _relabelling(
    study: str, asked: service.MapRequest, corners: list[list[float]],
    there: tuple[service.MapSelection, tuple[str, ...]],
) -> None:  # fmt: skip
    """Draw the choice of a class and the button that says how many rows get it."""
    (found, classes), count = there, there[0].count["train"]
    label = st.selectbox(f"Relabel all {count:,} train rows to", classes, index=None, key="relabel_to",
                         placeholder=f"Most are {found.mix[0][0]}")  # fmt: skip
    if label is not None:
        ids = service.row_ids_in_polygon(study, asked, corners, "train")
        evidence = {"screen": "map", "place": asked.place, "drawn": asked.drawn, "corners": corners}
        batches.confirm(study, service.relabelling(study, "train", ids, label, evidence), "relabel", label)


def _review(study: str, asked: service.MapRequest, corners: list[list[float]], split: str) -> None:
    with errors.shown():
        ids = service.row_ids_in_polygon(study, asked, corners, split)
        title = f"{len(ids):,} {split} rows from the map"
        session.go("review", queue=service.save_queue(study, title, split, ids, "a region of the map"))
