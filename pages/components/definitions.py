"""What the classes of a study mean: the list, and the form in which owners write one at a time."""

from __future__ import annotations

import streamlit as st

from influence_core import service
from pages.components import errors, session
from pages.components.html import element, plain_label, text

_CLASS = "definition_class"
_MOST = 500  # characters


def classes(study: str, *, may_change: bool) -> None:
    """Draw what the classes mean, which owners may change; nothing where labels are numbers."""
    names, held = service.definable_classes(study), service.class_definitions(study)
    if not names:
        return
    if may_change:
        _form(study, names, dict(held))
    lines = [element("dt", text(name)) + element("dd", text(held[name])) for name in names if name in held]
    if lines:
        st.html(element("dl", *lines, css="if-definitions"))


def _form(study: str, names: tuple[str, ...], held: dict[str, str]) -> None:
    chosen = session.entered([_CLASS]).get(_CLASS)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="definition_line"):
        tied = session.shown(_CLASS, chosen if chosen in names else names[0], among=names)
        name = st.selectbox("Class", names, width=220, help="Shown on its button and below the guidelines.", **tied)
        key = f"definition_{study}_{names.index(name)}"
        now = session.entered([key]).get(key, held.get(name, ""))
        st.text_input("What it means, in a sentence", max_chars=_MOST, **session.shown(key, now, shows="value"))
        st.button("Save", key="save_definition", on_click=_save, args=(study, name, key))


def _save(study: str, name: str, key: str) -> None:
    with errors.shown():
        service.save_class_definition(study, name, str(session.entered([key]).get(key, "")))
        session.forget([key])
        session.say(f"What “{plain_label(name)}” means is saved.")


__all__ = ["classes"]
