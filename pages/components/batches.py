"""Deciding about many rows at once: what becomes of them, one button with their number, one undo for all of them."""

from __future__ import annotations

import secrets
from functools import partial

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, percent, plain_label, text
from pages.components.studies import literal

_TOKEN = "batch token"  # kept: names the next batch, so that two clicks are one
_LAST = "last batch"  # kept: the study and what was written here last
_MAX_NAME = 100
_WORDS = {"relabel": "Relabel", "keep": "Keep", "drop": "Drop", "downweight": "Down-weight", "unsure": "Leave open"}


def reviewer(study: str, key: str) -> str:
    """Return the name under which a batch is written: of whoever is signed in, or the one that they type here."""
    if person := service.known_reviewer(study):
        return person
    tied = session.shown(key, session.entered([key]).get(key) or session.kept(session.REVIEWER) or "", shows="value")
    return str(st.text_input("Your name", max_chars=_MAX_NAME, placeholder="stands beside every decision", **tied))


def confirm(study: str, batch: service.Batch, key: str, to: str = "", within: str = "") -> None:
    """Draw how many rows it comes to, and the button that does it.

    Args:
        study: The study's name.
        batch: The rows.
        key: Tells the widgets of this batch from those of another.
        to: The label that they all get, for the button.
        within: Key of the popover that this is drawn in, which closes when it is done.
    """
    for count, why in batch.left:
        st.html(element("p", text(f"{_rows(count)} {'is' if count == 1 else 'are'} left out: {why}."), css="if-scale"))
    decided = service.decided_among(study, batch) if batch.rows else 0
    again = False
    if decided:
        again = st.toggle(f"Also the {_rows(decided)} that somebody has decided already", key=f"{key}_again")
    count = len(batch.rows) - (0 if again else decided)
    if batch.wrong is not None and count:
        st.html(element("p", text(_expected(batch, batch.wrong)), css="if-scale"))
    name = reviewer(study, f"{key}_name")
    label = f"{_WORDS[batch.action]} {_rows(count)}" + (f" to “{plain_label(to)}”" if to else "")
    st.button(label, key=f"{key}_do", type="primary", disabled=not (count and name.strip()),
              on_click=_decide, args=(study, name, token(), batch, again, within))  # fmt: skip
    st.html(element("p", "One act in the review log, with one undo; labels change at the next retraining.",
                    css="if-scale"))  # fmt: skip


def _expected(batch: service.Batch, wrong: float) -> str:
    if batch.action == "keep":
        return f"Mean chance that their labels are right: {percent(1 - wrong)}."
    return f"Mean chance that their labels are wrong: {percent(wrong)}."


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def token() -> str:
    """Return what names the next act about many rows in this session, so that two clicks are one."""
    if session.kept(_TOKEN) is None:
        session.keep(_TOKEN, secrets.token_hex(8))
    return str(session.kept(_TOKEN))


def _decide(study: str, name: str, token: str, batch: service.Batch, again: bool, within: str) -> None:
    with errors.shown():
        done = service.decide_together(study, name, token, batch, again)
        written(study, name, done.line)
        if within:
            session.hold(within, False)
        spared = f" {_rows(done.spared)} decided already: left as they are." if done.spared else ""
        session.say(f"{literal(done.line.words)}.{spared}")


def written(study: str, name: str, line: service.BatchLine) -> None:
    """Keep what was written here last, and by whom; the next act gets another token. For callbacks."""
    session.keep(_TOKEN, None)
    session.keep(_LAST, (study, line))
    session.keep(session.REVIEWER, name)


def last(study: str) -> None:
    """Offer the undo of the batch that was written here last, as long as it holds."""
    kept = session.kept(_LAST)
    if not isinstance(kept, tuple) or kept[0] != study:
        return
    line: service.BatchLine = kept[1]
    if line not in service.batches(study, line.reviewer):
        session.keep(_LAST, None)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="last_batch"):
        st.html(element("p", text(f"{line.words}.")), width="content")
        undo_button(study, line, "undo_batch", "Undo")


def undo_button(study: str, line: service.BatchLine, key: str, title: str) -> None:
    """Draw the button that undoes a batch."""
    st.button(title, key=key, icon=":material/undo:", on_click=partial(_undo, study, line))


def _undo(study: str, line: service.BatchLine) -> None:
    with errors.shown():
        session.say(service.undo_batch(study, line.reviewer, line.tab, line.number))


__all__ = ["confirm", "last", "reviewer", "token", "undo_button", "written"]
