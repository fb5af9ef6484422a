"""The screen of decisions: progress, downloads, conflicts, agreement, guidelines, and the log."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import partial

import streamlit as st

from influence_core import service
from pages.components import batches, definitions, errors, session
from pages.components.html import element, empty, text
from pages.components.studies import literal

FORMATS = {"csv": "text/csv", "json": "application/json", "parquet": "application/vnd.apache.parquet"}


def progress(page: service.DecisionsPage) -> None:
    """Draw who decided how much, and what it comes to."""
    if not page.pace:
        st.html(empty("Nothing was decided yet", "Open Review: every decision appears here, with the patch."))
        return
    done = ", ".join(f"{count:,} {action}" for action, count in page.actions.items()) or "no change"
    said = f"{page.agreement.measure} {page.agreement.value:.2f} on {page.agreement.n_rows:,} shared rows"
    agreed = f" {said}." if not math.isnan(page.agreement.value) else ""
    st.html(element("p", text(f"In the end: {done}. {page.n_conflicts:,} in conflict.{agreed}")))
    lines = [(pace.reviewer, f"{pace.decisions:,}", f"{pace.per_minute:.0f}" if pace.per_minute else "–",
              _when(pace.last)) for pace in page.pace]  # fmt: skip
    st.html(_table(("Reviewer", "Decisions", "A minute", "Last"), lines))
    if page.agreement.per_class:
        with st.expander("Agreement per class"):
            st.html(_table(("Class", page.agreement.measure, "Chosen"), [
                (name, "–" if math.isnan(value) else f"{value:.2f}", f"{count:,}")
                for name, value, count in page.agreement.per_class
            ]))  # fmt: skip


def undo(study: str, page: service.DecisionsPage) -> None:
    """Say what the last act of a reviewer was, one row or a whole batch, and offer to undo it."""
    if not page.reviewers:
        return
    person = service.known_reviewer(study)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="undo_line"):
        whose = person or st.selectbox("Whose last act", page.reviewers, key="undo_whose", width=220)
        step = service.next_steps(study, whose).undo
        st.button(
            "Undo", icon=":material/undo:", key="undo_last", disabled=step is None, on_click=_undo,
            args=(study, whose, step.seq if step else None), help="Redo is on the review desk.",
        )  # fmt: skip
        said = f"Undo: {step.words}, {step.ago}" if step else "Nothing is left to undo."
        st.html(element("p", text(said), css="if-note", role="status"))


def _undo(study: str, whose: str, seq: int | None) -> None:
    with errors.shown():
        session.say(literal(service.undo_last(study, whose, seq)))


def together(study: str) -> None:
    """List what was decided about many rows at once, each with its own undo."""
    person = service.known_reviewer(study)
    lines = service.batches(study, person)
    if not lines:
        return
    with st.expander(f"Decided together ({len(lines)}{'+' if len(lines) >= 20 else ''})"):
        st.html(element("p", "An undo takes back these decisions alone, whatever was decided since.", css="if-scale"))
        for i, line in enumerate(lines):
            with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"batch_{i}"):
                batches.undo_button(study, line, f"undo_batch_{i}", "Undo")
                st.html(element("p", text(f"{line.words} by {line.reviewer}, {_when(line.at)} (UTC)")))


def downloads(study: str) -> None:
    """Offer the patch and the cleaned data, made only when they are asked for."""
    kinds = (("Patch", "patch", service.patch_file), ("Cleaned data", "cleaned", service.cleaned_data))
    with st.container(horizontal=True, gap="small"):
        for title, name, made in kinds:
            with st.popover(title, icon=":material/download:", key=f"get_{name}"):
                for format, mime in FORMATS.items():
                    st.download_button(
                        format, service.on_behalf(partial(made, study, format)), f"{study}-{name}.{format}", mime,
                        key=f"{name}_{format}", on_click="ignore", width="stretch",
                    )  # fmt: skip
        with st.popover("Your own file", icon=":material/draft:", key="get_original"):
            _original(study)


def _original(study: str) -> None:
    """Take the file that was imported, and give it back with the corrected labels and nothing else changed."""
    words = "Give the file that you imported: it comes back with the corrected labels, and all else as it was."
    st.html(element("p", words, css="if-scale"))
    given = st.file_uploader("The imported file", key="original_file", label_visibility="collapsed")
    if given is None:
        return
    with errors.shown():
        content, ending = service.cleaned_original(study, given.name, given.getvalue())
        name = f"{given.name.rpartition('.')[0] or given.name}-corrected{ending}"
        st.download_button("Download", content, name, key="original_out", on_click="ignore", width="stretch")


def conflicts(study: str, page: service.DecisionsPage) -> None:
    """Draw the rows about which reviewers disagree, with a button per opinion for an owner."""
    if not page.conflicts:
        return
    st.html(element("h2", f"Conflicts ({page.n_conflicts:,})"))
    for one in page.conflicts:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.html(element("p", text(f"{one.split} row {one.row_id}, labelled {one.given or '–'}")))
            for i, vote in enumerate(one.votes):
                words = vote.label or (f"{vote.action} {vote.weight}" if vote.weight is not None else vote.action)
                st.button(
                    f"{vote.reviewer}: {words}".replace("[", "\\["), key=f"resolve_{one.split}_{one.row_id}_{i}",
                    disabled=not page.may_resolve, on_click=_resolve,
                    args=(study, one.split, one.row_id, vote.action, vote.label, vote.weight),
                )  # fmt: skip


def _resolve(study: str, split: str, row: int | str, action: str, label: str | None, weight: float | None) -> None:
    with errors.shown():
        service.resolve_conflict(study, split, row, action, label, weight)
        session.say("The conflict is resolved.")


def guidelines(study: str, page: service.DecisionsPage) -> None:
    """Draw the guidelines, which owners may change."""
    with st.expander("Guidelines for reviewers"):
        key = f"guidelines_{study}"  # the text of one study is none of another's
        now = session.entered([key]).get(key, service.guidelines(study))
        st.text_area("Shown beside every card", height=160, disabled=not page.may_resolve,
                     **session.shown(key, now, shows="value"))  # fmt: skip
        st.button("Save", key="save_guidelines", disabled=not page.may_resolve, on_click=_save, args=(study,))
        definitions.classes(study, may_change=page.may_resolve)


def _save(study: str) -> None:
    with errors.shown():
        key = f"guidelines_{study}"
        service.save_guidelines(study, str(session.entered([key]).get(key, "")))
        session.say("The guidelines are saved.")


def log(study: str) -> None:
    """Draw the searchable log."""
    st.html(element("h2", "Log"))
    with st.container(horizontal=True, gap="small"):
        wanted = st.text_input("Search", key="decisions_text", placeholder="row, action, label or comment")
        name = st.text_input("Reviewer", key="decisions_name", placeholder="a name")
    lines = [
        (_when(line.at), line.reviewer, line.kind if line.standing or line.kind != "decide" else "undone",
         f"{line.words}{f' and {line.n_rows - 3:,} more' if line.n_rows > 3 else ''}",
         str(line.evidence.get("method") or "–"))
        for line in service.decisions_log(study, wanted, name)
    ]  # fmt: skip
    st.html(_table(("When (UTC)", "Who", "Act", "What", "Method shown"), lines))


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _table(names: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    head = element("tr", *(element("th", text(name)) for name in names))
    body = (element("tr", *(element("td", text(cell)) for cell in line)) for line in lines)
    return element("table", element("thead", head), element("tbody", *body), css="if-methods")
