"""The screen *Suspects*: filters on the left, cards of suspected labels, and what to do with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import streamlit as st

from influence_core import service
from pages.components import batches, errors, jobs, session
from pages.components.evidence import FORMATS
from pages.components.html import (
    element,
    empty,
    extract,
    noise_badge,
    number,
    percent,
    plain_label,
    text,
    thumbnail,
    tip,
)
from pages.components.view import View

PER_PAGE = 24
LISTS = {
    "labels": "Label suspects",
    "duplicates": "Near-duplicates",
    "leakage": "Test rows in train",
    "outliers": "Outliers",
}
_ACTIONS = {"keep": "kept", "drop": "dropped", "downweight": "down-weighted", "unsure": "unsure"}
NOTHING = {
    "duplicates": "No two train rows are nearly the same.",
    "leakage": "No test row is nearly the same as a train row.",
    "outliers": "No train row is far from all others.",
}


def chosen_rows(view: View) -> service.SuspectFilter:
    """Return the filter that the view describes."""
    return service.SuspectFilter(
        column=view.by, given=view.labelled, suggested=view.suggested, flagged=view.flagged, agree=view.agree,
        likely=view.likely, sliced=view.sliced, group=view.group if view.sliced else "", text=view.search,
        planted=view.planted, page=view.page, limit=PER_PAGE,
    )  # fmt: skip


def _tied(field: str, value: Any, among: Sequence[Any] | None = None) -> dict[str, Any]:
    """Return what ties a select box (or without options, another widget) to a filter, which starts from page one."""
    changes = lambda new: {field: new if new is not None else "", "page": 0}  # noqa: E731
    return session.widget(field, value, changes, among=among, shows="" if among else "value")


def lists(view: View) -> None:
    """Draw the choice between label suspects and the further lists."""
    st.segmented_control(
        "List", list(LISTS), format_func=lambda name: LISTS[name], label_visibility="collapsed", required=True,
        **session.widget("listing", view.listing, lambda new: {"listing": new, "page": 0}, shows="default"),
    )  # fmt: skip


def filters(view: View, page: service.SuspectPage, classes: tuple[str, ...]) -> None:
    """Draw the filters, and what the chosen detector looks at."""
    columns = {"": next(c for c in page.columns if c.name == _default(page)), **{c.name: c for c in page.columns}}
    del columns[_default(page)]
    st.selectbox(
        "Ordered by", list(columns), format_func=lambda n: _named(columns[n], n), **_tied("by", view.by, list(columns))
    )
    about = element("p", text(f"{page.column.summary} Unit: {page.column.unit}."), css="if-scale")
    st.html(about + (in_sample() if page.column.in_sample else ""))
    if classes:
        options = ["", *classes]
        any_class = {"": "any class", **{name: plain_label(name) for name in classes}}
        st.selectbox("Labelled", options, format_func=lambda name: any_class[name], 
                     **_tied("labelled", view.labelled, options))  # fmt: skip
        st.selectbox(
            "Suggested",
            options,
            format_func=lambda name: any_class[name],
            **_tied("suggested", view.suggested, options),
        )
        st.toggle(
            "Likely errors only",
            help="Rows whose label is more likely wrong than right.",
            **_tied("likely", view.likely),
        )
    if page.n_flagging > 1:
        counts = list(range(page.n_flagging + 1))
        st.selectbox(
            "Detectors that say “mislabelled”", counts, **_tied("agree", min(view.agree, page.n_flagging), counts),
            format_func=lambda n: f"at least {n} of {page.n_flagging}" if n else "any number",
        )  # fmt: skip
    if page.n_flagging > 1:
        flagging = {"": "any of them", **{c.name: plain_label(c.title) for c in page.columns if c.flags}}
        st.selectbox("One of which is", list(flagging), format_func=flagging.__getitem__,
                     **_tied("flagged", view.flagged, list(flagging)))  # fmt: skip
    if page.slice_columns:
        _slices(view, page)
    if page.planted is not None:
        words = {"": "all", "yes": "flipped on purpose", "no": "not flipped"}
        st.selectbox(
            "Planted truth",
            list(words),
            format_func=lambda name: words[name],
            **_tied("planted", view.planted, list(words)),
        )
    st.text_input("Search", placeholder="id, label, text or value", max_chars=200, **_tied("search", view.search))


def _slices(view: View, page: service.SuspectPage) -> None:
    """Draw the choice of a column that parts the rows, and of one of its slices."""
    columns = {"": "all rows", **{name: plain_label(name) for name in page.slice_columns}}
    st.selectbox(
        "Slice by", list(columns), format_func=columns.__getitem__,
        **session.widget("sliced", view.sliced, lambda new: {"sliced": new or "", "group": "", "page": 0},
                         among=list(columns)),
    )  # fmt: skip
    if page.groups:
        groups = {"": "all", **{name: f"{plain_label(name)} · {count:,}" for name, count in page.groups}}
        st.selectbox(
            "Slice", list(groups), format_func=groups.__getitem__,
            **session.widget("group", view.group, lambda new: {"group": new or "", "page": 0}, labels=view.sliced,
                             among=list(groups)),
        )  # fmt: skip


def _default(page: service.SuspectPage) -> str:
    return page.columns[0].name


def _named(column: service.SuspectColumn, name: str) -> str:
    return column.title + ("" if name else " (default)") + (" · in-sample" if column.in_sample else "")


def in_sample() -> str:
    """Return the mark of numbers from a model that saw the labels."""
    words = "A model that was trained on these labels gives these numbers: what it memorised, it no longer finds odd."
    return element("p", element("span", "in-sample", css="if-badge"), " ", tip(words))


def heading(page: service.SuspectPage) -> str:
    """Return how many labels look wrong, and how sure that is."""
    if page.likely is None:
        title, about = "Rows that fit worst", f"{page.n_train:,} train rows, the least expected numbers first."
    else:
        rows = "row looks" if page.likely == 1 else "rows look"
        title = f"About {page.likely:,} {rows} mislabelled"
        about = f"Of {page.n_train:,} train rows ({page.likely / page.n_train:.1%})."
        if page.planted is not None:
            about += f" In truth {page.planted:,} labels were flipped on purpose."
    lines = [element("h1", text(title)), element("p", text(about), css="if-scale")]
    if page.budgets:
        lines.append(element("p", text(_budgets(page.budgets)), css="if-scale"))
    return element("header", *lines, css="if-hero")


def _budgets(budgets: tuple[service.BudgetPrecision, ...]) -> str:
    known = budgets[0].known
    parts = [
        f"first {b.budget:,}: {b.share:.0%} wrong" + (f", {b.recall:.0%} of all" if known else "") for b in budgets
    ]
    return f"{'By the planted truth' if known else 'Expected'}, by this order: {' · '.join(parts)}."


def _change(row: service.SuspectRow) -> str:
    """Return the given label and what it should be; "not this class" where that it is wrong is all that is likely."""
    given, perhaps = element("b", text(row.datum.given)), ""
    if not row.suggested:
        return given
    if row.is_sure:
        right = element("span", f" {percent(row.chance)}", css="if-num", title="chance that the suggestion is right")
        return given + " → " + element("b", text(row.suggested), css="if-label") + right
    perhaps = element("small", text(f"perhaps {row.suggested} {percent(row.chance)}"), css="if-num")
    if row.wrong <= 0.5:
        return f"{given} {perhaps}"
    wrong = element("span", f" {percent(row.wrong)}", css="if-num", title="chance that the given label is wrong")
    return f"{given} → {element('b', text(f'not {row.datum.given}'), css='if-label')}{wrong} {perhaps}"


def card(row: service.SuspectRow, unit: str) -> str:
    """Return one suspected row: what it is, what it should be, why, and what it does."""
    datum = row.datum
    here = session.href("row", split="train", row=str(datum.row_id))
    change = _change(row)
    fed = [
        element(
            "a", thumbnail(test) or text(f"row {test.row_id}"), css="if-link", data_go="1",
            href=session.href("explain", ids=(str(test.row_id),), cell=False, typed=""),
            title=f"Test row {test.row_id}: predicted {test.predicted}, labelled {test.given}",
            aria_label=f"Explain test row {test.row_id}, a mistake that this row feeds",
        )
        for test in row.feeds
    ]  # fmt: skip
    feeds = element("span", element("small", "feeds mistakes "), *fed, css="if-feeds") if fed else ""
    done = element("small", text(_decided(row.decided)), css="if-decided") if row.decided else ""
    words = f"Row {datum.row_id}, labelled {datum.given}" + (f", rather {row.suggested}" if row.is_sure else "")
    link = element(
        "a", element("span", str(row.rank), css="if-rank"), thumbnail(datum, "medium"),
        element(
            "span", element("span", change, noise_badge(datum, True), css="if-labels"), done, extract(datum, 3),
            element("small", text(" · ".join(row.reasons)), css="if-reasons"),
            element("small", text(f"row {datum.row_id} · {number(row.score)} {unit}")), css="if-main",
        ),
        css="if-suspect-link", href=here, data_go="1", aria_label=words,
    )  # fmt: skip
    return element("article", link, feeds, css="if-card if-suspect", aria_label=words)


def _decided(votes: tuple[service.Decided, ...]) -> str:
    """Return what reviewers decided, each in a few words."""
    what = (f"→ {vote.label}" if vote.label else _ACTIONS.get(vote.action, vote.action) for vote in votes)
    return " · ".join(f"{vote.reviewer}: {done}" for vote, done in zip(votes, what, strict=True))


def cards(page: service.SuspectPage) -> None:
    """Draw the rows of the page, or say that the filters leave none."""
    if not page.rows:
        st.html(empty("No row passes the filters", "Loosen one of them."))
        return
    st.html(element("div", *(card(row, page.column.unit) for row in page.rows), css="if-suspects"))
    pager(page.total)


def pager(total: int) -> None:
    """Draw which rows are shown, with buttons to the pages before and after."""
    now, last = session.view().page, max(0, (total - 1) // PER_PAGE)
    if last == 0:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="pager"):
        st.button("← Previous", key="page_back", disabled=now == 0, on_click=session.update, kwargs={"page": now - 1})
        first = now * PER_PAGE
        st.html(element("span", f"{first + 1:,}–{min(first + PER_PAGE, total):,} of {total:,}", css="if-scale"))
        st.button("Next →", key="page_next", disabled=now >= last, on_click=session.update, kwargs={"page": now + 1})


def actions(view: View, page: service.SuspectPage, classes: tuple[str, ...]) -> None:
    """Draw the buttons: review these rows, decide about all of them together, export them."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="suspect_actions"):
        st.button(
            f"Review these {page.total:,}", key="review_these", type="primary", disabled=page.total == 0,
            icon=":material/rate_review:", on_click=_review, args=(view,),
        )  # fmt: skip
        together = st.popover(
            f"Relabel {page.total:,}…" if classes else f"Decide about {page.total:,}…", key="together",
            icon=":material/select_all:", disabled=page.total == 0, on_change="rerun",
        )  # fmt: skip
        if together.open:
            with together:
                _together(view, classes)
        with st.popover("Export", icon=":material/download:", key="suspects_export"):
            st.html(element("p", "The rows that pass the filters, with every detector's number.", css="if-scale"))
            for name, mime in FORMATS.items():
                st.download_button(
                    name, service.on_behalf(partial(service.export_suspects, view.study, chosen_rows(view), name)),
                    f"suspects.{name}", mime, key=f"suspects_{name}", on_click="ignore", width="stretch",
                )  # fmt: skip


def _together(view: View, classes: tuple[str, ...]) -> None:
    """Draw what is to become of all rows that pass the filters, and the button that does it."""
    known = {f"relabel {name}": f"Relabel to {plain_label(name)}" for name in classes}
    words = {"suggested": "Relabel each as suggested", **known} if classes else {}
    words |= {"keep": "Keep all as labelled", "drop": "Drop all"}
    chosen = st.selectbox("All rows of this list", list(words), format_func=words.__getitem__, key="together_what")
    action, _, label = chosen.partition(" ")
    with errors.shown():
        batch = service.suspect_batch(view.study, chosen_rows(view), action, label)
        batches.confirm(view.study, batch, "together", label, within="together")


def _review(view: View) -> None:
    with errors.shown():
        ids = service.suspect_rows(view.study, chosen_rows(view))
        token = service.save_queue(view.study, "Suspects", "train", ids, f"suspects by {view.by or 'the default list'}")
        session.go("review", queue=token)


def footnotes(view: View, page: service.SuspectPage) -> None:
    """Draw what the list rests on, what cannot run here, and the offer of out-of-fold numbers."""
    lines = [element("li", text(note)) for note in page.notes]
    lines += [element("li", text(f"{title} is not here: it {reason}.")) for title, reason in page.missing]
    st.html(element("ul", *lines, css="if-scale"))
    if page.more is not None:
        marks = [column.title for column in page.columns if column.in_sample]
        words = f"In-sample, from a model that saw these labels: {', '.join(marks)}. Out-of-fold numbers are freer."
        st.html(element("p", text(words), css="if-scale"))
        jobs.panel(view.study, page.more, partial(service.start_suspects, view.study, True, session.client()), "more")


def needed(view: View, work: service.FitNeeded) -> None:
    """Draw what the list will cost, or its job."""
    st.html(element("h1", "Suspects") + element(
        "p", "Which train labels look wrong? Several detectors look at every row; none of them changes anything.",
        css="if-scale",
    ))  # fmt: skip
    jobs.panel(view.study, work, partial(service.start_suspects, view.study, False, session.client()))


def oddities(view: View) -> None:
    """Draw one of the further lists."""
    page = service.oddities(view.study, view.listing, view.page, PER_PAGE)
    if not page.rows:
        words = page.reason or NOTHING[view.listing]
        st.html(empty(LISTS[view.listing], f"{words[0].upper()}{words[1:]}"))
        return
    title = element("h1", text(f"{LISTS[view.listing]}: {page.total:,}"))
    st.html(title + element("p", text(f"Number: {page.measured}."), css="if-scale"))
    st.html(element("div", *(_oddity(row) for row in page.rows), css="if-suspects"))
    pager(page.total)


def _oddity(row: service.Oddity) -> str:
    parts = [element("span", str(row.rank), css="if-rank")]
    for datum in (row.datum, row.other):
        if datum is not None:
            words = element("b", text(datum.given)) + extract(datum, 2)
            words += element("small", text(f"{datum.split} row {datum.row_id}"))
            parts.append(element(
                "a", thumbnail(datum, "medium"), element("span", words, css="if-main"), css="if-suspect-link",
                href=session.href("row", split=datum.split, row=str(datum.row_id)), data_go="1",
            ))  # fmt: skip
    words = element("small", text(f"{row.words} · {number(row.measure)}"))
    return element("article", *parts, words, css="if-card if-suspect if-odd")
